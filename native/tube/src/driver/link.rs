//! The link port. It reads a link's event channel, in every mode, and delivers.

use super::PortAction;
use super::delivery::Delivery;
use super::dist::{self, Dist};
use super::operation::Operation;
use super::selected_fd::SelectedFd;
use super::term::Sender;
use crate::handles::{self, LinkSlot, Mode};
use crate::names;
use crate::nif::sender_monitor;
use crate::pid::Pid;
use crate::sys;
use std::ffi::{CStr, c_uint};
use std::sync::Arc;
use tube_link::{Active, LinkError, NullDeliver, Outcome};

/// The port of one link.
pub struct LinkPort {
    port: sys::Port,
    id: u64,
    slot: Arc<LinkSlot>,
    /// Set by [`start`](LinkPort::start).
    started: Option<Started>,
}

/// The state of a port since the start of data flow.
struct Started {
    /// The event channel, until the peer has gone.
    selected: Option<SelectedFd>,
    destination: Destination,
}

/// Where received messages go.
// One per port, in its box.
#[allow(clippy::large_enum_variant)]
enum Destination {
    /// To the owner.
    Owner(Delivery),
    /// To the VM: the port is a distribution controller.
    Vm(Dist),
}

impl LinkPort {
    /// Takes the link `id` for `port`. `None` if there is no such link or it has a port.
    pub fn open(port: sys::Port, id: u64) -> Option<LinkPort> {
        let slot = handles::claim_link(id)?;
        Some(LinkPort {
            port,
            id,
            slot,
            started: None,
        })
    }

    /// The event channel has a notification.
    pub fn ready_input(&mut self) -> PortAction {
        let Some(started) = &mut self.started else {
            return PortAction::Continue;
        };
        let outcome = match &mut started.destination {
            Destination::Owner(delivery) => self.slot.link.notified(delivery),
            Destination::Vm(dist) => self.slot.link.notified(dist),
        };
        self.follow_up(outcome)
    }

    /// The timer has expired: [`follow_up`](Self::follow_up) or [`Dist`] set it.
    pub fn timeout(&mut self) -> PortAction {
        self.resume()
    }

    /// Sends a packet of the VM's distribution.
    ///
    /// # Safety
    /// `vector` is that of an `outputv` callback of this port.
    pub unsafe fn output(&mut self, vector: *mut sys::ErlIoVec) -> PortAction {
        match self.dist() {
            Some((dist, slot)) => {
                // SAFETY: the caller's promise.
                unsafe { dist.output(&slot.link, vector) };
                self.action()
            }
            // Commands to a tube go to its connection process.
            None => PortAction::Exit(c"badsig"),
        }
    }

    /// The port is about to be closed with packets in its queue.
    pub fn flush(&mut self) {
        if let Some((dist, slot)) = self.dist() {
            dist.send_queued(&slot.link);
            dist.discard();
        }
    }

    /// `port_control`. Replies with the name of an atom; `None` raises badarg in the caller.
    ///
    /// # Safety
    /// In the `control` callback of this port.
    pub unsafe fn control(
        &mut self,
        code: c_uint,
        data: &[u8],
    ) -> Option<(&'static CStr, PortAction)> {
        let operation = Operation::decode(code, data)?;
        // SAFETY: the caller's promise.
        let (caller, owner) = unsafe {
            let port = self.port;
            (sys::driver_caller(port), sys::driver_connected(port))
        };
        let done = match operation {
            _ if !operation.fits(self.dist().is_some()) => Err(LinkError::Invalid),
            Operation::Deliver => return Some((c"ok", self.deliver())),
            Operation::Start => self.start(Pid::from_word(owner)),
            Operation::Active(active) => {
                let by = (caller != owner).then_some(Pid::from_word(caller));
                self.slot.link.set_active(by, active)
            }
            Operation::DistInput => self.dist_input(Pid::from_word(caller)),
            Operation::DistTick => self.dist_tick(),
            Operation::Cut(reason) if caller == owner => {
                self.slot.link.cut(reason);
                Ok(())
            }
            Operation::Suspend if caller == owner => {
                self.slot.link.suspend();
                Ok(())
            }
            Operation::Cut(_) | Operation::Suspend => return None,
            Operation::Invalid => Err(LinkError::Invalid),
        };
        Some(match done {
            Ok(()) => (c"ok", self.resume()),
            Err(error) => (names::error(error), PortAction::Continue),
        })
    }

