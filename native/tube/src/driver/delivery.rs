//! Delivery of messages to an active owner.

use super::message_buffer::{Message, MessageBuffer};
use super::term::{ATOMS, Bytes, Sender};
use crate::buffer::Buffer;
use crate::handles::Mode;
use crate::limits::ON_HEAP;
use crate::pid::Pid;
use crate::vm::Beam;
use tube_link::{Deliver, Event, Fragment, LinkError, MessageSink, Notifier};

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
