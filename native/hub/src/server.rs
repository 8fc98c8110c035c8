//! The event loop: who is connected, and what is ready.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tube_platform::Domid;

use crate::background_close::BackgroundCloser;
use crate::domains::{Domains, RESERVE};
use crate::evtchn::Channels;
use crate::fault::Fault;
use crate::grants::Grants;
use crate::listener;
use crate::log::Log;
use crate::owner::Owner;
use crate::packet::Packets;
use crate::poller::{Interest, Poller, Ready, Token};
use crate::rundir::RunDir;
use crate::socket_kind::SocketKind;
use crate::store::{ConnId, Quota, Xenstored};

/// How long clients may keep us waiting.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the HELLO of a new connection.
    pub hello: Duration,
    /// For a client to read any of what is sent to it.
    pub reading: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            hello: Duration::from_secs(10),
            reading: Duration::from_secs(30),
        }
    }
}

/// With fewer descriptors there would be none for domains.
const FEWEST: usize = 2 * RESERVE;

/// What a hub is started with.
#[derive(Debug)]
pub struct Setup {
    /// Its directory; the lock on it is held.
    pub run: RunDir,
    /// Leave after that long without a domain.
    pub idle: Option<Duration>,
    /// The domains kept for somebody.
    pub domains: Vec<(Domid, Owner)>,
    /// Descriptors that the process can have.
    pub descriptors: usize,
    /// See [`Patience`].
    pub patience: Patience,
    /// Where it says what happened.
    pub log: Log,
}

/// Everything the hub knows. One thread; no call on it blocks.
pub struct Hub {
    pub(crate) run: RunDir,
    pub(crate) poller: Poller,
    pub(crate) sources: HashMap<Token, Source>,
    /// Connections to `hub.sock` that have not said who they are.
    pub(crate) strangers: usize,
    pub(crate) listeners: BTreeMap<(Domid, SocketKind), Token>,
    pub(crate) domains: Domains,
    pub(crate) grants: Grants,
    pub(crate) channels: Channels,
    pub(crate) store: Xenstored,
    pub(crate) streams: HashMap<ConnId, Token>,
    pub(crate) packets: Packets,
    pub(crate) closer: BackgroundCloser,
    pub(crate) patience: Patience,
    pub(crate) log: Log,
    idle: Option<Duration>,
    /// Since when there has been no domain.
    alone: Option<Instant>,
    leaving: bool,
}

/// A descriptor in the event loop.
pub(crate) enum Source {
    /// Readable when the hub is to leave.
    Stop(OwnedFd),
    /// A listening socket.
    Listener {
        socket: OwnedFd,
        kind: SocketKind,
        domid: Domid,
    },
    /// A connection that speaks the hub's own protocol.
    Client { socket: OwnedFd, standing: Standing },
    /// A connection to the store.
    Stream {
        socket: OwnedFd,
        conn: ConnId,
        domid: Domid,
    },
}

/// What a client is to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has to say HELLO; the domid if it came by that domain's own kind.
    Stranger(Option<Domid>),
    /// Its connection is the life of that domain.
    Life(Domid),
    /// That domain asks for pages.
    Grants(Domid),
    /// That domain asks for channels.
    Evtchn(Domid),
}

impl Hub {
    /// Cleans up after a predecessor and opens all doors, `hub.sock` as the last. `stop`
    /// becomes readable when the hub is to leave.
    ///
    /// # Errors
    /// One line about what could not be set up.
    pub fn open(setup: Setup, stop: OwnedFd) -> Result<Hub, Fault> {
        if setup.descriptors < FEWEST {
            let (have, need) = (setup.descriptors, FEWEST);
            return Err(Fault::new(format!(
                "the limit of descriptors (RLIMIT_NOFILE) is {have}; a hub needs {need}"
            )));
        }
        let Setup {
            run,
            idle,
            domains,
            descriptors,
            patience,
            mut log,
        } = setup;
        let bad = |what: &str, errno: Errno| Fault::new(format!("{what}: {errno}"));
        let domains = Domains::new(&domains, descriptors);
        run.sweep(
            |domid| domains.kept(domid),
            |domid| {
                log.note(format_args!(
                    "dom{domid} stays: somebody put things into it"
                ))
            },
        )
        .map_err(|errno| bad("cannot clean the run directory", errno))?;
        let mut poller = Poller::new().map_err(|errno| bad("epoll", errno))?;
        let token = poller
            .add(&stop, Interest::Read)
            .map_err(|errno| bad("epoll", errno))?;
        let mut hub = Hub {
            run,
            poller,
            sources: HashMap::from([(token, Source::Stop(stop))]),
            strangers: 0,
            listeners: BTreeMap::new(),
            domains,
            grants: Grants::default(),
            channels: Channels::default(),
            store: Xenstored::new(Quota::default()),
            streams: HashMap::new(),
            packets: Packets::default(),
            closer: BackgroundCloser::default(),
            patience,
            log,
            idle,
            alone: Some(Instant::now()),
            leaving: false,
        };
        for domid in hub.domains.all_kept() {
            let owner = hub.domains.owner(domid);
            let unusable = |errno| bad(&format!("cannot set up dom{domid}"), errno);
            hub.run.make_domain(domid, owner).map_err(unusable)?;
            if owner.is_some() {
                hub.open_listener(SocketKind::Control, domid)
                    .map_err(unusable)?;
            }
            if domid == 0 {
                hub.open_listener(SocketKind::Store, domid)
                    .map_err(unusable)?;
            }
        }
        hub.open_listener(SocketKind::Hub, 0)
            .map_err(|errno| bad("cannot open hub.sock", errno))?;
        Ok(hub)
    }

