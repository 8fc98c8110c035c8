//! A link's port as a distribution controller: packets of the VM go into the ring, packets out of
//! the ring go to the VM. Until OTP's handshake is over, the process that carries it out writes to
//! the port and reads from the link, as with any other port.

use super::delivery::{Message, MessageBuffer};
use super::fragments::{Held, Next, Packet};
use super::iovec::{Piece, pieces, prefix};
use super::term::{ATOMS, Sender};
use crate::Beam;
use crate::buffer::Buffer;
use crate::pid::Pid;
use crate::sys;
use std::cell::Cell;
use std::collections::VecDeque;
use tube_link::{Deliver, Event, Fragment, Link, LinkError, MessageSink, Notifier, Sent};

/// Longest packet of a peer that has not yet shown that it knows the cookie, in bytes. Other
/// carriers give the length of handshake packets in two bytes.
pub const MAX_UNAUTHENTICATED: u32 = 64 << 10;

/// Packets up to this size are copied out of the ring to one place, from where the VM copies what
/// it keeps. A larger one gets a binary that the VM keeps as it is. Bytes.
const INLINE: usize = 512;
/// Calls of the link (of [`CALL_BYTES`](crate::limits::CALL_BYTES) each) in one callback. Without a
/// limit a reader that keeps up would keep this port's scheduler here.
const ROUNDS: usize = 4;

/// The state of a port that carries a distribution connection.
pub struct Dist {
    port: sys::Port,
    /// The only sender that the link knows, and the receiver of the link's events.
    connection: Pid,
    sender: Sender,
    buffer: MessageBuffer<INLINE>,
    held: Held<Buffer>,
    /// Sizes of the packets in the port's queue, which itself only counts bytes.
    queued: VecDeque<usize>,
    /// Bytes of the first queued packet that are in the ring.
    sent: u64,
    busy: bool,
    /// There may be space in the ring for queued packets.
    space: Cell<bool>,
    /// No more packets will come, or none can be sent.
    ended: bool,
}

/// Progress of a packet into the ring.
enum Pushed {
    Whole,
    /// So many bytes are there. Wait for space.
    Wait(u64),
    /// So many bytes are there. Continue in the next callback, which is soon.
    Later(u64),
}

impl Dist {
    /// For `port`. Its connection process gets events through `sender`.
    pub fn new(port: sys::Port, connection: Pid, sender: Sender) -> Dist {
        Dist {
            port,
            connection,
            sender,
            buffer: MessageBuffer::new(),
            held: Held::new(),
            queued: VecDeque::new(),
            sent: 0,
            busy: false,
            space: Cell::new(false),
            ended: false,
        }
    }

    /// Has the distribution connection ended?
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Sends a packet of the VM, or queues it.
    ///
    /// # Safety
    /// `vector` is that of an `outputv` callback of this port.
    pub unsafe fn output(&mut self, link: &Link<Beam>, vector: *mut sys::ErlIoVec) {
        // SAFETY: the caller's promise; the vector is untouched until `driver_enqv`.
        let (parts, size) = unsafe {
            let count = (*vector).vsize as usize;
            (pieces((*vector).iov, count), (*vector).size)
        };
        if self.queued.is_empty() {
            match self.push(link, parts, 0) {
                Ok(Pushed::Whole) => return,
                Ok(Pushed::Wait(sent)) => self.sent = sent,
                Ok(Pushed::Later(sent)) => {
                    self.sent = sent;
                    self.continue_later();
                }
                Err(error) => return self.fail(error),
            }
        }
        // Queue the whole packet, sent bytes too: the link takes the same packet until it is
        // complete.
        // SAFETY: in a callback of this port; the queue takes its own references.
        unsafe { sys::driver_enqv(self.port, vector, 0) };
        self.queued.push_back(size);
        self.set_busy(true);
    }

    /// Sends an empty packet as a sign of life, unless others are queued.
    pub fn tick(&mut self, link: &Link<Beam>) {
        if self.queued.is_empty()
            && let Err(error) = self.push::<&[u8]>(link, &[], 0)
        {
            self.fail(error);
        }
    }

    /// Sends queued packets. Call it after the link has reported space, or a callback stopped
    /// early.
    pub fn send_queued(&mut self, link: &Link<Beam>) {
        let mut rounds = ROUNDS;
        self.space.set(false);
        while let Some(&size) = self.queued.front() {
            if rounds == 0 {
                return self.continue_later();
            }
            rounds -= 1;
            let pushed = self.push(link, &prefix(self.queue(), size), self.sent);
            match pushed {
                Ok(Pushed::Whole) => {
                    self.sent = 0;
                    self.queued.pop_front();
                    // SAFETY: in a callback of this port, and this many bytes are queued.
                    unsafe { sys::driver_deq(self.port, size) };
                }
                Ok(Pushed::Wait(sent)) => return self.sent = sent,
                Ok(Pushed::Later(sent)) => {
                    self.sent = sent;
                    return self.continue_later();
                }
                Err(error) => return self.fail(error),
            }
        }
        self.set_busy(false);
    }

