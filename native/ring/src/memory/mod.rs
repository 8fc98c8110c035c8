//! The only unsafe code: access to pages that another party writes at the same time.
//!
//! Two kinds of access. *Words* that decide something (indices, marks, flags, record headers) are
//! atomics, loaded once into a private copy. *Payload bytes* decide nothing here: they are copied
//! through raw pointers (`copy`), and no reference to them is ever made, so the compiler may
//! assume nothing about them. Between two ends that keep the protocol no byte is written and read
//! at once (the index is published with release and loaded with acquire); a peer that breaks it
//! makes us copy garbage, which it could have sent anyway.

#[cfg(not(loom))]
mod copy;
#[cfg(not(loom))]
mod mapped;
#[cfg(not(loom))]
pub use mapped::{ControlPage, DataArea, Fragment};

#[cfg(loom)]
mod model;
#[cfg(loom)]
pub use model::{ControlPage, DataArea, Fragment};
