//! The link port: the one reader of a link's event channel, in every mode.

use super::dist::Dist;
use super::parked::Selected;
use super::term::{ATOMS, Bytes, Sender};
use super::{Verdict, sys};
use crate::handles::{self, Entry, Form};
use crate::nif::watch;
use crate::process::{Beam, Buffer, Pid};
use std::ffi::{CStr, c_uint};
use std::mem::MaybeUninit;
use std::sync::Arc;
use tube_link::{Buffer as _, Event, Flow, Fragment, Herald, Mode, Nobody, Outlet, Refusal, Small};

/// Operations of `port_control`, as in lib/tube/native.ex.
const START: c_uint = 0x5455_0001;
const ACTIVE: c_uint = 0x5455_0002;
const DIST: c_uint = 0x5455_0003;
const DIST_INPUT: c_uint = 0x5455_0004;
const DIST_TICK: c_uint = 0x5455_0005;
const CUT: c_uint = 0x5455_0006;
const DELIVER: c_uint = 0x5455_0007;

/// The VM keeps binaries up to this size on the process heap (`ERL_ONHEAP_BIN_LIMIT`), so for those it is
/// cheaper to have it copy them than to make a binary that it copies from all the same.
const ON_HEAP: usize = 64;

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
    selected: Option<Selected>,
    way: Way,
}

