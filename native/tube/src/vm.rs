//! The VM around this library: which copy of it is loaded, and panics that must not reach the VM.

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;

static BUILD_ID: LazyLock<String> = LazyLock::new(|| {
    // Made at load time, since only the copy matters. Not a secret, only unlikely to repeat.
    let random = RandomState::new().hash_one(std::process::id());
    format!("{}-{random:016x}", env!("CARGO_PKG_VERSION"))
});

/// Identifies the loaded copy of this library: version and a random number, without spaces.
///
/// NIF and driver find each other's data by number, so both must be the same copy in memory. Two
/// copies, of one version or of two, each have their own data.
pub fn build_id() -> &'static str {
    &BUILD_ID
}

/// The result of `f`, or `None` if it panicked. The panic message goes to standard error.
///
/// Stops panics before they unwind into the C code of the VM, which would be undefined behaviour. A
/// panic is a bug of this library; it fails one call or ends one port, not the node. State that `f`
/// has left inconsistent is behind mutexes; a poisoned one closes the link.
pub fn catch_panic<R>(f: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(f)).ok()
}
