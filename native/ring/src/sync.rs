//! Atomics and the one fence, replaceable by the model checker.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::Ordering;
#[cfg(not(loom))]
use std::sync::atomic::fence;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::Ordering;
#[cfg(loom)]
use loom::sync::atomic::fence;

/// Stores something that the peer loads, then loads something that the peer stores. Every wake-up
/// depends on this order.
///
/// A sleeper announces its event index and looks at the peer's index; a writer announces its index
/// and looks at the peer's event index. A store followed by a load of *another* word is the one
/// order that neither x86 nor Arm guarantees: without the full fence both ends may look before
/// either has announced, and the sleeper is never woken. With it, at least one of them sees the
/// other. `tests/loom.rs` proves both.
#[cfg(not(loom))]
#[inline]
pub(crate) fn announce_then_look<T>(announce: impl FnOnce(), look: impl FnOnce() -> T) -> T {
    announce();
    fence(Ordering::SeqCst);
    look()
}

/// The same for the model checker, which can also break it on purpose.
#[cfg(loom)]
pub(crate) fn announce_then_look<T>(announce: impl FnOnce(), look: impl FnOnce() -> T) -> T {
    match WEAKNESS.get() {
        Weakness::None => {
            announce();
            fence(Ordering::SeqCst);
            look()
        }
        Weakness::NoFence => {
            announce();
            look()
        }
        Weakness::LookFirst => {
            let seen = look();
            fence(Ordering::SeqCst);
            announce();
            seen
        }
    }
}

/// How [`announce_then_look`] is broken on purpose.
#[cfg(loom)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weakness {
    /// Not at all.
    None,
    /// The fence is missing.
    NoFence,
    /// The look comes before the announcement, with no re-check after it.
    LookFirst,
}

#[cfg(loom)]
std::thread_local! {
    /// A std thread-local on purpose: loom runs all threads of a model on the thread of the test,
    /// so this is a setting per test.
    static WEAKNESS: std::cell::Cell<Weakness> = const { std::cell::Cell::new(Weakness::None) };
}

/// Breaks the wake-up order for the models that this thread runs from now on.
#[cfg(loom)]
pub fn weaken(weakness: Weakness) {
    WEAKNESS.set(weakness);
}
