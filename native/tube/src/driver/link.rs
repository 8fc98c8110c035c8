//! The link port: the one reader of a link's event channel, in every mode.

use super::delivery::Delivery;
use super::dist::{self, Dist};
use super::selected_fd::SelectedFd;
use super::term::Sender;
use super::{Verdict, sys};
use crate::handles::{self, Entry, Mode};
use crate::nif::sender_monitor;
use crate::process::Pid;
use std::ffi::{CStr, c_uint};
use std::sync::Arc;
use tube_link::{Active, LinkError, NullDeliver, Outcome};

/// Operations of `port_control`, as in lib/tube/native.ex.
const START: c_uint = 0x5455_0001;
const ACTIVE: c_uint = 0x5455_0002;
const DIST_INPUT: c_uint = 0x5455_0004;
const DIST_TICK: c_uint = 0x5455_0005;
const CUT: c_uint = 0x5455_0006;
const DELIVER: c_uint = 0x5455_0007;

/// The port of one link.
pub struct LinkPort {
    port: sys::Port,
    id: u64,
    entry: Arc<Entry>,
    /// From `start` on.
    flowing: Option<Flowing>,
}

/// What there is once data flows.
struct Flowing {
    selected: Option<SelectedFd>,
    way: Way,
}

/// Where messages go.
// One per port, in its box.
#[allow(clippy::large_enum_variant)]
enum Way {
    /// To the owner.
    Owner(Delivery),
    /// To the VM, once it wants them, and the VM's into the ring: the port is a distribution controller.
    Vm(Dist),
}

impl LinkPort {
    /// Takes the link `id` for `port`. `None` for an id that is not there or has a port.
    pub fn start(port: sys::Port, id: u64) -> Option<LinkPort> {
        let entry = handles::claim_link(id)?;
        Some(LinkPort {
            port,
            id,
            entry,
            flowing: None,
        })
    }

    /// The event channel has something to say.
    pub fn ready_input(&mut self) -> Verdict {
        let Some(flowing) = &mut self.flowing else {
            return Verdict::Stay;
        };
        let flow = match &mut flowing.way {
            Way::Owner(delivery) => self.entry.link.notified(delivery),
            Way::Vm(dist) => self.entry.link.notified(dist),
        };
        self.follow(flow)
    }

    /// The timer that [`follow`](Self::follow) set, or the distribution.
    pub fn timeout(&mut self) -> Verdict {
        self.resume()
    }

    /// The VM puts out a packet of the distribution.
    ///
    /// # Safety
    /// `vector` is that of an `outputv` callback of this port.
    pub unsafe fn output(&mut self, vector: *mut sys::ErlIoVec) -> Verdict {
        match self.dist() {
            Some((dist, entry)) => {
                // SAFETY: the caller's promise.
                unsafe { dist.output(&entry.link, vector) };
                self.verdict()
            }
            // Commands to a tube go to its process.
            None => Verdict::Reason(c"badsig"),
        }
    }

    /// The port is to be closed, and something is queued.
    pub fn flush(&mut self) {
        if let Some((dist, entry)) = self.dist() {
            dist.go_on(&entry.link);
            dist.discard();
        }
    }

    /// `port_control`. The answer is the name of an atom.
    ///
    /// # Safety
    /// In the `control` callback of this port.
    pub unsafe fn control(
        &mut self,
        operation: c_uint,
        data: &[u8],
    ) -> Option<(&'static CStr, Verdict)> {
        // SAFETY: the caller's promise.
        let (caller, connected) = unsafe {
            let port = self.port;
            (sys::driver_caller(port), sys::driver_connected(port))
        };
        if (operation, data) == (DELIVER, &[]) {
            return Some((c"ok", self.deliver()));
        }
        let done = match (operation, data) {
            (START, []) => self.begin(Pid::from_word(connected)),
            (ACTIVE, data) => match active(data) {
                // A controller's port is passive until its input begins, and active for ever then.
                Some(active) if active == Active::Passive || self.dist().is_none() => {
                    let by = (caller != connected).then_some(Pid::from_word(caller));
                    self.entry.link.set_active(by, active)
                }
                _ => Err(LinkError::Invalid),
            },
            (DIST_INPUT, []) => self.dist_input(Pid::from_word(caller)),
            (DIST_TICK, []) => match self.dist() {
                Some((dist, entry)) => {
                    dist.tick(&entry.link);
                    Ok(())
                }
                None => Err(LinkError::Invalid),
            },
            (CUT, [why]) if caller == connected => self.cut(*why),
            _ => return None,
        };
        Some(match done {
            Ok(()) => (c"ok", self.resume()),
            Err(LinkError::NotOwner) => (c"not_owner", Verdict::Stay),
            Err(LinkError::Invalid) => (c"einval", Verdict::Stay),
            Err(_) => (c"closed", Verdict::Stay),
        })
    }

