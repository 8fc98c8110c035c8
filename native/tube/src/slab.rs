//! A table of values with ids that are never reused. An id is slot and generation in one integer
//! that fits an immediate Erlang integer.
//!
//! A lookup costs a read lock and a reference count, each a write to memory that all schedulers
//! share. Hot calls go through a [`Cache`] per thread instead. An id never changes its meaning, so
//! a cached value cannot be wrong, only closed, and a closed value reports that itself.

use std::cell::RefCell;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockWriteGuard};

/// Slot in the low [`INDEX_BITS`], generation above.
pub type Id = u64;

const INDEX_BITS: u32 = 20;
/// With the slot, this keeps an id within the 60 bits of a small integer.
const GENERATION_BITS: u32 = 38;
const CHUNK: usize = 1024;
const CHUNKS: usize = (1 << INDEX_BITS) / CHUNK;

/// A table that grows in chunks and never moves.
pub struct Slab<T> {
    chunks: [OnceLock<Box<[Slot<T>]>>; CHUNKS],
    spare: Mutex<Spare>,
}

struct Slot<T>(RwLock<Content<T>>);

struct Spare {
    /// The next ids of slots that were used before.
    ids: Vec<Id>,
    /// The first slot that was never used.
    fresh: usize,
}

impl<T> Slab<T> {
    /// An empty table. It allocates nothing before the first insert.
    pub const fn new() -> Self {
        Slab {
            chunks: [const { OnceLock::new() }; CHUNKS],
            spare: Mutex::new(Spare {
                ids: Vec::new(),
                fresh: 0,
            }),
        }
    }

    /// Stores `value`. `None` if all 2^20 slots are taken.
    pub fn insert(&self, value: T) -> Option<Id> {
        let id = self.next_id()?;
        *write(self.slot(id)?) = Some((id, Arc::new(value)));
        Some(id)
    }

    /// The value with this id, if it is still there.
    pub fn get(&self, id: Id) -> Option<Arc<T>> {
        let slot = self.slot(id)?.0.read();
        match slot.unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some((stored_id, value)) if *stored_id == id => Some(value.clone()),
            _ => None,
        }
    }

    /// Takes the value out. Its id is invalid from then on.
    pub fn remove(&self, id: Id) -> Option<Arc<T>> {
        let (_, value) = write(self.slot(id)?).take_if(|(stored_id, _)| *stored_id == id)?;
        let generation = (id >> INDEX_BITS) + 1;
        // A slot that has run out of generations is not used again.
        if generation < 1 << GENERATION_BITS {
            let next = generation << INDEX_BITS | id & ((1 << INDEX_BITS) - 1);
            lock(&self.spare).ids.push(next);
        }
        Some(value)
    }

    /// The number of values.
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
        // Generations start at 1, so that no id is 0: that is what forgotten initialisation looks
        // like.
        Some(1 << INDEX_BITS | index as Id)
    }

    fn slot(&self, id: Id) -> Option<&Slot<T>> {
        let index = (id & ((1 << INDEX_BITS) - 1)) as usize;
        self.chunks[index / CHUNK].get()?.get(index % CHUNK)
    }
}

impl<T> Slot<T> {
    fn is_used(&self) -> bool {
        let value = self.0.read().unwrap_or_else(PoisonError::into_inner);
        value.is_some()
    }
}

/// The values that one thread used last: direct-mapped by slot, without a lock or an atomic
/// operation.
///
/// It keeps a closed value alive until another takes its place, so a value must release its
/// resources when it is closed, not when it is dropped.
pub struct Cache<T>(RefCell<[Content<T>; CACHED]>);

/// The id and value of a slot that is used.
type Content<T> = Option<(Id, Arc<T>)>;

const CACHED: usize = 128;

impl<T> Cache<T> {
    /// An empty cache.
    pub const fn new() -> Self {
        Cache(RefCell::new([const { None }; CACHED]))
    }

    /// Calls `f` with the value of `id`. `f` must not use this cache with another id.
    pub fn with<R>(&self, slab: &Slab<T>, id: Id, f: impl FnOnce(&T) -> R) -> Option<R> {
        let index = id as usize % CACHED;
        {
            let recent = self.0.borrow();
            if let Some((stored_id, value)) = &recent[index]
                && *stored_id == id
            {
                return Some(f(value));
            }
        }
        let value = slab.get(id)?;
        self.0.borrow_mut()[index] = Some((id, value.clone()));
        Some(f(&value))
    }
}

// The data under these locks is consistent after every statement, so a poisoned lock is still
// usable.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(slot: &Slot<T>) -> RwLockWriteGuard<'_, Content<T>> {
    slot.0.write().unwrap_or_else(PoisonError::into_inner)
}
