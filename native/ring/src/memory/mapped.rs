//! Real shared memory.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, compiler_fence};

use crate::layout::{ORDER_MAX, PAGE, RECORD_ALIGN};

/// A control page: a cheap handle that does not own the mapping.
#[derive(Clone, Debug)]
pub struct ControlPage {
    base: NonNull<u8>,
}

// SAFETY: the page is only ever accessed through atomics, from any thread; the mapping outlives the
// handle (contract of `from_raw`).
unsafe impl Send for ControlPage {}
// SAFETY: as for Send; no method has interior state besides the atomics of the page.
unsafe impl Sync for ControlPage {}

impl ControlPage {
    /// Takes a mapped control page.
    ///
    /// # Safety
    /// `base` points to [`PAGE`] bytes, aligned to 8, mapped readable and writable until this
    /// handle, its clones and every [`Producer`](crate::Producer) and
    /// [`Consumer`](crate::Consumer) made of them are gone. This process accesses the page only
    /// through this crate.
    ///
    /// # Panics
    /// If `base` is not aligned.
    pub unsafe fn from_raw(base: NonNull<u8>) -> Self {
        assert!(
            base.cast::<AtomicU64>().is_aligned(),
            "control page at {base:p}"
        );
        Self { base }
    }

    #[inline]
    fn at<T>(&self, offset: usize) -> NonNull<T> {
        debug_assert!(offset.is_multiple_of(size_of::<T>()) && offset + size_of::<T>() <= PAGE);
        // SAFETY: offsets come from the constants of `layout`, all within the page.
        unsafe { self.base.add(offset).cast() }
    }

    #[inline]
    fn word(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: within the live mapping and aligned (see `at`, `from_raw`); every access of this
        // process to the word is atomic.
        unsafe { self.at::<AtomicU32>(offset).as_ref() }
    }

    #[inline]
    fn count(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: as for `word`; counter lines are only accessed in whole u64.
        unsafe { self.at::<AtomicU64>(offset).as_ref() }
    }

    #[inline]
    fn byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: as for `word`; live bytes are only accessed as bytes.
        unsafe { self.at::<AtomicU8>(offset).as_ref() }
    }

    #[inline]
    pub(crate) fn load(&self, offset: usize, order: Ordering) -> u32 {
        u32::from_le(self.word(offset).load(order))
    }

    #[inline]
    pub(crate) fn store(&self, offset: usize, value: u32, order: Ordering) {
        self.word(offset).store(value.to_le(), order);
    }

    #[inline]
    pub(crate) fn store_count(&self, offset: usize, value: u64) {
        self.count(offset).store(value.to_le(), Ordering::Relaxed);
    }

    pub(crate) fn load_live(&self, offset: usize) -> u8 {
        self.byte(offset).load(Ordering::Acquire)
    }

    pub(crate) fn store_live(&self, offset: usize, value: u8) {
        self.byte(offset).store(value, Ordering::Release);
    }
}

/// The data pages of one ring, contiguous: one handle for each end.
#[derive(Debug)]
pub struct DataArea {
    base: NonNull<u8>,
    size: u32,
}

// SAFETY: one end uses the area (contract of `from_raw`), from whichever thread has that end.
unsafe impl Send for DataArea {}

impl DataArea {
    /// Takes the mapped data pages.
    ///
    /// # Safety
    /// `base` points to [`PAGE`] << `order` bytes, aligned to 8, mapped until the end made of this
    /// area is gone; writable if that end is a producer, readable is enough for a consumer. In this
    /// process at most one producer and one consumer are made for the ring, and nothing else
    /// accesses these pages.
    ///
    /// # Panics
    /// If `order` is above [`ORDER_MAX`] or `base` is not aligned.
    pub unsafe fn from_raw(base: NonNull<u8>, order: u32) -> Self {
        assert!(order <= ORDER_MAX, "ring order {order}");
        assert!(
            base.cast::<AtomicU64>().is_aligned(),
            "data area at {base:p}"
        );
        Self {
            base,
            size: (PAGE as u32) << order,
        }
    }

