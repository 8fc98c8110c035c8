//! The tubes of a machine as any client of xenstore can see them. No code is shared with the
//! library that makes them: what this shows is what an independent reader finds.

pub mod args;
pub mod doctor;
pub mod events;
pub mod error;
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
