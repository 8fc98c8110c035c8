//! Actors in other processes, perhaps on other machines: the calls of [`Actor`] as bytes.
//!
//! A request is its length, the number of a call and its arguments; a reply is its length and the
//! result. Numbers are little-endian. Both ends come from one build, so malformed data panics.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::{Actor, Channel, Footprint, Mapped};
use crate::{Access, Ack, Domid, Error, ErrorKind, Gref, Notify};

/// A value in a request or a reply.
trait Codec: Sized {
    fn encode(&self, bytes: &mut Vec<u8>);
    fn decode(bytes: &mut &[u8]) -> Self;
}

impl Codec for u64 {
    fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend_from_slice(&self.to_le_bytes());
    }

    fn decode(bytes: &mut &[u8]) -> u64 {
        let (number, rest) = bytes.split_first_chunk().expect("a number");
        *bytes = rest;
        u64::from_le_bytes(*number)
    }
}

impl Codec for () {
    fn encode(&self, _bytes: &mut Vec<u8>) {}

    fn decode(_bytes: &mut &[u8]) {}
}

macro_rules! as_number {
    ($($name:ty: $encode:expr, $decode:expr;)*) => {$(
        impl Codec for $name {
            fn encode(&self, bytes: &mut Vec<u8>) {
                let encode: fn(&$name) -> u64 = $encode;
                encode(self).encode(bytes);
            }

            fn decode(bytes: &mut &[u8]) -> $name {
                let decode: fn(u64) -> $name = $decode;
                decode(u64::decode(bytes))
            }
        }
    )*};
}

as_number! {
    bool: |yes| u64::from(*yes), |number| number != 0;
    u8: |number| u64::from(*number), |number| number as u8;
    u16: |number| u64::from(*number), |number| number as u16;
    u32: |number| u64::from(*number), |number| number as u32;
    usize: |number| *number as u64, |number| number as usize;
    Mapped: |name| u64::from(name.0), |number| Mapped(number as u32);
    Channel: |name| u64::from(name.0), |number| Channel(number as u32);
    Duration: |time| time.as_millis() as u64, Duration::from_millis;
    Access: |access| u64::from(*access == Access::ReadWrite),
        |number| if number == 1 { Access::ReadWrite } else { Access::ReadOnly };
    Ack: |ack| u64::from(*ack == Ack::PeerGone),
        |number| if number == 1 { Ack::PeerGone } else { Ack::Open };
    ErrorKind: |kind| u64::from(kind.code()), |number| ErrorKind::from_code(number as u32);
}

macro_rules! as_tuple {
    ($($name:ident)*) => {
        impl<$($name: Codec),*> Codec for ($($name,)*) {
            #[allow(non_snake_case)] // types and values are of one name each
            fn encode(&self, bytes: &mut Vec<u8>) {
                let ($($name,)*) = self;
                $($name.encode(bytes);)*
            }

            fn decode(bytes: &mut &[u8]) -> Self {
                ($($name::decode(bytes),)*)
            }
        }
    };
}

as_tuple!(A B);
as_tuple!(A B C);
as_tuple!(A B C D);

impl<T: Codec> Codec for Vec<T> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        self.len().encode(bytes);
        self.iter().for_each(|one| one.encode(bytes));
    }

    fn decode(bytes: &mut &[u8]) -> Vec<T> {
        (0..usize::decode(bytes))
            .map(|_| T::decode(bytes))
            .collect()
    }
}

impl<T: Codec> Codec for Option<T> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        self.is_some().encode(bytes);
        self.iter().for_each(|one| one.encode(bytes));
    }

    fn decode(bytes: &mut &[u8]) -> Option<T> {
        bool::decode(bytes).then(|| T::decode(bytes))
    }
}

impl<T: Codec> Codec for Result<T, Error> {
    fn encode(&self, bytes: &mut Vec<u8>) {
        self.is_ok().encode(bytes);
        match self {
            Ok(result) => result.encode(bytes),
            Err(error) => (error.kind, error.what.clone()).encode(bytes),
        }
    }

