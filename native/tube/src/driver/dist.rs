//! A link's port as a distribution controller: the packets that the VM puts out go into the ring, those
//! that come out of the ring go to the VM. Until the handshake of OTP is over, the process that carries
//! it out writes to the port and reads from the link, as anybody would who has a port.

use super::fragments::{Held, Next, Packet};
use super::message_buffer::{MessageBuffer, Whole};
use super::term::{ATOMS, Sender};
use crate::buffer::Buffer;
use crate::pid::Pid;
use crate::sys;
use crate::vm::Beam;
use std::cell::Cell;
use std::collections::VecDeque;
use tube_link::{Deliver, Event, Fragment, Link, LinkError, MessageSink, Notifier, Sent};

/// Longest packet of a peer that has not shown yet that it knows the cookie, in bytes: those of OTP's
/// handshake carry their length in two bytes with other carriers.
pub const STRANGER: u32 = 64 << 10;

/// Packets up to this size are copied out of the ring to one place, and the VM copies what it must keep;
/// for larger ones a binary is made that the VM keeps as it is. Bytes.
const SMALL: usize = 512;
/// So many pieces of work (256 KiB each, as the link bounds them) are put into the ring in one callback.
/// A reader that keeps up must not keep the port's scheduler here.
const ROUNDS: usize = 4;

/// What a port is while it carries a distribution connection.
pub struct Dist {
    port: sys::Port,
    /// Whom the link takes for the one sender there is, and who is told what becomes of the link.
    connection: Pid,
    events: Sender,
    intake: MessageBuffer<SMALL>,
    held: Held<Buffer>,
    /// Sizes of the packets in the port's queue, which itself knows only bytes.
    queued: VecDeque<usize>,
    /// Bytes of the first of them that are in the ring.
    sent: u64,
    busy: bool,
    /// The link says that there is room.
    room: Cell<bool>,
    /// Nothing more will come, or nothing more can be sent.
    ended: bool,
}

/// How far a packet has got.
enum Pushed {
    Whole,
    /// Until there is room.
    Wait(u64),
    /// Until the next callback, which is soon.
    Later(u64),
}

/// One piece of a packet.
#[repr(transparent)]
struct Piece(sys::IoVec);

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        match self.0.len {
            // May have no address.
            0 => &[],
            // SAFETY: `pieces` was promised that the bytes are readable for as long as this is borrowed.
            len => unsafe { std::slice::from_raw_parts(self.0.base, len) },
        }
    }
}

/// # Safety
/// `iov` are `count` pieces (or null, for none), and they and their bytes do not change for `'a`.
unsafe fn pieces<'a>(iov: *const sys::IoVec, count: usize) -> &'a [Piece] {
    match iov.is_null() {
        true => &[],
        // SAFETY: the caller's promise, and a `Piece` is laid out as what it wraps.
        false => unsafe { std::slice::from_raw_parts(iov.cast(), count) },
    }
}

impl Dist {
    /// For `port`, whose connection process hears of events from `events`.
    pub fn new(port: sys::Port, connection: Pid, events: Sender) -> Dist {
        Dist {
            port,
            connection,
            events,
            intake: MessageBuffer::new(),
            held: Held::nothing(),
            queued: VecDeque::new(),
            sent: 0,
            busy: false,
            room: Cell::new(false),
            ended: false,
        }
    }

