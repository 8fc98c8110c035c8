//! The event loop and everything that it serves.
//!
//! [`Hub`] owns all state, private to this folder. Each file implements one part of it: `accept`
//! takes connections in, `close` ends them, `requests` serves the hub's own protocol, `streams`
//! carries the store's bytes, `domain_lifecycle` begins and ends domains.

mod accept;
mod close;
mod domain_lifecycle;
mod requests;
mod source;
mod streams;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tube_platform::Domid;

use crate::background_close::BackgroundCloser;
use crate::domains::{Domains, RESERVED_DESCRIPTORS};
use crate::error::FatalError;
use crate::evtchn::Channels;
use crate::grants::Grants;
use crate::log::Log;
use crate::owner::Owner;
use crate::packet::ReceiveBuffer;
use crate::poller::{Interest, Poller, Ready, Token};
use crate::rundir::RunDir;
use crate::socket_kind::SocketKind;
use crate::store::{ConnId, Quota, Xenstored};
use source::{Role, Source};

/// How long the hub waits for clients.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the HELLO of a new connection.
    pub hello: Duration,
    /// For a client to read some of its pending output.
    pub read: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            hello: Duration::from_secs(10),
            read: Duration::from_secs(30),
        }
    }
}

/// A smaller limit would leave no descriptors for domains.
const MIN_DESCRIPTORS: usize = 2 * RESERVED_DESCRIPTORS;

/// What a hub needs to start.
#[derive(Debug)]
pub struct Setup {
    /// The run directory. The caller holds its lock.
    pub run: RunDir,
    /// Exit after this long without a domain.
    pub idle_timeout: Option<Duration>,
    /// The domains kept for an owner.
    pub domains: Vec<(Domid, Owner)>,
    /// The process's limit of open descriptors.
    pub descriptors: usize,
    /// See [`Timeouts`].
    pub timeouts: Timeouts,
    /// Where the hub logs.
    pub log: Log,
}

/// The state of the hub. One thread owns it, and no method blocks.
pub struct Hub {
    run: RunDir,
    poller: Poller,
    sources: HashMap<Token, Source>,
    /// Connections to `hub.sock` that have not sent HELLO yet.
    unidentified: usize,
    listeners: BTreeMap<(Domid, SocketKind), Token>,
    domains: Domains,
    grants: Grants,
    channels: Channels,
    store: Xenstored,
    streams: HashMap<ConnId, Token>,
    buffer: ReceiveBuffer,
    closer: BackgroundCloser,
    timeouts: Timeouts,
    log: Log,
    idle_timeout: Option<Duration>,
    /// When the last domain ended; None while there is one.
    idle_since: Option<Instant>,
    stopping: bool,
}

impl Hub {
    /// Removes what an earlier hub left and opens all listening sockets, `hub.sock` last. The hub
    /// stops when `stop` becomes readable.
    ///
    /// # Errors
    /// What could not be set up.
    pub fn open(setup: Setup, stop: OwnedFd) -> Result<Hub, FatalError> {
        if setup.descriptors < MIN_DESCRIPTORS {
            let have = setup.descriptors;
            return Err(FatalError::new(format!(
                "the limit of descriptors (RLIMIT_NOFILE) is {have}; a hub needs {MIN_DESCRIPTORS}"
            )));
        }
        let Setup {
            run,
            idle_timeout,
            domains,
            descriptors,
            timeouts,
            mut log,
        } = setup;
        let fatal = |what: &str, errno: Errno| FatalError::new(format!("{what}: {errno}"));
        let domains = Domains::new(&domains, descriptors);
        run.sweep(
            |domid| domains.is_kept(domid),
            |domid| {
                log.note(format_args!(
                    "cannot remove dom{domid}: it contains other files"
                ))
            },
        )
        .map_err(|errno| fatal("cannot clean the run directory", errno))?;
        let mut poller = Poller::new().map_err(|errno| fatal("epoll", errno))?;
        let token = poller
            .add(&stop, Interest::Read)
            .map_err(|errno| fatal("epoll", errno))?;
        let mut hub = Hub {
            run,
            poller,
            sources: HashMap::from([(token, Source::Stop(stop))]),
            unidentified: 0,
            listeners: BTreeMap::new(),
            domains,
            grants: Grants::default(),
            channels: Channels::default(),
            store: Xenstored::new(Quota::default()),
            streams: HashMap::new(),
            buffer: ReceiveBuffer::default(),
            closer: BackgroundCloser::default(),
            timeouts,
            log,
            idle_timeout,
            idle_since: Some(Instant::now()),
            stopping: false,
        };
        for domid in hub.domains.kept() {
            let owner = hub.domains.owner(domid);
            let fatal = |errno| fatal(&format!("cannot set up dom{domid}"), errno);
            hub.run.make_domain(domid, owner).map_err(fatal)?;
            if owner.is_some() {
                hub.open_listener(SocketKind::Control, domid)
                    .map_err(fatal)?;
            }
            if domid == 0 {
                hub.open_listener(SocketKind::Store, domid).map_err(fatal)?;
            }
        }
        hub.open_listener(SocketKind::Hub, 0)
            .map_err(|errno| fatal("cannot open hub.sock", errno))?;
        Ok(hub)
    }

