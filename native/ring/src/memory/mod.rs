//! Access to pages that another party writes at the same time: the only unsafe code, and the one
//! fence. For the model checker, `model` replaces the real memory.
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
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::Ordering;
#[cfg(not(loom))]
use std::sync::atomic::fence;

#[cfg(loom)]
mod model;
#[cfg(loom)]
pub(crate) use loom::sync::atomic::Ordering;
#[cfg(loom)]
use loom::sync::atomic::fence;
#[cfg(loom)]
pub use model::{ControlPage, DataArea, Fragment};

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
