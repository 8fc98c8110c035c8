//! Fields: little-endian and packed. Each is checked as it is decoded.

use super::{FDS_MAX, MESSAGE_MAX, Run, SHARE_PAGES_MAX, TEXT_MAX};
use crate::{Access, DOMID_MAX, Domid};

/// Error of decoding a message of the hub protocol. The receiver closes the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It ends before its fields do.
    Short,
    /// Bytes are left over, or it is longer than [`MESSAGE_MAX`].
    Long,
    /// Unknown operation.
    Op(u32),
    /// A field has an invalid value.
    Field(&'static str),
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Short => f.write_str("message cut short"),
            Self::Long => f.write_str("message too long"),
            Self::Op(op) => write!(f, "no operation {op:#x}"),
            Self::Field(name) => write!(f, "invalid {name}"),
        }
    }
}

impl std::error::Error for Malformed {}

pub(super) fn access_code(access: Access) -> u32 {
    match access {
        Access::ReadOnly => 0,
        Access::ReadWrite => 1,
    }
}

pub(super) fn domid(n: u32) -> Result<Domid, Malformed> {
    Domid::try_from(n)
        .ok()
        .filter(|n| *n <= DOMID_MAX)
        .ok_or(Malformed::Field("domid"))
}

pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn new(op: u32, seq: u32) -> Self {
        Self(Vec::with_capacity(32)).u32(op).u32(seq)
    }

    pub(super) fn u16(mut self, n: u16) -> Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    pub(super) fn u32(mut self, n: u32) -> Self {
        self.0.extend_from_slice(&n.to_le_bytes());
        self
    }

    pub(super) fn text(mut self, text: &str) -> Self {
        self.0
            .extend_from_slice(&text.as_bytes()[..text.floor_char_boundary(TEXT_MAX)]);
        self
    }
}

pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() > MESSAGE_MAX {
            return Err(Malformed::Long);
        }
        Ok(Self(bytes))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn domid(&mut self) -> Result<Domid, Malformed> {
        domid(u32::from(self.u16()?))
    }

    pub(super) fn access(&mut self) -> Result<Access, Malformed> {
        match self.u32()? {
            0 => Ok(Access::ReadOnly),
            1 => Ok(Access::ReadWrite),
            _ => Err(Malformed::Field("access")),
        }
    }

    /// Decodes a count of elements of `size` bytes. Checks that they all are there before anything
    /// is allocated for them.
    pub(super) fn count(&mut self, max: usize, size: usize) -> Result<usize, Malformed> {
        let n = self.u32()? as usize;
        if n == 0 || n > max {
            return Err(Malformed::Field("count"));
        }
        match self.0.len() / size {
            there if there < n => Err(Malformed::Short),
            _ => Ok(n),
        }
    }

    pub(super) fn run(&mut self) -> Result<Run, Malformed> {
        let run = Run {
            fd_index: self.u32()?,
            first_page: self.u32()?,
            pages: self.u32()?,
            access: self.access()?,
        };
        let fits = run.pages > 0
            && run.pages <= SHARE_PAGES_MAX
            && run.first_page <= SHARE_PAGES_MAX - run.pages;
        if fits && run.fd_index < FDS_MAX as u32 {
            Ok(run)
        } else {
            Err(Malformed::Field("run"))
        }
    }

    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Long)
        }
    }
}
