//! The NIF half: terms in, one call, terms out. What a call means is decided in `tube_link`.

mod atoms;
mod batch_builder;
mod data;
mod introspect;
mod link;
mod notifier;
mod platform;
pub mod sender_monitor;

use rustler::{Atom, Encoder, Env, Term};
use tube_link::LinkError;

/// `{:error, reason}`.
fn refused<'a>(env: Env<'a>, refusal: LinkError) -> Term<'a> {
    (atoms::error(), reason(refusal)).encode(env)
}

fn reason(refusal: LinkError) -> Atom {
    match refusal {
        LinkError::Closed => atoms::closed(),
        LinkError::PeerDown => atoms::peer_down(),
        LinkError::DomainGone => atoms::peer_domain_gone(),
        LinkError::Suspended => atoms::suspended(),
        LinkError::Protocol => atoms::protocol(),
        LinkError::TooLong => atoms::emsgsize(),
        LinkError::Invalid => atoms::einval(),
        LinkError::NotOwner => atoms::not_owner(),
        LinkError::NoMemory => atoms::enomem(),
    }
}

/// `{:error, word}`. The words are a fixed set in `tube_platform`, so no atoms are made without end.
fn failed<'a>(env: Env<'a>, word: &str) -> Term<'a> {
    let reason = Atom::from_str(env, word).unwrap_or_else(|_| atoms::einval());
    (atoms::error(), reason).encode(env)
}
