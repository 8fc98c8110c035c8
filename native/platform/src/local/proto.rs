//! The hub protocol: pure encoding and decoding, for the hub and its clients.
//!
//! All sockets except xenstore's are `SOCK_SEQPACKET`, and one packet is one message: `u32 op, u32
//! seq`, then the fields below, little-endian and packed. A reply repeats `seq` and has bit 31 of
//! `op` set. [`Reply::Error`] can replace any reply. A client has one request at a time in flight
//! per connection.
//!
//! | socket | request | reply, with descriptors |
//! |---|---|---|
//! | hub, control | HELLO `u32 version, i32 domid or -1` | WELCOME `u32 version, u16 domid` |
//! | grants | SHARE `u16 peer, u32 pages, u32 access` + 1 memfd | `u32 first_ref` |
//! | grants | UNSHARE `u32 first_ref` | none |
//! | grants | MAP `u16 granter, u32 n, u32 refs[n]` | `u32 nruns, (u32 fd_index, u32 first_page, u32 pages, u32 access)[nruns]` + memfds |
//! | evtchn | ALLOC `u16 peer` | `u32 port` + read end, write end |
//! | evtchn | BIND `u16 remote, u32 remote_port` | `u32 port` + read end, write end |
//! | evtchn | CLOSE `u32 port` | none |
//! | any | | ERROR `u32 code, utf-8 text` |
//!
//! UNSHARE and CLOSE are *notices*: they have no reply, not even an error, so that releasing never
//! waits. They share a connection with the requests, so they take effect before the domain's next
//! request.
//!
//! The hub sends WELCOME once the domain's own sockets accept connections. The domain lives as long
//! as that connection: at its end of file the hub destroys the domain. The version in HELLO and
//! WELCOME and the whole of ERROR have the same layout in every version, so that two versions that
//! do not match can still report it.

mod wire;

pub use wire::Malformed;

use crate::{Access, Domid, Error, ErrorKind, Gref};
use wire::{Reader, Writer, access_code, domid};

/// Version of this protocol. Both sides must have the same.
pub const VERSION: u32 = 1;

/// The most descriptors that one message can carry (`SCM_MAX_FD` in Linux).
pub const FDS_MAX: usize = 253;

/// Most pages in one share: the low bits of a reference number them.
pub const SHARE_PAGES_MAX: u32 = 1 << PAGE_BITS;

/// Most references in one MAP. Its reply then fits in [`MESSAGE_MAX`] even if each reference is a
/// run of its own. The client must also keep the reply within [`FDS_MAX`] memfds; the hub refuses
/// more.
pub const MAP_REFS_MAX: usize = 512;

/// Bytes in the longest message.
pub const MESSAGE_MAX: usize = 16 * 1024;

/// Most bytes of text in an ERROR; longer text is truncated.
pub const TEXT_MAX: usize = 512;

const PAGE_BITS: u32 = 10;
const REPLY: u32 = 0x8000_0000;

const HELLO: u32 = 1;
const SHARE: u32 = 2;
const UNSHARE: u32 = 3;
const MAP: u32 = 4;
const ALLOC: u32 = 5;
const BIND: u32 = 6;
const CLOSE: u32 = 7;
const ERROR: u32 = REPLY;

/// The reference of one page of a share. Each granting domain numbers its shares, in 22 bits.
pub const fn gref(share: u32, page: u32) -> Gref {
    share << PAGE_BITS | page
}

/// The share that a reference belongs to.
pub const fn share_of(gref: Gref) -> u32 {
    gref >> PAGE_BITS
}

/// The page within its share.
pub const fn page_of(gref: Gref) -> u32 {
    gref & (SHARE_PAGES_MAX - 1)
}

