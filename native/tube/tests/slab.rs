//! The handle table. A cdylib whose symbols only a VM can resolve has no tests of its own, so the
//! module, which needs no VM, is compiled into this one.

#[path = "../src/slab.rs"]
mod slab;

use slab::{Cache, Slab};
use std::sync::atomic::{AtomicUsize, Ordering};

static SLAB: Slab<u64> = Slab::new();

#[test]
fn an_id_is_never_used_again() {
    let slab = Box::leak(Box::new(Slab::<u64>::new()));
    let first = slab.insert(|id| id * 2).unwrap();
    assert_eq!(*slab.get(first).unwrap(), first * 2);
    assert_eq!(slab.len(), 1);
    assert_eq!(*slab.remove(first).unwrap(), first * 2);
    let second = slab.insert(|_| 7).unwrap();
    assert_ne!(first, second);
    assert!(slab.get(first).is_none());
    assert!(
        slab.remove(first).is_none(),
        "an old id must not free a new entry"
    );
    assert_eq!(*slab.get(second).unwrap(), 7);
    assert_eq!(slab.len(), 1);
}

#[test]
fn ids_nobody_gave_out_are_unknown() {
    let slab = Box::leak(Box::new(Slab::<u64>::new()));
    for id in [0, 1, 1 << 20, u64::MAX, (1 << 20) - 1] {
        assert!(slab.get(id).is_none());
        assert!(slab.remove(id).is_none());
    }
    slab.insert(|_| 1).unwrap();
    assert!(slab.get(0).is_none() && slab.get(u64::MAX).is_none() && slab.get(2 << 20).is_none());
}

#[test]
fn ids_fit_a_small_integer_and_slots_are_used_again() {
    let slab = Box::leak(Box::new(Slab::<u64>::new()));
    for _ in 0..10_000 {
        let id = slab.insert(|_| 0).unwrap();
        assert!(id < 1 << 58);
        assert_eq!(id & 0xF_FFFF, 0, "one at a time needs one slot");
        slab.remove(id).unwrap();
    }
    let many: Vec<_> = (0..3000).map(|n| slab.insert(|_| n).unwrap()).collect();
    assert_eq!(slab.len(), 3000);
    for (n, id) in many.iter().enumerate() {
        assert_eq!(*slab.get(*id).unwrap(), n as u64);
    }
}

#[test]
fn a_cache_never_gives_the_wrong_entry() {
    let slab = Box::leak(Box::new(Slab::<u64>::new()));
    let cache = Cache::new();
    let ids: Vec<_> = (0..500).map(|n| slab.insert(|_| n).unwrap()).collect();
    for _ in 0..3 {
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(cache.with(slab, *id, |entry| *entry), Some(n as u64));
        }
    }
    let gone = ids[499];
    slab.remove(gone);
    let next = slab.insert(|_| 9999).unwrap();
    assert_eq!(next & 0xF_FFFF, gone & 0xF_FFFF, "the same slot");
    assert_eq!(cache.with(slab, next, |entry| *entry), Some(9999));
    assert_eq!(cache.with(slab, gone, |entry| *entry), None);
}

#[test]
fn an_entry_lives_for_whoever_still_uses_it() {
    static DROPS: AtomicUsize = AtomicUsize::new(0);
    struct Counted;
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPS.fetch_add(1, Ordering::Relaxed);
        }
    }
    let slab = Box::leak(Box::new(Slab::<Counted>::new()));
    let id = slab.insert(|_| Counted).unwrap();
    let held = slab.get(id).unwrap();
    drop(slab.remove(id));
    assert_eq!(DROPS.load(Ordering::Relaxed), 0);
    drop(held);
    assert_eq!(DROPS.load(Ordering::Relaxed), 1);
}

#[test]
fn threads_may_use_it_at_once() {
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for n in 0..2000 {
                    let value = thread * 1_000_000 + n;
                    let id = SLAB.insert(|_| value).unwrap();
                    assert_eq!(*SLAB.get(id).unwrap(), value);
                    assert_eq!(*SLAB.remove(id).unwrap(), value);
                    assert!(SLAB.get(id).is_none());
                }
            });
        }
    });
}
