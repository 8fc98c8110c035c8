//! Counters of live tubes: asking VMs to publish them, reading them, and computing rates.
//!
//! A VM publishes its counters only while an inspector holds a lease (docs/wire.md, section 9).

pub mod lease;
pub mod meters;
pub mod sample;
