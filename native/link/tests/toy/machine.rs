//! A VM whose processes are numbers, and that remembers whatever anybody was told.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use tube_link::{Buffer, Deliver, Event, Fragment, LinkError, MessageSink, Notifier, Vm};

/// The toy VM.
pub struct Machine;

pub type Process = u32;

impl Vm for Machine {
    type Process = Process;
    type Buffer = Bytes;
}

/// A buffer, until the allowance of its thread is used up.
#[derive(Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

thread_local! {
    /// Set to make every allocation fail.
    pub static NO_MEMORY: RefCell<bool> = const { RefCell::new(false) };
}

impl Buffer for Bytes {
    fn new(len: usize) -> Option<Bytes> {
        NO_MEMORY
            .with(|none| !*none.borrow())
            .then(|| Bytes(vec![0; len]))
    }

    fn room(&mut self) -> &mut [MaybeUninit<u8>] {
        let len = self.0.len();
        // SAFETY: initialised bytes may be seen as maybe initialised, and what is written stays so.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }
}

/// What was told to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    Space(Process),
    Data(Process),
    Event(Event),
    Message(Process, Vec<u8>),
    Passive(Process),
    End(Process, Option<LinkError>),
}

/// Hears everything.
#[derive(Default)]
pub struct Ear {
    told: RefCell<Vec<Told>>,
    message: Vec<u8>,
    /// Deliveries to this process fail.
    pub dead: Option<Process>,
}

impl Ear {
    /// What was told since the last time.
    pub fn take(&self) -> Vec<Told> {
        self.told.take()
    }

    /// The message taken last.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    fn hear(&self, told: Told) {
        self.told.borrow_mut().push(told);
    }

    fn deliver(&mut self, owner: Process, message: Vec<u8>) -> bool {
        if self.dead == Some(owner) {
            return false;
        }
        self.hear(Told::Message(owner, message));
        true
    }
}

impl MessageSink for Ear {
    fn room(&mut self, len: usize) -> bool {
        self.message = Vec::with_capacity(len);
        NO_MEMORY.with(|none| !*none.borrow())
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        bytes.append_to(&mut self.message);
    }
}

impl Notifier<Process> for Ear {
    fn space(&self, to: Process) {
        self.hear(Told::Space(to));
    }

    fn data(&self, to: Process) {
        self.hear(Told::Data(to));
    }

    fn event(&self, event: Event) {
        self.hear(Told::Event(event));
    }
}

impl Deliver<Machine> for Ear {
    fn small(&mut self, owner: Process) -> bool {
        let message = std::mem::take(&mut self.message);
        self.deliver(owner, message)
    }

    fn long(&mut self, owner: Process, message: Bytes) -> bool {
        self.deliver(owner, message.0)
    }

    fn passive(&mut self, owner: Process) {
        self.hear(Told::Passive(owner));
    }

    fn end(&mut self, owner: Process, reason: Option<LinkError>) {
        self.hear(Told::End(owner, reason));
    }
}