/// Where messages go.
// One per port, in its box.
#[allow(clippy::large_enum_variant)]
enum Way {
    /// To the owner.
    Owner(Delivery),
    /// To the VM, and the VM's into the ring: the port is a distribution controller.
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
            Way::Owner(delivery) => self.entry.link.bell(delivery),
            Way::Vm(dist) => self.entry.link.bell(dist),
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
            (ACTIVE, data) => match mode(data) {
                Some(mode) if self.dist().is_none() => {
                    let by = (caller != connected).then_some(Pid::from_word(caller));
                    self.entry.link.set_mode(by, mode)
                }
                _ => Err(Refusal::Invalid),
            },
            (DIST, []) => self.become_dist(Pid::from_word(caller)),
            (DIST_INPUT, []) => match self.dist() {
                Some((_, entry)) => entry
                    .link
                    .set_mode(Some(Pid::from_word(caller)), Mode::Always),
                None => Err(Refusal::Invalid),
            },
            (DIST_TICK, []) => match self.dist() {
                Some((dist, entry)) => {
                    dist.tick(&entry.link);
                    Ok(())
                }
                None => Err(Refusal::Invalid),
            },
            (CUT, [why]) if caller == connected => self.cut(*why),
            _ => return None,
        };
        Some(match done {
            Ok(()) => (c"ok", self.resume()),
            Err(Refusal::NotOwner) => (c"not_owner", Verdict::Stay),
            Err(Refusal::Invalid) => (c"einval", Verdict::Stay),
            Err(_) => (c"closed", Verdict::Stay),
        })
    }

    /// Everything shared goes, for one of the reasons that `Tube.Native.cut/2` numbers.
    fn cut(&self, why: u8) -> Result<(), Refusal> {
        let why = match why {
            0 => Refusal::PeerDown,
            1 => Refusal::DomainGone,
            2 => Refusal::Suspended,
            _ => return Err(Refusal::Invalid),
        };
        self.entry.link.cut(why);
        Ok(())
    }

    /// From here on the VM's packets are taken. Those of the peer wait for `DIST_INPUT`, since the VM must
    /// know the port as a controller first.
    fn become_dist(&mut self, owner: Pid) -> Result<(), Refusal> {
        self.entry.link.set_mode(Some(owner), Mode::Passive)?;
        let connection = self.entry.parties.get().ok_or(Refusal::Invalid)?.connection;
        let sender = self.sender(connection);
        match &mut self.flowing {
            Some(flowing) if matches!(flowing.way, Way::Owner(_)) => {
                flowing.way = Way::Vm(Dist::new(self.port, connection, sender));
                Ok(())
            }
            _ => Err(Refusal::Invalid),
        }
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
    fn begin(&mut self, connected: Pid) -> Result<(), Refusal> {
        let parties = *self.entry.parties.get().ok_or(Refusal::Invalid)?;
        // Also the proof that NIF and driver mean the same by a process. See `Pid`.
        if parties.connection != connected || self.flowing.is_some() {
            return Err(Refusal::Invalid);
        }
        let channel = self.entry.link.channel().ok_or(Refusal::Closed)?;
        let fd = channel.fd();
        // SAFETY: in a callback of this port. The channel closes the descriptor when its last owner drops it.
        let selected = unsafe { Selected::new(self.port, fd, channel) };
        let selected = Some(selected.ok_or(Refusal::Invalid)?);
        let owner = parties.owner;
        let way = Way::Owner(Delivery {
            sender: self.sender(parties.connection),
            form: parties.form,
            taken: Taken::Inline(0),
            inline: [MaybeUninit::uninit(); ON_HEAP],
        });
        self.flowing = Some(Flowing { selected, way });
        self.entry.link.start(owner)
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

    fn follow(&mut self, flow: Flow) -> Verdict {
        let Some(flowing) = &mut self.flowing else {
            return Verdict::Stay;
        };
        if self.entry.link.is_gone() {
            // At its end a descriptor is readable for ever.
            flowing.selected = None;
        }
        let again = match flow {
            Flow::Idle => false,
            Flow::Ready => flowing.selected.is_none(),
            Flow::Later => true,
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
        watch::forget(&self.entry);
        // Before the pages go, so that no callback of ours meets a link that is half gone.
        let way = self.flowing.take().map(|flowing| flowing.way);
        match way {
            Some(Way::Owner(mut delivery)) => self.entry.link.close(&mut delivery),
            Some(Way::Vm(mut dist)) => self.entry.link.close(&mut dist),
            None => self.entry.link.close(&mut Nobody),
        }
    }
}

/// The mode of four little-endian bytes. See `Tube.Native.active/2`.
fn mode(data: &[u8]) -> Option<Mode> {
    match i32::from_le_bytes(data.try_into().ok()?) {
        0 => Some(Mode::Passive),
        -1 => Some(Mode::Always),
        -2 => Some(Mode::Once),
        count => u32::try_from(count).ok().map(Mode::Count),
    }
}

/// Delivers to the owner in the form that it wants.
struct Delivery {
    sender: Sender,
    form: Form,
    taken: Taken,
    inline: [MaybeUninit<u8>; ON_HEAP],
}

/// The message that was just copied out of the ring.
enum Taken {
    /// So many bytes of `inline`.
    Inline(usize),
    Binary(Buffer),
}

impl Delivery {
    fn send(&self, owner: Pid, bytes: Bytes<'_>) -> bool {
        match self.form {
            Form::Tube => self.sender.tube_data(owner, bytes),
            Form::Port => self.sender.port_data(owner, bytes),
        }
    }
}

impl Small for Delivery {
    fn room(&mut self, len: usize) -> bool {
        self.taken = match len {
            0..=ON_HEAP => Taken::Inline(len),
            _ => match Buffer::new(len) {
                Some(binary) => Taken::Binary(binary),
                None => return false,
            },
        };
        true
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        match &mut self.taken {
            Taken::Inline(len) => bytes.copy_to(&mut self.inline[..*len]),
            Taken::Binary(binary) => bytes.copy_to(binary.room()),
        };
    }
}

impl Outlet<Beam> for Delivery {
    fn small(&mut self, owner: Pid) -> bool {
        match std::mem::replace(&mut self.taken, Taken::Inline(0)) {
            Taken::Inline(len) => {
                // SAFETY: `take` has filled so many, or there are none.
                let bytes = unsafe { std::slice::from_raw_parts(self.inline.as_ptr().cast(), len) };
                self.send(owner, Bytes::Copied(bytes))
            }
            Taken::Binary(binary) => self.long(owner, binary),
        }
    }

    fn long(&mut self, owner: Pid, message: Buffer) -> bool {
        self.send(owner, Bytes::Shared(message.as_ptr(), message.len()))
    }

    fn passive(&mut self, owner: Pid) {
        if self.form == Form::Tube {
            self.sender.about(owner, ATOMS.tube_passive);
        }
    }

    fn end(&mut self, owner: Pid, reason: Option<Refusal>) {
        // A port ends by its exit signal, which is the connection's to give.
        if self.form == Form::Port {
            return;
        }
        if let Some(reason) = reason {
            let name = match reason {
                Refusal::PeerDown => ATOMS.peer_down,
                Refusal::DomainGone => ATOMS.peer_domain_gone,
                Refusal::Suspended => ATOMS.suspended,
                _ => ATOMS.protocol,
            };
            self.sender.tube_error(owner, name);
        }
        self.sender.about(owner, ATOMS.tube_closed);
    }
}

impl Herald<Pid> for Delivery {
    fn space(&self, to: Pid) {
        self.sender.wake(to, ATOMS.our_space);
    }

    fn data(&self, to: Pid) {
        self.sender.wake(to, ATOMS.our_data);
    }

    fn event(&self, event: Event) {
        self.sender.report(event);
    }
}
