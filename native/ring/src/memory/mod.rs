//! The only unsafe code: access to pages that another party writes at the same time.
//!
//! There are two kinds of access. *Words* that control something (indices, event indices, flags,
//! record headers) are atomics, loaded once into a private copy. *Payload bytes* control nothing
//! here: they are copied through raw pointers, and no reference to them is ever made, so the
//! compiler can assume nothing about them. If both ends keep the protocol, no byte is read while it
//! is written (the index is stored with release and loaded with acquire); a peer that breaks it
//! makes us copy garbage, which it could have sent anyway.

#[cfg(not(loom))]
mod mapped;
#[cfg(not(loom))]
pub use mapped::{ControlPage, DataArea, Fragment};

#[cfg(loom)]
mod model;
#[cfg(loom)]
pub use model::{ControlPage, DataArea, Fragment};