    /// Is the connection over?
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// The VM puts out a packet.
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
                    self.come_back();
                }
                Err(refusal) => return self.refused(refusal),
            }
        }
        // All of it, sent or not: the link wants the same packet until it is whole.
        // SAFETY: in a callback of this port; the queue takes references of its own.
        unsafe { sys::driver_enqv(self.port, vector, 0) };
        self.queued.push_back(size);
        self.set_busy(true);
    }

    /// An empty packet, which says that this node is alive. With others under way there is no need.
    pub fn tick(&mut self, link: &Link<Beam>) {
        if self.queued.is_empty()
            && let Err(refusal) = self.push::<&[u8]>(link, &[], 0)
        {
            self.refused(refusal);
        }
    }

    /// Goes on with what is queued, if the link has said that there is room or a callback ended early.
    pub fn go_on(&mut self, link: &Link<Beam>) {
        let mut rounds = ROUNDS;
        self.room.set(false);
        while let Some(&size) = self.queued.front() {
            if rounds == 0 {
                return self.come_back();
            }
            rounds -= 1;
            let mut count = 0;
            // SAFETY: in a callback of this port; the queue does not change before `driver_deq`.
            let queue = unsafe { pieces(sys::driver_peekq(self.port, &mut count), count as usize) };
            match self.push(link, &first(queue, size), self.sent) {
                Ok(Pushed::Whole) => {
                    self.sent = 0;
                    self.queued.pop_front();
                    // SAFETY: in a callback of this port, and this many bytes are there.
                    unsafe { sys::driver_deq(self.port, size) };
                }
                Ok(Pushed::Wait(sent)) => return self.sent = sent,
                Ok(Pushed::Later(sent)) => {
                    self.sent = sent;
                    return self.come_back();
                }
                Err(refusal) => return self.refused(refusal),
            }
        }
        self.set_busy(false);
    }

    /// Is there something for [`go_on`](Self::go_on) to do?
    pub fn has_room(&self) -> bool {
        self.room.get()
    }

    /// Throws away what is queued: the VM ends the port when nothing is.
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

    /// The link takes no more packets.
    fn refused(&mut self, refusal: LinkError) {
        self.discard();
        self.set_busy(false);
        // When the peer has gone, what it sent before comes first: then the bell tells. But a packet that
        // the peer does not take would be missing in its stream.
        let gone = [
            LinkError::Closed,
            LinkError::PeerDown,
            LinkError::DomainGone,
            LinkError::Suspended,
        ];
        if !gone.contains(&refusal) {
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

    fn come_back(&self) {
        self.room.set(true);
        // SAFETY: in a callback of this port.
        unsafe { sys::driver_set_timer(self.port, 0) };
    }
}

/// The first `size` bytes of a queue. Packets in it may share a piece.
fn first(queue: &[Piece], size: usize) -> Vec<&[u8]> {
    let mut left = size;
    let mut parts = Vec::new();
    for piece in queue {
        if left == 0 {
            break;
        }
        let bytes = piece.as_ref();
        let bytes = &bytes[..bytes.len().min(left)];
        left -= bytes.len();
        parts.push(bytes);
    }
    parts
}

/// Hands a packet to the VM, from `begin` on; in a callback of this port. False if it takes none any more.
fn hand_over(port: sys::Port, packet: &Buffer, begin: usize) -> bool {
    let len = packet.len() - begin;
    // SAFETY: in a callback of this port; the VM takes a reference of its own, and nobody writes to the
    // binary any more.
    unsafe {
        let none = std::ptr::null();
        sys::driver_output_binary(port, none, 0, packet.as_ptr(), begin, len) >= 0
    }
}

impl MessageSink for Dist {
    fn room(&mut self, len: usize) -> bool {
        self.intake.room(len)
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        self.intake.take(bytes);
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
        match self.intake.whole() {
            Whole::Copied(bytes) => match self.held.next(bytes) {
                Next::Joined(packet, begin) => hand_over(port, &packet, begin),
                Next::Apart(first) => {
                    first.is_none_or(|first| hand_over(port, &first, 0))
                        // SAFETY: in a callback of this port; the VM copies the bytes.
                        && unsafe { sys::driver_output(port, bytes.as_ptr(), bytes.len()) >= 0 }
                }
            },
            Whole::Kept(binary) => self.long(owner, binary),
        }
    }

    fn long(&mut self, _owner: Pid, packet: Buffer) -> bool {
        let port = self.port;
        let first = self.held.let_go();
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
        self.room.set(true);
    }

    // For the process of the handshake, and for a poller: packets themselves go to the VM.
    fn data(&self, to: Pid) {
        self.events.wake(to, ATOMS.our_data);
    }

    fn event(&self, event: Event) {
        self.events.report(event);
    }
}
