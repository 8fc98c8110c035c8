//! The table of links and streams.
//!
//! The symbols of this crate's cdylib are those of a VM, so it cannot be linked into a test. Tests
//! include the source files that need no VM.

#[path = "../src/slab.rs"]
mod slab;

use slab::{Cache, Slab};
use std::sync::atomic::{AtomicUsize, Ordering};

static SLAB: Slab<u64> = Slab::new();

#[test]
fn an_id_is_never_used_again() {
    let slab = Box::leak(Box::new(Slab::<u64>::new()));
    let first = slab.insert(6).unwrap();
    assert_eq!(*slab.get(first).unwrap(), 6);
    assert_eq!(slab.len(), 1);
    assert_eq!(*slab.remove(first).unwrap(), 6);
    let second = slab.insert(7).unwrap();
    assert_ne!(first, second);
    assert!(slab.get(first).is_none());
    assert!(
        slab.remove(first).is_none(),
        "an old id must not free a new value"
    );
    assert_eq!(*slab.get(second).unwrap(), 7);
    assert_eq!(slab.len(), 1);
}

#[test]
fn ids_that_were_never_given_out_are_unknown() {
    let slab = Box::leak(Box::new(Slab::<u64>::new()));
    for id in [0, 1, 1 << 20, u64::MAX, (1 << 20) - 1] {
        assert!(slab.get(id).is_none());
        assert!(slab.remove(id).is_none());
    }
    slab.insert(1).unwrap();
    assert!(slab.get(0).is_none() && slab.get(u64::MAX).is_none() && slab.get(2 << 20).is_none());
}

#[test]
fn ids_fit_a_small_integer_and_slots_are_reused() {
    let slab = Box::leak(Box::new(Slab::<u64>::new()));
    for _ in 0..10_000 {
        let id = slab.insert(0).unwrap();
        assert!(id < 1 << 58);
        assert_eq!(id & 0xF_FFFF, 0, "one value at a time needs one slot");
        slab.remove(id).unwrap();
    }
    let many: Vec<_> = (0..3000).map(|n| slab.insert(n).unwrap()).collect();
    assert_eq!(slab.len(), 3000);
    for (n, id) in many.iter().enumerate() {
        assert_eq!(*slab.get(*id).unwrap(), n as u64);
    }
}

#[test]
fn a_cache_never_returns_the_wrong_value() {
    let slab = Box::leak(Box::new(Slab::<u64>::new()));
    let cache = Cache::new();
    let ids: Vec<_> = (0..500).map(|n| slab.insert(n).unwrap()).collect();
    for _ in 0..3 {
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(cache.with(slab, *id, |value| *value), Some(n as u64));
        }
    }
    let removed = ids[499];
    slab.remove(removed);
    let next = slab.insert(9999).unwrap();
    assert_eq!(next & 0xF_FFFF, removed & 0xF_FFFF, "the same slot");
    assert_eq!(cache.with(slab, next, |value| *value), Some(9999));
    assert_eq!(cache.with(slab, removed, |value| *value), None);
}

#[test]
fn a_value_lives_as_long_as_it_is_used() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Ordering::Relaxed);
        }
    }
    let slab = Box::leak(Box::new(Slab::<Counted>::new()));
    let id = slab.insert(Counted).unwrap();
    let held = slab.get(id).unwrap();
    drop(slab.remove(id));
    assert_eq!(DROPS.load(Ordering::Relaxed), 0);
    drop(held);
    assert_eq!(DROPS.load(Ordering::Relaxed), 1);
}

#[test]
fn threads_can_use_it_at_once() {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for n in 0..2000 {
                    let value = thread * 1_000_000 + n;
                    let id = SLAB.insert(value).unwrap();
                    assert_eq!(*SLAB.get(id).unwrap(), value);
                    assert_eq!(*SLAB.remove(id).unwrap(), value);
                    assert!(SLAB.get(id).is_none());
                }
            });
        }
    });
}
