//! The atoms by which Elixir knows what `tube_link` reports.

use std::ffi::CStr;
use tube_link::{Event, LinkError};

/// The name of an event, for the connection process.
pub fn event(event: Event) -> &'static CStr {
    match event {
        Event::Fin => c"fin",
        Event::Drained => c"drained",
        Event::OwnerTold => c"owner_told",
        Event::Gone => c"gone",
        Event::Violated => c"protocol",
    }
}

/// The name of an error, as the reason of a call that failed or of a link that ended.
pub fn error(error: LinkError) -> &'static CStr {
    match error {
        LinkError::Closed => c"closed",
        LinkError::PeerDown => c"peer_down",
        LinkError::DomainGone => c"peer_domain_gone",
        LinkError::Suspended => c"suspended",
        LinkError::Protocol => c"protocol",
        LinkError::TooLong => c"emsgsize",
        LinkError::Invalid => c"einval",
        LinkError::NotOwner => c"not_owner",
        LinkError::NoMemory => c"enomem",
    }
}
