//! What an operation replies: a payload, or one of the protocol's errors.

/// The reply of an operation that returns no data.
pub const OK: &[u8] = b"OK\0";

/// The payload of a reply, or an error.
pub type Reply = Result<Vec<u8>, Error>;

/// The error in a reply to a client. The wire carries its name, not a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// `EINVAL`: a malformed request, path or permission list.
    Invalid,
    /// `EACCES`: not permitted, or not permitted to know whether the node exists.
    Access,
    /// `EEXIST`: this connection already has this watch.
    Exists,
    /// `ENOENT`: no such node, watch, transaction or domain.
    NotFound,
    /// `ENOMEM`: the domain's memory is exhausted, or the transaction had failed before its commit.
    Memory,
    /// `ENOSPC`: any other quota than those of watches and memory.
    NoSpace,
    /// `EIO`: a subtree could not be removed completely.
    Io,
    /// `ENOSYS`: no such operation.
    NoSuchOperation,
    /// `EBUSY`: a transaction inside a transaction, or RELEASE of a hosted domain.
    Busy,
    /// `EAGAIN`: a transaction conflicts with another change.
    Again,
    /// `EISCONN`: the domain is introduced already.
    Connected,
    /// `E2BIG`: the reply exceeds 4096 bytes, or too many watches.
    TooBig,
    /// `EPERM`: only a privileged domain may change an owner.
    Owner,
}

impl Error {
    /// The name on the wire, without its NUL.
    pub fn name(self) -> &'static str {
        match self {
            Error::Invalid => "EINVAL",
            Error::Access => "EACCES",
            Error::Exists => "EEXIST",
            Error::NotFound => "ENOENT",
            Error::Memory => "ENOMEM",
            Error::NoSpace => "ENOSPC",
            Error::Io => "EIO",
            Error::NoSuchOperation => "ENOSYS",
            Error::Busy => "EBUSY",
            Error::Again => "EAGAIN",
            Error::Connected => "EISCONN",
            Error::TooBig => "E2BIG",
            Error::Owner => "EPERM",
        }
    }
}