/// A message from a domain to the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// First message on a control connection.
    Hello {
        /// [`VERSION`] of the sender.
        version: u32,
        /// The domain to attach to, or none for the lowest free one from 1. Ignored if the versions
        /// differ.
        domid: Option<Domid>,
    },
    /// Grants the pages of the memfd that comes with it.
    Share {
        /// The domain that may map them.
        peer: Domid,
        /// Their number, from the start of the memfd; 1 to [`SHARE_PAGES_MAX`].
        pages: u32,
        /// What the peer may do with them.
        access: Access,
    },
    /// Ends a grant. Existing mappings stay. Has no reply.
    Unshare {
        /// From the reply to `Share`.
        first_ref: Gref,
    },
    /// Requests the memfds behind references, 1 to [`MAP_REFS_MAX`].
    Map {
        /// The domain that granted them.
        granter: Domid,
        /// In the order in which they will be mapped.
        refs: Vec<Gref>,
    },
    /// Allocates an event channel that `peer` may bind to.
    Alloc {
        /// The domain that may bind.
        peer: Domid,
    },
    /// Binds to a port that `remote` allocated for us.
    Bind {
        /// The domain that allocated the port.
        remote: Domid,
        /// The port's number in that domain.
        remote_port: u32,
    },
    /// Closes a port. Has no reply.
    Close {
        /// The port's number in our domain.
        port: u32,
    },
}

/// A message from the hub to a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `Hello`.
    Welcome {
        /// [`VERSION`] of the hub.
        version: u32,
        /// The domain that this connection is attached to.
        domid: Domid,
    },
    /// To `Share`. The other pages have the references that follow.
    Share {
        /// The reference of the first page.
        first_ref: Gref,
    },
    /// To `Map`: runs that cover the references in order, with the memfd of each share. A memfd is
    /// sent once, even if it has several runs.
    Map {
        /// Runs of adjacent pages.
        runs: Vec<Run>,
    },
    /// To `Alloc`, with the read end and the write end.
    Alloc {
        /// The new port.
        port: u32,
    },
    /// To `Bind`, with the read end and the write end.
    Bind {
        /// The new port.
        port: u32,
    },
    /// In reply to any request that failed.
    Error(Error),
}

/// Adjacent pages of one memfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Index into the message's descriptors.
    pub fd_index: u32,
    /// First page in the memfd.
    pub first_page: u32,
    /// Number of pages; at least one.
    pub pages: u32,
    /// The granted access.
    pub access: Access,
}

impl Request {
    /// Whether the hub replies to it. A request without a reply is a notice.
    pub fn has_reply(&self) -> bool {
        !matches!(self, Self::Unshare { .. } | Self::Close { .. })
    }

    /// Encodes the message.
    pub fn encode(&self, seq: u32) -> Vec<u8> {
        match self {
            Self::Hello { version, domid } => Writer::new(HELLO, seq)
                .u32(*version)
                .u32(domid.map_or(u32::MAX, u32::from)),
            Self::Share {
                peer,
                pages,
                access,
            } => Writer::new(SHARE, seq)
                .u16(*peer)
                .u32(*pages)
                .u32(access_code(*access)),
            Self::Unshare { first_ref } => Writer::new(UNSHARE, seq).u32(*first_ref),
            Self::Map { granter, refs } => refs.iter().fold(
                Writer::new(MAP, seq).u16(*granter).u32(refs.len() as u32),
                |w, gref| w.u32(*gref),
            ),
            Self::Alloc { peer } => Writer::new(ALLOC, seq).u16(*peer),
            Self::Bind {
                remote,
                remote_port,
            } => Writer::new(BIND, seq).u16(*remote).u32(*remote_port),
            Self::Close { port } => Writer::new(CLOSE, seq).u32(*port),
        }
        .0
    }

