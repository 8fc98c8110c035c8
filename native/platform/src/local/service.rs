//! One connection to the hub, with requests and their replies in bounded time.

use std::collections::VecDeque;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};

use super::fdpass::{self, Packet};
use super::proto::{MESSAGE_MAX, Reply, Request};
use crate::{Error, ErrorKind};

/// Time limit for a reply. The hub replies from memory; a slower one is stopped or gone.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection for one kind of request.
pub(super) struct Service {
    /// The service's name in error texts.
    name: &'static str,
    /// Non-blocking. Waiting is done in `poll`, with a time limit.
    socket: OwnedFd,
    session: Mutex<Session>,
    /// Notices not sent yet. This lock is only held briefly, so that releasing never waits for a
    /// request in flight.
    notices: Mutex<VecDeque<Request>>,
}

/// State of the connection. A thread holds its lock for the length of a request.
struct Session {
    seq: u32,
    /// Requests given up after a timeout or an error, whose replies may still come.
    abandoned: Vec<u32>,
    /// The hub has gone or broke the protocol: every further call fails with this.
    broken: Option<ErrorKind>,
    buffer: Box<[u8]>,
}

impl Service {
    /// Takes over a connected, non-blocking socket.
    pub(super) fn new(name: &'static str, socket: OwnedFd) -> Self {
        Self {
            name,
            socket,
            session: Mutex::new(Session {
                seq: 0,
                abandoned: Vec::new(),
                broken: None,
                buffer: vec![0; MESSAGE_MAX].into(),
            }),
            notices: Mutex::default(),
        }
    }

    /// Ends the service and returns its socket.
    pub(super) fn into_socket(self) -> OwnedFd {
        self.socket
    }

    /// Sends a request and waits for its reply, for [`REPLY_TIMEOUT`] at most, including
    /// the wait for the session. An ERROR becomes the error that it carries.
    pub(super) fn call(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), Error> {
        let deadline = Instant::now() + REPLY_TIMEOUT;
        let mut session = lock(&self.session);
        let result = match session.broken {
            Some(kind) => Err(self.error(kind, "failed earlier and cannot be used")),
            None => self.exchange(&mut session, request, fds, deadline),
        };
        drop(session);
        // Other threads could not send their notices while this one held the session.
        self.send_notices();
        match result? {
            (Reply::Error(error), _) => Err(error),
            reply => Ok(reply),
        }
    }

    /// Sends a notice as soon as that does not block: now, by the thread that holds the session, or
    /// before the next request.
    pub(super) fn send_notice(&self, notice: Request) {
        debug_assert!(!notice.has_reply());
        lock(&self.notices).push_back(notice);
        self.send_notices();
    }

    /// The error for a reply of the wrong kind.
    pub(super) fn unexpected_reply(&self) -> Error {
        self.error(
            ErrorKind::NotAHub,
            "sent a reply that does not match the request",
        )
    }

