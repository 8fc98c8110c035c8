//! Two domains in one process: pages from the allocator, socket pairs for event channels.

use super::NONCE;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::collections::HashMap;
use std::io::{ErrorKind as Io, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tube_platform::{
    Access, Ack, Domid, Errno, Error, EventChannel, Gref, Notify, PAGE, Pages, Platform,
};

/// What both domains know.
#[derive(Default)]
pub struct World {
    grants: Mutex<HashMap<Gref, (Arc<PrivateRing>, usize)>>,
    ports: Mutex<HashMap<u32, UnixStream>>,
    rung: AtomicUsize,
    next: AtomicUsize,
    /// Pages that may still be shared, plus one; 0 is no limit.
    pub room: AtomicUsize,
}

struct PrivateRing {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory, accessed by whoever maps it under the rules of shared pages.
unsafe impl Send for PrivateRing {}
// SAFETY: as above.
unsafe impl Sync for PrivateRing {}

impl Drop for PrivateRing {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and the last owner is gone.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// Keeps a mapping, and does at its end what unmap-notify does.
struct Keeper {
    block: Arc<PrivateRing>,
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
    pub world: Arc<World>,
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

    fn keeper(&self, block: &Arc<PrivateRing>, notify: Option<Notify>) -> Box<Keeper> {
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

    /// How many have the page behind `gref` mapped.
    pub fn mapped(&self, gref: Gref) -> usize {
        let grants = self.grants.lock().unwrap();
        let (block, _) = &grants[&gref];
        let granted = grants
            .values()
            .filter(|(other, _)| Arc::ptr_eq(block, other));
        Arc::strong_count(block) - granted.count()
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
        let block = Arc::new(PrivateRing { base, layout });
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
