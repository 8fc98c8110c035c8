//! Numbered handles. NIF and driver, and calls that are years apart, find one thing by a number that
//! never means another: slot and generation in one integer that fits an immediate Erlang integer.
//!
//! A look-up costs a read lock and a reference count, each a write to memory that all schedulers share.
//! The hot calls go through a [`Cache`] of their thread instead: an id never changes its meaning, so
//! a cached entry cannot be wrong, only closed, and what is closed says so itself.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockWriteGuard};

/// Slot in the low [`INDEX_BITS`], generation above.
pub type Id = u64;

const INDEX_BITS: u32 = 20;
/// Together with the slot this leaves an id within the 60 bits of a small integer.
const GENERATION_BITS: u32 = 38;
const CHUNK: usize = 1024;
const CHUNKS: usize = (1 << INDEX_BITS) / CHUNK;

/// A table that grows in chunks and never moves.
pub struct Slab<T> {
    chunks: [OnceLock<Box<[Slot<T>]>>; CHUNKS],
    spare: Mutex<Spare>,
}

struct Slot<T>(RwLock<Place<T>>);

struct Spare {
    /// Ids to hand out next, of slots that were used before.
    ids: Vec<Id>,
    /// The first slot that was never used.
    fresh: usize,
}

impl<T> Slab<T> {
    /// An empty table. It allocates nothing before the first entry.
    pub const fn new() -> Self {
        Slab {
            chunks: [const { OnceLock::new() }; CHUNKS],
            spare: Mutex::new(Spare {
                ids: Vec::new(),
                fresh: 0,
            }),
        }
    }

    /// Stores what `make` makes of its own id. `None` if all 2^20 slots are taken.
    pub fn insert(&self, make: impl FnOnce(Id) -> T) -> Option<Id> {
        let id = self.next_id()?;
        let entry = Arc::new(make(id));
        *write(self.slot(id)?) = Some((id, entry));
        Some(id)
    }

    /// The entry of `id`, if it is still there.
    pub fn get(&self, id: Id) -> Option<Arc<T>> {
        let slot = self.slot(id)?.0.read();
        match slot.unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some((theirs, entry)) if *theirs == id => Some(entry.clone()),
            _ => None,
        }
    }

    /// Takes the entry out; from here on its id means nothing.
    pub fn remove(&self, id: Id) -> Option<Arc<T>> {
        let (_, entry) = write(self.slot(id)?).take_if(|(theirs, _)| *theirs == id)?;
        let generation = (id >> INDEX_BITS) + 1;
        // A slot whose generations are used up is not used again.
        if generation < 1 << GENERATION_BITS {
            let next = generation << INDEX_BITS | id & ((1 << INDEX_BITS) - 1);
            lock(&self.spare).ids.push(next);
        }
        Some(entry)
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        let used = |chunk: &[Slot<T>]| chunk.iter().filter(|slot| slot.is_used()).count();
        let chunks = self.chunks.iter().filter_map(OnceLock::get);
        chunks.map(|chunk| used(chunk)).sum()
    }

    fn next_id(&self) -> Option<Id> {
        let mut spare = lock(&self.spare);
        if let Some(id) = spare.ids.pop() {
            return Some(id);
        }
        let index = spare.fresh;
        if index >= CHUNK * CHUNKS {
            return None;
        }
        spare.fresh += 1;
        self.chunks[index / CHUNK].get_or_init(|| {
            let slots = std::iter::repeat_with(|| Slot(RwLock::new(None)));
            slots.take(CHUNK).collect()
        });
        // Generation 1: no id is ever 0, which is what forgotten initialisation looks like.
        Some(1 << INDEX_BITS | index as Id)
    }

    fn slot(&self, id: Id) -> Option<&Slot<T>> {
        let index = (id & ((1 << INDEX_BITS) - 1)) as usize;
        self.chunks[index / CHUNK].get()?.get(index % CHUNK)
    }
}

impl<T> Slot<T> {
    fn is_used(&self) -> bool {
        let entry = self.0.read().unwrap_or_else(PoisonError::into_inner);
        entry.is_some()
    }
}

/// One thread's entries of late: direct-mapped by slot, without a lock or an atomic operation.
///
/// It keeps the shell of a closed entry alive until another takes its place, so an entry must give its
/// resources back when it is closed and not when it is dropped.
pub struct Cache<T>(RefCell<[Place<T>; CACHED]>);

type Place<T> = Option<(Id, Arc<T>)>;

const CACHED: usize = 128;

impl<T> Cache<T> {
    /// An empty cache.
    pub const fn new() -> Self {
        Cache(RefCell::new([const { None }; CACHED]))
    }

    /// Calls `f` with the entry of `id`. `f` must not come back to this cache with another id.
    pub fn with<R>(&self, slab: &Slab<T>, id: Id, f: impl FnOnce(&T) -> R) -> Option<R> {
        let place = id as usize % CACHED;
        {
            let near = self.0.borrow();
            if let Some((theirs, entry)) = &near[place]
                && *theirs == id
            {
                return Some(f(entry));
            }
        }
        let entry = slab.get(id)?;
        self.0.borrow_mut()[place] = Some((id, entry.clone()));
        Some(f(&entry))
    }
}

// What these locks guard is whole after every statement, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(slot: &Slot<T>) -> RwLockWriteGuard<'_, Place<T>> {
    slot.0.write().unwrap_or_else(PoisonError::into_inner)
}
