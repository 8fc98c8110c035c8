//! Connections: how they come in, and how they go.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SocketFlags;
use tube_platform::Domid;

use crate::owner::admit;
use crate::packet::Packets;
use crate::poller::{Interest, Token};
use crate::server::{Hub, Source, Standing};
use crate::socket_kind::SocketKind;

/// How long a kind stays shut when nobody can be let in.
const SHUT: Duration = Duration::from_millis(50);

impl Hub {
    /// Takes one connection; level-triggered readiness brings us back for the next.
    pub(crate) fn accept(&mut self, at: Token) {
        let Some(Source::Listener {
            socket,
            kind,
            domid,
        }) = self.sources.get(&at)
        else {
            return;
        };
        let (kind, domid) = (*kind, *domid);
        if kind == SocketKind::Hub && self.strangers >= kind.max_connections() {
            // They say who they are within moments. The others can wait in the kernel.
            return self.shut(at);
        }
        if self.closer.is_full(domid) {
            return self.shut(at);
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = match rustix::net::accept_with(socket, flags) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => return,
            Err(errno) => {
                // Our descriptors are counted, so the host is running out of something. The
                // connection still waits: without a pause we would be back here at once.
                let place = kind.relative_path(domid);
                self.log.note(format_args!("accept on {place}: {errno}"));
                return self.shut(at);
            }
        };
        if let Err((socket, why)) = self.let_in(socket, kind, domid) {
            let place = kind.relative_path(domid);
            self.log.note(format_args!("{place}: {why}"));
            self.closer.close_socket(domid, socket);
        }
    }

    /// Stops looking at a kind for a moment.
    fn shut(&mut self, kind: Token) {
        self.poller.set_deadline(kind, Some(Instant::now() + SHUT));
        self.look_at(kind, Interest::Nothing);
    }

    fn look_at(&mut self, kind: Token, interest: Interest) {
        if let Some(Source::Listener { socket, .. }) = self.sources.get(&kind)
            && let Err(errno) = self.poller.change(kind, socket, interest)
        {
            self.log.note(format_args!("epoll: {errno}"));
        }
    }

    /// A deadline has come.
    pub(crate) fn time_is_up(&mut self, token: Token) {
        match self.sources.get(&token) {
            Some(Source::Listener { .. }) => self.look_at(token, Interest::Read),
            _ => self.drop_source(token, "it kept us waiting"),
        }
    }

    /// Takes in a new connection if its user may and its domain has room for it; else gives it
    /// back with the reason.
    fn let_in(
        &mut self,
        socket: OwnedFd,
        kind: SocketKind,
        domid: Domid,
    ) -> Result<(), (OwnedFd, String)> {
        let owner = match kind {
            SocketKind::Hub => None,
            _ => self.domains.owner(domid),
        };
        if let Err(uid) = admit(&socket, owner) {
            return Err((socket, format!("user {uid} may not")));
        }
        if kind == SocketKind::Hub {
            self.strangers += 1;
        } else if !self.domains.connect(domid, kind) {
            return Err((socket, "too many connections".to_owned()));
        }
        self.welcome(socket, kind, domid)
            .map_err(|(socket, errno)| {
                match kind {
                    SocketKind::Hub => self.strangers -= 1,
                    _ => self.domains.disconnect(domid, kind),
                }
                (socket, errno.to_string())
            })
    }

    /// Puts a new connection, already counted, into the event loop.
    fn welcome(
        &mut self,
        socket: OwnedFd,
        kind: SocketKind,
        domid: Domid,
    ) -> Result<(), (OwnedFd, Errno)> {
        let standing = match kind {
            SocketKind::Store => return self.open_stream(socket, domid),
            SocketKind::Hub => Standing::Stranger(None),
            SocketKind::Control => Standing::Stranger(Some(domid)),
            SocketKind::Grants => Standing::Grants(domid),
            SocketKind::Evtchn => Standing::Evtchn(domid),
        };
        let added =
            Packets::prepare(&socket).and_then(|()| self.poller.add(&socket, Interest::Read));
        let token = match added {
            Ok(token) => token,
            Err(errno) => return Err((socket, errno)),
        };
        if let Standing::Stranger(_) = standing {
            self.poller
                .set_deadline(token, Some(Instant::now() + self.patience.hello));
        }
        self.sources
            .insert(token, Source::Client { socket, standing });
        Ok(())
    }

    /// Takes a source out of the event loop. The caller closes what clients may have filled in
    /// the background.
    pub(crate) fn take_source(&mut self, token: Token) -> Option<Source> {
        let source = self.sources.remove(&token)?;
        match &source {
            Source::Stop(fd) => self.poller.remove(token, fd),
            Source::Listener { socket, .. }
            | Source::Client { socket, .. }
            | Source::Stream { socket, .. } => self.poller.remove(token, socket),
        }
        Some(source)
    }

    /// Drops a client for a reason that is worth a line.
    pub(crate) fn drop_source(&mut self, token: Token, why: &str) {
        let who = match self.sources.get(&token) {
            Some(Source::Client { standing, .. }) => standing.to_string(),
            Some(Source::Stream { domid, .. }) => format!("a store connection of domain {domid}"),
            _ => return,
        };
        self.log.note(format_args!("dropped {who}: {why}"));
        self.close_source(token);
    }

    /// Closes a connection and undoes what it stood for.
    pub(crate) fn close_source(&mut self, token: Token) {
        match self.take_source(token) {
            Some(Source::Client { socket, standing }) => {
                self.closer.close_socket(standing.domid(), socket);
                match standing {
                    Standing::Stranger(None) => self.strangers -= 1,
                    Standing::Stranger(Some(domid)) => {
                        self.domains.disconnect(domid, SocketKind::Control);
                    }
                    Standing::Grants(domid) => self.domains.disconnect(domid, SocketKind::Grants),
                    Standing::Evtchn(domid) => self.domains.disconnect(domid, SocketKind::Evtchn),
                    Standing::Life(domid) => self.end_domain(domid),
                }
            }
            Some(Source::Stream {
                socket,
                conn,
                domid,
            }) => {
                self.closer.close_socket(domid, socket);
                self.streams.remove(&conn);
                self.store.disconnect(conn);
                self.domains.disconnect(domid, SocketKind::Store);
            }
            Some(Source::Stop(_) | Source::Listener { .. }) | None => {}
        }
    }
}