    /// Everything shared goes, for one of the reasons that `Tube.Native.cut/2` numbers.
    fn cut(&self, why: u8) -> Result<(), LinkError> {
        let why = match why {
            0 => LinkError::PeerDown,
            1 => LinkError::DomainGone,
            2 => LinkError::Suspended,
            3 => {
                self.entry.link.suspend();
                return Ok(());
            }
            _ => return Err(LinkError::Invalid),
        };
        self.entry.link.cut(why);
        Ok(())
    }

    /// From here on the peer's packets go to the VM, whose cookie the peer has shown that it knows.
    fn dist_input(&mut self, owner: Pid) -> Result<(), LinkError> {
        let (_, entry) = self.dist().ok_or(LinkError::Invalid)?;
        entry.link.set_active(Some(owner), Active::Always)?;
        entry.link.restrict(u32::MAX)
    }

    fn sender(&self, connection: Pid) -> Sender {
        // SAFETY: in a callback of this port.
        let term = unsafe { sys::driver_mk_port(self.port) };
        Sender::new(term, self.id, connection)
    }

    fn dist(&mut self) -> Option<(&mut Dist, &Entry)> {
        match &mut self.flowing.as_mut()?.way {
            Way::Owner(_) => None,
            Way::Vm(dist) => Some((dist, &self.entry)),
        }
    }

    fn verdict(&mut self) -> Verdict {
        match self.dist() {
            // Not `normal`: the process that looks after the connection is to end with the port.
            Some((dist, _)) if dist.has_ended() => Verdict::Reason(c"connection_closed"),
            _ => Verdict::Stay,
        }
    }

    /// Data begins to flow.
    fn begin(&mut self, connected: Pid) -> Result<(), LinkError> {
        let parties = *self.entry.parties.get().ok_or(LinkError::Invalid)?;
        // Also the proof that NIF and driver mean the same by a process. See `Pid`.
        if parties.connection != connected || self.flowing.is_some() {
            return Err(LinkError::Invalid);
        }
        let channel = self.entry.link.channel().ok_or(LinkError::Closed)?;
        let fd = channel.fd();
        // SAFETY: in a callback of this port. The channel closes the descriptor when its last owner drops it.
        let selected = unsafe { SelectedFd::new(self.port, fd, channel) };
        let selected = Some(selected.ok_or(LinkError::Invalid)?);
        let sender = self.sender(parties.connection);
        let way = match parties.mode {
            Mode::Dist => {
                self.entry.link.restrict(dist::STRANGER)?;
                // What others send, and what they are answered, waits for the port.
                self.entry.link.shorten_spin()?;
                Way::Vm(Dist::new(self.port, parties.connection, sender))
            }
            mode => Way::Owner(Delivery::new(sender, mode)),
        };
        self.flowing = Some(Flowing { selected, way });
        self.entry.link.start(parties.owner)
    }

    fn resume(&mut self) -> Verdict {
        let Some(flowing) = &mut self.flowing else {
            return Verdict::Stay;
        };
        let flow = match &mut flowing.way {
            Way::Owner(delivery) => self.entry.link.resume(delivery),
            Way::Vm(dist) => self.entry.link.resume(dist),
        };
        self.follow(flow)
    }

    /// Somebody who polls has seen that there is something.
    fn deliver(&mut self) -> Verdict {
        let Some(flowing) = &mut self.flowing else {
            return Verdict::Stay;
        };
        let flow = match &mut flowing.way {
            Way::Owner(delivery) => self.entry.link.deliver_now(delivery),
            Way::Vm(dist) => self.entry.link.deliver_now(dist),
        };
        self.follow(flow)
    }

    fn follow(&mut self, flow: Outcome) -> Verdict {
        let Some(flowing) = &mut self.flowing else {
            return Verdict::Stay;
        };
        if self.entry.link.is_gone() {
            // At its end a descriptor is readable for ever.
            flowing.selected = None;
        }
        let again = match flow {
            Outcome::Idle => false,
            Outcome::Ready => flowing.selected.is_none(),
            Outcome::Later => true,
        };
        if again {
            // SAFETY: in a callback of this port.
            unsafe { sys::driver_set_timer(self.port, 0) };
        }
        if let Some((dist, entry)) = self.dist()
            && dist.has_room()
        {
            dist.go_on(&entry.link);
        }
        self.verdict()
    }
}

impl Drop for LinkPort {
    /// The port closes: everything goes back.
    fn drop(&mut self) {
        handles::remove_link(self.id);
        sender_monitor::forget(&self.entry);
        // Before the pages go, so that no callback of ours meets a link that is half gone.
        let way = self.flowing.take().map(|flowing| flowing.way);
        match way {
            Some(Way::Owner(mut delivery)) => self.entry.link.close(&mut delivery),
            Some(Way::Vm(mut dist)) => self.entry.link.close(&mut dist),
            None => self.entry.link.close(&mut NullDeliver),
        }
    }
}

/// The value of four little-endian bytes. See `Tube.Native.active/2`.
fn active(data: &[u8]) -> Option<Active> {
    match i32::from_le_bytes(data.try_into().ok()?) {
        0 => Some(Active::Passive),
        -1 => Some(Active::Always),
        -2 => Some(Active::Once),
        count => u32::try_from(count).ok().map(Active::Count),
    }
}
