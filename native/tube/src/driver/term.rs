//! Messages as a driver builds them: lists of tagged words that the VM makes terms of.

use crate::pid::Pid;
use crate::sys::{self, Word, tag};
use std::ffi::CStr;
use std::sync::LazyLock;
use tube_link::Event;

macro_rules! atoms {
    ($($name:ident = $text:literal,)*) => {
        /// The atoms of this driver's messages.
        pub struct Atoms { $(pub $name: Word,)* }

        impl Atoms {
            fn new() -> Atoms {
                // SAFETY: the strings are constants that end in a zero byte.
                unsafe { Atoms { $($name: sys::driver_mk_atom(($text as &CStr).as_ptr()),)* } }
            }
        }
    };
}

atoms! {
    data = c"data",
    drained = c"drained",
    owner_told = c"owner_told",
    fin = c"fin",
    gone = c"gone",
    id = c"id",
    peer_domain_gone = c"peer_domain_gone",
    peer_down = c"peer_down",
    pid = c"pid",
    port = c"port",
    protocol = c"protocol",
    our_data = c"$tube_data",
    our_event = c"$tube",
    our_space = c"$tube_space",
    struct_key = c"__struct__",
    struct_name = c"Elixir.Tube",
    suspended = c"suspended",
    tube = c"tube",
    tube_closed = c"tube_closed",
    tube_error = c"tube_error",
    tube_passive = c"tube_passive",
}

/// Made at the first use, within a callback of the VM.
pub static ATOMS: LazyLock<Atoms> = LazyLock::new(Atoms::new);

/// Words of a `%Tube{}`.
const HANDLE: usize = 18;
/// Words of the longest message here: `{:tube_error, tube, reason}` or `{:tube, tube, binary}`.
const LONGEST: usize = 2 + HANDLE + 4 + 2;

/// The bytes of a message to an owner.
#[derive(Clone, Copy)]
pub enum Bytes<'a> {
    /// To be copied: cheapest for what the VM keeps on the process heap.
    Copied(&'a [u8]),
    /// A driver binary, of which the VM takes a reference of its own.
    Shared(*mut sys::DriverBinary, usize),
}

/// What one port sends: it knows the port, and the handle that stands for its tube.
pub struct Sender {
    port: Word,
    id: u64,
    handle: [Word; HANDLE],
    connection: Pid,
}

impl Sender {
    /// The sender of tube `id` with connection process `connection`; `port` as `driver_mk_port` says.
    pub fn new(port: Word, id: u64, connection: Pid) -> Sender {
        let atoms = &*ATOMS;
        #[rustfmt::skip]
        let handle = [
            tag::ATOM, atoms.struct_key, tag::ATOM, atoms.struct_name,
            tag::ATOM, atoms.id, tag::UINT, id as Word,
            tag::ATOM, atoms.pid, tag::PID, connection.word(),
            tag::ATOM, atoms.port, tag::PORT, port,
            tag::MAP, 4,
        ];
        Sender {
            port,
            id,
            handle,
            connection,
        }
    }

    /// `{:tube, tube, binary}`. False if `to` is no more.
    pub fn tube_data(&self, to: Pid, bytes: Bytes<'_>) -> bool {
        let mut message = Spec::new();
        message.add(&[tag::ATOM, ATOMS.tube]);
        message.add(&self.handle);
        message.bytes(bytes);
        message.add(&[tag::TUPLE, 3]);
        self.send(to, &message)
    }

    /// `{pid, {:data, binary}}`. False if `to` is no more.
    pub fn port_data(&self, to: Pid, bytes: Bytes<'_>) -> bool {
        let mut message = Spec::new();
        message.add(&[tag::PID, self.connection.word(), tag::ATOM, ATOMS.data]);
        message.bytes(bytes);
        message.add(&[tag::TUPLE, 2, tag::TUPLE, 2]);
        self.send(to, &message)
    }

    /// `{name, tube}`.
    pub fn about(&self, to: Pid, name: Word) {
        let mut message = Spec::new();
        message.add(&[tag::ATOM, name]);
        message.add(&self.handle);
        message.add(&[tag::TUPLE, 2]);
        self.send(to, &message);
    }

    /// `{:tube_error, tube, reason}`.
    pub fn tube_error(&self, to: Pid, reason: Word) {
        let mut message = Spec::new();
        message.add(&[tag::ATOM, ATOMS.tube_error]);
        message.add(&self.handle);
        message.add(&[tag::ATOM, reason, tag::TUPLE, 3]);
        self.send(to, &message);
    }

    /// `{name, id}`, to a process that waits in a native call's stead.
    pub fn wake(&self, to: Pid, name: Word) {
        let id = self.id as Word;
        self.send(
            to,
            &Spec::of(&[tag::ATOM, name, tag::UINT, id, tag::TUPLE, 2]),
        );
    }

    /// `{:"$tube", id, event}`, to the connection.
    pub fn report(&self, event: Event) {
        let event = match event {
            Event::Fin => ATOMS.fin,
            Event::Drained => ATOMS.drained,
            Event::OwnerTold => ATOMS.owner_told,
            Event::Gone => ATOMS.gone,
            Event::Violated => ATOMS.protocol,
        };
        let id = self.id as Word;
        #[rustfmt::skip]
        let spec = [tag::ATOM, ATOMS.our_event, tag::UINT, id, tag::ATOM, event, tag::TUPLE, 3];
        self.send(self.connection, &Spec::of(&spec));
    }

    fn send(&self, to: Pid, spec: &Spec) -> bool {
        // SAFETY: the specification is well formed, as each function above writes it out, and the bytes it
        // points to are borrowed for the call. 0 is a dead receiver.
        let sent = unsafe {
            let words = spec.words.as_ptr();
            sys::erl_drv_send_term(self.port, to.word(), words, spec.len as i32)
        };
        sent > 0
    }
}

/// A term specification under construction, without allocation.
struct Spec {
    words: [Word; LONGEST],
    len: usize,
}

impl Spec {
    fn new() -> Spec {
        Spec {
            words: [0; LONGEST],
            len: 0,
        }
    }

    fn of(words: &[Word]) -> Spec {
        let mut spec = Spec::new();
        spec.add(words);
        spec
    }

    fn add(&mut self, words: &[Word]) {
        self.words[self.len..self.len + words.len()].copy_from_slice(words);
        self.len += words.len();
    }

    fn bytes(&mut self, bytes: Bytes<'_>) {
        match bytes {
            Bytes::Copied(bytes) => {
                self.add(&[tag::BUF2BINARY, bytes.as_ptr() as Word, bytes.len()]);
            }
            Bytes::Shared(binary, len) => self.add(&[tag::BINARY, binary as Word, len, 0]),
        }
    }
}
