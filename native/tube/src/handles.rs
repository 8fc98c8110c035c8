//! The links and streams behind the ids, for both NIF and driver.
//!
//! This module and [`crate::nif::sender_monitor`] depend on each other: a link's slot keeps the
//! monitor of its sender, and that resource's down callback has nothing but an id to find the link
//! by.

use crate::Beam;
use crate::nif::sender_monitor::SenderMonitor;
use crate::pid::Pid;
use crate::slab::{Cache, Id, Slab};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tube_link::Link;

static LINKS: Slab<LinkSlot> = Slab::new();
static STREAMS: Slab<Mutex<Option<File>>> = Slab::new();
static OPEN_STREAMS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static CACHE: Cache<LinkSlot> = const { Cache::new() };
}

/// A link, with what NIF and driver keep about it.
pub struct LinkSlot {
    /// The link itself. When closed it is an empty shell.
    pub link: Link<Beam>,
    /// Set once, before data starts to flow.
    pub binding: OnceLock<Binding>,
    /// Monitors the sender of a message that is partly in the ring.
    pub sender_monitor: Mutex<Option<SenderMonitor>>,
    has_port: AtomicBool,
}

impl LinkSlot {
    /// Does the link carry a distribution connection?
    pub fn is_dist(&self) -> bool {
        matches!(self.binding.get(), Some(binding) if binding.mode == Mode::Dist)
    }
}

/// The processes of a link, and how it delivers.
#[derive(Clone, Copy)]
pub struct Binding {
    /// The connection process: owns the port, gets the events.
    pub connection: Pid,
    /// The first owner of the receiving side.
    pub owner: Pid,
    /// How an active owner gets messages.
    pub mode: Mode,
}

/// How messages are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As `{:tube, tube, binary}`.
    Tube,
    /// As `{pid, {:data, binary}}`.
    Port,
    /// As packets, to the VM's distribution.
    Dist,
}

/// Gives `link` an id.
pub fn insert_link(link: Link<Beam>) -> Option<Id> {
    LINKS.insert(LinkSlot {
        link,
        binding: OnceLock::new(),
        sender_monitor: Mutex::new(None),
        has_port: AtomicBool::new(false),
    })
}

/// The link with this id, to keep.
pub fn link(id: Id) -> Option<Arc<LinkSlot>> {
    LINKS.get(id)
}

/// Calls `f` with the link `id`. Cheap enough for millions of calls a second. The link may have
/// been closed meanwhile.
pub fn with_link<R>(id: Id, f: impl FnOnce(&LinkSlot) -> R) -> Option<R> {
    CACHE.with(|cache| cache.with(&LINKS, id, f))
}

/// The link `id`, for its one port. `None` if there is no such link or it has a port.
pub fn claim_link(id: Id) -> Option<Arc<LinkSlot>> {
    let slot = LINKS.get(id)?;
    let claimed = slot.has_port.swap(true, Ordering::AcqRel);
    (!claimed).then_some(slot)
}

/// Frees the id. The caller closes the link.
pub fn remove_link(id: Id) -> Option<Arc<LinkSlot>> {
    LINKS.remove(id)
}

/// Gives a stream an id, until a port takes it.
pub fn insert_stream(stream: OwnedFd) -> Option<Id> {
    STREAMS.insert(Mutex::new(Some(File::from(stream))))
}

/// Takes the stream `id` out of the table.
pub fn take_stream(id: Id) -> Option<(File, OpenStream)> {
    let slot = STREAMS.remove(id)?;
    let file = slot.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    OPEN_STREAMS.fetch_add(1, Ordering::Relaxed);
    Some((file, OpenStream(())))
}

/// Counts a stream as open after it has left the table, until dropped.
pub struct OpenStream(());

impl Drop for OpenStream {
    fn drop(&mut self) {
        OPEN_STREAMS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The number of streams, with or without a port.
pub fn streams() -> usize {
    STREAMS.len() + OPEN_STREAMS.load(Ordering::Relaxed)
}
