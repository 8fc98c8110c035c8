//! Inspects the tubes of a machine as any client of xenstore sees them. It shares no code with the
//! library that makes the tubes, so it shows what an independent reader finds.

pub mod args;
pub mod doctor;
pub mod error;
pub mod events;
pub mod json;
pub mod list;
pub mod path;
pub mod reap;
pub mod show;
pub mod snapshot;
pub mod socket;
pub mod stats;
pub mod store;
pub mod text;
pub mod top;
pub mod tube;
pub mod watch;
pub mod watches;
