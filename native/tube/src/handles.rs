//! What is behind the ids: links and streams, for NIF and driver alike.

use crate::pid::Pid;
use crate::slab::{Cache, Id, Slab};
use crate::vm::Beam;
use rustler::{Monitor, ResourceArc};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tube_link::Link;

static LINKS: Slab<Entry> = Slab::new();
static STREAMS: Slab<Mutex<Option<File>>> = Slab::new();
static OPEN_STREAMS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static NEAR: Cache<Entry> = const { Cache::new() };
}

/// A link, and what the VM's side of it needs to know.
pub struct Entry {
    /// The link itself. When closed it is an empty shell.
    pub link: Link<Beam>,
    /// Set once, when data begins to flow.
    pub parties: OnceLock<Parties>,
    /// Looks after the sender of a message that is partly in the ring.
    pub watch: Mutex<Option<SenderMonitor>>,
    has_port: AtomicBool,
}

impl Entry {
    /// Does the VM's distribution have this link for itself?
    pub fn is_dist(&self) -> bool {
        matches!(self.parties.get(), Some(parties) if parties.mode == Mode::Dist)
    }
}

/// Who has to do with a link, besides its owner.
#[derive(Clone, Copy)]
pub struct Parties {
    /// The connection process: owns the port, gets the events.
    pub connection: Pid,
    /// Who gets messages at first.
    pub owner: Pid,
    /// How the owner gets messages.
    pub mode: Mode,
}

/// The shape of a delivered message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `{:tube, tube, binary}`
    Tube,
    /// `{pid, {:data, binary}}`
    Port,
    /// None: the VM's distribution has the link for itself.
    Dist,
}

/// A monitor on the sender of an unfinished message. See [`crate::nif::watch`].
pub struct SenderMonitor {
    /// Whom it watches.
    pub sender: Pid,
    /// The resource that the VM tells of the death.
    pub resource: ResourceArc<crate::nif::sender_monitor::Sending>,
    /// To take the monitor back.
    pub monitor: Monitor,
}

/// Gives `link` an id.
pub fn insert_link(link: Link<Beam>) -> Option<Id> {
    LINKS.insert(|_| Entry {
        link,
        parties: OnceLock::new(),
        watch: Mutex::new(None),
        has_port: AtomicBool::new(false),
    })
}

/// The link of `id`, to keep.
pub fn link(id: Id) -> Option<Arc<Entry>> {
    LINKS.get(id)
}

/// Calls `f` with the link of `id`; made for the calls that happen millions of times a second. `f` may
/// meet a link that was closed meanwhile.
pub fn with_link<R>(id: Id, f: impl FnOnce(&Entry) -> R) -> Option<R> {
    NEAR.with(|near| near.with(&LINKS, id, f))
}

/// The link of `id` for its one port. `None` if there is no such link or it has a port.
pub fn claim_link(id: Id) -> Option<Arc<Entry>> {
    let entry = LINKS.get(id)?;
    let claimed = entry.has_port.swap(true, Ordering::AcqRel);
    (!claimed).then_some(entry)
}

/// Forgets the id. The caller closes the link.
pub fn remove_link(id: Id) -> Option<Arc<Entry>> {
    LINKS.remove(id)
}

/// Gives a stream an id, until a port takes it.
pub fn insert_stream(stream: OwnedFd) -> Option<Id> {
    STREAMS.insert(|_| Mutex::new(Some(File::from(stream))))
}

/// Takes the stream of `id` out.
pub fn take_stream(id: Id) -> Option<(File, OpenStream)> {
    let entry = STREAMS.remove(id)?;
    let file = entry
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take()?;
    OPEN_STREAMS.fetch_add(1, Ordering::Relaxed);
    Some((file, OpenStream(())))
}

/// Counts a stream that has left the table for as long as it is open.
pub struct OpenStream(());

impl Drop for OpenStream {
    fn drop(&mut self) {
        OPEN_STREAMS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Streams, with a port or waiting for one.
pub fn streams() -> usize {
    STREAMS.len() + OPEN_STREAMS.load(Ordering::Relaxed)
}