    /// Serves until `stop` becomes readable or the idle timeout expires, then removes the sockets.
    ///
    /// # Errors
    /// Waiting for events failed.
    pub fn serve(mut self) -> Result<(), FatalError> {
        self.log.note(format_args!("serving {}", self.run));
        while !self.stopping {
            let idle_deadline = self.idle_deadline();
            let ready = self
                .poller
                .wait(idle_deadline)
                .map_err(|errno| FatalError::new(format!("epoll_wait: {errno}")))?;
            let quiet = ready.is_empty();
            for event in ready {
                self.dispatch(event);
                self.handle_notices();
            }
            let now = Instant::now();
            while let Some(token) = self.poller.take_expired(now) {
                self.handle_deadline(token);
                self.handle_notices();
            }
            // Only if nothing was ready: a client that waits to connect keeps the hub alive.
            if quiet && self.idle_deadline().is_some_and(|deadline| deadline <= now) {
                self.log.note(format_args!(
                    "stopping: no domain for {:?}",
                    self.idle_timeout.unwrap_or_default()
                ));
                self.stopping = true;
            }
        }
        self.remove_sockets();
        Ok(())
    }

    /// When to stop if no domain begins before.
    fn idle_deadline(&self) -> Option<Instant> {
        let busy = self.domains.alive() > 0 || self.unidentified > 0;
        self.idle_timeout
            .zip(self.idle_since)
            .filter(|_| !busy)
            .map(|(timeout, since)| since + timeout)
    }

    /// Restarts or stops the idle timeout after a domain has begun or ended.
    fn update_idle(&mut self) {
        self.idle_since = if self.domains.alive() == 0 {
            Some(Instant::now())
        } else {
            None
        };
    }

    fn remove_sockets(&mut self) {
        // `hub.sock` first: clients then find no hub and start one, which waits for the lock that
        // this process holds until it exits.
        let _ = self.run.remove_socket(SocketKind::Hub.file_name());
        for &(domid, kind) in self.listeners.keys() {
            // The next hub sweeps whatever cannot be removed.
            let _ = match self.domains.owner(domid) {
                // A container may have that directory mounted.
                Some(_) => self.run.remove_socket(&kind.relative_path(domid)),
                None => self.run.remove_domain(domid),
            };
        }
        self.log.note(format_args!("stopped"));
    }

    fn dispatch(&mut self, ready: Ready) {
        match self.sources.get(&ready.token) {
            // Closed while an earlier event of this round was handled.
            None => {}
            Some(Source::Stop(_)) => {
                self.log.note(format_args!("stopping: signal received"));
                self.stopping = true;
            }
            Some(Source::Listener { .. }) => self.accept(ready.token),
            Some(Source::Client { .. }) => self.serve_client(ready),
            Some(Source::Stream { .. }) => self.serve_stream(ready),
        }
    }

    fn handle_deadline(&mut self, token: Token) {
        match self.sources.get(&token) {
            Some(Source::Listener { .. }) => self.resume_accepting(token),
            _ => self.drop_connection(token, "timed out"),
        }
    }
}