    /// Is there reason to call [`send_queued`](Self::send_queued)?
    pub fn has_space(&self) -> bool {
        self.space.get()
    }

    /// Drops queued packets. The VM closes a port only when its queue is empty.
    pub fn discard(&mut self) {
        self.queued.clear();
        self.sent = 0;
        // SAFETY: in a callback of this port.
        unsafe { sys::driver_deq(self.port, sys::driver_sizeq(self.port)) };
    }

    fn push<B: AsRef<[u8]>>(
        &self,
        link: &Link<Beam>,
        parts: &[B],
        sent: u64,
    ) -> Result<Pushed, LinkError> {
        let mut sent = sent;
        for _ in 0..ROUNDS {
            match link.send_parts(self.connection, parts, sent, self)? {
                Sent::Whole => return Ok(Pushed::Whole),
                Sent::Wait(sent) => return Ok(Pushed::Wait(sent)),
                Sent::More(more) => sent = more,
            }
        }
        Ok(Pushed::Later(sent))
    }

    /// The port's queue.
    fn queue(&self) -> &[Piece] {
        let mut count = 0;
        // SAFETY: in a callback of this port; the queue does not change before `driver_deq`.
        unsafe { pieces(sys::driver_peekq(self.port, &mut count), count as usize) }
    }

    /// The link takes no more packets.
    fn fail(&mut self, error: LinkError) {
        self.discard();
        self.set_busy(false);
        // When the peer has gone, the packets that it sent before come first; a notification then
        // reports the end. Any other error leaves a gap in the stream, so the connection ends here.
        let gone = [
            LinkError::Closed,
            LinkError::PeerDown,
            LinkError::DomainGone,
            LinkError::Suspended,
        ];
        if !gone.contains(&error) {
            self.ended = true;
        }
    }

    fn set_busy(&mut self, busy: bool) {
        if self.busy != busy {
            self.busy = busy;
            // SAFETY: in a callback of this port.
            unsafe { sys::set_busy_port(self.port, busy.into()) };
        }
    }

    fn continue_later(&self) {
        self.space.set(true);
        // SAFETY: in a callback of this port.
        unsafe { sys::driver_set_timer(self.port, 0) };
    }
}

/// Hands a packet to the VM, from byte `begin` on, in a callback of `port`. False if the VM takes
/// no more.
fn hand_over(port: sys::Port, packet: &Buffer, begin: usize) -> bool {
    let len = packet.len() - begin;
    // SAFETY: in a callback of this port; the VM takes its own reference, and nothing writes to the
    // binary any more.
    unsafe {
        let none = std::ptr::null();
        sys::driver_output_binary(port, none, 0, packet.as_ptr(), begin, len) >= 0
    }
}

impl MessageSink for Dist {
    fn room(&mut self, len: usize) -> bool {
        self.buffer.room(len)
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        self.buffer.take(bytes);
    }
}

impl Packet for Buffer {
    fn bytes(&mut self) -> &mut [u8] {
        self.filled_mut()
    }

    fn append(&mut self, bytes: &[u8]) -> bool {
        Buffer::append(self, bytes)
    }
}

impl Deliver<Beam> for Dist {
    fn small(&mut self, owner: Pid) -> bool {
        let port = self.port;
        match self.buffer.message() {
            Message::Inline(bytes) => match self.held.next(bytes) {
                Next::Joined(packet, begin) => hand_over(port, &packet, begin),
                Next::Apart(first) => {
                    first.is_none_or(|first| hand_over(port, &first, 0))
                        // SAFETY: in a callback of this port; the VM copies the bytes.
                        && unsafe { sys::driver_output(port, bytes.as_ptr(), bytes.len()) >= 0 }
                }
            },
            Message::Binary(binary) => self.long(owner, binary),
        }
    }

    fn long(&mut self, _owner: Pid, packet: Buffer) -> bool {
        let port = self.port;
        let first = self.held.take();
        first.is_none_or(|first| hand_over(port, &first, 0))
            && (self.held.hold(packet)).is_none_or(|packet| hand_over(port, &packet, 0))
    }

    fn passive(&mut self, _owner: Pid) {}

    fn end(&mut self, _owner: Pid, _reason: Option<LinkError>) {
        self.ended = true;
    }
}

impl Notifier<Pid> for Dist {
    fn space(&self, _to: Pid) {
        self.space.set(true);
    }

    // For the process of the handshake, and for a busy poller. Packets go to the VM.
    fn data(&self, to: Pid) {
        self.sender.wake(to, ATOMS.our_data);
    }

    fn event(&self, event: Event) {
        self.sender.report(event);
    }
}
