//! The NIF half: terms in, one call, terms out. What a call means is decided in `tube_link`.

mod data;
mod gather;
mod introspect;
mod link;
mod platform;
pub mod sender_monitor;

use crate::process::Pid;
use rustler::{Atom, Encoder, Env, Term};
use tube_link::{Event, LinkError, Notifier};

/// The atoms of the answers.
pub mod atoms {
    rustler::atoms! {
        closed,
        drained,
        owner_told,
        dist,
        distribution,
        einval,
        emsgsize,
        enomem,
        enospc,
        error,
        event_channel,
        fin,
        gone,
        local,
        more,
        nif_panicked,
        not_owner,
        ok,
        order_rx,
        order_tx,
        our_data = "$tube_data",
        our_event = "$tube",
        our_space = "$tube_space",
        peer_domain_gone,
        peer_down,
        poll,
        port,
        protocol,
        ready,
        rx_ring_ref,
        suspended,
        tube,
        tx_ring_ref,
        wait,
        xen,
    }
}

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

/// Tells the processes of a link, from within a NIF call or callback.
pub struct NifNotifier<'a> {
    env: Env<'a>,
    id: u64,
    connection: Option<Pid>,
}

impl<'a> NifNotifier<'a> {
    /// For the link `id` of `entry`.
    pub fn new(env: Env<'a>, id: u64, entry: &crate::handles::Entry) -> NifNotifier<'a> {
        let connection = entry.parties.get().map(|parties| parties.connection);
        NifNotifier {
            env,
            id,
            connection,
        }
    }

    // A receiver that is no more needs no message.
    fn say(&self, to: Pid, message: impl Encoder) {
        _ = self.env.send(&to.nif(), message);
    }
}

impl Notifier<Pid> for NifNotifier<'_> {
    fn space(&self, to: Pid) {
        self.say(to, (atoms::our_space(), self.id));
    }

    fn data(&self, to: Pid) {
        self.say(to, (atoms::our_data(), self.id));
    }

    fn event(&self, event: Event) {
        let name = match event {
            Event::Fin => atoms::fin(),
            Event::Drained => atoms::drained(),
            Event::OwnerTold => atoms::owner_told(),
            Event::Gone => atoms::gone(),
            Event::Violated => atoms::protocol(),
        };
        if let Some(connection) = self.connection {
            self.say(connection, (atoms::our_event(), self.id, name));
        }
    }
}
