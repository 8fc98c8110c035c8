//! What both stores look like to a test, and the comparison of the two.

use std::collections::BTreeSet;

use tube_hub::store::{ConnId, Notice, Quota, Xenstored};

use crate::reference::Reference;
use crate::wire::{GET_DOMAIN_PATH, INTRODUCE, Message, RELEASE, WATCH_EVENT, WRITE};

/// Who talks to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Client {
    /// A connection of domain 0, by number.
    Tool(usize),
    /// The one connection of another domain.
    Guest(u32),
}

/// A store.
pub trait System {
    fn connect(&mut self, client: Client);
    fn disconnect(&mut self, client: Client);
    /// What the hypervisor does before a domain is introduced.
    fn create_domain(&mut self, domid: u32);
    /// What the hypervisor does before a domain is released.
    fn end_domain(&mut self, domid: u32);
    fn send(&mut self, client: Client, request: &Message);
    /// The next message for this client; fails the test if there is none.
    fn receive(&mut self, client: Client) -> Message;

    /// Sends a request; everything that comes before its answer, and the answer.
    fn round(&mut self, client: Client, request: &Message) -> Vec<Message> {
        self.send(client, request);
        let mut messages = Vec::new();
        loop {
            let message = self.receive(client);
            let is_answer = message.kind != WATCH_EVENT;
            messages.push(message.normal());
            if is_answer {
                return messages;
            }
        }
    }

    /// All events that wait for a client: those before the answer to a request that changes
    /// nothing.
    fn events(&mut self, client: Client) -> Vec<Message> {
        let marker = Message {
            kind: GET_DOMAIN_PATH,
            req_id: u32::MAX,
            tx_id: 0,
            payload: b"0\0".to_vec(),
        };
        let mut messages = self.round(client, &marker);
        let answer = messages.pop().unwrap();
        assert_eq!((answer.kind, answer.req_id), (GET_DOMAIN_PATH, u32::MAX));
        messages
    }
}

/// The store of the hub.
pub struct Ours {
    store: Xenstored,
    lines: Vec<(Client, ConnId, Vec<u8>)>,
}

impl Ours {
    pub fn new() -> Ours {
        Ours {
            store: Xenstored::new(Quota::default()),
            lines: Vec::new(),
        }
    }

    fn line(&mut self, client: Client) -> &mut (Client, ConnId, Vec<u8>) {
        self.lines
            .iter_mut()
            .find(|line| line.0 == client)
            .expect("connected")
    }

    pub fn audit(&self) {
        if let Err(wrong) = self.store.audit() {
            panic!("{wrong}");
        }
    }
}

impl System for Ours {
    fn connect(&mut self, client: Client) {
        let domid = match client {
            Client::Tool(_) => 0,
            Client::Guest(domid) => domid as u16,
        };
        let conn = self.store.connect(domid).expect("introduced");
        self.lines.push((client, conn, Vec::new()));
    }

    fn disconnect(&mut self, client: Client) {
        let conn = self.line(client).1;
        self.store.disconnect(conn);
        self.lines.retain(|line| line.0 != client);
    }

    fn create_domain(&mut self, _domid: u32) {}

    fn end_domain(&mut self, _domid: u32) {}

    fn send(&mut self, client: Client, request: &Message) {
        let conn = self.line(client).1;
        self.store
            .receive(conn, &request.encode())
            .expect("not cut off");
        for notice in self.store.notices() {
            if let Notice::Close(conn, _) = notice {
                self.lines.retain(|line| line.1 != conn);
            }
        }
    }

    fn receive(&mut self, client: Client) -> Message {
        let conn = self.line(client).1;
        while !self.store.output(conn).is_empty() {
            let bytes = self.store.output(conn).to_vec();
            self.store.sent(conn, bytes.len());
            self.line(client).2.extend(bytes);
        }
        Message::take(&mut self.line(client).2).unwrap_or_else(|| panic!("nothing for {client:?}"))
    }
}

