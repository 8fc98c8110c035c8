//! How domains begin and end.

use rustix::io::Errno;
use tube_platform::{Domid, Error, ErrorKind};

use super::{Hub, Role, Source};
use crate::domains::ClaimError;
use crate::evtchn;
use crate::poller::Token;
use crate::socket_kind::SocketKind;

impl Hub {
    /// Makes an unidentified connection the control connection of a domain: the one it requests,
    /// the one that its socket is bound to, or any free one.
    pub(super) fn claim_domain(
        &mut self,
        token: Token,
        requested: Option<Domid>,
        bound: Option<Domid>,
    ) -> Result<Domid, Error> {
        let domid = self.domains.choose(requested, bound).map_err(reply_error)?;
        self.begin_domain(domid, token)?;
        Ok(domid)
    }

    /// Gives a domain its control connection, its sockets and its nodes in the store.
    fn begin_domain(&mut self, domid: Domid, token: Token) -> Result<(), Error> {
        if !self.domains.claim(domid) {
            return Err(Error::posix(Errno::NOSPC, "too many domains"));
        }
        // From here on closing this connection ends the domain. That also cleans up if one of the
        // following steps fails.
        let mut process = String::from("an unknown process");
        if let Some(Source::Client { socket, role }) = self.sources.get_mut(&token) {
            if let Ok(peer) = rustix::net::sockopt::socket_peercred(socket) {
                process = format!(
                    "process {} of user {}",
                    peer.pid.as_raw_pid(),
                    peer.uid.as_raw()
                );
            }
            match std::mem::replace(role, Role::Control(domid)) {
                Role::Unidentified(Some(bound)) => {
                    self.domains.remove_connection(bound, SocketKind::Control);
                }
                _ => self.unidentified -= 1,
            }
        }
        self.poller.set_deadline(token, None);
        self.update_idle();
        self.open_domain(domid)
            .map_err(|errno| Error::posix(errno, format_args!("cannot set up domain {domid}")))?;
        self.store.introduce(domid);
        self.log
            .note(format_args!("domain {domid} begins: {process}"));
        Ok(())
    }

    fn open_domain(&mut self, domid: Domid) -> Result<(), Errno> {
        if !self.domains.is_kept(domid) {
            self.run.make_domain(domid, None)?;
        }
        for kind in SocketKind::PER_DOMAIN {
            if !self.listeners.contains_key(&(domid, kind)) {
                self.open_listener(kind, domid)?;
            }
        }
        Ok(())
    }

    /// Ends a domain whose control connection has closed, and releases everything that it held.
    pub(super) fn end_domain(&mut self, domid: Domid) {
        let owned = self.domains.owner(domid).is_some();
        for kind in SocketKind::PER_DOMAIN {
            let stays =
                kind == SocketKind::Store && domid == 0 || kind == SocketKind::Control && owned;
            if !stays {
                self.close_listener(kind, domid);
            }
        }
        let connections: Vec<Token> = self
            .sources
            .iter()
            .filter(|(_, source)| match source {
                Source::Client {
                    role: Role::Grants(of) | Role::Evtchn(of),
                    ..
                } => *of == domid,
                // Administrators use those of domain 0.
                Source::Stream { domid: of, .. } => *of == domid && domid != 0,
                Source::Client {
                    role: Role::Unidentified(Some(of)),
                    ..
                } => *of == domid && !owned,
                _ => false,
            })
            .map(|(&token, _)| token)
            .collect();
        for token in connections {
            self.close_connection(token);
        }
        for charged in self.grants.remove_domain(domid) {
            self.domains.refund(charged, 1);
        }
        for charged in self.channels.remove_domain(domid) {
            self.domains.refund(charged, evtchn::DESCRIPTORS);
        }
        self.release_from_store(domid);
        self.domains.end(domid);
        self.update_idle();
        if !self.domains.is_kept(domid)
            && let Err(errno) = self.run.remove_domain(domid)
        {
            self.log
                .note(format_args!("cannot remove dom{domid}: {errno}"));
        }
        self.log.note(format_args!("domain {domid} has ended"));
    }
}

fn reply_error(error: ClaimError) -> Error {
    match error {
        ClaimError::Taken(domid) => Error::new(
            ErrorKind::DomidTaken,
            format!("another process is domain {domid} already"),
        ),
        ClaimError::NoneFree => Error::posix(Errno::NOSPC, "no domain is free"),
        ClaimError::WrongSocket(domid) => Error::posix(
            Errno::PERM,
            format_args!("this socket is for domain {domid} alone"),
        ),
    }
}
