//! Transports of the guests' requests.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::Store;
use crate::reference::Reference;
use crate::system::{Client, System};
use crate::wire::Message;

/// How long a reply may take. In a guest of the lab every instruction is emulated.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The rings of Xen's own xenstored.
pub struct Rings(pub Reference);

impl Store for Rings {
    fn send(&mut self, guest: u32, request: &Message) {
        self.0.send(Client::Guest(guest), request);
    }

    fn receive(&mut self, guest: u32) -> Message {
        self.0.receive(Client::Guest(guest))
    }
}

/// A byte stream to a store, in both directions.
pub struct Stream {
    to: Box<dyn Write>,
    from: Receiver<Message>,
    _program: Option<Program>,
}

struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        _ = self.0.kill();
        _ = self.0.wait();
    }
}

impl Stream {
    /// A daemon's socket.
    pub fn socket(path: &Path) -> Stream {
        let socket = UnixStream::connect(path).expect("connected");
        let other = socket.try_clone().expect("a second descriptor");
        Stream::new(Box::new(socket), other, None)
    }

    /// Standard input and output of a program.
    pub fn program(command: &mut Command) -> Stream {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let to = Box::new(child.stdin.take().expect("piped"));
        let from = child.stdout.take().expect("piped");
        Stream::new(to, from, Some(Program(child)))
    }

    /// A thread reads, since not all of these streams support a read timeout.
    fn new(
        to: Box<dyn Write>,
        mut from: impl Read + Send + 'static,
        program: Option<Program>,
    ) -> Stream {
        let (messages, received) = channel();
        std::thread::spawn(move || {
            let (mut bytes, mut some) = (Vec::new(), [0; 4096]);
            while let Ok(count @ 1..) = from.read(&mut some) {
                bytes.extend_from_slice(&some[..count]);
                while let Some(message) = Message::take(&mut bytes) {
                    if messages.send(message).is_err() {
                        return;
                    }
                }
            }
        });
        Stream {
            to,
            from: received,
            _program: program,
        }
    }
}

/// A stream for each guest.
pub struct Streams(Vec<(u32, Stream)>);

impl Streams {
    pub fn new<const N: usize>(guests: [u32; N], streams: [Stream; N]) -> Streams {
        Streams(guests.into_iter().zip(streams).collect())
    }

    fn of(&mut self, guest: u32) -> &mut Stream {
        let found = self.0.iter_mut().find(|(number, _)| *number == guest);
        &mut found.expect("a known guest").1
    }
}

impl Store for Streams {
    fn send(&mut self, guest: u32, request: &Message) {
        let to = &mut self.of(guest).to;
        let sent = to.write_all(&request.encode()).and_then(|()| to.flush());
        sent.unwrap_or_else(|error| panic!("{error}, sending {request:?}"));
    }

    fn receive(&mut self, guest: u32) -> Message {
        let received = self.of(guest).from.recv_timeout(TIMEOUT);
        received.unwrap_or_else(|error| panic!("nothing for domain {guest}: {error}"))
    }
}