    fn exchange(
        &self,
        session: &mut Session,
        request: &Request,
        fds: &[BorrowedFd<'_>],
        deadline: Instant,
    ) -> Result<(Reply, Vec<OwnedFd>), Error> {
        // Notices first: this request may need what they release.
        while !self.flush(session) {
            self.wait(PollFlags::OUT, deadline)?;
        }
        session.seq = session.seq.wrapping_add(1);
        let seq = session.seq;
        let message = request.encode(seq);
        loop {
            match fdpass::send(&self.socket, &message, fds) {
                Ok(()) => break,
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, deadline)?,
                Err(errno) => return Err(self.io_error(session, errno)),
            }
        }
        loop {
            let packet = match fdpass::receive_packet(&self.socket, &mut session.buffer) {
                Ok(Packet { len: 0, .. }) => return Err(self.io_error(session, Errno::CONNRESET)),
                Ok(packet) => packet,
                Err(Errno::AGAIN) => {
                    if let Err(error) = self.wait(PollFlags::IN, deadline) {
                        session.abandoned.push(seq);
                        return Err(error);
                    }
                    continue;
                }
                Err(errno) => {
                    session.abandoned.push(seq);
                    return Err(self.io_error(session, errno));
                }
            };
            match Reply::decode(&session.buffer[..packet.len]) {
                Ok((got, reply)) if got == seq && packet.truncated => {
                    self.release(reply);
                    return Err(self.io_error(session, Errno::MFILE));
                }
                Ok((got, reply)) if got == seq => return Ok((reply, packet.fds)),
                Ok((got, reply)) if session.abandoned.contains(&got) => {
                    session.abandoned.retain(|old| *old != got);
                    self.release(reply);
                }
                Ok((got, _)) => {
                    session.broken = Some(ErrorKind::NotAHub);
                    let what = format!("replied to request {got}, which was never sent");
                    return Err(self.error(ErrorKind::NotAHub, what));
                }
                Err(malformed) => {
                    session.broken = Some(ErrorKind::NotAHub);
                    let what = format!("sent a malformed reply: {malformed}");
                    return Err(self.error(ErrorKind::NotAHub, what));
                }
            }
        }
    }

    /// Releases what a reply brought too late, or without its descriptors.
    fn release(&self, reply: Reply) {
        let notice = match reply {
            Reply::Share { first_ref } => Request::Unshare { first_ref },
            Reply::Alloc { port } | Reply::Bind { port } => Request::Close { port },
            Reply::Welcome { .. } | Reply::Map { .. } | Reply::Error(_) => return,
        };
        lock(&self.notices).push_back(notice);
    }

    /// Sends notices while no other thread holds the session.
    fn send_notices(&self) {
        // Check again after each round: a thread that found the session locked relies on this one.
        while !lock(&self.notices).is_empty() {
            let Ok(mut session) = self.session.try_lock() else {
                return;
            };
            if !self.flush(&mut session) {
                return;
            }
        }
    }

    /// Sends notices without blocking. False if some could not be sent.
    fn flush(&self, session: &mut Session) -> bool {
        let mut notices = lock(&self.notices);
        if session.broken.is_some() {
            notices.clear();
        }
        while let Some(notice) = notices.front() {
            session.seq = session.seq.wrapping_add(1);
            match fdpass::send(&self.socket, &notice.encode(session.seq), &[]) {
                Ok(()) => drop(notices.pop_front()),
                Err(Errno::AGAIN) => return false,
                // The hub has gone, and all that it held for us.
                Err(_) => {
                    session.broken = Some(ErrorKind::HubGone);
                    notices.clear();
                }
            }
        }
        true
    }

    fn wait(&self, what: PollFlags, deadline: Instant) -> Result<(), Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::new(&self.socket, what)];
        let limit = Timespec::try_from(left).expect("a few seconds");
        match retry_on_intr(|| poll(&mut fds, Some(&limit))) {
            Ok(0) => Err(self.error(ErrorKind::Posix(Errno::TIMEDOUT), "did not answer in time")),
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::posix(errno, "waiting for the hub")),
        }
    }

    /// The error for a failed system call. Marks the session as broken if it cannot continue.
    fn io_error(&self, session: &mut Session, errno: Errno) -> Error {
        let (kind, what) = match errno {
            Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => {
                (ErrorKind::HubGone, "closed the connection")
            }
            Errno::MSGSIZE => (ErrorKind::NotAHub, "sent an oversized message"),
            // Out of descriptors or memory: the next request may succeed.
            errno => {
                return Error::posix(
                    errno,
                    format_args!("calling the hub's {} service", self.name),
                );
            }
        };
        session.broken = Some(kind);
        self.error(kind, what)
    }

    fn error(&self, kind: ErrorKind, what: impl AsRef<str>) -> Error {
        Error::new(
            kind,
            format!("the hub's {} service {}", self.name, what.as_ref()),
        )
    }
}

/// Ignores poisoning: a panic under these locks leaves no inconsistent state.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
