//! What a link needs from its virtual machine.

use crate::error::LinkError;
use crate::status::Event;
use std::mem::MaybeUninit;
use tube_ring::Fragment;

/// A virtual machine, as a link sees it.
pub trait Vm: 'static {
    /// A process.
    type Process: Copy + PartialEq + Send;
    /// Memory in which a message that comes in pieces is reassembled.
    type Buffer: Buffer;
}

/// Private memory for one message.
pub trait Buffer: Sized + Send {
    /// A buffer of `len` bytes. `None` if there is no memory.
    fn new(len: usize) -> Option<Self>;

    /// All of its bytes. The link writes them all before it delivers the buffer.
    fn room(&mut self) -> &mut [MaybeUninit<u8>];
}

/// Takes a message that is in the ring in one piece straight to its destination.
pub trait MessageSink {
    /// Makes room for a message of `len` bytes, possibly 0. `false` if there is no memory.
    fn room(&mut self, len: usize) -> bool;

    /// Copies the message, of the length of the last `room`. Not called for an empty one.
    fn take(&mut self, bytes: Fragment<'_>);
}

/// Collects the messages of one call.
pub trait BatchSink<B>: MessageSink {
    /// At most so many bytes, headers included, are known to be in the ring from the next message
    /// on; 0 if unknown. A hint for allocation.
    fn expect(&mut self, bytes: usize);

    /// Keeps the message just taken as a [`MessageSink`].
    fn small(&mut self);

    /// Keeps a message that came in pieces.
    fn long(&mut self, message: B);
}

/// Wakes processes and reports events. Called with no lock held; a process that has exited is no
/// error.
pub trait Notifier<P> {
    /// Wakes a registered sender: try again.
    fn space(&self, to: P);

    /// Wakes a registered owner or poller: try again.
    fn data(&self, to: P);

    /// Reports an event to the connection. Called one at a time, in the order of the events.
    fn event(&self, event: Event);
}

/// Delivers messages to an active owner. Called with the receiving half locked.
pub trait Deliver<V: Vm>: MessageSink + Notifier<V::Process> {
    /// Delivers the message just taken as a [`MessageSink`]. `false` if the owner has exited.
    fn small(&mut self, owner: V::Process) -> bool;

    /// Delivers a message that came in pieces. `false` if the owner has exited.
    fn long(&mut self, owner: V::Process, message: V::Buffer) -> bool;

    /// Reports that the count of active messages is used up.
    fn passive(&mut self, owner: V::Process);

    /// Reports that everything is delivered and nothing more will come; `None` for a clean end.
    fn end(&mut self, owner: V::Process, reason: Option<LinkError>);
}

/// Delivers and wakes nothing, for a link that was never started.
pub struct NullDeliver;

impl MessageSink for NullDeliver {
    fn room(&mut self, _len: usize) -> bool {
        false
    }

    fn take(&mut self, _bytes: Fragment<'_>) {}
}

impl<P> Notifier<P> for NullDeliver {
    fn space(&self, _to: P) {}

    fn data(&self, _to: P) {}

    fn event(&self, _event: Event) {}
}

impl<V: Vm> Deliver<V> for NullDeliver {
    fn small(&mut self, _owner: V::Process) -> bool {
        false
    }

    fn long(&mut self, _owner: V::Process, _message: V::Buffer) -> bool {
        false
    }

    fn passive(&mut self, _owner: V::Process) {}

    fn end(&mut self, _owner: V::Process, _reason: Option<LinkError>) {}
}
