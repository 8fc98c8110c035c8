//! The platform of one Linux host: domains are processes, and `tube-hub` plays
//! hypervisor and xenstored for them.

pub mod fdpass;
pub mod proto;
