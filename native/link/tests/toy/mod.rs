//! A toy platform and a toy VM: two domains in one process, pages from the allocator, socket pairs for event
//! channels, processes that are numbers.

// Each test file has its own copy and uses a part of it.
#![allow(dead_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{ErrorKind as Io, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tube_link::{
    Buffer, Event, Flow, Fragment, Herald, Link, Offer, Outlet, Refs, Refusal, Small, Vm,
};
use tube_platform::{
    Access, Ack, Domid, Errno, Error, EventChannel, Gref, Notify, PAGE, Pages, Platform,
};

/// What both domains know.
#[derive(Default)]
pub struct World {
    grants: Mutex<HashMap<Gref, (Arc<Block>, usize)>>,
    ports: Mutex<HashMap<u32, UnixStream>>,
    rung: AtomicUsize,
    next: AtomicUsize,
    /// Pages that may still be shared, plus one; 0 is no limit.
    pub room: AtomicUsize,
}

struct Block {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory, accessed by whoever maps it under the rules of shared pages.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and the last owner is gone.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// Keeps a mapping, and does at its end what unmap-notify does.
struct Keeper {
    block: Arc<Block>,
    notify: Option<(usize, Arc<Mutex<UnixStream>>)>,
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some((offset, bell)) = &self.notify {
            // SAFETY: within page 0 of the block; live bytes are atomics to everybody.
            let byte = unsafe {
                self.block
                    .base
                    .add(*offset)
                    .cast::<std::sync::atomic::AtomicU8>()
                    .as_ref()
            };
            byte.store(0, Ordering::Release);
            _ = bell.lock().unwrap().write(&[1]);
        }
    }
}

/// One domain.
pub struct Toy {
    world: Arc<World>,
    domid: Domid,
    channels: Mutex<HashMap<u32, Arc<Mutex<UnixStream>>>>,
}

impl Toy {
    /// Two domains of one world, 1 and 2.
    pub fn pair() -> (Toy, Toy) {
        let world = Arc::new(World::default());
        (Toy::of(&world, 1), Toy::of(&world, 2))
    }

    fn of(world: &Arc<World>, domid: Domid) -> Toy {
        Toy {
            world: world.clone(),
            domid,
            channels: Mutex::default(),
        }
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    fn keeper(&self, block: &Arc<Block>, notify: Option<Notify>) -> Box<Keeper> {
        let channels = self.channels.lock().unwrap();
        Box::new(Keeper {
            block: block.clone(),
            notify: notify.map(|notify| (notify.offset, channels[&notify.port].clone())),
        })
    }

    fn channel(&self, port: u32, end: UnixStream) -> Box<dyn EventChannel> {
        end.set_nonblocking(true).unwrap();
        let bell = Arc::new(Mutex::new(end.try_clone().unwrap()));
        self.channels.lock().unwrap().insert(port, bell);
        Box::new(ToyChannel {
            port,
            end,
            world: self.world.clone(),
        })
    }
}

impl World {
    fn number(&self) -> u32 {
        1 + self.next.fetch_add(1, Ordering::Relaxed) as u32
    }

    /// Bells rung so far, by anybody.
    pub fn rung(&self) -> usize {
        self.rung.load(Ordering::Relaxed)
    }

    /// The first byte behind `gref`, to play the hostile peer.
    pub fn page(&self, gref: Gref) -> NonNull<u8> {
        let grants = self.grants.lock().unwrap();
        let (block, page) = &grants[&gref];
        // SAFETY: within the block.
        unsafe { block.base.add(page * PAGE) }
    }
}

impl World {
    /// The first data page of the ring whose control page is `gref`.
    pub fn data(&self, gref: Gref) -> *mut u8 {
        // SAFETY: the test has a link whose page this is.
        let control = unsafe { tube_ring::ControlPage::from_raw(self.page(gref)) };
        let direction = tube_ring::Direction::Tx;
        self.page(control.check(direction, NONCE).unwrap().grefs[0])
            .as_ptr()
    }
}

impl Platform for Toy {
    fn name(&self) -> &'static str {
        "toy"
    }

    fn domid(&self) -> Domid {
        self.domid
    }

