//! Messages of a driver: lists of tagged words, from which the VM makes terms.

use crate::names;
use crate::pid::Pid;
use crate::sys::{self, Word, tag};
use std::ffi::CStr;
use std::sync::LazyLock;
use tube_link::{Event, LinkError};

macro_rules! atoms {
    ($($name:ident = $text:literal,)*) => {
        /// The atoms of this driver's messages.
        pub struct Atoms { $(pub $name: Word,)* }

        impl Atoms {
            fn new() -> Atoms {
                Atoms { $($name: atom($text),)* }
            }
        }
    };
}

atoms! {
    data = c"data",
    id = c"id",
    pid = c"pid",
    port = c"port",
    our_data = c"$tube_data",
    our_event = c"$tube",
    our_space = c"$tube_space",
    struct_key = c"__struct__",
    struct_name = c"Elixir.Tube",
    tube = c"tube",
    tube_closed = c"tube_closed",
    tube_error = c"tube_error",
    tube_passive = c"tube_passive",
}

/// Made at the first use, in a callback of the VM.
pub static ATOMS: LazyLock<Atoms> = LazyLock::new(Atoms::new);

fn atom(name: &CStr) -> Word {
    // SAFETY: the string ends in a zero byte, and the VM copies it.
    unsafe { sys::driver_mk_atom(name.as_ptr()) }
}

/// Words of a `%Tube{}`.
const HANDLE: usize = 18;
/// Words of the longest message: `{:tube_error, tube, reason}` or `{:tube, tube, binary}`.
const LONGEST: usize = 2 + HANDLE + 4 + 2;

/// The bytes of a message to an owner.
#[derive(Clone, Copy)]
pub enum Bytes<'a> {
    /// Bytes to copy: cheapest for binaries that the VM keeps on the process heap.
    Copied(&'a [u8]),
    /// A driver binary and its length. The VM takes its own reference.
    Shared(*mut sys::DriverBinary, usize),
}

/// Sends the messages of one port, with the `%Tube{}` of its link.
pub struct Sender {
    port: Word,
    id: u64,
    handle: [Word; HANDLE],
    connection: Pid,
}

impl Sender {
    /// For link `id` with this connection process. `port` is the term of the port
    /// (`driver_mk_port`).
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

    /// `{:tube, tube, binary}`. False if `to` is dead.
    pub fn tube_data(&self, to: Pid, bytes: Bytes<'_>) -> bool {
        let mut message = Spec::new();
        message.add(&[tag::ATOM, ATOMS.tube]);
        message.add(&self.handle);
        message.bytes(bytes);
        message.add(&[tag::TUPLE, 3]);
        self.send(to, &message)
    }

    /// `{pid, {:data, binary}}`. False if `to` is dead.
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
    pub fn tube_error(&self, to: Pid, reason: LinkError) {
        let reason = atom(names::error(reason));
        let mut message = Spec::new();
        message.add(&[tag::ATOM, ATOMS.tube_error]);
        message.add(&self.handle);
        message.add(&[tag::ATOM, reason, tag::TUPLE, 3]);
        self.send(to, &message);
    }

    /// `{name, id}`, to a process that may repeat a native call.
    pub fn wake(&self, to: Pid, name: Word) {
        let id = self.id as Word;
        self.send(
            to,
            &Spec::of(&[tag::ATOM, name, tag::UINT, id, tag::TUPLE, 2]),
        );
    }

    /// `{:"$tube", id, event}`, to the connection.
    pub fn report(&self, event: Event) {
        let event = atom(names::event(event));
        let id = self.id as Word;
        #[rustfmt::skip]
        let spec = [tag::ATOM, ATOMS.our_event, tag::UINT, id, tag::ATOM, event, tag::TUPLE, 3];
        self.send(self.connection, &Spec::of(&spec));
    }

    fn send(&self, to: Pid, spec: &Spec) -> bool {
        // SAFETY: each function above writes a well-formed specification, and borrows the bytes
        // that it points to for the call.
        let sent = unsafe {
            let words = spec.words.as_ptr();
            sys::erl_drv_send_term(self.port, to.word(), words, spec.len as i32)
        };
        // 0 means that the receiver is dead.
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
