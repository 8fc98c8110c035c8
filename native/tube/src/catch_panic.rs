//! Stops panics before they unwind into the C code of the VM, which would be undefined behaviour. A
//! panic is a bug of this library; it fails one call or ends one port, not the node.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The result of `f`, or `None` if it panicked. The panic message goes to standard error.
///
/// State that `f` has left inconsistent is behind mutexes; a poisoned one closes the link.
pub fn catch_panic<R>(f: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(f)).ok()
}