    fn share(
        &self,
        _peer: Domid,
        pages: usize,
        _access: Access,
        notify: Option<Notify>,
    ) -> Result<Pages, Error> {
        let room = self.world.room.load(Ordering::Relaxed);
        if room > 0 && room <= pages {
            return Err(Error::posix(Errno::NOSPC, "share"));
        }
        let layout = Layout::from_size_align(pages * PAGE, PAGE).unwrap();
        // SAFETY: the size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        let block = Arc::new(Block { base, layout });
        let refs: Vec<Gref> = (0..pages).map(|_| self.world.number()).collect();
        let mut grants = self.world.grants.lock().unwrap();
        for (page, gref) in refs.iter().enumerate() {
            grants.insert(*gref, (block.clone(), page));
        }
        // SAFETY: the block holds so many pages, and the keeper holds the block.
        Ok(unsafe { Pages::from_raw(base, refs, self.keeper(&block, notify)) })
    }

    fn map(
        &self,
        _peer: Domid,
        refs: &[Gref],
        _access: Access,
        notify: Option<Notify>,
    ) -> Result<Pages, Error> {
        let grants = self.world.grants.lock().unwrap();
        let (block, first) = grants
            .get(&refs[0])
            .ok_or_else(|| Error::posix(Errno::NOENT, "map"))?;
        // SAFETY: within the block.
        let base = unsafe { block.base.add(first * PAGE) };
        // SAFETY: as for `share`; the tests map whole shares, in order.
        Ok(unsafe { Pages::from_raw(base, refs.to_vec(), self.keeper(block, notify)) })
    }

    fn evtchn_unbound(&self, _peer: Domid) -> Result<Box<dyn EventChannel>, Error> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let port = self.world.number();
        self.world.ports.lock().unwrap().insert(port, theirs);
        Ok(self.channel(port, ours))
    }

    fn evtchn_bind(&self, _peer: Domid, port: u32) -> Result<Box<dyn EventChannel>, Error> {
        let end = self.world.ports.lock().unwrap().remove(&port);
        let end = end.ok_or_else(|| Error::posix(Errno::NOENT, "bind"))?;
        Ok(self.channel(self.world.number(), end))
    }

    fn xenbus(&self) -> Result<OwnedFd, Error> {
        Err(Error::posix(Errno::NOSYS, "xenbus"))
    }

    fn life(&self) -> Result<OwnedFd, Error> {
        Err(Error::posix(Errno::NOSYS, "life"))
    }
}

struct ToyChannel {
    port: u32,
    end: UnixStream,
    world: Arc<World>,
}

impl EventChannel for ToyChannel {
    fn port(&self) -> u32 {
        self.port
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    fn notify(&self) -> Result<(), Error> {
        self.world.rung.fetch_add(1, Ordering::Relaxed);
        match (&self.end).write(&[1]) {
            Ok(_) => Ok(()),
            Err(error) if error.kind() == Io::WouldBlock => Ok(()),
            Err(_) => Err(Error::posix(Errno::PIPE, "notify")),
        }
    }

    fn acknowledge(&self) -> Result<Ack, Error> {
        match (&self.end).read(&mut [0; 64]) {
            Ok(0) => Ok(Ack::PeerGone),
            Err(error) if error.kind() == Io::ConnectionReset => Ok(Ack::PeerGone),
            _ => Ok(Ack::Open),
        }
    }
}

/// The toy VM.
pub struct Machine;

pub type Process = u32;

impl Vm for Machine {
    type Process = Process;
    type Buffer = Bytes;
}

/// A buffer, until the allowance of its thread is used up.
#[derive(Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

thread_local! {
    /// Set to make every allocation fail.
    pub static NO_MEMORY: RefCell<bool> = const { RefCell::new(false) };
}

impl Buffer for Bytes {
    fn new(len: usize) -> Option<Bytes> {
        NO_MEMORY
            .with(|none| !*none.borrow())
            .then(|| Bytes(vec![0; len]))
    }

    fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        let len = self.0.len();
        // SAFETY: initialised bytes may be seen as maybe initialised, and what is written stays so.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }
}

/// What was told to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Space(Process),
    Data(Process),
    Event(Event),
    Message(Process, Vec<u8>),
    Passive(Process),
    End(Process, Option<Refusal>),
}

/// Hears everything.
#[derive(Default)]
pub struct Ear {
    told: RefCell<Vec<Told>>,
    message: Vec<u8>,
    /// Deliveries to this process fail.
    pub dead: Option<Process>,
}

impl Ear {
    /// What was told since the last time.
    pub fn take(&self) -> Vec<Told> {
        self.told.take()
    }

