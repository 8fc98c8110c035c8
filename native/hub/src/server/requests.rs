//! Requests in the hub's own protocol, and their replies.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::io::Errno;
use tube_platform::local::fdpass;
use tube_platform::local::proto::{MESSAGE_MAX, Malformed, Reply, Request, VERSION};
use tube_platform::{Domid, Error, ErrorKind};

use super::close::TOO_MANY_CLOSES;
use super::{Hub, Role, Source};
use crate::evtchn::{self, End};
use crate::packet::{Incoming, SendSpace, send_space};
use crate::poller::{Interest, Ready, Token};

/// Requests served for one client before the others get their turn.
const MAX_REQUESTS: usize = 16;

/// What to do with a connection after a request.
enum Disposition {
    /// Keep it.
    Keep,
    /// Log the reason and close it.
    Drop(String),
    /// Close it without a line in the log.
    Close,
}

impl Hub {
    pub(super) fn serve_client(&mut self, ready: Ready) {
        let token = ready.token;
        for _ in 0..MAX_REQUESTS {
            let Some(Source::Client { socket, role }) = self.sources.get(&token) else {
                return;
            };
            let role = *role;
            if self.closer.is_full(role.domid()) {
                return self.drop_connection(token, TOO_MANY_CLOSES);
            }
            match send_space(socket) {
                SendSpace::Available => {}
                SendSpace::Full => return self.pause(token),
                SendSpace::Closed => return self.close_connection(token),
            }
            // Only messages on the grants socket carry a descriptor, and at most one.
            let max_fds = usize::from(matches!(role, Role::Grants(_)));
            let disposition = match self.buffer.receive(socket, max_fds, MESSAGE_MAX) {
                Incoming::UnexpectedFds(fds) => {
                    self.closer.close(role.domid(), fds);
                    Disposition::Drop("unexpected descriptors".to_owned())
                }
                Incoming::Nothing => break,
                Incoming::End => {
                    self.close_connection(token);
                    return;
                }
                Incoming::Invalid(why) => Disposition::Drop(why.to_owned()),
                Incoming::Message(bytes, fds) => match Request::decode(bytes) {
                    Ok((seq, request)) => self.request(token, role, seq, request, fds),
                    Err(malformed) => {
                        let seq = bytes
                            .get(4..8)
                            .and_then(|seq| seq.try_into().ok())
                            .map(u32::from_le_bytes);
                        self.reply_malformed(token, seq, malformed)
                    }
                },
            };
            match disposition {
                Disposition::Keep => {}
                Disposition::Drop(why) => return self.drop_connection(token, &why),
                Disposition::Close => return self.close_connection(token),
            }
        }
        self.resume(token);
    }

    /// Stops serving a client until it has read its pending replies.
    fn pause(&mut self, token: Token) {
        let Some(Source::Client { socket, .. }) = self.sources.get(&token) else {
            return;
        };
        if !self.poller.has_deadline(token) {
            self.poller
                .set_deadline(token, Some(Instant::now() + self.timeouts.read));
        }
        if self.poller.change(token, socket, Interest::Write).is_err() {
            self.close_connection(token);
        }
    }

    /// Ends a pause. The deadline of an unidentified connection stays: it is the one for HELLO.
    fn resume(&mut self, token: Token) {
        let Some(Source::Client { socket, role }) = self.sources.get(&token) else {
            return;
        };
        if matches!(role, Role::Unidentified(_)) || !self.poller.has_deadline(token) {
            return;
        }
        self.poller.set_deadline(token, None);
        if self.poller.change(token, socket, Interest::Read).is_err() {
            self.close_connection(token);
        }
    }

