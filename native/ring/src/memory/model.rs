//! Shared memory for the model checker: the same interface, in which every word and every eight
//! data bytes are an object whose accesses loom orders and checks.

use std::mem::MaybeUninit;
use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering};

use crate::layout::{CONSUMER, EVENT_INDEX, INDEX, LIMIT, PRODUCER, STATE, never};

/// Bytes of a data cell.
const CELL: usize = 8;

#[derive(Debug)]
struct Words {
    producer: [AtomicU32; 3],
    consumer: [AtomicU32; 4],
}

/// The lines of the two ends; no race involves the header or the live bytes.
#[derive(Clone, Debug)]
pub struct ControlPage(Arc<Words>);

impl ControlPage {
    /// A page as `initialise` leaves it, with both indices at `start`.
    pub fn model(start: u32) -> Self {
        let words = [start, never(start), 0];
        let [index, event_index, state] = words;
        Self(Arc::new(Words {
            producer: words.map(AtomicU32::new),
            consumer: [index, event_index, state, 0].map(AtomicU32::new),
        }))
    }

    fn word(&self, offset: usize) -> &AtomicU32 {
        const LAST: usize = CONSUMER + LIMIT;
        match offset {
            o if o == PRODUCER + INDEX || o == PRODUCER + EVENT_INDEX || o == PRODUCER + STATE => {
                &self.0.producer[(offset - PRODUCER) / 4]
            }
            CONSUMER..=LAST => &self.0.consumer[(offset - CONSUMER) / 4],
            _ => unimplemented!("word {offset:#x} is not part of the model"),
        }
    }

    pub(crate) fn load(&self, offset: usize, order: Ordering) -> u32 {
        self.word(offset).load(order)
    }

    pub(crate) fn store(&self, offset: usize, value: u32, order: Ordering) {
        self.word(offset).store(value, order);
    }

    // Counters control nothing, and would only multiply the interleavings.
    pub(crate) fn store_count(&self, _offset: usize, _value: u64) {}

    pub(crate) fn load_live(&self, _offset: usize) -> u8 {
        0
    }

    pub(crate) fn store_live(&self, _offset: usize, _value: u8) {}
}

/// A data area of any power of two from 64 bytes, shared by the two handles of `model`.
#[derive(Debug)]
pub struct DataArea {
    cells: Arc<[UnsafeCell<[u8; CELL]>]>,
}

// SAFETY: loom checks every access to a cell and fails the model on a race.
unsafe impl Send for DataArea {}

impl DataArea {
    /// The producer's and the consumer's handle of one area.
    pub fn model(size: usize) -> (Self, Self) {
        assert!(size.is_power_of_two() && size >= 64);
        let cells: Arc<[_]> = (0..size / CELL)
            .map(|_| UnsafeCell::new([0; CELL]))
            .collect();
        (
            Self {
                cells: cells.clone(),
            },
            Self { cells },
        )
    }

    pub(crate) fn size(&self) -> u32 {
        (self.cells.len() * CELL) as u32
    }

    fn position(&self, index: u32) -> usize {
        (index & (self.size() - 1)) as usize
    }

    pub(crate) fn load_header(&self, index: u32) -> u64 {
        let cell = &self.cells[self.position(index) / CELL];
        // SAFETY: loom fails the model if this races.
        cell.with(|bytes| u64::from_le_bytes(unsafe { *bytes }))
    }

    pub(crate) fn store_header(&mut self, index: u32, word: u64) {
        let cell = &self.cells[self.position(index) / CELL];
        // SAFETY: loom fails the model if this races.
        cell.with_mut(|bytes| unsafe { *bytes = word.to_le_bytes() });
    }

    pub(crate) fn prefetch(&self, _index: u32, _bytes: u32) {}

    pub(crate) fn write(&mut self, index: u32, bytes: &[u8]) {
        for (i, &byte) in bytes.iter().enumerate() {
            let at = self.position(index.wrapping_add(i as u32));
            // SAFETY: loom fails the model if this races.
            self.cells[at / CELL].with_mut(|cell| unsafe { (*cell)[at % CELL] = byte });
        }
    }

    pub(crate) fn fragment(&self, index: u32, length: u32) -> Fragment<'_> {
        Fragment {
            area: self,
            index,
            length: length as usize,
        }
    }
}

/// Bytes still in the ring, to be copied out once.
#[derive(Debug)]
pub struct Fragment<'a> {
    area: &'a DataArea,
    index: u32,
    length: usize,
}

impl Fragment<'_> {
    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    fn bytes(&self) -> impl Iterator<Item = u8> {
        (0..self.length as u32).map(|i| {
            let at = self.area.position(self.index.wrapping_add(i));
            // SAFETY: loom fails the model if this races.
            self.area.cells[at / CELL].with(|cell| unsafe { (*cell)[at % CELL] })
        })
    }

    /// Copies the bytes into `target`.
    pub fn copy_to(self, target: &mut [MaybeUninit<u8>]) -> &mut [u8] {
        assert_eq!(target.len(), self.length);
        for (to, byte) in target.iter_mut().zip(self.bytes()) {
            to.write(byte);
        }
        // SAFETY: as long as the fragment, and every byte was written above.
        unsafe { std::slice::from_raw_parts_mut(target.as_mut_ptr().cast(), target.len()) }
    }

    /// Appends the bytes to `target`.
    pub fn append_to(self, target: &mut Vec<u8>) {
        target.extend(self.bytes());
    }
}