    /// The message taken last.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    fn hear(&self, told: Told) {
        self.told.borrow_mut().push(told);
    }

    fn deliver(&mut self, owner: Process, message: Vec<u8>) -> bool {
        if self.dead == Some(owner) {
            return false;
        }
        self.hear(Told::Message(owner, message));
        true
    }
}

impl Small for Ear {
    fn room(&mut self, len: usize) -> bool {
        self.message = Vec::with_capacity(len);
        NO_MEMORY.with(|none| !*none.borrow())
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        bytes.append_to(&mut self.message);
    }
}

impl Herald<Process> for Ear {
    fn space(&self, to: Process) {
        self.hear(Told::Space(to));
    }

    fn data(&self, to: Process) {
        self.hear(Told::Data(to));
    }

    fn event(&self, event: Event) {
        self.hear(Told::Event(event));
    }
}

impl Outlet<Machine> for Ear {
    fn small(&mut self, owner: Process) -> bool {
        let message = std::mem::take(&mut self.message);
        self.deliver(owner, message)
    }

    fn long(&mut self, owner: Process, message: Bytes) -> bool {
        self.deliver(owner, message.0)
    }

    fn passive(&mut self, owner: Process) {
        self.hear(Told::Passive(owner));
    }

    fn end(&mut self, owner: Process, reason: Option<Refusal>) {
        self.hear(Told::End(owner, reason));
    }
}

/// Owner of the tip in these tests, and of the nock.
pub const ALICE: Process = 1;
pub const BOB: Process = 2;

/// One tube: both ends, started, with nothing pending.
pub struct Tube {
    pub tip: Link<Machine>,
    pub nock: Link<Machine>,
    pub refs: Refs,
    pub world: Arc<World>,
}

/// A tube with rings of 2^order pages that takes messages of up to 64 MiB.
pub fn tube(order: u32) -> Tube {
    tube_with(order, 64 << 20)
}

/// A tube with a limit on messages, the same for both ends.
pub fn tube_with(order: u32, max_message: u32) -> Tube {
    let (one, two) = Toy::pair();
    let (tip, refs) = Link::share(&one, offer(order, max_message)).unwrap();
    let named = (refs.tx_ring_ref, refs.rx_ring_ref, refs.event_channel);
    let nock = Link::map(&two, 1, named, NONCE, max_message).unwrap();
    for (link, owner) in [(&tip, ALICE), (&nock, BOB)] {
        let mut ear = Ear::default();
        link.start(owner).unwrap();
        assert_eq!(link.resume(&mut ear), Flow::Idle);
        assert_eq!(ear.take(), []);
    }
    let world = one.world.clone();
    Tube {
        tip,
        nock,
        refs,
        world,
    }
}

pub const NONCE: u64 = 0x0123_4567_89ab_cdef;

pub fn offer(order: u32, max_message: u32) -> Offer {
    Offer {
        peer: 2,
        order_tx: order,
        order_rx: order,
        nonce: NONCE,
        max_message,
    }
}

/// Bytes that tell where they come from.
pub fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed)
        .collect()
}

/// Waits until the link's descriptor is readable; fails rather than hang.
pub fn sleep(link: &Link<Machine>) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let channel = link.channel().unwrap();
    // SAFETY: the channel, and with it the descriptor, is held until the poll is over.
    let fd = unsafe { BorrowedFd::borrow_raw(channel.fd()) };
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ready, 1, "a wake-up was lost");
}

/// Writes a byte of a shared page, as a peer can.
pub fn poke(page: NonNull<u8>, offset: usize, value: u8) {
    assert!(offset < PAGE);
    // SAFETY: within the page; the test's links access it through atomics, and so do we.
    let byte = unsafe {
        page.add(offset)
            .cast::<std::sync::atomic::AtomicU8>()
            .as_ref()
    };
    byte.store(value, Ordering::SeqCst);
}

/// Writes a word of a shared page, as a peer can.
pub fn poke_word(page: NonNull<u8>, offset: usize, value: u32) {
    assert!(offset + 4 <= PAGE && offset.is_multiple_of(4));
    // SAFETY: as for `poke`.
    let word = unsafe {
        page.add(offset)
            .cast::<std::sync::atomic::AtomicU32>()
            .as_ref()
    };
    word.store(value.to_le(), Ordering::SeqCst);
}