    /// Serves until told to leave, or alone for too long; then takes the sockets away.
    ///
    /// # Errors
    /// One line, if the system does not let us wait for events any more.
    pub fn serve(mut self) -> Result<(), Fault> {
        self.log.note(format_args!("serving {}", self.run));
        while !self.leaving {
            let idle_at = self.idle_at();
            let ready = self
                .poller
                .wait(idle_at)
                .map_err(|errno| Fault::new(format!("epoll_wait: {errno}")))?;
            let quiet = ready.is_empty();
            for event in ready {
                self.dispatch(event);
                self.act_on_notices();
            }
            let now = Instant::now();
            while let Some(token) = self.poller.due(now) {
                self.time_is_up(token);
                self.act_on_notices();
            }
            // Only when nothing was ready: whoever is at the kind comes first.
            if quiet && self.idle_at().is_some_and(|at| at <= now) {
                self.log.note(format_args!(
                    "no domain for {:?}",
                    self.idle.unwrap_or_default()
                ));
                self.leaving = true;
            }
        }
        self.leave();
        Ok(())
    }

    /// When to leave if nothing happens until then.
    fn idle_at(&self) -> Option<Instant> {
        let busy = self.domains.living() > 0 || self.strangers > 0;
        self.idle
            .zip(self.alone)
            .filter(|_| !busy)
            .map(|(idle, alone)| alone + idle)
    }

    /// The number of domains has changed.
    pub(crate) fn count_domains(&mut self) {
        self.alone = if self.domains.living() == 0 {
            Some(Instant::now())
        } else {
            None
        };
    }

    fn leave(&mut self) {
        // First the kind by which claimants come: they find no hub and start one, which then
        // waits for the lock that goes with this process.
        let _ = self.run.remove_socket(SocketKind::Hub.file_name());
        for &(domid, kind) in self.listeners.keys() {
            // What cannot be removed is for the next hub to sweep.
            let _ = match self.domains.owner(domid) {
                // A container may have that directory mounted.
                Some(_) => self.run.remove_socket(&kind.relative_path(domid)),
                None => self.run.remove_domain(domid),
            };
        }
        self.log.note(format_args!("leaving"));
    }

    fn dispatch(&mut self, ready: Ready) {
        match self.sources.get(&ready.token) {
            // Gone by what was done for another one in this round.
            None => {}
            Some(Source::Stop(_)) => {
                self.log.note(format_args!("told to leave"));
                self.leaving = true;
            }
            Some(Source::Listener { .. }) => self.accept(ready.token),
            Some(Source::Client { .. }) => self.serve_client(ready),
            Some(Source::Stream { .. }) => self.serve_stream(ready),
        }
    }

    /// Opens a kind, charged to its domain.
    pub(crate) fn open_listener(&mut self, kind: SocketKind, domid: Domid) -> Result<(), Errno> {
        let charged = kind != SocketKind::Hub;
        if charged && !self.domains.charge(domid, 1) {
            return Err(Errno::NOSPC);
        }
        let opened = listener::open(&self.run, kind, domid, self.domains.owner(domid))
            .and_then(|socket| Ok((self.poller.add(&socket, Interest::Read)?, socket)));
        match opened {
            Ok((token, socket)) => {
                self.sources.insert(
                    token,
                    Source::Listener {
                        socket,
                        kind,
                        domid,
                    },
                );
                self.listeners.insert((domid, kind), token);
                Ok(())
            }
            Err(errno) => {
                if charged {
                    self.domains.refund(domid, 1);
                }
                Err(errno)
            }
        }
    }

    /// Closes a kind and removes its socket.
    pub(crate) fn close_listener(&mut self, kind: SocketKind, domid: Domid) {
        if let Some(token) = self.listeners.remove(&(domid, kind)) {
            let _ = self.run.remove_socket(&kind.relative_path(domid));
            if let Some(Source::Listener { socket, .. }) = self.take_source(token) {
                // Those who wait to be let in go with it, and what they sent.
                self.closer.close_socket(domid, socket);
            }
            self.domains.refund(domid, 1);
        }
    }
}

impl Standing {
    /// On whose account it is. Whoever gets to `hub.sock` sees everything, as domain 0 does.
    pub(crate) fn domid(self) -> Domid {
        match self {
            Standing::Stranger(bound) => bound.unwrap_or(0),
            Standing::Life(domid) | Standing::Grants(domid) | Standing::Evtchn(domid) => domid,
        }
    }
}

impl std::fmt::Display for Standing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Standing::Stranger(None) => f.write_str("a newcomer"),
            Standing::Stranger(Some(domid)) => write!(f, "a newcomer at domain {domid}'s kind"),
            Standing::Life(domid) => write!(f, "domain {domid}"),
            Standing::Grants(domid) => write!(f, "a grants connection of domain {domid}"),
            Standing::Evtchn(domid) => write!(f, "an event channel connection of domain {domid}"),
        }
    }
}
