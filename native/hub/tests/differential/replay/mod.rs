//! A recorded conversation of two guests, replayed on every store that there is.
//!
//! A store is here a stream of bytes for each guest: the hub's sockets, the rings of Xen's own xenstored
//! without a hypervisor, `/dev/xen/xenbus` in a guest of the lab.

mod script;
mod streams;

use std::collections::HashMap;

use crate::common::{Rig, in_guest};
use crate::reference::Reference;
use crate::system::{Client, System};
use crate::wire::*;
use script::{Request, Step};
use streams::{Rings, Stream, Streams};

const RECORDING: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/differential/replay/two_guests.txt"
);

/// The guests of the recording.
const GUESTS: [u32; 2] = [5, 7];

/// Most that `fill` asks for.
const MANY: usize = 1500;

/// Requests under way at once: xenstored reads no more from a guest that has 20.
const AT_ONCE: usize = 10;

/// A stream for each guest.
pub trait Store {
    fn send(&mut self, guest: u32, request: &Message);
    /// The next message for this guest; fails the test if there is none for long.
    fn receive(&mut self, guest: u32) -> Message;
}

/// Two guests of one store.
struct Conversation<'a> {
    store: &'a mut dyn Store,
    requests: u32,
    events: HashMap<u32, Vec<String>>,
    transactions: HashMap<String, u32>,
}

