//! The messages of one call, as terms of the calling process.

use crate::buffer::Buffer;
use crate::limits::ON_HEAP;
use rustler::sys::{
    ErlNifTerm, enif_make_list_from_array, enif_make_new_binary, enif_make_sub_binary,
};
use rustler::{Encoder, Env, Resource, ResourceArc, Term};
use std::mem::MaybeUninit;
use tube_link::{BatchSink, Fragment, MessageSink};

/// Most messages per call: this bounds how long a call holds its scheduler.
pub const MOST: usize = 1024;
/// Messages of up to this many bytes share a block, because allocating a binary costs more than
/// filling it. A process that keeps one of them keeps its block.
const SHARED: usize = 4096;
/// Bytes of a block: enough to spread the cost, few enough to be kept by accident.
const BLOCK: usize = 32 << 10;

/// Builds the list of messages of one call.
pub struct BatchBuilder<'a> {
    env: Env<'a>,
    terms: [MaybeUninit<ErlNifTerm>; MOST],
    len: usize,
    bytes: usize,
    most: usize,
    /// See [`BatchSink::expect`].
    expected: usize,
    block: Option<Block>,
    /// The last message.
    last: Option<Place>,
}

/// A binary that messages are parts of.
struct Block {
    term: ErlNifTerm,
    bytes: *mut MaybeUninit<u8>,
    used: usize,
    size: usize,
}

/// Where to copy a message, and its term.
struct Place {
    term: ErlNifTerm,
    bytes: *mut MaybeUninit<u8>,
}

impl<'a> BatchBuilder<'a> {
    /// For at most `most` messages.
    pub fn new(env: Env<'a>, most: usize) -> BatchBuilder<'a> {
        BatchBuilder {
            env,
            terms: [const { MaybeUninit::uninit() }; MOST],
            len: 0,
            bytes: 0,
            most: most.clamp(1, MOST),
            expected: 0,
            block: None,
            last: None,
        }
    }

    /// The number of messages to take.
    pub fn most(&self) -> usize {
        self.most
    }

    /// The number of bytes of all messages.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The list of messages.
    pub fn list(&self) -> Term<'a> {
        // SAFETY: the first `len` terms are written, and belong to this environment.
        unsafe {
            let terms = self.terms.as_ptr().cast();
            let list = enif_make_list_from_array(self.env.as_c_arg(), terms, self.len as u32);
            Term::new(self.env, list)
        }
    }

    fn push(&mut self, term: ErlNifTerm) {
        // The link gives no more messages than it was asked for; more would panic here.
        self.terms[self.len].write(term);
        self.len += 1;
    }

    /// A separate binary.
    fn separate(&self, len: usize) -> Place {
        let mut term = MaybeUninit::uninit();
        // SAFETY: the VM allocates `len` bytes, which live as long as the term, and initialises the
        // term.
        unsafe {
            let bytes = enif_make_new_binary(self.env.as_c_arg(), len, term.as_mut_ptr());
            Place {
                term: term.assume_init(),
                bytes: bytes.cast(),
            }
        }
    }

    /// A part of the current block, or of a new one.
    fn part(&mut self, len: usize) -> Place {
        let block = match self.block.take() {
            Some(block) if block.size - block.used >= len => block,
            _ => {
                // No larger than the messages that may still come.
                let left = self.most - self.len;
                let size = self.expected.min(len.saturating_mul(left)).min(BLOCK);
                let Place { term, bytes } = self.separate(size.max(len));
                Block {
                    term,
                    bytes,
                    used: 0,
                    size: size.max(len),
                }
            }
        };
        // SAFETY: the part lies within the block, whose bytes live as long as its term.
        let place = unsafe {
            let env = self.env.as_c_arg();
            Place {
                term: enif_make_sub_binary(env, block.term, block.used, len),
                bytes: block.bytes.add(block.used),
            }
        };
        self.block = Some(Block {
            used: block.used + len,
            ..block
        });
        place
    }
}

impl MessageSink for BatchBuilder<'_> {
    fn room(&mut self, len: usize) -> bool {
        self.bytes += len;
        self.last = Some(match len {
            0..=ON_HEAP => self.separate(len),
            _ if len <= SHARED => self.part(len),
            _ => self.separate(len),
        });
        true
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        if let Some(place) = &self.last {
            // SAFETY: made by the last `room`, for as many bytes, and nothing else refers to it
            // yet.
            let room = unsafe { std::slice::from_raw_parts_mut(place.bytes, bytes.len()) };
            bytes.copy_to(room);
        }
    }
}

impl BatchSink<Buffer> for BatchBuilder<'_> {
    fn expect(&mut self, bytes: usize) {
        self.expected = bytes;
    }

    fn small(&mut self) {
        if let Some(place) = self.last.take() {
            self.push(place.term);
        }
    }

    fn long(&mut self, message: Buffer) {
        let long = ResourceArc::new(LongMessage(message));
        self.bytes += long.0.len();
        let term = long.make_binary(self.env, |long| long.0.filled());
        self.push(term.encode(self.env).as_c_arg());
    }
}

/// A long message as a resource. Its binary term refers to it, so no byte is copied again.
pub struct LongMessage(pub Buffer);

#[rustler::resource_impl]
impl Resource for LongMessage {}
