//! Replays a recorded conversation of two guests on several stores.
//!
//! A store is a byte stream for each guest: the hub's sockets, the rings of Xen's own xenstored
//! without a hypervisor, or `/dev/xen/xenbus` in guests of the Xen lab.

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

/// The most requests that `fill` makes.
const FILL_MAX: usize = 1500;

/// Requests in flight: xenstored reads no more from a guest that has 20.
const IN_FLIGHT: usize = 10;

/// A stream for each guest.
pub trait Store {
    fn send(&mut self, guest: u32, request: &Message);
    /// The next message for this guest. Fails the test if there is none for a long time.
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
            // For [`Conversation::fence`].
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

    /// Sends a request and returns its reply. Keeps events that arrive before it.
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
                assert_eq!(message.req_id, self.requests, "the reply to {request:?}");
                return message;
            }
            self.keep(guest, &message);
        }
    }

    /// The reply as text.
    fn text(&mut self, guest: u32, kind: u32, tx_id: u32, payload: &[u8]) -> String {
        script::to_text(kind, &self.round(guest, kind, tx_id, payload))
    }

    /// Keeps an event. True for the event of the fence's own watch.
    fn keep(&mut self, guest: u32, event: &Message) -> bool {
        let names: Vec<_> = event.payload.split(|byte| *byte == 0).collect();
        let [path, token, ..] = names[..] else {
            panic!("not an event: {event:?}");
        };
        // The fence may fire other watches too.
        if !path.ends_with(b"data/fence") {
            let text = [path, token].map(String::from_utf8_lossy).join(" ");
            self.events.entry(guest).or_default().push(text);
        }
        token == b"fence"
    }

    /// Causes an event and waits for it: all earlier events have arrived by then. A reply does not
    /// show that, since the kernel's device returns replies and events by different paths.
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
        let (mut replied, mut fired) = (false, false);
        while !(replied && fired) {
            let message = self.store.receive(guest);
            match message.kind {
                WATCH_EVENT => fired |= self.keep(guest, &message),
                kind => {
                    assert_eq!(
                        (kind, message.req_id),
                        (WRITE, self.requests),
                        "{message:?}"
                    );
                    replied = true;
                }
            }
        }
    }

    fn reply(&mut self, step: &Step) -> String {
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
                // The order in which several watches fire is unspecified.
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
                        Ok(id) if open.len() < FILL_MAX => open.push(id),
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
                for some in made.chunks(IN_FLIGHT) {
                    let requests = some.iter().map(|n| payload(*n));
                    let replies = self.rounds(guest, UNWATCH, requests.collect());
                    assert!(replies.iter().all(|reply| reply == "OK"));
                }
                self.fence(guest);
                self.events.remove(&guest);
                format!("{refused} after {}", made.len())
            }
            Request::FillNodes(path) => {
                // Few enough per directory that only the quota of nodes is reached.
                let payload = |n| format!("{path}/{}/{}\0", n / 50, n % 50).into_bytes();
                let (refused, made) = self.fill(guest, MKDIR, payload);
                let path = format!("{path}\0");
                assert_eq!(self.text(guest, RM, 0, path.as_bytes()), "OK");
                format!("{refused} after {}", made.len())
            }
        }
    }

    fn start(&mut self, guest: u32) -> Result<u32, String> {
        let reply = self.round(guest, TRANSACTION_START, 0, b"\0");
        let text = script::to_text(READ, &reply);
        text.parse().map_err(|_| text)
    }

    fn fill(
        &mut self,
        guest: u32,
        kind: u32,
        payload: impl Fn(usize) -> Vec<u8>,
    ) -> (String, Vec<usize>) {
        let mut made = Vec::new();
        for first in (0..FILL_MAX).step_by(IN_FLIGHT) {
            let some = first..first + IN_FLIGHT;
            let replies = self.rounds(guest, kind, some.clone().map(&payload).collect());
            let mut refused = None;
            for (n, reply) in some.zip(replies) {
                match reply.as_str() {
                    "OK" => made.push(n),
                    _ => refused = Some(reply),
                }
            }
            if let Some(refused) = refused {
                return (refused, made);
            }
        }
        ("nothing".into(), made)
    }

    /// Sends several requests of one kind at once, since guests of the lab are slow. Returns the
    /// replies.
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
        let mut replies = Vec::new();
        while replies.len() < payloads.len() {
            let message = self.store.receive(guest);
            if message.kind == WATCH_EVENT {
                self.keep(guest, &message);
            } else {
                assert_eq!(message.req_id, first + replies.len() as u32, "in order");
                replies.push(script::to_text(kind, &message));
            }
        }
        replies
    }
}

