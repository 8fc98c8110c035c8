//! What clients ask for in the hub's own protocol, and what they get.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use tube_platform::local::fdpass;
use tube_platform::local::proto::{MESSAGE_MAX, Malformed, Reply, Request};
use tube_platform::{Domid, Error, ErrorKind};

use crate::evtchn::{self, End};
use crate::packet::{Incoming, Outlook, Packets};
use crate::poller::{Interest, Ready, Token};
use crate::server::{Hub, Source, Standing};

/// Requests taken from one client before the others get their turn.
const TURN: usize = 16;

/// Why a connection of a domain goes of which we have too much to close.
pub(crate) const OVERRUN: &str = "its domain sends what takes long to close";

/// What becomes of a client after a request.
pub(crate) enum Fate {
    /// It stays.
    Stays,
    /// It goes, for a reason that is worth a line.
    Goes(String),
    /// It goes, and that is all there is to say.
    Leaves,
}

impl Hub {
    pub(crate) fn serve_client(&mut self, ready: Ready) {
        let token = ready.token;
        for _ in 0..TURN {
            let Some(Source::Client { socket, standing }) = self.sources.get(&token) else {
                return;
            };
            let standing = *standing;
            if self.closer.is_full(standing.domid()) {
                return self.drop_source(token, OVERRUN);
            }
            match Packets::outlook(socket) {
                Outlook::Open => {}
                Outlook::Full => return self.pause(token),
                Outlook::Hopeless => return self.close_source(token),
            }
            // Only what arrives on that socket may carry a descriptor, and only one.
            let most = usize::from(matches!(standing, Standing::Grants(_)));
            let fate = match self.packets.receive(socket, most, MESSAGE_MAX) {
                Incoming::Foreign(fds) => {
                    self.closer.close(standing.domid(), fds);
                    Fate::Goes("it sent descriptors that are no memory".to_owned())
                }
                Incoming::Nothing => break,
                Incoming::End => {
                    self.close_source(token);
                    return;
                }
                Incoming::Bad(why) => Fate::Goes(why.to_owned()),
                Incoming::Message(bytes, fds) => match Request::decode(bytes) {
                    Ok((seq, request)) => self.request(token, standing, seq, request, fds),
                    Err(malformed) => {
                        let seq = bytes
                            .get(4..8)
                            .and_then(|seq| seq.try_into().ok())
                            .map(u32::from_le_bytes);
                        self.refuse_malformed(token, seq, malformed)
                    }
                },
            };
            match fate {
                Fate::Stays => {}
                Fate::Goes(why) => return self.drop_source(token, &why),
                Fate::Leaves => return self.close_source(token),
            }
        }
        self.resume(token);
    }

    /// The client has replies to read before it gets any more: until then it waits, not we.
    fn pause(&mut self, token: Token) {
        let Some(Source::Client { socket, .. }) = self.sources.get(&token) else {
            return;
        };
        if !self.poller.has_deadline(token) {
            self.poller
                .set_deadline(token, Some(Instant::now() + self.patience.reading));
        }
        if self.poller.change(token, socket, Interest::Write).is_err() {
            self.close_source(token);
        }
    }

    /// It has read: the clock stops, unless it has yet to say who it is.
    fn resume(&mut self, token: Token) {
        let Some(Source::Client { socket, standing }) = self.sources.get(&token) else {
            return;
        };
        if matches!(standing, Standing::Stranger(_)) || !self.poller.has_deadline(token) {
            return;
        }
        self.poller.set_deadline(token, None);
        if self.poller.change(token, socket, Interest::Read).is_err() {
            self.close_source(token);
        }
    }

