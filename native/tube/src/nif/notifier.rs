//! Messages that a NIF call sends to the processes of a link.

use super::{atom, atoms};
use crate::handles::LinkSlot;
use crate::names;
use crate::pid::Pid;
use rustler::{Encoder, Env};
use tube_link::{Event, Notifier};

/// Notifies the processes of a link, from within a NIF call or callback.
pub struct NifNotifier<'a> {
    env: Env<'a>,
    id: u64,
    connection: Option<Pid>,
}

impl<'a> NifNotifier<'a> {
    /// For the link `id` in `slot`.
    pub fn new(env: Env<'a>, id: u64, slot: &LinkSlot) -> NifNotifier<'a> {
        let connection = slot.binding.get().map(|binding| binding.connection);
        NifNotifier {
            env,
            id,
            connection,
        }
    }

    // A dead receiver is no error.
    fn send(&self, to: Pid, message: impl Encoder) {
        _ = self.env.send(&to.nif(), message);
    }
}

impl Notifier<Pid> for NifNotifier<'_> {
    fn space(&self, to: Pid) {
        self.send(to, (atoms::our_space(), self.id));
    }

    fn data(&self, to: Pid) {
        self.send(to, (atoms::our_data(), self.id));
    }

    fn event(&self, event: Event) {
        if let Some(connection) = self.connection {
            let name = atom(self.env, names::event(event).to_bytes());
            self.send(connection, (atoms::our_event(), self.id, name));
        }
    }
}
