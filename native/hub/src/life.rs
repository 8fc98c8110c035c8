//! How domains begin and end.

use rustix::io::Errno;
use tube_platform::local::proto::{Reply, VERSION};
use tube_platform::{Domid, Error, ErrorKind};

use crate::domains::Refusal;
use crate::poller::Token;
use crate::requests::Fate;
use crate::server::{Hub, Source, Standing};
use crate::socket_kind::SocketKind;

impl Hub {
    /// A newcomer says who it wants to be.
    pub(crate) fn hello(
        &mut self,
        token: Token,
        bound: Option<Domid>,
        seq: u32,
        version: u32,
        asked: Option<Domid>,
    ) -> Fate {
        let claimed = if version == VERSION {
            self.domains
                .choose(asked, bound)
                .map_err(refused)
                .and_then(|domid| self.begin_domain(domid, token).map(|()| domid))
        } else {
            let what =
                format!("this hub speaks protocol version {VERSION}, the client speaks {version}");
            Err(Error::new(ErrorKind::HubVersion, what))
        };
        match claimed {
            Ok(domid) => self.answer(
                token,
                seq,
                &Reply::Welcome {
                    version: VERSION,
                    domid,
                },
                &[],
            ),
            Err(error) => {
                // It goes in any case.
                let _ = self.answer(token, seq, &Reply::Error(error.clone()), &[]);
                Fate::Goes(error.to_string())
            }
        }
    }

    /// The connection becomes that domain: its sockets, its place in the store.
    fn begin_domain(&mut self, domid: Domid, token: Token) -> Result<(), Error> {
        if !self.domains.claim(domid) {
            return Err(Error::posix(Errno::NOSPC, "too many domains"));
        }
        // From here on the end of this connection is the end of the domain, which also cleans
        // up after a beginning that fails half-way.
        let mut who = String::from("an unknown process");
        if let Some(Source::Client { socket, standing }) = self.sources.get_mut(&token) {
            if let Ok(peer) = rustix::net::sockopt::socket_peercred(socket) {
                who = format!(
                    "process {} of user {}",
                    peer.pid.as_raw_pid(),
                    peer.uid.as_raw()
                );
            }
            match std::mem::replace(standing, Standing::Life(domid)) {
                Standing::Stranger(Some(bound)) => {
                    self.domains.disconnect(bound, SocketKind::Control)
                }
                _ => self.strangers -= 1,
            }
        }
        self.poller.set_deadline(token, None);
        self.count_domains();
        self.open_domain(domid)
            .map_err(|errno| Error::posix(errno, format_args!("cannot set up domain {domid}")))?;
        self.store.introduce(domid);
        self.log.note(format_args!("domain {domid} begins: {who}"));
        Ok(())
    }

    fn open_domain(&mut self, domid: Domid) -> Result<(), Errno> {
        if !self.domains.kept(domid) {
            self.run.make_domain(domid, None)?;
        }
        for kind in SocketKind::PER_DOMAIN {
            if !self.listeners.contains_key(&(domid, kind)) {
                self.open_listener(kind, domid)?;
            }
        }
        Ok(())
    }

    /// Its connection has ended: everything of that domain goes.
    pub(crate) fn end_domain(&mut self, domid: Domid) {
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
                    standing: Standing::Grants(whose) | Standing::Evtchn(whose),
                    ..
                } => *whose == domid,
                // Domain 0's are those of people who look at the store.
                Source::Stream { domid: whose, .. } => *whose == domid && domid != 0,
                Source::Client {
                    standing: Standing::Stranger(Some(whose)),
                    ..
                } => *whose == domid && !owned,
                _ => false,
            })
            .map(|(&token, _)| token)
            .collect();
        for token in connections {
            self.close_source(token);
        }
        for whose in self.grants.forget(domid) {
            self.domains.refund(whose, 1);
        }
        for whose in self.channels.forget(domid) {
            self.domains.refund(whose, crate::evtchn::DESCRIPTORS);
        }
        self.release_from_store(domid);
        self.domains.end(domid);
        self.count_domains();
        if !self.domains.kept(domid)
            && let Err(errno) = self.run.remove_domain(domid)
        {
            self.log.note(format_args!("dom{domid} stays: {errno}"));
        }
        self.log.note(format_args!("domain {domid} has ended"));
    }
}

fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::Taken(domid) => Error::new(
            ErrorKind::DomidTaken,
            format!("another process is domain {domid} already"),
        ),
        Refusal::NoneFree => Error::posix(Errno::NOSPC, "no domain is free"),
        Refusal::WrongSocket(domid) => Error::posix(
            Errno::PERM,
            format_args!("this socket is for domain {domid} alone"),
        ),
    }
}
