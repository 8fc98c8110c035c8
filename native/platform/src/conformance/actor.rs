//! Actors: the domains in a case.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::xen::query;
use crate::{Access, Ack, Domid, Error, EventChannel, Gref, Notify, PAGE, Pages, Platform};

/// Identifies pages that an actor has mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mapped(pub u32);

/// Identifies an event channel that an actor has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Channel(pub u32);

/// The system resources of an actor's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Footprint {
    /// Open descriptors.
    pub descriptors: usize,
    /// Shared mappings, and reserved address space.
    pub mappings: usize,
}

/// The trait [`Platform`] as plain data: the calls that a case can make in a domain. A handle that
/// is not open is a bug in the case, and panics.
#[allow(missing_docs)] // each is the call of the same name
pub trait Actor {
    fn domid(&self) -> Domid;
    fn share(
        &mut self,
        peer: Domid,
        pages: usize,
        access: Access,
        notify: Option<Notify>,
    ) -> Result<(Mapped, Vec<Gref>), Error>;
    fn map(
        &mut self,
        peer: Domid,
        refs: &[Gref],
        access: Access,
        notify: Option<Notify>,
    ) -> Result<Mapped, Error>;
    /// Drops pages.
    fn unmap(&mut self, pages: Mapped);
    /// Copies bytes from pages.
    fn peek(&self, pages: Mapped, offset: usize, len: usize) -> Vec<u8>;
    /// Copies bytes into pages.
    fn poke(&mut self, pages: Mapped, offset: usize, bytes: &[u8]);
    fn unbound(&mut self, peer: Domid) -> Result<(Channel, u32), Error>;
    fn bind(&mut self, peer: Domid, port: u32) -> Result<(Channel, u32), Error>;
    /// Drops a channel.
    fn close(&mut self, channel: Channel);
    fn notify(&self, channel: Channel) -> Result<(), Error>;
    /// Calls `notify` this many times, until one fails.
    fn notify_times(&self, channel: Channel, times: u32) -> Result<(), Error> {
        (0..times).try_for_each(|_| self.notify(channel))
    }
    fn acknowledge(&self, channel: Channel) -> Result<Ack, Error>;
    /// Whether the descriptor becomes readable within the limit.
    fn wait(&self, channel: Channel, limit: Duration) -> bool;
    /// A domain's home path, queried from xenstore on a new connection.
    fn home(&self, domid: Domid) -> Result<String, Error>;
    /// Whether the domain has not ended.
    fn alive(&self) -> Result<bool, Error>;
    fn footprint(&self) -> Footprint;
}

/// An actor in this process.
pub struct Member {
    platform: Box<dyn Platform>,
    pages: HashMap<Mapped, Pages>,
    channels: HashMap<Channel, Box<dyn EventChannel>>,
    last: u32,
}

impl Member {
    /// Acts for the domain of this membership.
    pub fn new(platform: impl Platform + 'static) -> Self {
        Self {
            platform: Box::new(platform),
            pages: HashMap::new(),
            channels: HashMap::new(),
            last: 0,
        }
    }

    fn insert_pages(&mut self, pages: Pages) -> Mapped {
        assert_eq!(pages.len(), pages.refs().len() * PAGE);
        assert_eq!(pages.ptr().as_ptr() as usize % PAGE, 0);
        self.last += 1;
        self.pages.insert(Mapped(self.last), pages);
        Mapped(self.last)
    }

    fn insert_channel(&mut self, channel: Box<dyn EventChannel>) -> (Channel, u32) {
        let port = channel.port();
        self.last += 1;
        self.channels.insert(Channel(self.last), channel);
        (Channel(self.last), port)
    }

    /// The bytes of pages, as atomics: the other side may be writing.
    fn bytes(&self, pages: Mapped, offset: usize, len: usize) -> impl Iterator<Item = &AtomicU8> {
        let pages = &self.pages[&pages];
        assert!(offset + len <= pages.len());
        (offset..offset + len).map(|at| {
            // SAFETY: inside the mapping, which the borrow of `pages` keeps; a case that pokes has
            // mapped for writing.
            unsafe { AtomicU8::from_ptr(pages.ptr().as_ptr().add(at)) }
        })
    }
}

impl Actor for Member {
    fn domid(&self) -> Domid {
        self.platform.domid()
    }

