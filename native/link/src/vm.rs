//! What a link needs from the virtual machine that it serves.

use crate::Event;
use std::mem::MaybeUninit;
use tube_ring::Fragment;

/// A virtual machine, as far as a link knows one.
pub trait Vm: 'static {
    /// A process: whom to tell.
    type Process: Copy + PartialEq + Send;
    /// Where a message that comes in pieces is put together.
    type Buffer: Buffer;
}

/// Private memory for one message.
pub trait Buffer: Sized + Send {
    /// Room for `len` bytes. `None` if there is no memory.
    fn new(len: usize) -> Option<Self>;

    /// All of it. Only what was written may be relied on; the link writes all before it hands it over.
    fn room(&mut self) -> &mut [MaybeUninit<u8>];
}

/// Where a message goes that is in the ring in one piece: straight to its last place.
pub trait MessageSink {
    /// Makes room for a message of `len` bytes, maybe none. False if there is no memory.
    fn room(&mut self, len: usize) -> bool;

    /// Copies the message out, of as many bytes as the last `room`. Not called for an empty one.
    fn take(&mut self, bytes: Fragment<'_>);
}

/// Gathers many messages for one call.
pub trait BatchSink<B>: MessageSink {
    /// The next message is among at most so many bytes known to be in the ring, their headers included;
    /// 0 when that is not known. How much to make room for at once.
    fn expect(&mut self, bytes: usize);

    /// Keeps the message that [`MessageSink`] has.
    fn small(&mut self);

    /// Keeps a message that came in pieces.
    fn long(&mut self, message: B);
}

/// Tells processes. Called with no lock held; a receiver that is no more is no error.
pub trait Notifier<P> {
    /// A registered sender may try again.
    fn space(&self, to: P);

    /// A registered owner may try again.
    fn data(&self, to: P);

    /// The connection is to know. Called one at a time, in the order of the events.
    fn event(&self, event: Event);
}

/// Delivers messages to an active owner. Called with the receiving half locked.
pub trait Deliver<V: Vm>: MessageSink + Notifier<V::Process> {
    /// Delivers the message that [`MessageSink`] has. False if the owner is no more.
    fn small(&mut self, owner: V::Process) -> bool;

    /// Delivers a message that came in pieces. False if the owner is no more.
    fn long(&mut self, owner: V::Process, message: V::Buffer) -> bool;

    /// The count is used up.
    fn passive(&mut self, owner: V::Process);

    /// All is delivered and nothing more will come: `None` for a clean end.
    fn end(&mut self, owner: V::Process, reason: Option<crate::LinkError>);
}

/// For a link that data never flowed through: nobody waits, nobody listens.
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

    fn end(&mut self, _owner: V::Process, _reason: Option<crate::LinkError>) {}
}