/// Both stores with the same clients; every answer and event is compared.
pub struct Pair {
    reference: Reference,
    ours: Ours,
    clients: BTreeSet<Client>,
    requests: u32,
}

impl Pair {
    /// Two fresh stores with `tools` connections of domain 0.
    pub fn new(tools: usize) -> Pair {
        let (reference, ours) = (Reference::start(), Ours::new());
        let mut pair = Pair {
            reference,
            ours,
            clients: BTreeSet::new(),
            requests: 0,
        };
        (0..tools).for_each(|tool| pair.connect(Client::Tool(tool)));
        // On a Xen host xen-init-dom0 does this; our store comes with it.
        for payload in [
            b"/local/domain/0/name\0Domain-0".as_slice(),
            b"/local/domain/0/domid\x000",
        ] {
            let write = Message {
                kind: WRITE,
                req_id: 0,
                tx_id: 0,
                payload: payload.to_vec(),
            };
            pair.reference.round(Client::Tool(0), &write);
        }
        pair
    }

    pub fn connect(&mut self, client: Client) {
        self.reference.connect(client);
        self.ours.connect(client);
        self.clients.insert(client);
    }

    /// Closes a connection. The answer of another client shows that the reference has noticed.
    pub fn disconnect(&mut self, client: Client) {
        self.reference.disconnect(client);
        self.ours.disconnect(client);
        self.clients.remove(&client);
        if let Some(other) = self.clients.first().copied() {
            // One pass of its loop may have begun before; the second has not.
            (0..2).for_each(|_| self.compare_events(other, &"a disconnection"));
        }
    }

    /// Makes a domain, with the connection that it comes with.
    pub fn introduce(&mut self, domid: u32) {
        // Unless something has changed since the last domain of that number went, xenstored takes
        // permissions of that one to be about this one. Ours does not.
        self.round(Client::Tool(0), WRITE, 0, b"/tool/introducing\0");
        self.reference.create_domain(domid);
        self.ours.create_domain(domid);
        let answer = self.round(
            Client::Tool(0),
            INTRODUCE,
            0,
            format!("{domid}\01\01\0").as_bytes(),
        );
        assert_eq!(answer.kind, INTRODUCE);
        self.connect(Client::Guest(domid));
    }

    /// Ends a domain.
    pub fn release(&mut self, domid: u32) {
        // Its connection ends before anything is answered.
        self.clients.remove(&Client::Guest(domid));
        self.reference.end_domain(domid);
        self.ours.end_domain(domid);
        let answer = self.round(Client::Tool(0), RELEASE, 0, format!("{domid}\0").as_bytes());
        assert_eq!(answer.kind, RELEASE);
    }

    /// Sends a request to both and compares what every client gets; the answer.
    pub fn round(&mut self, client: Client, kind: u32, tx_id: u32, payload: &[u8]) -> Message {
        self.requests += 1;
        let request = Message {
            kind,
            req_id: self.requests,
            tx_id,
            payload: payload.to_vec(),
        };
        let (mut theirs, mut ours) = (
            self.reference.round(client, &request),
            self.ours.round(client, &request),
        );
        if kind == RELEASE {
            // When xenstored destroys the connection depends on its place in a list: before the
            // answer, or soon after.
            for (system, messages) in [
                (&mut self.reference as &mut dyn System, &mut theirs),
                (&mut self.ours, &mut ours),
            ] {
                let answer = messages.pop().unwrap();
                messages.extend(system.events(client));
                messages.push(answer);
            }
        }
        assert_eq!(
            ours, theirs,
            "left: ours, right: xenstored's, to {client:?} for {request:?}"
        );
        for other in self.clients.clone() {
            self.compare_events(other, &request);
        }
        self.ours.audit();
        ours.into_iter().last().unwrap()
    }

    fn compare_events(&mut self, client: Client, cause: &dyn std::fmt::Debug) {
        let (theirs, ours) = (self.reference.events(client), self.ours.events(client));
        assert_eq!(
            ours, theirs,
            "left: ours, right: xenstored's, events for {client:?} after {cause:?}"
        );
    }
}
