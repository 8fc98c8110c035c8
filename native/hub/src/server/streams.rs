//! Connections to the store: carries bytes between their sockets and the store.

use std::os::fd::OwnedFd;
use std::time::Instant;

use rustix::io::{Errno, retry_on_intr};
use rustix::net::SendFlags;
use tube_platform::Domid;

use super::close::TOO_MANY_CLOSES;
use super::{Hub, Source};
use crate::packet::Incoming;
use crate::poller::{Interest, Ready, Token};
use crate::store::{ConnectionError, Notice};

/// Bytes read from one connection before its replies are sent and the others get their turn. They
/// hold at most 256 requests, whose replies stay within the store's limit for a connection.
const MAX_BYTES: usize = 4096;

/// The node removed when the process of domain 0 ends: it holds that domain's service directory
/// and tubes. libxl removes such nodes with the domain, but never destroys domain 0.
const DATA_OF_DOMAIN_0: &[u8] = b"/local/domain/0/data\0";

impl Hub {
    /// Adds a connection, already counted, to the store and the event loop.
    pub(super) fn open_stream(
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

    pub(super) fn serve_stream(&mut self, ready: Ready) {
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
                return self.drop_connection(ready.token, TOO_MANY_CLOSES);
            }
            match self.buffer.receive(socket, 0, MAX_BYTES) {
                Incoming::Nothing => {}
                Incoming::End => return self.close_connection(ready.token),
                Incoming::Message(bytes, _) => {
                    if let Err(error) = self.store.receive(conn, bytes) {
                        return self.drop_connection(ready.token, &drop_reason(error));
                    }
                }
                Incoming::UnexpectedFds(fds) => {
                    self.closer.close(domid, fds);
                    return self.drop_connection(ready.token, "unexpected descriptors");
                }
                Incoming::Invalid(why) => return self.drop_connection(ready.token, why),
            }
        }
        if ready.write {
            self.flush(ready.token);
        }
    }

    /// Acts on the notices of the store until there are none.
    pub(super) fn handle_notices(&mut self) {
        loop {
            let notices = self.store.notices();
            if notices.is_empty() {
                return;
            }
            for notice in notices {
                let (Notice::Output(conn) | Notice::Close(conn, _)) = notice;
                let Some(&token) = self.streams.get(&conn) else {
                    continue;
                };
                match notice {
                    Notice::Output(_) => self.flush(token),
                    Notice::Close(_, error) => self.drop_connection(token, &drop_reason(error)),
                }
            }
        }
    }

    /// Sends pending output until the socket is full. The rest stays in the store, which limits it.
    fn flush(&mut self, token: Token) {
        let Some(Source::Stream { socket, conn, .. }) = self.sources.get(&token) else {
            return;
        };
        let conn = *conn;
        let mut progress = false;
        loop {
            let output = self.store.output(conn);
            if output.is_empty() {
                break;
            }
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match retry_on_intr(|| rustix::net::send(socket, output, flags)) {
                Ok(sent) => self.store.sent(conn, sent),
                Err(Errno::AGAIN) => break,
                Err(_) => return self.close_connection(token),
            }
            progress = true;
        }
        let pending = !self.store.output(conn).is_empty();
        let interest = match (pending, self.store.wants_input(conn)) {
            (false, _) => Interest::Read,
            (true, true) => Interest::ReadWrite,
            (true, false) => Interest::Write,
        };
        if self.poller.change(token, socket, interest).is_err() {
            return self.close_connection(token);
        }
        if !pending {
            self.poller.set_deadline(token, None);
        } else if progress || !self.poller.has_deadline(token) {
            self.poller
                .set_deadline(token, Some(Instant::now() + self.timeouts.read));
        }
    }

    /// Releases a domain from the store. Domain 0 stays, without its `data`.
    pub(super) fn release_from_store(&mut self, domid: Domid) {
        if domid != 0 {
            self.store.release(domid);
        } else if let Some(conn) = self.store.connect(0) {
            // No transaction. The wire format uses native byte order.
            const RM: u32 = 13;
            let length = DATA_OF_DOMAIN_0.len() as u32;
            let header: Vec<u8> = [RM, 0, 0, length]
                .into_iter()
                .flat_map(u32::to_ne_bytes)
                .collect();
            // The request is well formed, and the reply is discarded.
            let _ = self
                .store
                .receive(conn, &[&header, DATA_OF_DOMAIN_0].concat());
            self.store.disconnect(conn);
        }
    }
}

fn drop_reason(error: ConnectionError) -> String {
    match error {
        ConnectionError::Oversized { len } => format!("a request of {len} bytes"),
        ConnectionError::Unread => "the client does not read its output".to_owned(),
        ConnectionError::Unknown => "its domain has ended".to_owned(),
    }
}
