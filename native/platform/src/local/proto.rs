//! The hub protocol: pure encoding and decoding, shared by the hub and us.
//!
//! All sockets but the store's are `SOCK_SEQPACKET`, so one packet is one
//! message: `u32 op, u32 seq`, then the fields below, little-endian and packed.
//! A reply repeats `seq` and has bit 31 of `op` set; an [`Reply::Error`] takes
//! the place of any reply. A client has one request at a time under way on a
//! connection.
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
//! UNSHARE and CLOSE are *notices*: they are never answered, not even by an
//! error, so that letting go never waits. Being on the same connection as the
//! requests, they take effect before whatever the domain asks next.
//!
//! WELCOME is sent once the domain's own sockets accept connections. That
//! connection is the domain's life: at its end of file the domain is destroyed.
//! HELLO's and WELCOME's version and the whole of ERROR keep their place in
//! every version, so that two that do not match can still say so.

mod wire;

pub use wire::Malformed;

use crate::{Access, Domid, Error, ErrorKind, Gref};
use wire::{Reader, Writer, access_code, domid};

/// Version of this protocol. Both sides must have the same.
pub const VERSION: u32 = 1;

/// The most descriptors that one message can carry (`SCM_MAX_FD` in Linux).
pub const FDS_MAX: usize = 253;

/// Pages in one share: the low bits of a reference count them.
pub const SHARE_PAGES_MAX: u32 = 1 << PAGE_BITS;

/// References in one MAP. Its reply then fits in [`MESSAGE_MAX`] even if each
/// is a run of its own; that its memfds are at most [`FDS_MAX`] is for the
/// client to see to, and for the hub to refuse.
pub const MAP_REFS_MAX: usize = 512;

/// Bytes in the longest message.
pub const MESSAGE_MAX: usize = 16 * 1024;

/// Bytes of text in an ERROR; more is cut.
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

/// The reference of one page of a share. Shares are counted per granting
/// domain, in 22 bits.
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

/// What a domain asks of the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// First message on a control connection.
    Hello {
        /// [`VERSION`] of the sender.
        version: u32,
        /// The domain it wants to be; none: the lowest free from 1. Means
        /// nothing if the version is not ours.
        domid: Option<Domid>,
    },
    /// Grants the pages of the memfd that comes with it.
    Share {
        /// Who may map them.
        peer: Domid,
        /// How many, from the start of the memfd; 1 to [`SHARE_PAGES_MAX`].
        pages: u32,
        /// What the peer may do with them.
        access: Access,
    },
    /// Ends a grant. What is mapped stays so. Not answered.
    Unshare {
        /// As the reply to `Share` gave it.
        first_ref: Gref,
    },
    /// Asks for the memfds behind references, 1 to [`MAP_REFS_MAX`].
    Map {
        /// Who granted them.
        granter: Domid,
        /// In the order in which they will be mapped.
        refs: Vec<Gref>,
    },
    /// Makes an event channel that `peer` may bind to.
    Alloc {
        /// Who may bind.
        peer: Domid,
    },
    /// Binds to a port that `remote` made for us.
    Bind {
        /// Who made it.
        remote: Domid,
        /// Its number there.
        remote_port: u32,
    },
    /// Lets go of a port. Not answered.
    Close {
        /// Our number of it.
        port: u32,
    },
}

/// What the hub answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `Hello`.
    Welcome {
        /// [`VERSION`] of the hub.
        version: u32,
        /// The domain that the connection now is.
        domid: Domid,
    },
    /// To `Share`. The references of the further pages follow on.
    Share {
        /// The first page's.
        first_ref: Gref,
    },
    /// To `Map`: runs that cover the references in their order, and the memfd
    /// of each share, once, however many runs are in it.
    Map {
        /// Pages that are neighbours in one memfd.
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
    /// Instead of any of them.
    Error(Error),
}

/// Neighbouring pages of one memfd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which of the descriptors that came with the message.
    pub fd_index: u32,
    /// First page in the memfd.
    pub first_page: u32,
    /// How many; at least one.
    pub pages: u32,
    /// As granted.
    pub access: Access,
}

impl Request {
    /// Whether the hub answers it.
    pub fn has_reply(&self) -> bool {
        !matches!(self, Self::Unshare { .. } | Self::Close { .. })
    }

    /// The message.
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

    /// The request in `bytes`, and its `seq`.
    ///
    /// # Errors
    /// [`Malformed`]. Counts and lengths are checked here, and that domids are
    /// possible ones; whether they exist is the hub's to say.
    pub fn decode(bytes: &[u8]) -> Result<(u32, Self), Malformed> {
        let mut r = Reader::new(bytes)?;
        let (op, seq) = (r.u32()?, r.u32()?);
        let request = match op {
            HELLO => {
                let version = r.u32()?;
                if version != VERSION {
                    // What follows is that version's business.
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
    /// The message.
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

    /// The reply in `bytes`, and its `seq`.
    ///
    /// # Errors
    /// [`Malformed`]. That runs fit the request and the descriptors is for the
    /// caller to check.
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
