//! The two stores behind one trait, and their comparison.

use std::collections::BTreeSet;

use tube_hub::store::{ConnId, Notice, Quota, Xenstored};

use crate::reference::Reference;
use crate::wire::{GET_DOMAIN_PATH, INTRODUCE, Message, RELEASE, WATCH_EVENT, WRITE};

/// A client of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Client {
    /// A connection of domain 0, by number.
    Tool(usize),
    /// The only connection of another domain.
    Guest(u32),
}

/// A store.
pub trait System {
    fn connect(&mut self, client: Client);
    fn disconnect(&mut self, client: Client);
    /// Does what the hypervisor does before a domain is introduced.
    fn create_domain(&mut self, domid: u32);
    /// Does what the hypervisor does before a domain is released.
    fn end_domain(&mut self, domid: u32);
    fn send(&mut self, client: Client, request: &Message);
    /// The next message for this client. Fails the test if there is none.
    fn receive(&mut self, client: Client) -> Message;

    /// Sends a request. Returns the events before its reply, and the reply.
    fn round(&mut self, client: Client, request: &Message) -> Vec<Message> {
        self.send(client, request);
        let mut messages = Vec::new();
        loop {
            let message = self.receive(client);
            let is_reply = message.kind != WATCH_EVENT;
            messages.push(message.normal());
            if is_reply {
                return messages;
            }
        }
    }

    /// All pending events of a client: those before the reply to a request that changes nothing.
    fn events(&mut self, client: Client) -> Vec<Message> {
        let marker = Message {
            kind: GET_DOMAIN_PATH,
            req_id: u32::MAX,
            tx_id: 0,
            payload: b"0\0".to_vec(),
        };
        let mut messages = self.round(client, &marker);
        let reply = messages.pop().unwrap();
        assert_eq!((reply.kind, reply.req_id), (GET_DOMAIN_PATH, u32::MAX));
        messages
    }
}

/// The store of the hub.
pub struct HubStore {
    store: Xenstored,
    clients: Vec<(Client, ConnId, Vec<u8>)>,
}

impl HubStore {
    pub fn new() -> HubStore {
        HubStore {
            store: Xenstored::new(Quota::default()),
            clients: Vec::new(),
        }
    }

    fn client(&mut self, client: Client) -> &mut (Client, ConnId, Vec<u8>) {
        self.clients
            .iter_mut()
            .find(|entry| entry.0 == client)
            .expect("connected")
    }

    pub fn audit(&self) {
        if let Err(inconsistency) = self.store.audit() {
            panic!("{inconsistency}");
        }
    }
}

impl System for HubStore {
    fn connect(&mut self, client: Client) {
        let domid = match client {
            Client::Tool(_) => 0,
            Client::Guest(domid) => domid as u16,
        };
        let conn = self.store.connect(domid).expect("introduced");
        self.clients.push((client, conn, Vec::new()));
    }

    fn disconnect(&mut self, client: Client) {
        let conn = self.client(client).1;
        self.store.disconnect(conn);
        self.clients.retain(|entry| entry.0 != client);
    }

    fn create_domain(&mut self, _domid: u32) {}

    fn end_domain(&mut self, _domid: u32) {}

    fn send(&mut self, client: Client, request: &Message) {
        let conn = self.client(client).1;
        self.store
            .receive(conn, &request.encode())
            .expect("not disconnected");
        for notice in self.store.notices() {
            if let Notice::Close(conn, _) = notice {
                self.clients.retain(|entry| entry.1 != conn);
            }
        }
    }

    fn receive(&mut self, client: Client) -> Message {
        let conn = self.client(client).1;
        while !self.store.output(conn).is_empty() {
            let bytes = self.store.output(conn).to_vec();
            self.store.sent(conn, bytes.len());
            self.client(client).2.extend(bytes);
        }
        Message::take(&mut self.client(client).2)
            .unwrap_or_else(|| panic!("nothing for {client:?}"))
    }
}

/// Both stores with the same clients. Compares every reply and event.
pub struct Pair {
    reference: Reference,
    hub: HubStore,
    clients: BTreeSet<Client>,
    requests: u32,
}

impl Pair {
    /// Two fresh stores with `tools` connections of domain 0.
    pub fn new(tools: usize) -> Pair {
        let (reference, hub) = (Reference::start(), HubStore::new());
        let mut pair = Pair {
            reference,
            hub,
            clients: BTreeSet::new(),
            requests: 0,
        };
        (0..tools).for_each(|tool| pair.connect(Client::Tool(tool)));
        // On a Xen host xen-init-dom0 writes these nodes. The hub's store starts with them.
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
        self.hub.connect(client);
        self.clients.insert(client);
    }

    /// Closes a connection. Replies to another client show that the reference has noticed.
    pub fn disconnect(&mut self, client: Client) {
        self.reference.disconnect(client);
        self.hub.disconnect(client);
        self.clients.remove(&client);
        if let Some(other) = self.clients.first().copied() {
            // The first round may be part of a pass of its loop that began earlier, the second not.
            (0..2).for_each(|_| self.compare_events(other, &"a disconnection"));
        }
    }

    /// Introduces a domain and connects it.
    pub fn introduce(&mut self, domid: u32) {
        // If nothing has changed since an earlier domain of that number was released, xenstored
        // takes its permissions for those of the new domain. The hub's store does not.
        self.round(Client::Tool(0), WRITE, 0, b"/tool/introducing\0");
        self.reference.create_domain(domid);
        self.hub.create_domain(domid);
        let reply = self.round(
            Client::Tool(0),
            INTRODUCE,
            0,
            format!("{domid}\01\01\0").as_bytes(),
        );
        assert_eq!(reply.kind, INTRODUCE);
        self.connect(Client::Guest(domid));
    }

    /// Releases a domain.
    pub fn release(&mut self, domid: u32) {
        // Its connection ends before the reply.
        self.clients.remove(&Client::Guest(domid));
        self.reference.end_domain(domid);
        self.hub.end_domain(domid);
        let reply = self.round(Client::Tool(0), RELEASE, 0, format!("{domid}\0").as_bytes());
        assert_eq!(reply.kind, RELEASE);
    }

    /// Sends a request to both stores, compares what every client gets, and returns the reply.
    pub fn round(&mut self, client: Client, kind: u32, tx_id: u32, payload: &[u8]) -> Message {
        self.requests += 1;
        let request = Message {
            kind,
            req_id: self.requests,
            tx_id,
            payload: payload.to_vec(),
        };
        let (mut reference, mut hub) = (
            self.reference.round(client, &request),
            self.hub.round(client, &request),
        );
        if kind == RELEASE {
            // xenstored destroys the connection before the reply or soon after, depending on its
            // place in a list.
            for (system, messages) in [
                (&mut self.reference as &mut dyn System, &mut reference),
                (&mut self.hub, &mut hub),
            ] {
                let reply = messages.pop().unwrap();
                messages.extend(system.events(client));
                messages.push(reply);
            }
        }
        assert_eq!(
            hub, reference,
            "left: the hub, right: xenstored, to {client:?} for {request:?}"
        );
        for other in self.clients.clone() {
            self.compare_events(other, &request);
        }
        self.hub.audit();
        hub.into_iter().last().unwrap()
    }

    fn compare_events(&mut self, client: Client, cause: &dyn std::fmt::Debug) {
        let (reference, hub) = (self.reference.events(client), self.hub.events(client));
        assert_eq!(
            hub, reference,
            "left: the hub, right: xenstored, events for {client:?} after {cause:?}"
        );
    }
}