    fn request(
        &mut self,
        token: Token,
        standing: Standing,
        seq: u32,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Fate {
        if fds.is_empty() == matches!(request, Request::Share { .. }) {
            return Fate::Goes("descriptors do not go with the message".into());
        }
        match (standing, request) {
            (Standing::Stranger(bound), Request::Hello { version, domid }) => {
                self.hello(token, bound, seq, version, domid)
            }
            (
                Standing::Grants(domid),
                Request::Share {
                    peer,
                    pages,
                    access,
                },
            ) => {
                let reply = match fds.into_iter().next() {
                    Some(_) if !self.domains.charge(domid, 1) => Err(Errno::NOSPC),
                    Some(memory) => self
                        .grants
                        .share(domid, peer, pages, access, memory)
                        .inspect_err(|_| self.domains.refund(domid, 1)),
                    None => Err(Errno::INVAL),
                };
                let reply = reply.map(|first_ref| Reply::Share { first_ref });
                self.answer(token, seq, &or_error(reply, "share"), &[])
            }
            (Standing::Grants(domid), Request::Unshare { first_ref }) => {
                // A notice: there is nobody to tell about one that does not exist.
                if self.grants.unshare(domid, first_ref) == Ok(true) {
                    self.domains.refund(domid, 1);
                }
                Fate::Stays
            }
            (Standing::Grants(domid), Request::Map { granter, refs }) => {
                let (reply, fds) = match self.grants.map(domid, granter, &refs) {
                    Ok((runs, fds)) => (Ok(Reply::Map { runs }), fds),
                    Err(errno) => (Err(errno), Vec::new()),
                };
                self.answer(
                    token,
                    seq,
                    &or_error(reply, format_args!("map from domain {granter}")),
                    &fds,
                )
            }
            (Standing::Evtchn(domid), Request::Alloc { peer }) => {
                let end = self.allocate(domid, peer);
                self.answer_end(token, seq, end, |port| Reply::Alloc { port }, "allocate")
            }
            (
                Standing::Evtchn(domid),
                Request::Bind {
                    remote,
                    remote_port,
                },
            ) => {
                let end = self.channels.bind(domid, remote, remote_port);
                if end.is_ok() {
                    self.domains.refund(remote, evtchn::DESCRIPTORS);
                }
                self.answer_end(token, seq, end, |port| Reply::Bind { port }, "bind")
            }
            (Standing::Evtchn(domid), Request::Close { port }) => {
                if self.channels.close(domid, port) == Ok(true) {
                    self.domains.refund(domid, evtchn::DESCRIPTORS);
                }
                Fate::Stays
            }
            (_, request) => Fate::Goes(format!("not for this socket: {request:.40?}")),
        }
    }

    fn allocate(&mut self, domid: Domid, peer: Domid) -> Result<End, Errno> {
        if !self.domains.charge(domid, evtchn::DESCRIPTORS) {
            return Err(Errno::NOSPC);
        }
        self.channels
            .allocate(domid, peer)
            .inspect_err(|_| self.domains.refund(domid, evtchn::DESCRIPTORS))
    }

    fn answer_end(
        &self,
        token: Token,
        seq: u32,
        end: Result<End, Errno>,
        reply: impl Fn(u32) -> Reply,
        doing: &str,
    ) -> Fate {
        match end {
            Ok(End { port, read, write }) => {
                self.answer(token, seq, &reply(port), &[read.as_fd(), write.as_fd()])
            }
            Err(errno) => self.answer(token, seq, &or_error(Err(errno), doing), &[]),
        }
    }

    /// Sends a reply. There is room for it, so one that does not go out is the end.
    pub(crate) fn answer(
        &self,
        token: Token,
        seq: u32,
        reply: &Reply,
        fds: &[BorrowedFd<'_>],
    ) -> Fate {
        match self.sources.get(&token) {
            Some(Source::Client { socket, .. }) => {
                match fdpass::send(socket, &reply.encode(seq), fds) {
                    Ok(()) => Fate::Stays,
                    Err(errno) => Fate::Goes(format!("it cannot be answered: {errno}")),
                }
            }
            _ => Fate::Stays,
        }
    }

    /// Tells a client about its mistake before it goes, as far as it can be told.
    fn refuse_malformed(&self, token: Token, seq: Option<u32>, malformed: Malformed) -> Fate {
        if let Some(seq) = seq {
            let error = Error::new(ErrorKind::Posix(Errno::INVAL), malformed.to_string());
            // It goes in any case.
            let _ = self.answer(token, seq, &Reply::Error(error), &[]);
        }
        match malformed {
            // A wish that cannot be fulfilled, not an attack; `probe` asks like that.
            Malformed::Field("domid") => Fate::Leaves,
            _ => Fate::Goes(malformed.to_string()),
        }
    }
}

fn or_error(reply: Result<Reply, Errno>, doing: impl std::fmt::Display) -> Reply {
    reply.unwrap_or_else(|errno| Reply::Error(Error::posix(errno, doing)))
}
