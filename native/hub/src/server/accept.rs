//! Listening sockets, and the connections accepted on them.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::SocketFlags;
use tube_platform::Domid;

use super::{Hub, Role, Source};
use crate::listener;
use crate::owner::check_peer;
use crate::packet;
use crate::poller::{Interest, Token};
use crate::socket_kind::SocketKind;

/// How long the hub stops accepting on a socket when it cannot take a connection.
const PAUSE: Duration = Duration::from_millis(50);

impl Hub {
    /// Opens a listening socket, charged to its domain.
    pub(super) fn open_listener(&mut self, kind: SocketKind, domid: Domid) -> Result<(), Errno> {
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

    /// Closes a listening socket and removes its file.
    pub(super) fn close_listener(&mut self, kind: SocketKind, domid: Domid) {
        if let Some(token) = self.listeners.remove(&(domid, kind)) {
            let _ = self.run.remove_socket(&kind.relative_path(domid));
            if let Some(Source::Listener { socket, .. }) = self.remove_source(token) {
                // In the background, since unaccepted connections close with it, and whatever
                // they carry.
                self.closer.close_socket(domid, socket);
            }
            self.domains.refund(domid, 1);
        }
    }

    /// Accepts one connection. Readiness is level-triggered, so the next one causes another event.
    pub(super) fn accept(&mut self, listener: Token) {
        let Some(Source::Listener {
            socket,
            kind,
            domid,
        }) = self.sources.get(&listener)
        else {
            return;
        };
        let (kind, domid) = (*kind, *domid);
        if kind == SocketKind::Hub && self.unidentified >= kind.max_connections() {
            // Clients identify themselves within moments. The others can wait in the kernel.
            return self.pause_accepting(listener);
        }
        if self.closer.is_full(domid) {
            return self.pause_accepting(listener);
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = match rustix::net::accept_with(socket, flags) {
            Ok(socket) => socket,
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => return,
            Err(errno) => {
                // The hub counts its descriptors, so the host is short of something. The connection
                // still waits: without a pause the loop would spin.
                let path = kind.relative_path(domid);
                self.log.note(format_args!("accept on {path}: {errno}"));
                return self.pause_accepting(listener);
            }
        };
        if let Err((socket, why)) = self.admit(socket, kind, domid) {
            let path = kind.relative_path(domid);
            self.log
                .note(format_args!("refused a connection to {path}: {why}"));
            self.closer.close_socket(domid, socket);
        }
    }

    fn pause_accepting(&mut self, listener: Token) {
        self.poller
            .set_deadline(listener, Some(Instant::now() + PAUSE));
        self.set_accepting(listener, Interest::Nothing);
    }

    pub(super) fn resume_accepting(&mut self, listener: Token) {
        self.set_accepting(listener, Interest::Read);
    }

    fn set_accepting(&mut self, listener: Token, interest: Interest) {
        if let Some(Source::Listener { socket, .. }) = self.sources.get(&listener)
            && let Err(errno) = self.poller.change(listener, socket, interest)
        {
            self.log.note(format_args!("epoll: {errno}"));
        }
    }

    /// Takes a new connection if its user may connect and its domain has room for it. Otherwise
    /// gives it back with the reason.
    fn admit(
        &mut self,
        socket: OwnedFd,
        kind: SocketKind,
        domid: Domid,
    ) -> Result<(), (OwnedFd, String)> {
        let owner = match kind {
            SocketKind::Hub => None,
            _ => self.domains.owner(domid),
        };
        if let Err(uid) = check_peer(&socket, owner) {
            return Err((socket, format!("user {uid} may not use it")));
        }
        if kind == SocketKind::Hub {
            self.unidentified += 1;
        } else if !self.domains.add_connection(domid, kind) {
            return Err((socket, "too many connections".to_owned()));
        }
        self.register(socket, kind, domid)
            .map_err(|(socket, errno)| {
                match kind {
                    SocketKind::Hub => self.unidentified -= 1,
                    _ => self.domains.remove_connection(domid, kind),
                }
                (socket, errno.to_string())
            })
    }

    /// Adds a connection, already counted, to the event loop.
    fn register(
        &mut self,
        socket: OwnedFd,
        kind: SocketKind,
        domid: Domid,
    ) -> Result<(), (OwnedFd, Errno)> {
        let role = match kind {
            SocketKind::Store => return self.open_stream(socket, domid),
            SocketKind::Hub => Role::Unidentified(None),
            SocketKind::Control => Role::Unidentified(Some(domid)),
            SocketKind::Grants => Role::Grants(domid),
            SocketKind::Evtchn => Role::Evtchn(domid),
        };
        let added =
            packet::limit_unread(&socket).and_then(|()| self.poller.add(&socket, Interest::Read));
        let token = match added {
            Ok(token) => token,
            Err(errno) => return Err((socket, errno)),
        };
        if let Role::Unidentified(_) = role {
            self.poller
                .set_deadline(token, Some(Instant::now() + self.timeouts.hello));
        }
        self.sources.insert(token, Source::Client { socket, role });
        Ok(())
    }
}