/// Plays the recording. Returns the reply to each step.
fn play(store: &mut dyn Store) -> Vec<(Step, String)> {
    let text = std::fs::read_to_string(RECORDING).expect("the recording");
    let mut conversation = Conversation::new(store);
    let replies = script::parse(&text)
        .into_iter()
        .map(|step| {
            let reply = conversation.reply(&step);
            (step, reply)
        })
        .collect();
    conversation.end();
    replies
}

/// Plays the recording on a store and compares all replies with those expected in these places.
fn replay(store: &mut dyn Store, places: &[&str]) {
    let wrong: Vec<String> = play(store)
        .into_iter()
        .filter(|(step, reply)| !script::matches(step.expected(places), reply))
        .map(|(step, reply)| {
            let expected = step.expected(places);
            format!(
                "line {}: {}\n    expected {expected}\n    got      {reply}",
                step.line, step.text
            )
        })
        .collect();
    assert!(wrong.is_empty(), "on {places:?}:\n{}", wrong.join("\n"));
}

/// Creates the nodes that libxl creates for a guest, as far as the recording needs them.
fn create_guest(reference: &mut Reference, guest: u32) {
    reference.create_domain(guest);
    let tool = Client::Tool(0);
    let mut ask = |kind, payload: String| {
        let request = Message {
            kind,
            req_id: 1,
            tx_id: 0,
            payload: payload.into_bytes(),
        };
        let reply = reference.round(tool, &request).pop().expect("a reply");
        assert_eq!(reply.kind, kind, "{request:?}: {reply:?}");
    };
    ask(INTRODUCE, format!("{guest}\x001\x001\0"));
    let home = format!("/local/domain/{guest}");
    ask(WRITE, format!("{home}/domid\0{guest}"));
    for path in [home.clone(), format!("{home}/domid")] {
        ask(SET_PERMS, format!("{path}\0n0\0r{guest}\0"));
    }
    ask(MKDIR, format!("{home}/data\0"));
    ask(SET_PERMS, format!("{home}/data\0n{guest}\0"));
    // The guest may not write it.
    ask(WRITE, "/tool/there\0".into());
}

#[test]
fn on_xenstored() {
    let mut reference = Reference::start();
    reference.connect(Client::Tool(0));
    for guest in GUESTS {
        create_guest(&mut reference, guest);
        reference.connect(Client::Guest(guest));
    }
    let mut store = Rings(reference);
    if std::env::var_os("TUBE_REPLAY_RECORD").is_some() {
        let text = std::fs::read_to_string(RECORDING).expect("the recording");
        let recorded = script::record(&text, &play(&mut store));
        std::fs::write(RECORDING, recorded).expect("written");
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

/// In two guests of a real Xen, through the kernel's device. `TUBE_TEST_STORE` names the daemon:
/// xenstored (the default) or oxenstored. For `TUBE_TEST_ENTER` and `TUBE_TEST_DOMAIN` see
/// `in_guest`.
#[test]
#[ignore = "needs the guests of bin/test-xen"]
fn on_xen() {
    let daemon = std::env::var("TUBE_TEST_STORE").unwrap_or("xenstored".into());
    let programs = GUESTS.map(|guest| {
        let mut command = in_guest(guest);
        Stream::program(command.args(["store", "/dev/xen/xenbus"]))
    });
    replay(&mut Streams::new(GUESTS, programs), &[&daemon, "device"]);
}
