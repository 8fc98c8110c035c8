//! Delivery of messages to the owner of a tube.

use super::message_buffer::{MessageBuffer, Whole};
use super::term::{ATOMS, Bytes, Sender};
use crate::buffer::Buffer;
use crate::handles::Mode;
use crate::pid::Pid;
use crate::vm::Beam;
use tube_link::{Deliver, Event, Fragment, LinkError, MessageSink, Notifier};

/// The VM keeps binaries up to this size on the process heap (`ERL_ONHEAP_BIN_LIMIT`), so for those it is
/// cheaper to have it copy them than to make a binary that it copies from all the same.
const ON_HEAP: usize = 64;

/// Delivers to the owner in the mode that it wants.
pub struct Delivery {
    sender: Sender,
    mode: Mode,
    intake: MessageBuffer<ON_HEAP>,
}

impl Delivery {
    /// By `sender`, in the mode `mode`.
    pub fn new(sender: Sender, mode: Mode) -> Delivery {
        Delivery {
            sender,
            mode,
            intake: MessageBuffer::new(),
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
        self.intake.room(len)
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        self.intake.take(bytes);
    }
}

impl Deliver<Beam> for Delivery {
    fn small(&mut self, owner: Pid) -> bool {
        match self.intake.whole() {
            Whole::Copied(bytes) => send(&self.sender, self.mode, owner, Bytes::Copied(bytes)),
            Whole::Kept(binary) => self.long(owner, binary),
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
        // A port ends by its exit signal, which is the connection's to give.
        if self.mode == Mode::Port {
            return;
        }
        if let Some(reason) = reason {
            let name = match reason {
                LinkError::PeerDown => ATOMS.peer_down,
                LinkError::DomainGone => ATOMS.peer_domain_gone,
                LinkError::Suspended => ATOMS.suspended,
                _ => ATOMS.protocol,
            };
            self.sender.tube_error(owner, name);
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
