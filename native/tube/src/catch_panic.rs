//! Nothing unwinds into the VM: that is undefined where C is below. A panic is a bug of ours; it costs
//! the call or the port that met it, not the node.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// The result of `f`, or `None` if it panicked. The panic's message has gone to standard error.
///
/// The state that `f` left half-changed is behind mutexes, whose poison closes the link.
pub fn catch_panic<R>(f: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(f)).ok()
}
