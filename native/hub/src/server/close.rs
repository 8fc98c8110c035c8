//! How connections close.

use super::{Hub, Role, Source};
use crate::poller::Token;
use crate::socket_kind::SocketKind;

/// Drop reason: the domain has too many pending closes.
pub const TOO_MANY_CLOSES: &str = "too many pending closes";

impl Hub {
    /// Takes a source out of the event loop. The caller closes it, in the background if clients
    /// can fill it.
    pub(super) fn remove_source(&mut self, token: Token) -> Option<Source> {
        let source = self.sources.remove(&token)?;
        match &source {
            Source::Stop(fd) => self.poller.remove(token, fd),
            Source::Listener { socket, .. }
            | Source::Client { socket, .. }
            | Source::Stream { socket, .. } => self.poller.remove(token, socket),
        }
        Some(source)
    }

    /// Logs why a connection closes, and closes it.
    pub(super) fn drop_connection(&mut self, token: Token, why: &str) {
        let what = match self.sources.get(&token) {
            Some(Source::Client { role, .. }) => role.to_string(),
            Some(Source::Stream { domid, .. }) => format!("a store connection of domain {domid}"),
            _ => return,
        };
        self.log.note(format_args!("dropped {what}: {why}"));
        self.close_connection(token);
    }

    /// Closes a connection and releases all that depends on it: for a control connection, its
    /// domain.
    pub(super) fn close_connection(&mut self, token: Token) {
        match self.remove_source(token) {
            Some(Source::Client { socket, role }) => {
                self.closer.close_socket(role.domid(), socket);
                match role {
                    Role::Unidentified(None) => self.unidentified -= 1,
                    Role::Unidentified(Some(domid)) => {
                        self.domains.remove_connection(domid, SocketKind::Control);
                    }
                    Role::Grants(domid) => {
                        self.domains.remove_connection(domid, SocketKind::Grants);
                    }
                    Role::Evtchn(domid) => {
                        self.domains.remove_connection(domid, SocketKind::Evtchn);
                    }
                    Role::Control(domid) => self.end_domain(domid),
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
                self.domains.remove_connection(domid, SocketKind::Store);
            }
            Some(Source::Stop(_) | Source::Listener { .. }) | None => {}
        }
    }
}