    /// Decodes a request and its `seq`.
    ///
    /// # Errors
    /// [`Malformed`]. Checks counts and lengths, and that domids are valid. Whether a domain exists
    /// is for the hub to check.
    pub fn decode(bytes: &[u8]) -> Result<(u32, Self), Malformed> {
        let mut r = Reader::new(bytes)?;
        let (op, seq) = (r.u32()?, r.u32()?);
        let request = match op {
            HELLO => {
                let version = r.u32()?;
                if version != VERSION {
                    // Only that version knows the other fields.
                    let domid = None;
                    return Ok((seq, Self::Hello { version, domid }));
                }
                let domid = match r.u32()? {
                    u32::MAX => None,
                    n => Some(domid(n)?),
                };
                Self::Hello { version, domid }
            }
            SHARE => Self::Share {
                peer: r.domid()?,
                pages: match r.u32()? {
                    n @ 1..=SHARE_PAGES_MAX => n,
                    _ => return Err(Malformed::Field("pages")),
                },
                access: r.access()?,
            },
            UNSHARE => Self::Unshare {
                first_ref: r.u32()?,
            },
            MAP => Self::Map {
                granter: r.domid()?,
                refs: {
                    let n = r.count(MAP_REFS_MAX, 4)?;
                    (0..n).map(|_| r.u32()).collect::<Result<_, _>>()?
                },
            },
            ALLOC => Self::Alloc { peer: r.domid()? },
            BIND => Self::Bind {
                remote: r.domid()?,
                remote_port: r.u32()?,
            },
            CLOSE => Self::Close { port: r.u32()? },
            op => return Err(Malformed::Op(op)),
        };
        r.end()?;
        Ok((seq, request))
    }
}

impl Reply {
    /// Encodes the message.
    pub fn encode(&self, seq: u32) -> Vec<u8> {
        match self {
            Self::Welcome { version, domid } => {
                Writer::new(REPLY | HELLO, seq).u32(*version).u16(*domid)
            }
            Self::Share { first_ref } => Writer::new(REPLY | SHARE, seq).u32(*first_ref),
            Self::Map { runs } => runs.iter().fold(
                Writer::new(REPLY | MAP, seq).u32(runs.len() as u32),
                |w, run| {
                    w.u32(run.fd_index)
                        .u32(run.first_page)
                        .u32(run.pages)
                        .u32(access_code(run.access))
                },
            ),
            Self::Alloc { port } => Writer::new(REPLY | ALLOC, seq).u32(*port),
            Self::Bind { port } => Writer::new(REPLY | BIND, seq).u32(*port),
            Self::Error(error) => Writer::new(ERROR, seq)
                .u32(error.kind.code())
                .text(&error.what),
        }
        .0
    }

    /// Decodes a reply and its `seq`.
    ///
    /// # Errors
    /// [`Malformed`]. The caller must check that runs match its request and the descriptors.
    pub fn decode(bytes: &[u8]) -> Result<(u32, Self), Malformed> {
        let mut r = Reader::new(bytes)?;
        let (op, seq) = (r.u32()?, r.u32()?);
        let reply = match op {
            ERROR => {
                let kind = ErrorKind::from_code(r.u32()?);
                let text = &r.0[..r.0.len().min(TEXT_MAX)];
                let what = String::from_utf8_lossy(text).into_owned();
                return Ok((seq, Self::Error(Error { kind, what })));
            }
            op if op & REPLY == 0 => return Err(Malformed::Op(op)),
            op => match op & !REPLY {
                HELLO => {
                    let version = r.u32()?;
                    if version != VERSION {
                        return Ok((seq, Self::Welcome { version, domid: 0 }));
                    }
                    let domid = r.domid()?;
                    Self::Welcome { version, domid }
                }
                SHARE => Self::Share {
                    first_ref: r.u32()?,
                },
                MAP => Self::Map {
                    runs: {
                        let n = r.count(MAP_REFS_MAX, 16)?;
                        (0..n).map(|_| r.run()).collect::<Result<_, _>>()?
                    },
                },
                ALLOC => Self::Alloc { port: r.u32()? },
                BIND => Self::Bind { port: r.u32()? },
                _ => return Err(Malformed::Op(op)),
            },
        };
        r.end()?;
        Ok((seq, reply))
    }
}
