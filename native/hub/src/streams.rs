//! Connections to the store: bytes in, bytes out. What they mean is the store's.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::SendFlags;
use tube_platform::Domid;

use crate::packet::Incoming;
use crate::poller::{Interest, Ready, Token};
use crate::requests::OVERRUN;
use crate::server::{Hub, Source};
use crate::store::{Kill, Notice};

/// Bytes taken from one connection before the others get their turn and its answers go out.
/// At most 256 requests, so that the answers to those who ask many at once stay within what
/// the store keeps for a connection.
const TURN: usize = 4096;

/// What libxl removes of a domain that it destroys, for the one that is never destroyed:
/// what the process that was domain 0 put where its tubes are found.
const HOME_OF_0: &[u8] = b"/local/domain/0/data\0";

impl Hub {
    /// A new connection, already counted.
    pub(crate) fn open_stream(
        &mut self,
        socket: OwnedFd,
        domid: Domid,
    ) -> Result<(), (OwnedFd, Errno)> {
        let token = match self.poller.add(&socket, Interest::Read) {
            Ok(token) => token,
            Err(errno) => return Err((socket, errno)),
        };
        let Some(conn) = self.store.connect(domid) else {
            self.poller.remove(token, &socket);
            return Err((socket, Errno::NOENT));
        };
        self.streams.insert(conn, token);
        let source = Source::Stream {
            socket,
            conn,
            domid,
        };
        self.sources.insert(token, source);
        Ok(())
    }

    pub(crate) fn serve_stream(&mut self, ready: Ready) {
        let Some(Source::Stream {
            socket,
            conn,
            domid,
        }) = self.sources.get(&ready.token)
        else {
            return;
        };
        let (conn, domid) = (*conn, *domid);
        if ready.read && self.store.wants_input(conn) {
            if self.closer.is_full(domid) {
                return self.drop_source(ready.token, OVERRUN);
            }
            match self.packets.receive(socket, 0, TURN) {
                Incoming::Nothing => {}
                Incoming::End => return self.close_source(ready.token),
                Incoming::Message(bytes, _) => {
                    if let Err(kill) = self.store.receive(conn, bytes) {
                        return self.drop_source(ready.token, &why(kill));
                    }
                }
                Incoming::Foreign(fds) => {
                    self.closer.close(domid, fds);
                    return self.drop_source(ready.token, "it sent descriptors");
                }
                Incoming::Bad(why) => return self.drop_source(ready.token, why),
            }
        }
        if ready.write {
            self.flush(ready.token);
        }
    }

    /// Does what the store wants done, until it wants nothing more.
    pub(crate) fn act_on_notices(&mut self) {
        loop {
            let notices = self.store.notices();
            if notices.is_empty() {
                return;
            }
            for notice in notices {
                let (Notice::Output(conn) | Notice::Kill(conn, _)) = notice;
                let Some(&token) = self.streams.get(&conn) else {
                    continue;
                };
                match notice {
                    Notice::Output(_) => self.flush(token),
                    Notice::Kill(_, kill) => self.drop_source(token, &why(kill)),
                }
            }
        }
    }

    /// Sends what there is, as far as the client reads. What is left waits in the store,
    /// which limits it.
    fn flush(&mut self, token: Token) {
        let Some(Source::Stream { socket, conn, .. }) = self.sources.get(&token) else {
            return;
        };
        let conn = *conn;
        let mut moved = false;
        loop {
            let output = self.store.output(conn);
            if output.is_empty() {
                break;
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match retry_on_intr(|| rustix::net::send(socket, output, flags)) {
                Ok(sent) => self.store.sent(conn, sent),
                Err(Errno::AGAIN) => break,
                Err(_) => return self.close_source(token),
            }
            moved = true;
        }
        let waiting = !self.store.output(conn).is_empty();
        let interest = match (waiting, self.store.wants_input(conn)) {
            (false, _) => Interest::Read,
            (true, true) => Interest::ReadWrite,
            (true, false) => Interest::Write,
        };
        if self.poller.change(token, socket, interest).is_err() {
            return self.close_source(token);
        }
        if !waiting {
            self.poller.set_deadline(token, None);
        } else if moved || !self.poller.has_deadline(token) {
            self.poller
                .set_deadline(token, Some(Instant::now() + self.patience.reading));
        }
    }

    /// The end of a domain, for the store.
    pub(crate) fn release_from_store(&mut self, domid: Domid) {
        if domid != 0 {
            self.store.release(domid);
        } else if let Some(conn) = self.store.connect(0) {
            // Type RM, no transaction; fields in our own byte order, as the protocol has it.
            const RM: u32 = 13;
            let length = HOME_OF_0.len() as u32;
            let header: Vec<u8> = [RM, 0, 0, length]
                .into_iter()
                .flat_map(u32::to_ne_bytes)
                .collect();
            // It is complete and well formed, and nobody reads the answer.
            let _ = self.store.receive(conn, &[&header, HOME_OF_0].concat());
            self.store.disconnect(conn);
        }
    }
}

fn why(kill: Kill) -> String {
    match kill {
        Kill::Oversized { len } => format!("a request of {len} bytes"),
        Kill::Unread => "it does not read".to_owned(),
        Kill::Unknown => "its domain is gone".to_owned(),
    }
}
