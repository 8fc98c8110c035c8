//! Delivery of messages: out of the ring into a buffer, and from there to an active owner.

use super::term::{ATOMS, Bytes, Sender};
use crate::Beam;
use crate::buffer::Buffer;
use crate::handles::Mode;
use crate::limits::ON_HEAP;
use crate::pid::Pid;
use std::mem::MaybeUninit;
use tube_link::{Buffer as _, Deliver, Event, Fragment, LinkError, MessageSink, Notifier};

/// Delivers to the owner, in the mode of the link.
pub struct Delivery {
    sender: Sender,
    mode: Mode,
    /// Binaries of this size are copied by the VM in any case, so a binary made for them is wasted.
    buffer: MessageBuffer<ON_HEAP>,
}

impl Delivery {
    /// Delivers through `sender`.
    pub fn new(sender: Sender, mode: Mode) -> Delivery {
        Delivery {
            sender,
            mode,
            buffer: MessageBuffer::new(),
        }
    }
}

fn send(sender: &Sender, mode: Mode, owner: Pid, bytes: Bytes<'_>) -> bool {
    match mode {
        Mode::Port => sender.port_data(owner, bytes),
        _ => sender.tube_data(owner, bytes),
    }
}

impl MessageSink for Delivery {
    fn room(&mut self, len: usize) -> bool {
        self.buffer.room(len)
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        self.buffer.take(bytes);
    }
}

impl Deliver<Beam> for Delivery {
    fn small(&mut self, owner: Pid) -> bool {
        match self.buffer.message() {
            Message::Inline(bytes) => send(&self.sender, self.mode, owner, Bytes::Copied(bytes)),
            Message::Binary(binary) => self.long(owner, binary),
        }
    }

    fn long(&mut self, owner: Pid, message: Buffer) -> bool {
        let bytes = Bytes::Shared(message.as_ptr(), message.len());
        send(&self.sender, self.mode, owner, bytes)
    }

    fn passive(&mut self, owner: Pid) {
        if self.mode == Mode::Tube {
            self.sender.about(owner, ATOMS.tube_passive);
        }
    }

    fn end(&mut self, owner: Pid, reason: Option<LinkError>) {
        // A port ends with its exit signal, which the connection process sends.
        if self.mode == Mode::Port {
            return;
        }
        if let Some(reason) = reason {
            self.sender.tube_error(owner, reason);
        }
        self.sender.about(owner, ATOMS.tube_closed);
    }
}

impl Notifier<Pid> for Delivery {
    fn space(&self, to: Pid) {
        self.sender.wake(to, ATOMS.our_space);
    }

    fn data(&self, to: Pid) {
        self.sender.wake(to, ATOMS.our_data);
    }

    fn event(&self, event: Event) {
        self.sender.report(event);
    }
}

/// Takes messages: up to `INLINE` bytes into itself, from where the VM copies them, longer ones
/// into a binary that the VM keeps as it is.
///
/// A message is never handed to the VM from the ring itself: the VM first sizes a message, then
/// reads the same bytes again, which the peer may have changed.
pub struct MessageBuffer<const INLINE: usize> {
    content: Content,
    inline: Box<[MaybeUninit<u8>; INLINE]>,
}

enum Content {
    /// So many bytes of `inline`.
    Inline(usize),
    Binary(Buffer),
}

/// A message, taken out of the ring.
pub enum Message<'a> {
    /// Bytes for the VM to copy.
    Inline(&'a [u8]),
    /// A binary for the VM to keep.
    Binary(Buffer),
}

impl<const INLINE: usize> MessageBuffer<INLINE> {
    /// An empty buffer.
    pub fn new() -> Self {
        MessageBuffer {
            content: Content::Inline(0),
            inline: Box::new([MaybeUninit::uninit(); INLINE]),
        }
    }

    /// The message that the last `take` copied here.
    pub fn message(&mut self) -> Message<'_> {
        match std::mem::replace(&mut self.content, Content::Inline(0)) {
            Content::Inline(len) => {
                let bytes = self.inline.as_ptr().cast();
                // SAFETY: `take` has filled so many, or there are none.
                Message::Inline(unsafe { std::slice::from_raw_parts(bytes, len) })
            }
            Content::Binary(binary) => Message::Binary(binary),
        }
    }
}

impl<const INLINE: usize> MessageSink for MessageBuffer<INLINE> {
    fn room(&mut self, len: usize) -> bool {
        self.content = if len <= INLINE {
            Content::Inline(len)
        } else {
            match Buffer::new(len) {
                Some(binary) => Content::Binary(binary),
                None => return false,
            }
        };
        true
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        match &mut self.content {
            Content::Inline(len) => bytes.copy_to(&mut self.inline[..*len]),
            Content::Binary(binary) => bytes.copy_to(binary.room()),
        };
    }
}
