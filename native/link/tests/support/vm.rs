//! A VM whose processes are numbers and which records all calls.

use std::cell::RefCell;
use std::mem::MaybeUninit;
use tube_link::{Buffer, Deliver, Event, Fragment, LinkError, MessageSink, Notifier, Vm};

/// A VM for tests.
pub struct TestVm;

pub type Process = u32;

impl Vm for TestVm {
    type Process = Process;
    type Buffer = Bytes;
}

/// A buffer. Allocation fails on demand: see [`NO_MEMORY`].
#[derive(Debug, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

thread_local! {
    /// Set this to make every allocation of the thread fail.
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
        // SAFETY: initialised bytes are valid as `MaybeUninit`, and the link writes only
        // initialised ones.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), len) }
    }
}

/// A call of a `Notifier` or `Deliver`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Space(Process),
    Data(Process),
    Event(Event),
    Message(Process, Vec<u8>),
    Passive(Process),
    End(Process, Option<LinkError>),
}

/// Records all calls.
#[derive(Default)]
pub struct Recorder {
    calls: RefCell<Vec<Call>>,
    message: Vec<u8>,
    /// Deliveries to this process fail.
    pub dead: Option<Process>,
}

impl Recorder {
    /// The calls since the last `take`.
    pub fn take(&self) -> Vec<Call> {
        self.calls.take()
    }

    /// The message taken last.
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    fn record(&self, call: Call) {
        self.calls.borrow_mut().push(call);
    }

    fn deliver(&mut self, owner: Process, message: Vec<u8>) -> bool {
        if self.dead == Some(owner) {
            return false;
        }
        self.record(Call::Message(owner, message));
        true
    }
}

impl MessageSink for Recorder {
    fn room(&mut self, len: usize) -> bool {
        self.message = Vec::with_capacity(len);
        NO_MEMORY.with(|none| !*none.borrow())
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        bytes.append_to(&mut self.message);
    }
}

impl Notifier<Process> for Recorder {
    fn space(&self, to: Process) {
        self.record(Call::Space(to));
    }

    fn data(&self, to: Process) {
        self.record(Call::Data(to));
    }

    fn event(&self, event: Event) {
        self.record(Call::Event(event));
    }
}

impl Deliver<TestVm> for Recorder {
    fn small(&mut self, owner: Process) -> bool {
        let message = std::mem::take(&mut self.message);
        self.deliver(owner, message)
    }

    fn long(&mut self, owner: Process, message: Bytes) -> bool {
        self.deliver(owner, message.0)
    }

    fn passive(&mut self, owner: Process) {
        self.record(Call::Passive(owner));
    }

    fn end(&mut self, owner: Process, reason: Option<LinkError>) {
        self.record(Call::End(owner, reason));
    }
}