    /// Starts the flow of data.
    fn start(&mut self, port_owner: Pid) -> Result<(), LinkError> {
        let binding = *self.slot.binding.get().ok_or(LinkError::Invalid)?;
        // This also proves that NIF and driver use the same word for a process. See `Pid`.
        if binding.connection != port_owner || self.started.is_some() {
            return Err(LinkError::Invalid);
        }
        let channel = self.slot.link.channel().ok_or(LinkError::Closed)?;
        let fd = channel.fd();
        // SAFETY: in a callback of this port. The channel closes the descriptor when its last owner
        // drops it.
        let selected = unsafe { SelectedFd::new(self.port, fd, channel) };
        let selected = Some(selected.ok_or(LinkError::Invalid)?);
        let sender = self.sender(binding.connection);
        let destination = match binding.mode {
            Mode::Dist => {
                self.slot.link.restrict(dist::MAX_UNAUTHENTICATED)?;
                // All processes that send to the other node share this port, so it must not spin
                // for long.
                self.slot.link.shorten_spin()?;
                Destination::Vm(Dist::new(self.port, binding.connection, sender))
            }
            mode => Destination::Owner(Delivery::new(sender, mode)),
        };
        self.started = Some(Started {
            selected,
            destination,
        });
        self.slot.link.start(binding.owner)
    }

    /// Hands the peer's packets to the VM from here on: the peer has shown that it knows the
    /// cookie.
    fn dist_input(&mut self, owner: Pid) -> Result<(), LinkError> {
        let (_, slot) = self.dist().ok_or(LinkError::Invalid)?;
        slot.link.set_active(Some(owner), Active::Always)?;
        slot.link.restrict(u32::MAX)
    }

    fn dist_tick(&mut self) -> Result<(), LinkError> {
        let (dist, slot) = self.dist().ok_or(LinkError::Invalid)?;
        dist.tick(&slot.link);
        Ok(())
    }

    fn sender(&self, connection: Pid) -> Sender {
        // SAFETY: in a callback of this port.
        let term = unsafe { sys::driver_mk_port(self.port) };
        Sender::new(term, self.id, connection)
    }

    fn dist(&mut self) -> Option<(&mut Dist, &LinkSlot)> {
        match &mut self.started.as_mut()?.destination {
            Destination::Owner(_) => None,
            Destination::Vm(dist) => Some((dist, &self.slot)),
        }
    }

    fn resume(&mut self) -> PortAction {
        let Some(started) = &mut self.started else {
            return PortAction::Continue;
        };
        let outcome = match &mut started.destination {
            Destination::Owner(delivery) => self.slot.link.resume(delivery),
            Destination::Vm(dist) => self.slot.link.resume(dist),
        };
        self.follow_up(outcome)
    }

    /// Delivers what a busy poller has found.
    fn deliver(&mut self) -> PortAction {
        let Some(started) = &mut self.started else {
            return PortAction::Continue;
        };
        let outcome = match &mut started.destination {
            Destination::Owner(delivery) => self.slot.link.deliver_now(delivery),
            Destination::Vm(dist) => self.slot.link.deliver_now(dist),
        };
        self.follow_up(outcome)
    }

    /// Does what the link needs after a delivery.
    fn follow_up(&mut self, outcome: Outcome) -> PortAction {
        let Some(started) = &mut self.started else {
            return PortAction::Continue;
        };
        if self.slot.link.is_gone() {
            // A descriptor at its end stays readable for ever.
            started.selected = None;
        }
        let again = match outcome {
            Outcome::Idle => false,
            Outcome::Ready => started.selected.is_none(),
            Outcome::Later => true,
        };
        if again {
            // SAFETY: in a callback of this port.
            unsafe { sys::driver_set_timer(self.port, 0) };
        }
        if let Some((dist, slot)) = self.dist()
            && dist.has_space()
        {
            dist.send_queued(&slot.link);
        }
        self.action()
    }

    fn action(&mut self) -> PortAction {
        match self.dist() {
            // Not `normal`: the process of the connection is linked to the port and must end with
            // it.
            Some((dist, _)) if dist.has_ended() => PortAction::Exit(c"connection_closed"),
            _ => PortAction::Continue,
        }
    }
}

impl Drop for LinkPort {
    /// Closes the link with its port.
    fn drop(&mut self) {
        handles::remove_link(self.id);
        sender_monitor::forget(&self.slot);
        // Stop polling before the pages are unmapped, so that no callback finds a link that is half
        // closed.
        let destination = self.started.take().map(|started| started.destination);
        match destination {
            Some(Destination::Owner(mut delivery)) => self.slot.link.close(&mut delivery),
            Some(Destination::Vm(mut dist)) => self.slot.link.close(&mut dist),
            None => self.slot.link.close(&mut NullDeliver),
        }
    }
}