    fn share(
        &mut self,
        peer: Domid,
        pages: usize,
        access: Access,
        notify: Option<Notify>,
    ) -> Result<(Mapped, Vec<Gref>), Error> {
        let pages = self.platform.share(peer, pages, access, notify)?;
        let refs = pages.refs().to_vec();
        Ok((self.insert_pages(pages), refs))
    }

    fn map(
        &mut self,
        peer: Domid,
        refs: &[Gref],
        access: Access,
        notify: Option<Notify>,
    ) -> Result<Mapped, Error> {
        let pages = self.platform.map(peer, refs, access, notify)?;
        assert_eq!(pages.refs(), refs);
        Ok(self.insert_pages(pages))
    }

    fn unmap(&mut self, pages: Mapped) {
        self.pages.remove(&pages).expect("pages that are mapped");
    }

    fn peek(&self, pages: Mapped, offset: usize, len: usize) -> Vec<u8> {
        self.bytes(pages, offset, len)
            .map(|byte| byte.load(Ordering::Acquire))
            .collect()
    }

    fn poke(&mut self, pages: Mapped, offset: usize, bytes: &[u8]) {
        for (target, byte) in self.bytes(pages, offset, bytes.len()).zip(bytes) {
            target.store(*byte, Ordering::Release);
        }
    }

    fn unbound(&mut self, peer: Domid) -> Result<(Channel, u32), Error> {
        let channel = self.platform.evtchn_unbound(peer)?;
        Ok(self.insert_channel(channel))
    }

    fn bind(&mut self, peer: Domid, port: u32) -> Result<(Channel, u32), Error> {
        let channel = self.platform.evtchn_bind(peer, port)?;
        Ok(self.insert_channel(channel))
    }

    fn close(&mut self, channel: Channel) {
        self.channels.remove(&channel).expect("an open channel");
    }

    fn notify(&self, channel: Channel) -> Result<(), Error> {
        self.channels[&channel].notify()
    }

    fn acknowledge(&self, channel: Channel) -> Result<Ack, Error> {
        self.channels[&channel].acknowledge()
    }

    fn wait(&self, channel: Channel, limit: Duration) -> bool {
        let fd = self.channels[&channel].fd();
        readable(PollFd::from_borrowed_fd(fd, PollFlags::IN), limit)
    }

    fn home(&self, domid: Domid) -> Result<String, Error> {
        /// XS_GET_DOMAIN_PATH in xen/include/public/io/xs_wire.h.
        const GET_DOMAIN_PATH: u32 = 10;
        query(
            &self.platform.xenbus()?,
            GET_DOMAIN_PATH,
            &domid.to_string(),
        )
    }

    fn alive(&self) -> Result<bool, Error> {
        let life = self.platform.life()?;
        Ok(!readable(PollFd::new(&life, PollFlags::IN), Duration::ZERO))
    }

    fn footprint(&self) -> Footprint {
        let maps = fs::read_to_string("/proc/self/maps").expect("/proc");
        let ours = |line: &&str| {
            let mut words = line.split(' ');
            let range = words.next().unwrap_or_default();
            let access = words.next().unwrap_or_default();
            // Ignore a single page without access, which is the guard page of a thread's stack: the
            // C library keeps it for the next thread. Ignore a range that ends at a multiple of
            // `ARENA`, which is the rest of a malloc arena: malloc adds one when a thread starts
            // before the last has fully ended.
            let (size, end) = extent(range);
            access.ends_with('s') || access == "---p" && size > PAGE && !end.is_multiple_of(ARENA)
        };
        Footprint {
            descriptors: fs::read_dir("/proc/self/fd").expect("/proc").count(),
            mappings: maps.lines().filter(ours).count(),
        }
    }
}

/// Size and alignment of a malloc arena in glibc (`HEAP_MAX_SIZE`).
const ARENA: usize = 64 << 20;

/// Length and end of an address range in `/proc/self/maps`.
fn extent(range: &str) -> (usize, usize) {
    let address = |text| usize::from_str_radix(text, 16).unwrap_or(0);
    let (first, end) = range.split_once('-').unwrap_or_default();
    (address(end).saturating_sub(address(first)), address(end))
}

fn readable(fd: PollFd<'_>, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).expect("a few seconds");
    poll(&mut [fd], Some(&limit)).expect("poll") > 0
}
