//! Which loaded image this is. NIF and driver find each other's data by number, so both must be the
//! same copy of this library in memory: two copies, of one version or of two, have each their own.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

static NAME: LazyLock<String> = LazyLock::new(|| {
    // Drawn at load time, since only the copy matters. No secret, just unlikely to be drawn twice.
    let drawn = RandomState::new().hash_one(std::process::id());
    format!("{}-{drawn:016x}", env!("CARGO_PKG_VERSION"))
});

/// The name of this image: version and a random number, no spaces.
pub fn build_id() -> &'static str {
    &NAME
}
