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

/// What the two domains share.
#[derive(Default)]
pub struct Host {
    grants: Mutex<HashMap<Gref, (Arc<Allocation>, usize)>>,
    ports: Mutex<HashMap<u32, UnixStream>>,
    notifications: AtomicUsize,
    next: AtomicUsize,
    /// Most pages that one call can share, plus one; 0 is no limit.
    pub room: AtomicUsize,
}

struct Allocation {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: plain memory, accessed by its mappers under the rules of shared pages.
unsafe impl Send for Allocation {}
// SAFETY: as above.
unsafe impl Sync for Allocation {}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and the last owner is gone.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

/// Keeps a mapping, and acts as unmap-notify when it is dropped.
struct Mapping {
    memory: Arc<Allocation>,
    notify: Option<(usize, Arc<Mutex<UnixStream>>)>,
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if let Some((offset, channel)) = &self.notify {
            // SAFETY: within page 0 of the memory; all accesses to live bytes are atomic.
            let byte = unsafe {
                self.memory
                    .base
                    .add(*offset)
                    .cast::<std::sync::atomic::AtomicU8>()
                    .as_ref()
            };
            byte.store(0, Ordering::Release);
            _ = channel.lock().unwrap().write(&[1]);
        }
    }
}

/// One domain.
pub struct TestPlatform {
    pub host: Arc<Host>,
    domid: Domid,
    channels: Mutex<HashMap<u32, Arc<Mutex<UnixStream>>>>,
}

impl TestPlatform {
    /// Two domains of one host: 1 and 2.
    pub fn pair() -> (TestPlatform, TestPlatform) {
        let host = Arc::new(Host::default());
        (TestPlatform::of(&host, 1), TestPlatform::of(&host, 2))
    }

    fn of(host: &Arc<Host>, domid: Domid) -> TestPlatform {
        TestPlatform {
            host: host.clone(),
            domid,
            channels: Mutex::default(),
        }
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    fn mapping(&self, memory: &Arc<Allocation>, notify: Option<Notify>) -> Box<Mapping> {
        let channels = self.channels.lock().unwrap();
        Box::new(Mapping {
            memory: memory.clone(),
            notify: notify.map(|notify| (notify.offset, channels[&notify.port].clone())),
        })
    }

    fn channel(&self, port: u32, end: UnixStream) -> Box<dyn EventChannel> {
        end.set_nonblocking(true).unwrap();
        let notifier = Arc::new(Mutex::new(end.try_clone().unwrap()));
        self.channels.lock().unwrap().insert(port, notifier);
        Box::new(TestChannel {
            port,
            end,
            host: self.host.clone(),
        })
    }
}

impl Host {
    fn number(&self) -> u32 {
        1 + self.next.fetch_add(1, Ordering::Relaxed) as u32
    }

    /// Notifications sent so far, by both domains.
    pub fn notifications(&self) -> usize {
        self.notifications.load(Ordering::Relaxed)
    }

    /// The number of mappings of the page of `gref`.
    pub fn mapped(&self, gref: Gref) -> usize {
        let grants = self.grants.lock().unwrap();
        let (memory, _) = &grants[&gref];
        let granted = grants
            .values()
            .filter(|(other, _)| Arc::ptr_eq(memory, other));
        Arc::strong_count(memory) - granted.count()
    }

    /// The page of `gref`, to act as a hostile peer.
    pub fn page(&self, gref: Gref) -> NonNull<u8> {
        let grants = self.grants.lock().unwrap();
        let (memory, page) = &grants[&gref];
        // SAFETY: within the memory.
        unsafe { memory.base.add(page * PAGE) }
    }
}

impl Host {
    /// The first data page of the ring whose control page is `gref`.
    pub fn data(&self, gref: Gref) -> *mut u8 {
        // SAFETY: the test has a link with this page.
        let control = unsafe { tube_ring::ControlPage::from_raw(self.page(gref)) };
        let direction = tube_ring::Direction::Tx;
        self.page(control.check(direction, NONCE).unwrap().grefs[0])
            .as_ptr()
    }
}

impl Platform for TestPlatform {
    fn name(&self) -> &'static str {
        "test"
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
        let room = self.host.room.load(Ordering::Relaxed);
        if room > 0 && room <= pages {
            return Err(Error::posix(Errno::NOSPC, "share"));
        }
        let layout = Layout::from_size_align(pages * PAGE, PAGE).unwrap();
        // SAFETY: the size is not zero.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).unwrap();
        let memory = Arc::new(Allocation { base, layout });
        let refs: Vec<Gref> = (0..pages).map(|_| self.host.number()).collect();
        let mut grants = self.host.grants.lock().unwrap();
        for (page, gref) in refs.iter().enumerate() {
            grants.insert(*gref, (memory.clone(), page));
        }
        // SAFETY: the memory holds so many pages, and the mapping holds it.
        Ok(unsafe { Pages::from_raw(base, refs, self.mapping(&memory, notify)) })
    }

    fn map(
        &self,
        _peer: Domid,
        refs: &[Gref],
        _access: Access,
        notify: Option<Notify>,
    ) -> Result<Pages, Error> {
        let grants = self.host.grants.lock().unwrap();
        let (memory, first) = grants
            .get(&refs[0])
            .ok_or_else(|| Error::posix(Errno::NOENT, "map"))?;
        // SAFETY: within the memory.
        let base = unsafe { memory.base.add(first * PAGE) };
        // SAFETY: as for `share`; the tests map whole shares, in order.
        Ok(unsafe { Pages::from_raw(base, refs.to_vec(), self.mapping(memory, notify)) })
    }

    fn evtchn_unbound(&self, _peer: Domid) -> Result<Box<dyn EventChannel>, Error> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let port = self.host.number();
        self.host.ports.lock().unwrap().insert(port, theirs);
        Ok(self.channel(port, ours))
    }

    fn evtchn_bind(&self, _peer: Domid, port: u32) -> Result<Box<dyn EventChannel>, Error> {
        let end = self.host.ports.lock().unwrap().remove(&port);
        let end = end.ok_or_else(|| Error::posix(Errno::NOENT, "bind"))?;
        Ok(self.channel(self.host.number(), end))
    }

    fn xenbus(&self) -> Result<OwnedFd, Error> {
        Err(Error::posix(Errno::NOSYS, "xenbus"))
    }

    fn life(&self) -> Result<OwnedFd, Error> {
        Err(Error::posix(Errno::NOSYS, "life"))
    }
}

struct TestChannel {
    port: u32,
    end: UnixStream,
    host: Arc<Host>,
}

impl EventChannel for TestChannel {
    fn port(&self) -> u32 {
        self.port
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    fn notify(&self) -> Result<(), Error> {
        self.host.notifications.fetch_add(1, Ordering::Relaxed);
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
