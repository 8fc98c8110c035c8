//! Messages that a NIF call sends to the processes of a link.

use super::atoms;
use crate::handles::Entry;
use crate::pid::Pid;
use rustler::{Encoder, Env};
use tube_link::{Event, Notifier};

/// Tells the processes of a link, from within a NIF call or callback.
pub struct NifNotifier<'a> {
    env: Env<'a>,
    id: u64,
    connection: Option<Pid>,
}

impl<'a> NifNotifier<'a> {
    /// For the link `id` of `entry`.
    pub fn new(env: Env<'a>, id: u64, entry: &Entry) -> NifNotifier<'a> {
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