    fn request(
        &mut self,
        token: Token,
        role: Role,
        seq: u32,
        request: Request,
        fds: Vec<OwnedFd>,
    ) -> Disposition {
        if fds.is_empty() == matches!(request, Request::Share { .. }) {
            return Disposition::Drop("the descriptors do not match the message".into());
        }
        match (role, request) {
            (Role::Unidentified(bound), Request::Hello { version, domid }) => {
                self.hello(token, bound, seq, version, domid)
            }
            (
                Role::Grants(domid),
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
                self.reply(token, seq, &or_error(reply, "share"), &[])
            }
            (Role::Grants(domid), Request::Unshare { first_ref }) => {
                // UNSHARE has no reply, so an unknown gref is ignored.
                if self.grants.unshare(domid, first_ref) == Ok(true) {
                    self.domains.refund(domid, 1);
                }
                Disposition::Keep
            }
            (Role::Grants(domid), Request::Map { granter, refs }) => {
                let (reply, fds) = match self.grants.map(domid, granter, &refs) {
                    Ok((runs, fds)) => (Ok(Reply::Map { runs }), fds),
                    Err(errno) => (Err(errno), Vec::new()),
                };
                self.reply(
                    token,
                    seq,
                    &or_error(reply, format_args!("map from domain {granter}")),
                    &fds,
                )
            }
            (Role::Evtchn(domid), Request::Alloc { peer }) => {
                let end = self.allocate(domid, peer);
                self.reply_port(token, seq, end, |port| Reply::Alloc { port }, "allocate")
            }
            (
                Role::Evtchn(domid),
                Request::Bind {
                    remote,
                    remote_port,
                },
            ) => {
                let end = self.channels.bind(domid, remote, remote_port);
                if end.is_ok() {
                    self.domains.refund(remote, evtchn::DESCRIPTORS);
                }
                self.reply_port(token, seq, end, |port| Reply::Bind { port }, "bind")
            }
            (Role::Evtchn(domid), Request::Close { port }) => {
                if self.channels.close(domid, port) == Ok(true) {
                    self.domains.refund(domid, evtchn::DESCRIPTORS);
                }
                Disposition::Keep
            }
            (_, request) => Disposition::Drop(format!("wrong socket for {request:.40?}")),
        }
    }

    fn hello(
        &mut self,
        token: Token,
        bound: Option<Domid>,
        seq: u32,
        version: u32,
        requested: Option<Domid>,
    ) -> Disposition {
        let claimed = if version == VERSION {
            self.claim_domain(token, requested, bound)
        } else {
            let what =
                format!("this hub speaks protocol version {VERSION}, the client speaks {version}");
            Err(Error::new(ErrorKind::HubVersion, what))
        };
        match claimed {
            Ok(domid) => {
                let welcome = Reply::Welcome {
                    version: VERSION,
                    domid,
                };
                self.reply(token, seq, &welcome, &[])
            }
            Err(error) => {
                // The connection closes in any case.
                let _ = self.reply(token, seq, &Reply::Error(error.clone()), &[]);
                Disposition::Drop(error.to_string())
            }
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

    fn reply_port(
        &self,
        token: Token,
        seq: u32,
        end: Result<End, Errno>,
        reply: impl Fn(u32) -> Reply,
        doing: &str,
    ) -> Disposition {
        match end {
            Ok(End { port, read, write }) => {
                let fds = [read.as_fd(), write.as_fd()];
                let disposition = self.reply(token, seq, &reply(port), &fds);
                // This order: an end that sees the end of file must find nobody left to read either.
                drop(read);
                drop(write);
                disposition
            }
            Err(errno) => self.reply(token, seq, &or_error(Err(errno), doing), &[]),
        }
    }

    /// Sends a reply. `send_space` has shown that there is room, so a failure is permanent.
    fn reply(&self, token: Token, seq: u32, reply: &Reply, fds: &[BorrowedFd<'_>]) -> Disposition {
        match self.sources.get(&token) {
            Some(Source::Client { socket, .. }) => {
                match fdpass::send(socket, &reply.encode(seq), fds) {
                    Ok(()) => Disposition::Keep,
                    Err(errno) => Disposition::Drop(format!("cannot send the reply: {errno}")),
                }
            }
            _ => Disposition::Keep,
        }
    }

    /// Replies to a malformed request if its sequence number can be read.
    fn reply_malformed(&self, token: Token, seq: Option<u32>, malformed: Malformed) -> Disposition {
        if let Some(seq) = seq {
            let error = Error::new(ErrorKind::Posix(Errno::INVAL), malformed.to_string());
            // The connection closes in any case.
            let _ = self.reply(token, seq, &Reply::Error(error), &[]);
        }
        match malformed {
            // Not an attack: `probe` sends such a HELLO.
            Malformed::Field("domid") => Disposition::Close,
            _ => Disposition::Drop(malformed.to_string()),
        }
    }
}

fn or_error(reply: Result<Reply, Errno>, doing: impl std::fmt::Display) -> Reply {
    reply.unwrap_or_else(|errno| Reply::Error(Error::posix(errno, doing)))
}
