//! The errors of this crate: of a link's calls, of making a link, and within a half.

use std::fmt;
use tube_platform::Error;
use tube_ring::Violation;

/// Why a call of a link did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// This end is closed or has finished, or the peer has finished and everything is taken.
    Closed,
    /// The peer's end is gone without having finished.
    PeerDown,
    /// The peer's whole domain is gone: a reason given to [`Link::cut`](crate::Link::cut).
    DomainGone,
    /// This side had to release the link because its domain is being suspended.
    Suspended,
    /// The peer wrote an impossible value.
    Protocol,
    /// The message is longer than the peer takes.
    TooLong,
    /// The call does not match earlier ones.
    Invalid,
    /// Only the owner may do this.
    NotOwner,
    /// No memory for the message, which stays where it is.
    NoMemory,
}

/// Why [`Link::share`](crate::Link::share) or [`Link::map`](crate::Link::map) made no link.
#[derive(Debug)]
pub enum ConnectError {
    /// The platform failed.
    Platform(Error),
    /// The pages are not those of this attempt, or not a tube's.
    Page(Violation),
}

impl ConnectError {
    /// A lower-case word, usable as an atom.
    pub fn atom(&self) -> &'static str {
        match self {
            ConnectError::Platform(error) => error.atom(),
            ConnectError::Page(_) => "protocol",
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectError::Platform(error) => error.fmt(f),
            ConnectError::Page(violation) => violation.fmt(f),
        }
    }
}

impl std::error::Error for ConnectError {}

impl From<Error> for ConnectError {
    fn from(error: Error) -> ConnectError {
        ConnectError::Platform(error)
    }
}

impl From<Violation> for ConnectError {
    fn from(violation: Violation) -> ConnectError {
        ConnectError::Page(violation)
    }
}

/// Why a half could not go on. The link turns `Violated` into an event and
/// [`LinkError::Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fail {
    /// The state of the link does not allow the call.
    Refused(LinkError),
    /// The peer broke the protocol.
    Violated,
}

impl Fail {
    /// Whether nothing more will ever come.
    pub(crate) fn is_the_end(&self) -> bool {
        use LinkError::{Closed, DomainGone, PeerDown, Protocol, Suspended};
        matches!(
            self,
            Fail::Violated | Fail::Refused(Closed | PeerDown | DomainGone | Suspended | Protocol)
        )
    }
}

impl From<Violation> for Fail {
    fn from(_: Violation) -> Fail {
        Fail::Violated
    }
}

impl From<LinkError> for Fail {
    fn from(error: LinkError) -> Fail {
        Fail::Refused(error)
    }
}
