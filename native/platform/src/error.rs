//! Errors of the platform and of the hub protocol.

use std::fmt;

use rustix::io::Errno;

/// What kind of failure an [`Error`] is, for programs. The hub protocol carries it as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// An error number from the operating system or the hub.
    Posix(Errno),
    /// The hub speaks another version of the protocol.
    HubVersion,
    /// The process at the socket is not a hub, or broke the protocol.
    NotAHub,
    /// The connection to the hub has ended.
    HubGone,
    /// Another process is this domain already.
    DomidTaken,
    /// The run directory is not a directory, or other users can write to it.
    BadRunDir,
    /// The other end of an event channel is closed.
    PeerGone,
}

/// First code of the kinds that are not error numbers.
const OWN_CODES: u32 = 0x1_0000;

impl ErrorKind {
    /// One lower-case word, suitable as an atom: a POSIX name or one of the names below.
    pub fn atom(self) -> &'static str {
        match self {
            Self::Posix(errno) => posix_name(errno),
            Self::HubVersion => "hub_version",
            Self::NotAHub => "not_a_hub",
            Self::HubGone => "hub_gone",
            Self::DomidTaken => "domid_taken",
            Self::BadRunDir => "bad_run_dir",
            Self::PeerGone => "peer_gone",
        }
    }

    /// The number for this kind in an ERROR message of the hub protocol.
    pub fn code(self) -> u32 {
        match self {
            Self::Posix(errno) => errno.raw_os_error().unsigned_abs(),
            Self::HubVersion => OWN_CODES,
            Self::NotAHub => OWN_CODES + 1,
            Self::HubGone => OWN_CODES + 2,
            Self::DomidTaken => OWN_CODES + 3,
            Self::BadRunDir => OWN_CODES + 4,
            Self::PeerGone => OWN_CODES + 5,
        }
    }

    /// The kind for a number in an ERROR message. Unknown numbers become `EPROTO`, so a newer hub
    /// can still refuse us.
    pub fn from_code(code: u32) -> Self {
        match code {
            1..=4095 => Self::Posix(Errno::from_raw_os_error(code as i32)),
            OWN_CODES => Self::HubVersion,
            0x1_0001 => Self::NotAHub,
            0x1_0002 => Self::HubGone,
            0x1_0003 => Self::DomidTaken,
            0x1_0004 => Self::BadRunDir,
            0x1_0005 => Self::PeerGone,
            _ => Self::Posix(Errno::PROTO),
        }
    }
}

/// The one error type of this crate's operations: a kind for programs, and one line for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// For programs.
    pub kind: ErrorKind,
    /// For people: what was attempted, and why it failed.
    pub what: String,
}

impl Error {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Self {
        Self {
            kind,
            what: what.into(),
        }
    }

    /// `EINVAL`: the arguments are not valid.
    pub(crate) fn invalid(what: impl Into<String>) -> Self {
        Self::new(ErrorKind::Posix(Errno::INVAL), what)
    }

    /// The error number of the operating system for `doing`.
    pub fn posix(errno: Errno, doing: impl fmt::Display) -> Self {
        Self {
            kind: ErrorKind::Posix(errno),
            what: format!("{doing}: {errno}"),
        }
    }

    /// [`ErrorKind::atom`] of this error.
    pub fn atom(&self) -> &'static str {
        self.kind.atom()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.atom())
    }
}

impl std::error::Error for Error {}

/// Names as Erlang spells them. Any other number becomes `eio`; [`Error::what`] still has its text.
fn posix_name(errno: Errno) -> &'static str {
    macro_rules! names {
        ($($errno:ident $name:literal),* $(,)?) => {
            match errno { $(Errno::$errno => $name,)* _ => "eio" }
        };
    }
    names! {
        ACCESS "eacces", ADDRINUSE "eaddrinuse", AGAIN "eagain", ALREADY "ealready",
        BADF "ebadf", BADMSG "ebadmsg", BUSY "ebusy", CANCELED "ecanceled",
        CONNABORTED "econnaborted", CONNREFUSED "econnrefused", CONNRESET "econnreset",
        DQUOT "edquot", EXIST "eexist", FAULT "efault", FBIG "efbig",
        INPROGRESS "einprogress", INTR "eintr", INVAL "einval", IO "eio",
        ISCONN "eisconn", ISDIR "eisdir", LOOP "eloop", MFILE "emfile",
        MSGSIZE "emsgsize", NAMETOOLONG "enametoolong", NFILE "enfile",
        NOBUFS "enobufs", NODEV "enodev", NOENT "enoent", NOMEM "enomem",
        NOSPC "enospc", NOSYS "enosys", NOTCONN "enotconn", NOTDIR "enotdir",
        NOTEMPTY "enotempty", NOTSOCK "enotsock", NOTSUP "enotsup", NXIO "enxio",
        OVERFLOW "eoverflow", PERM "eperm", PIPE "epipe",
        PROTO "eproto", PROTOTYPE "eprototype", RANGE "erange", ROFS "erofs",
        SRCH "esrch", TIMEDOUT "etimedout", TOOBIG "e2big", TXTBSY "etxtbsy",
        XDEV "exdev",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_round_trips_through_its_code() {
        let kinds = [
            ErrorKind::Posix(Errno::NOENT),
            ErrorKind::Posix(Errno::NOSPC),
            ErrorKind::HubVersion,
            ErrorKind::NotAHub,
            ErrorKind::HubGone,
            ErrorKind::DomidTaken,
            ErrorKind::BadRunDir,
            ErrorKind::PeerGone,
        ];
        for kind in kinds {
            assert_eq!(ErrorKind::from_code(kind.code()), kind);
        }
    }

    #[test]
    fn an_unknown_code_is_a_protocol_error() {
        for code in [0, 4096, OWN_CODES - 1, OWN_CODES + 6, u32::MAX] {
            assert_eq!(
                ErrorKind::from_code(code),
                ErrorKind::Posix(Errno::PROTO),
                "{code:#x}"
            );
        }
    }

    #[test]
    fn names_match_the_posix_headers() {
        assert_eq!(Error::posix(Errno::NOENT, "x").atom(), "enoent");
        assert_eq!(Error::posix(Errno::ACCESS, "x").atom(), "eacces");
        assert_eq!(Error::new(ErrorKind::DomidTaken, "x").atom(), "domid_taken");
        // ENOTSUP and EOPNOTSUPP are the same number on Linux.
        assert_eq!(Error::posix(Errno::NOTSUP, "x").atom(), "enotsup");
    }
}
