//! A ring in private memory between canaries, and what a hostile peer writes to it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use tube_ring::wire::{CONSUMER, EVENT_INDEX, INDEX, Kind, PRODUCER, STATE, STATE_FIN, header};
use tube_ring::{
    Armed, Consumer, ControlPage, DataArea, Direction, MESSAGE_MAX, PAGE, Producer, Progress, Push,
};

/// The longest messages allowed.
pub const LIMIT: u32 = MESSAGE_MAX;
/// The outcomes of `arm` with something to do and with nothing to do, when the peer does not wait.
pub const AWAKE: Armed = Armed {
    ready: true,
    notify: false,
};
pub const ASLEEP: Armed = Armed {
    ready: false,
    notify: false,
};

/// How many cases to run: 50 times as many in the long set (`bin/test --long`).
pub fn cases(usual: u32) -> u32 {
    match std::env::var_os("TUBE_LONG") {
        Some(_) => 50 * usual,
        None => usual,
    }
}

pub const NONCE: u64 = 0xfeed_beef_0000_0001;
/// Bytes before, between and after the shared parts that must not change.
const CANARY: usize = PAGE;
const CANARY_BYTE: u8 = 0xa5;

/// Owns the memory: declare it before the ends, so that it is dropped after them.
pub struct Pages {
    base: NonNull<u8>,
    layout: Layout,
    order: u32,
}

// SAFETY: the memory is only accessed through atomics and through the ring's own handles.
unsafe impl Sync for Pages {}

impl Pages {
    pub fn new(order: u32) -> Self {
        let pages = Self::zeroed(order);
        let grefs: Vec<u32> = (100..).take(1 << order).collect();
        pages
            .control()
            .initialise(Direction::Tx, order, NONCE, &grefs);
        pages
    }

    /// Without a header.
    pub fn zeroed(order: u32) -> Self {
        let layout = Layout::from_size_align(3 * CANARY + PAGE + (PAGE << order), PAGE).unwrap();
        // SAFETY: the layout is not empty.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory");
        let pages = Self {
            base,
            layout,
            order,
        };
        for offset in pages.canaries() {
            // SAFETY: a canary lies within the allocation, which is still private.
            unsafe { base.add(offset).write_bytes(CANARY_BYTE, CANARY) };
        }
        pages
    }

    /// The parts of an end.
    pub fn parts(&self) -> (ControlPage, DataArea) {
        (self.control(), self.area())
    }

    /// Offsets of the canaries, whole pages.
    fn canaries(&self) -> [usize; 3] {
        let data = 2 * CANARY + PAGE;
        [0, CANARY + PAGE, data + (PAGE << self.order)]
    }

    /// Whether nothing was written outside the shared parts.
    pub fn canaries_intact(&self) -> bool {
        self.canaries().into_iter().all(|offset| {
            // SAFETY: within the allocation; the test calls this while no end is in use.
            let canary = unsafe { self.base.add(offset).cast::<[u8; CANARY]>().read() };
            canary == [CANARY_BYTE; CANARY]
        })
    }

    pub fn control(&self) -> ControlPage {
        // SAFETY: a whole aligned page; the tests drop all handles before the memory.
        unsafe { ControlPage::from_raw(self.base.add(CANARY)) }
    }

    fn area(&self) -> DataArea {
        // SAFETY: as above; each test makes one producer and one consumer at a time.
        unsafe { DataArea::from_raw(self.base.add(2 * CANARY + PAGE), self.order) }
    }

    /// Both ends, with indices that start at `start`.
    pub fn ends(&self, start: u32, limit: u32) -> (Producer, Consumer) {
        for line in [PRODUCER, CONSUMER] {
            self.set(line + INDEX, start);
            self.set(line + EVENT_INDEX, start.wrapping_add(1 << 31));
            self.set(line + STATE, 0);
        }
        (
            Producer::starting_at(self.control(), self.area(), start),
            Consumer::starting_at(self.control(), self.area(), limit, start),
        )
    }

    pub fn size(&self) -> u32 {
        (PAGE as u32) << self.order
    }

    /// A word of the control page.
    pub fn word(&self, offset: usize) -> &AtomicU32 {
        assert!(offset + 4 <= PAGE && offset.is_multiple_of(4));
        // SAFETY: within the control page, aligned, alive as long as `self`.
        unsafe { self.base.add(CANARY + offset).cast::<AtomicU32>().as_ref() }
    }

    pub fn get(&self, offset: usize) -> u32 {
        self.word(offset).load(Ordering::SeqCst)
    }

    pub fn set(&self, offset: usize, value: u32) {
        self.word(offset).store(value, Ordering::SeqCst);
    }

    /// A byte of the control page.
    pub fn control_byte(&self, offset: usize) -> &AtomicU8 {
        assert!(offset < PAGE);
        // SAFETY: within the control page, alive as long as `self`.
        unsafe { self.base.add(CANARY + offset).cast::<AtomicU8>().as_ref() }
    }

    /// Eight bytes of the data area at a free-running index.
    pub fn data(&self, index: u32) -> &AtomicU64 {
        let position = (index & (self.size() - 1)) as usize;
        assert!(position.is_multiple_of(8));
        // SAFETY: within the data area, aligned, alive as long as `self`.
        unsafe {
            self.base
                .add(2 * CANARY + PAGE + position)
                .cast::<AtomicU64>()
                .as_ref()
        }
    }

    /// Writes a header word as a possibly hostile peer.
    pub fn put(&self, index: u32, kind: Kind, length: u32) {
        self.put_raw(index, header(kind, length));
    }

    pub fn put_raw(&self, index: u32, word: u64) {
        self.data(index).store(word, Ordering::SeqCst);
    }

    pub fn publish(&self, index: u32) {
        self.set(PRODUCER + INDEX, index);
    }

    pub fn fin(&self) {
        self.set(PRODUCER + STATE, STATE_FIN);
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the ends are gone.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

/// A message whose bytes depend on its length, its number and their position.
pub fn message(number: u64, length: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ length as u64;
    (0..length)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect()
}

/// Pushes a message that must fit at once.
pub fn push(producer: &mut Producer, message: &[u8]) {
    let outcome = producer.push(message, &mut Progress::default(), usize::MAX);
    assert_eq!(outcome, Ok(Push::Whole));
}