    fn decode(bytes: &mut &[u8]) -> Result<T, Error> {
        if bool::decode(bytes) {
            return Ok(T::decode(bytes));
        }
        let (kind, what) = <(ErrorKind, String)>::decode(bytes);
        Err(Error { kind, what })
    }
}

/// Bytes, encoded as they are.
struct Bytes(Vec<u8>);

impl Codec for Bytes {
    fn encode(&self, bytes: &mut Vec<u8>) {
        self.0.len().encode(bytes);
        bytes.extend_from_slice(&self.0);
    }

    fn decode(bytes: &mut &[u8]) -> Bytes {
        let length = usize::decode(bytes);
        let (own, rest) = bytes.split_at(length);
        *bytes = rest;
        Bytes(own.to_vec())
    }
}

impl Codec for String {
    fn encode(&self, bytes: &mut Vec<u8>) {
        Bytes(self.as_bytes().to_vec()).encode(bytes);
    }

    fn decode(bytes: &mut &[u8]) -> String {
        String::from_utf8(Bytes::decode(bytes).0).expect("text")
    }
}

impl Codec for Notify {
    fn encode(&self, bytes: &mut Vec<u8>) {
        (self.offset, self.port).encode(bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Notify {
        let (offset, port) = Codec::decode(bytes);
        Notify { offset, port }
    }
}

impl Codec for Footprint {
    fn encode(&self, bytes: &mut Vec<u8>) {
        (self.descriptors, self.mappings).encode(bytes);
    }

    fn decode(bytes: &mut &[u8]) -> Footprint {
        let (descriptors, mappings) = Codec::decode(bytes);
        Footprint {
            descriptors,
            mappings,
        }
    }
}

fn send(to: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    let length = (bytes.len() as u32).to_le_bytes();
    to.write_all(&[&length, bytes].concat())?;
    to.flush()
}

fn receive(from: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

const DOMID: u8 = 0;
const SHARE: u8 = 1;
const MAP: u8 = 2;
const UNMAP: u8 = 3;
const PEEK: u8 = 4;
const POKE: u8 = 5;
const UNBOUND: u8 = 6;
const BIND: u8 = 7;
const CLOSE: u8 = 8;
const NOTIFY: u8 = 9;
const ACKNOWLEDGE: u8 = 10;
const WAIT: u8 = 11;
const HOME: u8 = 12;
const ALIVE: u8 = 13;
const FOOTPRINT: u8 = 14;

/// Executes the requests of the other end on `actor`, until that end is closed.
///
/// # Errors
/// Those of reading and writing.
pub fn serve(
    actor: &mut dyn Actor,
    from: &mut impl Read,
    to: &mut impl Write,
) -> std::io::Result<()> {
    loop {
        let request = match receive(from) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            request => request?,
        };
        let mut reply = Vec::new();
        dispatch(actor, &mut request.as_slice(), &mut reply);
        send(to, &reply)?;
    }
}

fn dispatch(actor: &mut dyn Actor, request: &mut &[u8], reply: &mut Vec<u8>) {
    match u8::decode(request) {
        DOMID => actor.domid().encode(reply),
        SHARE => {
            let (peer, pages, access, notify) = Codec::decode(request);
            actor.share(peer, pages, access, notify).encode(reply);
        }
        MAP => {
            let (peer, refs, access, notify) = <(_, Vec<Gref>, _, _)>::decode(request);
            actor.map(peer, &refs, access, notify).encode(reply);
        }
        UNMAP => actor.unmap(Codec::decode(request)),
        PEEK => {
            let (pages, offset, len) = Codec::decode(request);
            Bytes(actor.peek(pages, offset, len)).encode(reply);
        }
        POKE => {
            let (pages, offset, bytes) = <(_, _, Bytes)>::decode(request);
            actor.poke(pages, offset, &bytes.0);
        }
        UNBOUND => actor.unbound(Codec::decode(request)).encode(reply),
        BIND => {
            let (peer, port) = Codec::decode(request);
            actor.bind(peer, port).encode(reply);
        }
        CLOSE => actor.close(Codec::decode(request)),
        NOTIFY => {
            let (channel, times) = Codec::decode(request);
            actor.notify_times(channel, times).encode(reply);
        }
        ACKNOWLEDGE => actor.acknowledge(Codec::decode(request)).encode(reply),
        WAIT => {
            let (channel, limit) = Codec::decode(request);
            actor.wait(channel, limit).encode(reply);
        }
        HOME => actor.home(Codec::decode(request)).encode(reply),
        ALIVE => actor.alive().encode(reply),
        FOOTPRINT => actor.footprint().encode(reply),
        call => panic!("unknown call {call}"),
    }
}

/// An actor in another program, which [`serve`]s on its standard input and output.
pub struct Remote {
    child: Child,
    wire: RefCell<(std::process::ChildStdin, std::process::ChildStdout)>,
    domid: Domid,
}

impl Remote {
    /// Starts the program.
    ///
    /// # Panics
    /// If the program does not start, or exits before it has reported its domain.
    pub fn start(command: &mut Command) -> Remote {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let wire = (child.stdin.take(), child.stdout.take());
        let wire = (wire.0.expect("piped"), wire.1.expect("piped"));
        let mut remote = Remote {
            child,
            wire: RefCell::new(wire),
            domid: 0,
        };
        remote.domid = remote.call(DOMID, &());
        remote
    }

    fn call<R: Codec>(&self, call: u8, arguments: &impl Codec) -> R {
        let (to, from) = &mut *self.wire.borrow_mut();
        let mut request = Vec::new();
        call.encode(&mut request);
        arguments.encode(&mut request);
        let reply = send(to, &request).and_then(|()| receive(from));
        let reply = reply.unwrap_or_else(|error| panic!("domain {}: {error}", self.domid));
        R::decode(&mut reply.as_slice())
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

impl Actor for Remote {
    fn domid(&self) -> Domid {
        self.domid
    }

    fn share(
        &mut self,
        peer: Domid,
        pages: usize,
        access: Access,
        notify: Option<Notify>,
    ) -> Result<(Mapped, Vec<Gref>), Error> {
        self.call(SHARE, &(peer, pages, access, notify))
    }

    fn map(
        &mut self,
        peer: Domid,
        refs: &[Gref],
        access: Access,
        notify: Option<Notify>,
    ) -> Result<Mapped, Error> {
        self.call(MAP, &(peer, refs.to_vec(), access, notify))
    }

    fn unmap(&mut self, pages: Mapped) {
        self.call(UNMAP, &pages)
    }

    fn peek(&self, pages: Mapped, offset: usize, len: usize) -> Vec<u8> {
        self.call::<Bytes>(PEEK, &(pages, offset, len)).0
    }

    fn poke(&mut self, pages: Mapped, offset: usize, bytes: &[u8]) {
        self.call(POKE, &(pages, offset, Bytes(bytes.to_vec())))
    }

    fn unbound(&mut self, peer: Domid) -> Result<(Channel, u32), Error> {
        self.call(UNBOUND, &peer)
    }

    fn bind(&mut self, peer: Domid, port: u32) -> Result<(Channel, u32), Error> {
        self.call(BIND, &(peer, port))
    }

    fn close(&mut self, channel: Channel) {
        self.call(CLOSE, &channel)
    }

    fn notify(&self, channel: Channel) -> Result<(), Error> {
        self.notify_times(channel, 1)
    }

    fn notify_times(&self, channel: Channel, times: u32) -> Result<(), Error> {
        self.call(NOTIFY, &(channel, times))
    }

    fn acknowledge(&self, channel: Channel) -> Result<Ack, Error> {
        self.call(ACKNOWLEDGE, &channel)
    }

    fn wait(&self, channel: Channel, limit: Duration) -> bool {
        self.call(WAIT, &(channel, limit))
    }

    fn home(&self, domid: Domid) -> Result<String, Error> {
        self.call(HOME, &domid)
    }

    fn alive(&self) -> Result<bool, Error> {
        self.call(ALIVE, &())
    }

    fn footprint(&self) -> Footprint {
        self.call(FOOTPRINT, &())
    }
}