impl<'a> Conversation<'a> {
    fn new(store: &'a mut dyn Store) -> Conversation<'a> {
        let mut conversation = Conversation {
            store,
            requests: 0,
            events: HashMap::new(),
            transactions: HashMap::new(),
        };
        for guest in GUESTS {
            // For `events`.
            assert_eq!(
                conversation.text(guest, WATCH, 0, b"data/fence\0fence\0"),
                "OK"
            );
            conversation.fence(guest);
        }
        conversation
    }

    fn end(mut self) {
        for guest in GUESTS {
            assert_eq!(self.text(guest, UNWATCH, 0, b"data/fence\0fence\0"), "OK");
            assert_eq!(self.text(guest, RM, 0, b"data/fence\0"), "OK");
        }
    }

    /// Sends a request; its answer. Events that come before it are kept.
    fn round(&mut self, guest: u32, kind: u32, tx_id: u32, payload: &[u8]) -> Message {
        self.requests += 1;
        let request = Message {
            kind,
            req_id: self.requests,
            tx_id,
            payload: payload.to_vec(),
        };
        self.store.send(guest, &request);
        loop {
            let message = self.store.receive(guest);
            if message.kind != WATCH_EVENT {
                assert_eq!(message.req_id, self.requests, "the answer to {request:?}");
                return message;
            }
            self.keep(guest, &message);
        }
    }

    /// The answer in words.
    fn text(&mut self, guest: u32, kind: u32, tx_id: u32, payload: &[u8]) -> String {
        script::in_words(kind, &self.round(guest, kind, tx_id, payload))
    }

    /// Keeps an event; was it the fence's?
    fn keep(&mut self, guest: u32, event: &Message) -> bool {
        let names: Vec<_> = event.payload.split(|byte| *byte == 0).collect();
        let [path, token, ..] = names[..] else {
            panic!("no event: {event:?}");
        };
        // Other watches may see the fence too.
        if !path.ends_with(b"data/fence") {
            let words = [path, token].map(String::from_utf8_lossy).join(" ");
            self.events.entry(guest).or_default().push(words);
        }
        token == b"fence"
    }

    /// Makes an event and waits for it: what happened before has been told by then. Not the answer to a
    /// request: the kernel's device hands out answers and events by two ways.
    fn fence(&mut self, guest: u32) {
        let value = format!("data/fence\0{}", self.requests);
        self.requests += 1;
        let write = Message {
            kind: WRITE,
            req_id: self.requests,
            tx_id: 0,
            payload: value.into_bytes(),
        };
        self.store.send(guest, &write);
        let (mut answered, mut told) = (false, false);
        while !(answered && told) {
            let message = self.store.receive(guest);
            match message.kind {
                WATCH_EVENT => told |= self.keep(guest, &message),
                kind => {
                    assert_eq!(
                        (kind, message.req_id),
                        (WRITE, self.requests),
                        "{message:?}"
                    );
                    answered = true;
                }
            }
        }
    }

    fn answer(&mut self, step: &Step) -> String {
        let guest = step.guest;
        let tx_id = match &step.transaction {
            Some(name) => self.transactions[name],
            None => 0,
        };
        match &step.request {
            Request::Plain(kind, payload) => self.text(guest, *kind, tx_id, payload),
            Request::Start(name) => self.start(guest).map_or_else(
                |error| error,
                |id| {
                    self.transactions.insert(name.clone(), id);
                    "OK".into()
                },
            ),
            Request::End(name, how) => {
                let id = self.transactions[name];
                self.text(guest, TRANSACTION_END, id, how)
            }
            Request::Events => {
                self.fence(guest);
                let mut events = self.events.remove(&guest).unwrap_or_default();
                // Nobody promises which watch of several is told first.
                events.sort_unstable();
                if events.is_empty() {
                    "-".into()
                } else {
                    events.join(", ")
                }
            }
            Request::FillTransactions => {
                let mut open = Vec::new();
                let refused = loop {
                    match self.start(guest) {
                        Ok(id) if open.len() < MANY => open.push(id),
                        Ok(_) => break "nothing".into(),
                        Err(error) => break error,
                    }
                };
                for id in &open {
                    assert_eq!(self.text(guest, TRANSACTION_END, *id, b"F\0"), "OK");
                }
                format!("{refused} after {}", open.len())
            }
            Request::FillWatches(path) => {
                let payload = |n| format!("{path}\0fill-{n}\0").into_bytes();
                let (refused, made) = self.fill(guest, WATCH, payload);
                for some in made.chunks(AT_ONCE) {
                    let requests = some.iter().map(|n| payload(*n));
                    let answers = self.rounds(guest, UNWATCH, requests.collect());
                    assert!(answers.iter().all(|answer| answer == "OK"));
                }
                self.fence(guest);
                self.events.remove(&guest);
                format!("{refused} after {}", made.len())
            }
            Request::FillNodes(path) => {
                // Few enough in each that it is their number that counts.
                let payload = |n| format!("{path}/{}/{}\0", n / 50, n % 50).into_bytes();
                let (refused, made) = self.fill(guest, MKDIR, payload);
                let path = format!("{path}\0");
                assert_eq!(self.text(guest, RM, 0, path.as_bytes()), "OK");
                format!("{refused} after {}", made.len())
            }
        }
    }

    fn start(&mut self, guest: u32) -> Result<u32, String> {
        let answer = self.round(guest, TRANSACTION_START, 0, b"\0");
        let words = script::in_words(READ, &answer);
        words.parse().map_err(|_| words)
    }

    fn fill(
        &mut self,
        guest: u32,
        kind: u32,
        payload: impl Fn(usize) -> Vec<u8>,
    ) -> (String, Vec<usize>) {
        let mut made = Vec::new();
        for first in (0..MANY).step_by(AT_ONCE) {
            let some = first..first + AT_ONCE;
            let answers = self.rounds(guest, kind, some.clone().map(&payload).collect());
            let mut refused = None;
            for (n, answer) in some.zip(answers) {
                match answer.as_str() {
                    "OK" => made.push(n),
                    _ => refused = Some(answer),
                }
            }
            if let Some(refused) = refused {
                return (refused, made);
            }
        }
        ("nothing".into(), made)
    }

    /// Several requests of one kind at once, since the way to a guest of the lab is long; their answers.
    fn rounds(&mut self, guest: u32, kind: u32, payloads: Vec<Vec<u8>>) -> Vec<String> {
        let first = self.requests + 1;
        for payload in &payloads {
            self.requests += 1;
            let request = Message {
                kind,
                req_id: self.requests,
                tx_id: 0,
                payload: payload.clone(),
            };
            self.store.send(guest, &request);
        }
        let mut answers = Vec::new();
        while answers.len() < payloads.len() {
            let message = self.store.receive(guest);
            if message.kind == WATCH_EVENT {
                self.keep(guest, &message);
            } else {
                assert_eq!(message.req_id, first + answers.len() as u32, "in order");
                answers.push(script::in_words(kind, &message));
            }
        }
        answers
    }
}

/// Plays the recording; what each step is answered.
fn play(store: &mut dyn Store) -> Vec<(Step, String)> {
    let text = std::fs::read_to_string(RECORDING).expect("the recording");
    let mut conversation = Conversation::new(store);
    let answered = script::parse(&text)
        .into_iter()
        .map(|step| {
            let answer = conversation.answer(&step);
            (step, answer)
        })
        .collect();
    conversation.end();
    answered
}

/// Plays the recording on a store of this kind, and says all that is answered otherwise than it should be.
fn replay(store: &mut dyn Store, wheres: &[&str]) {
    let wrong: Vec<String> = play(store)
        .into_iter()
        .filter(|(step, answer)| !script::alike(step.expected(wheres), answer))
        .map(|(step, answer)| {
            let expected = step.expected(wheres);
            format!(
                "line {}: {}\n    expected {expected}\n    answered {answer}",
                step.line, step.text
            )
        })
        .collect();
    assert!(wrong.is_empty(), "on {wheres:?}:\n{}", wrong.join("\n"));
}

/// What libxl makes for a guest, as far as the recording sees it.
fn furnish(reference: &mut Reference, guest: u32) {
    reference.create_domain(guest);
    let tool = Client::Tool(0);
    let mut ask = |kind, payload: String| {
        let request = Message {
            kind,
            req_id: 1,
            tx_id: 0,
            payload: payload.into_bytes(),
        };
        let answer = reference.round(tool, &request).pop().expect("an answer");
        assert_eq!(answer.kind, kind, "{request:?}: {answer:?}");
    };
    ask(INTRODUCE, format!("{guest}\x001\x001\0"));
    let home = format!("/local/domain/{guest}");
    ask(WRITE, format!("{home}/domid\0{guest}"));
    for path in [home.clone(), format!("{home}/domid")] {
        ask(SET_PERMS, format!("{path}\0n0\0r{guest}\0"));
    }
    ask(MKDIR, format!("{home}/data\0"));
    ask(SET_PERMS, format!("{home}/data\0n{guest}\0"));
    // Not the guest's to write.
    ask(WRITE, "/tool/there\0".into());
}

#[test]
fn on_xenstored() {
    let mut reference = Reference::start();
    reference.connect(Client::Tool(0));
    for guest in GUESTS {
        furnish(&mut reference, guest);
        reference.connect(Client::Guest(guest));
    }
    let mut store = Rings(reference);
    if std::env::var_os("TUBE_REPLAY_RECORD").is_some() {
        let text = std::fs::read_to_string(RECORDING).expect("the recording");
        let answered = script::record(&text, &play(&mut store));
        std::fs::write(RECORDING, answered).expect("written");
    } else {
        replay(&mut store, &["xenstored"]);
    }
}

#[test]
fn on_the_hub() {
    let rig = Rig::with_hub(&[]);
    let domains = GUESTS.map(|guest| rig.domain(Some(guest as u16)));
    let sockets = GUESTS.map(|guest| {
        let path = rig.path(&format!("dom{guest}/xenstored.sock"));
        Stream::socket(&path)
    });
    replay(&mut Streams::new(GUESTS, sockets), &["hub"]);
    drop(domains);
}

/// In two guests of a real Xen, through the kernel's device. `TUBE_TEST_STORE` says which daemon that is:
/// xenstored, unless it is oxenstored. For `TUBE_TEST_ENTER` and `TUBE_TEST_DOMAIN` see `in_guest`.
#[test]
#[ignore = "for bin/test-xen, which has guests"]
fn on_xen() {
    let daemon = std::env::var("TUBE_TEST_STORE").unwrap_or("xenstored".into());
    let programs = GUESTS.map(|guest| {
        let mut command = in_guest(guest);
        Stream::program(command.args(["store", "/dev/xen/xenbus"]))
    });
    replay(&mut Streams::new(GUESTS, programs), &[&daemon, "device"]);
}
