//! What a tube needs from the machine below it: shared pages, event channels and a xenstore
//! connection.
//!
//! [`Platform`] is the interface, shaped after Xen's own libraries (gntshr, gnttab, evtchn).
//! [`xen`] implements it for a domain of that hypervisor, [`local`] for processes of one Linux
//! host. This is the only crate that makes system calls on behalf of a tube.
//!
//! The host process must ignore `SIGPIPE`, as the Erlang VM and every Rust binary do: notifying a
//! peer that has died must return an error, not raise a signal.

#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
pub mod local;
mod pages;
mod platform;
pub mod xen;

pub use error::{Error, ErrorKind};
pub use pages::{Gref, PAGE, Pages};
pub use platform::{Access, Ack, DOMID_MAX, Domid, EventChannel, Notify, Platform};
/// The operating system's error numbers, as [`ErrorKind::Posix`] carries them.
pub use rustix::io::Errno;