    /// Bytes of the ring, a power of two.
    #[inline]
    pub(crate) fn size(&self) -> u32 {
        self.size
    }

    /// The position of the free-running `index` in the area.
    #[inline]
    fn position(&self, index: u32) -> usize {
        (index & (self.size - 1)) as usize
    }

    #[inline]
    fn header(&self, index: u32) -> &AtomicU64 {
        let position = self.position(index);
        debug_assert!(position.is_multiple_of(RECORD_ALIGN));
        // SAFETY: `position` is below the size, and aligned because indices of records are
        // multiples of 8 (checked when they come from the peer), so the word lies within the live
        // mapping and does not wrap. An atomic load does not need write access.
        unsafe { self.base.add(position).cast::<AtomicU64>().as_ref() }
    }

    /// Copies a header word at `index` in one load.
    #[inline]
    pub(crate) fn load_header(&self, index: u32) -> u64 {
        u64::from_le(self.header(index).load(Ordering::Relaxed))
    }

    /// Writes a header word at `index`.
    #[inline]
    pub(crate) fn store_header(&mut self, index: u32, word: u64) {
        self.header(index).store(word.to_le(), Ordering::Relaxed);
    }

    /// Copies `bytes` into the ring from `index` on, wrapping at its end.
    #[inline]
    pub(crate) fn write(&mut self, index: u32, bytes: &[u8]) {
        assert!(bytes.len() <= self.size as usize);
        let position = self.position(index);
        let before = bytes.len().min(self.size as usize - position);
        // SAFETY: the first `before` bytes end at or before the end of the area, the rest starts at
        // its beginning and is no longer than the area (asserted); the source is private memory, so
        // the two do not overlap; the area is writable for a producer (contract of `from_raw`).
        unsafe {
            let base = self.base.as_ptr();
            copy(bytes.as_ptr(), base.add(position), before);
            copy(bytes.as_ptr().add(before), base, bytes.len() - before);
        }
    }

    /// Prefetches the cache lines of `bytes` from `index` on for writing.
    #[inline]
    pub(crate) fn prefetch(&self, index: u32, bytes: u32) {
        for line in (0..bytes).step_by(LINE) {
            let position = self.position(index.wrapping_add(line));
            // SAFETY: `position` is below the size of the area. A hint changes no byte and cannot
            // fault.
            unsafe { prefetch_for_write(self.base.add(position).as_ptr()) };
        }
    }

    /// `length` bytes of the ring from `index` on.
    #[inline]
    pub(crate) fn fragment(&self, index: u32, length: u32) -> Fragment<'_> {
        assert!(length <= self.size);
        let position = self.position(index);
        let before = (length as usize).min(self.size as usize - position);
        Fragment {
            // SAFETY: `position` is below the size of the area.
            first: unsafe { self.base.add(position) },
            before,
            second: self.base,
            after: length as usize - before,
            area: PhantomData,
        }
    }
}

/// Bytes still in the ring, to be copied out once. They cannot be read in place, because the peer
/// may change them between two reads.
#[derive(Debug)]
pub struct Fragment<'a> {
    first: NonNull<u8>,
    before: usize,
    second: NonNull<u8>,
    after: usize,
    area: PhantomData<&'a DataArea>,
}

impl Fragment<'_> {
    /// Number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.before + self.after
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies the bytes into `target`, and returns it initialised.
    ///
    /// # Panics
    /// If `target` is not exactly as long as the fragment.
    #[inline]
    pub fn copy_to(self, target: &mut [MaybeUninit<u8>]) -> &mut [u8] {
        assert_eq!(target.len(), self.len(), "target for a fragment");
        // SAFETY: both parts lie within the area (made so by `DataArea::fragment`), which stays
        // mapped as long as the borrow; together they are as long as `target` (asserted), which is
        // private and thus does not overlap; after the copies all of `target` is initialised.
        unsafe {
            let to = target.as_mut_ptr().cast::<u8>();
            copy(self.first.as_ptr(), to, self.before);
            copy(self.second.as_ptr(), to.add(self.before), self.after);
            // Otherwise the compiler may read the ring again instead of the copy, and find other
            // bytes there.
            compiler_fence(Ordering::SeqCst);
            std::slice::from_raw_parts_mut(to, target.len())
        }
    }

    /// Appends the bytes to `target`.
    #[inline]
    pub fn append_to(self, target: &mut Vec<u8>) {
        let length = self.len();
        target.reserve(length);
        self.copy_to(&mut target.spare_capacity_mut()[..length]);
        // SAFETY: the capacity was reserved and `copy_to` has initialised the next `length` bytes.
        unsafe { target.set_len(target.len() + length) };
    }
}

