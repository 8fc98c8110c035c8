//! Identifies the loaded copy of this library. NIF and driver find each other's data by number, so
//! both must be the same copy in memory. Two copies, of one version or of two, each have their own
//! data.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

static BUILD_ID: LazyLock<String> = LazyLock::new(|| {
    // Made at load time, since only the copy matters. Not a secret, only unlikely to repeat.
    let random = RandomState::new().hash_one(std::process::id());
    format!("{}-{random:016x}", env!("CARGO_PKG_VERSION"))
});

/// The id of this copy: version and a random number, without spaces.
pub fn build_id() -> &'static str {
    &BUILD_ID
}