/// Shortest copy for the processor's string instruction, which is slower than others below 2 KiB
/// and as fast from 4 KiB on (measured on Zen 5). On an emulated processor it is twice as fast as
/// copying through vector registers, which the emulator keeps in memory.
const STRING_MIN: usize = 4096;

/// Bytes of a cache line. Long copies align their destination to it: a store that crosses two lines
/// costs twice.
const LINE: usize = 64;

/// Copies `length` bytes, a few at either end twice.
///
/// # Safety
/// As for [`ptr::copy_nonoverlapping`], except that the peer may access the ring at the same time:
/// then any bytes may arrive.
#[inline]
unsafe fn copy(from: *const u8, to: *mut u8, length: usize) {
    if length < STRING_MIN {
        // SAFETY: the caller's.
        unsafe { ptr::copy_nonoverlapping(from, to, length) }
    } else {
        // SAFETY: the caller's, and there are at least STRING_MIN bytes.
        unsafe { copy_string(from, to, length) }
    }
}

/// # Safety
/// As for [`copy`], of at least [`STRING_MIN`] bytes.
#[cfg(all(target_arch = "x86_64", not(miri)))]
unsafe fn copy_string(from: *const u8, to: *mut u8, length: usize) {
    let skip = to.align_offset(LINE);
    let words = (length - skip) / 8;
    // SAFETY: the first line, the last eight bytes, and the whole words from `skip` on, which is
    // less than a line: all within `length`, which is more than a line. The direction flag is clear
    // wherever an asm block begins.
    unsafe {
        ptr::copy_nonoverlapping(from, to, LINE);
        ptr::copy_nonoverlapping(from.add(length - 8), to.add(length - 8), 8);
        std::arch::asm!(
            "rep movsq",
            inout("rcx") words => _,
            inout("rsi") from.add(skip) => _,
            inout("rdi") to.add(skip) => _,
            options(nostack, preserves_flags),
        );
    }
}

/// # Safety
/// As for [`copy`].
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
unsafe fn copy_string(from: *const u8, to: *mut u8, length: usize) {
    // SAFETY: the caller's.
    unsafe { ptr::copy_nonoverlapping(from, to, length) }
}

/// # Safety
/// None is needed; the instruction is only a hint.
#[inline]
unsafe fn prefetch_for_write(address: *const u8) {
    // SAFETY: PREFETCHW affects only caches. x86-64 processors without it execute it as a NOP.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = STRING_MIN + 256;

    /// Every byte arrives at its place, and no other byte changes.
    #[test]
    fn copies_any_length_from_and_to_any_alignment() {
        let from: Vec<u8> = (0..ROOM + LINE).map(|i| (i % 251) as u8).collect();
        let lengths = [0, 1, 8, 63, 64, 65, 1000]
            .into_iter()
            .chain(STRING_MIN - 9..=STRING_MIN + 73);
        for length in lengths {
            for (source, target) in (0..LINE).flat_map(|i| [(i, 0), (0, i), (i, LINE - i), (i, i)])
            {
                let mut to = vec![255; ROOM + LINE];
                assert!(source + length <= from.len() && target + length <= to.len());
                // SAFETY: both lie within their vectors, as asserted.
                unsafe {
                    copy(
                        from.as_ptr().add(source),
                        to.as_mut_ptr().add(target),
                        length,
                    )
                };
                let (before, rest) = to.split_at(target);
                let (copied, after) = rest.split_at(length);
                assert_eq!(copied, &from[source..source + length]);
                assert!(before.iter().chain(after).all(|byte| *byte == 255));
            }
        }
    }
}
