//! The calls of the data path. They are entered as plain C functions, because the wrapper that rustler
//! makes allocates a vector for the arguments of each call.

use super::gather::BatchBuilder;
use super::{NifNotifier, atoms, reason, refused, sender_monitor};
use crate::catch_panic::catch_panic;
use crate::handles::{self, Entry};
use crate::process::{Buffer, Pid};
use rustler::sys::{
    ErlNifEnv, ErlNifTerm, enif_make_badarg, enif_make_new_binary, enif_raise_exception,
};
use rustler::{Binary, Encoder, Env, Resource, ResourceArc, Term};
use std::ffi::{c_int, c_uint};
use std::mem::MaybeUninit;
use tube_link::{Fragment, Gathered, LinkError, MessageSink, Polled, Received, Sent};

/// Enters a Rust function of `env` and the arguments under the given name and arity. `None` is badarg.
macro_rules! enter {
    ($name:literal, $arity:literal, $function:path) => {
        rustler::codegen_runtime::inventory::submit! {
            rustler::Nif {
                name: $name.as_ptr(),
                arity: $arity as c_uint,
                flags: rustler::SchedulerFlags::Normal as c_uint,
                raw_func: {
                    unsafe extern "C" fn raw(
                        env: *mut ErlNifEnv,
                        _argc: c_int,
                        argv: *const ErlNifTerm,
                    ) -> ErlNifTerm {
                        // SAFETY: the VM calls with its environment, and with as many terms as the arity.
                        unsafe {
                            let arguments = &*argv.cast::<[ErlNifTerm; $arity]>();
                            let lifetime = ();
                            let env = Env::new(&lifetime, env);
                            let terms = arguments.map(|term| Term::new(env, term));
                            match catch_panic(|| $function(env, terms)) {
                                Some(Some(term)) => term.as_c_arg(),
                                Some(None) => enif_make_badarg(env.as_c_arg()),
                                None => {
                                    let reason = atoms::nif_panicked().as_c_arg();
                                    enif_raise_exception(env.as_c_arg(), reason)
                                }
                            }
                        }
                    }
                    raw
                },
            }
        }
    };
}

enter!(c"send", 2, send);
enter!(c"send", 3, send_on);
enter!(c"send_many", 2, send_many);
enter!(c"recv", 1, recv);
enter!(c"recv_many", 2, recv_many);
enter!(c"poll", 1, poll);

fn send<'a>(env: Env<'a>, [id, message]: [Term<'a>; 2]) -> Option<Term<'a>> {
    let number = id.decode().ok()?;
    let bytes = Binary::from_term(message).ok()?;
    let quick = |entry: &Entry| !entry.is_dist() && entry.link.put(&bytes);
    match handles::with_link(number, quick) {
        Some(true) => {
            charge(env, bytes.len(), 0);
            Some(atoms::ok().to_term(env))
        }
        _ => send_from(env, id, message, 0),
    }
}

fn send_on<'a>(env: Env<'a>, [id, message, done]: [Term<'a>; 3]) -> Option<Term<'a>> {
    send_from(env, id, message, done.decode().ok()?)
}

fn send_from<'a>(env: Env<'a>, id: Term<'a>, message: Term<'a>, done: u64) -> Option<Term<'a>> {
    let id = id.decode().ok()?;
    let message = Binary::from_term(message).ok()?;
    let sent = handles::with_link(id, |entry| {
        if entry.is_dist() {
            return None;
        }
        let sender = Pid::caller(env);
        let sent = entry
            .link
            .send(sender, &message, done, &NifNotifier::new(env, id, entry));
        sender_monitor::follow(
            env,
            id,
            entry,
            done > 0,
            matches!(sent, Ok(Sent::More(n) | Sent::Wait(n)) if n > 0),
        );
        Some(sent)
    });
    // A packet between those of the VM would be one of the VM's to the peer.
    let Some(sent) = sent.unwrap_or(Some(Err(LinkError::Closed))) else {
        return Some((atoms::error(), atoms::distribution()).encode(env));
    };
    charge(
        env,
        (message.len() - (done as usize).min(message.len())).min(BUDGET),
        0,
    );
    Some(match sent {
        Ok(Sent::Whole) => atoms::ok().to_term(env),
        Ok(Sent::More(done)) => (atoms::more(), done).encode(env),
        Ok(Sent::Wait(done)) => (atoms::wait(), done).encode(env),
        Err(refusal) => refused(env, refusal),
    })
}

fn send_many<'a>(env: Env<'a>, [id, messages]: [Term<'a>; 2]) -> Option<Term<'a>> {
    let id = id.decode().ok()?;
    let mut messages = Messages::new(messages);
    let sent = handles::with_link(id, |entry| {
        if entry.is_dist() {
            return None;
        }
        let sender = Pid::caller(env);
        let voice = NifNotifier::new(env, id, entry);
        let (count, next) = entry.link.send_many(sender, &mut messages, &voice);
        let begun = matches!(next, Ok(Sent::More(n) | Sent::Wait(n)) if n > 0);
        sender_monitor::follow(env, id, entry, false, begun);
        Some((count, next))
    });
    let Some((count, next)) = sent.unwrap_or(Some((0, Err(LinkError::Closed)))) else {
        return Some((atoms::error(), atoms::distribution(), messages.rest(0)).encode(env));
    };
    charge(env, messages.bytes.min(BUDGET), count);
    let rest = messages.rest(count);
    Some(match next {
        Ok(Sent::Whole | Sent::More(0)) if rest.is_empty_list() => atoms::ok().to_term(env),
        // Neither a binary nor the end of a list: the caller has promised otherwise.
        Ok(Sent::Whole) => return None,
        Ok(Sent::More(done)) => (atoms::more(), rest, done).encode(env),
        Ok(Sent::Wait(done)) => (atoms::wait(), rest, done).encode(env),
        Err(refusal) => (atoms::error(), reason(refusal), rest).encode(env),
    })
}

/// The binaries of a list, as far as they are asked for.
struct Messages<'a> {
    /// What was not given out.
    left: Term<'a>,
    /// The same, with the last that was.
    last: Term<'a>,
    given: usize,
    bytes: usize,
}

impl<'a> Messages<'a> {
    fn new(list: Term<'a>) -> Messages<'a> {
        Messages {
            left: list,
            last: list,
            given: 0,
            bytes: 0,
        }
    }

    /// The list without its first `count`, which were given out, with at most one more.
    fn rest(&self, count: usize) -> Term<'a> {
        match self.given > count {
            true => self.last,
            false => self.left,
        }
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (head, tail) = self.left.list_get_cell().ok()?;
        let message = Binary::from_term(head).ok()?.as_slice();
        (self.last, self.left) = (self.left, tail);
        self.given += 1;
        self.bytes += message.len();
        Some(message)
    }
}

/// Bytes copied that count as a hundredth of a process's turn on its scheduler, and messages.
const BYTES: usize = 64 << 10;
/// Most bytes that a link copies in one call.
const BUDGET: usize = 256 << 10;
const MESSAGES: usize = 128;

/// Charges the calling process for a long call, so that it takes its turn no more often than others: the
/// VM alone would count the longest call like the shortest.
fn charge(env: Env<'_>, bytes: usize, messages: usize) {
    let percent = (bytes / BYTES + messages / MESSAGES).min(100);
    if percent > 0 {
        _ = rustler::schedule::consume_timeslice(env, percent as i32);
    }
}

fn recv<'a>(env: Env<'a>, [id]: [Term<'a>; 1]) -> Option<Term<'a>> {
    let id = id.decode().ok()?;
    let mut small = Inline { env, made: None };
    let received = handles::with_link(id, |entry| {
        let owner = Pid::caller(env);
        entry
            .link
            .recv(owner, &mut small, &NifNotifier::new(env, id, entry))
    });
    Some(match received.unwrap_or(Err(LinkError::Closed)) {
        Ok(Received::Small) => (atoms::ok(), small.made?.0).encode(env),
        Ok(Received::Long(buffer)) => {
            charge(env, buffer.len().min(BUDGET), 0);
            let long = ResourceArc::new(Long(buffer));
            (atoms::ok(), long.make_binary(env, |long| long.0.filled())).encode(env)
        }
        Ok(Received::More) => {
            charge(env, BUDGET, 0);
            atoms::more().to_term(env)
        }
        Ok(Received::Poll) => atoms::poll().to_term(env),
        Ok(Received::Wait) => atoms::wait().to_term(env),
        Err(refusal) => refused(env, refusal),
    })
}

fn recv_many<'a>(env: Env<'a>, [id, most]: [Term<'a>; 2]) -> Option<Term<'a>> {
    let id = id.decode().ok()?;
    let mut gather = BatchBuilder::new(env, most.decode().ok()?);
    let received = handles::with_link(id, |entry| {
        let owner = Pid::caller(env);
        let voice = NifNotifier::new(env, id, entry);
        let most = gather.most();
        entry.link.recv_many(owner, most, &mut gather, &voice)
    });
    Some(match received.unwrap_or(Err(LinkError::Closed)) {
        Ok(Gathered::Messages(count)) => {
            charge(env, gather.bytes().min(BUDGET), count);
            (atoms::ok(), gather.list()).encode(env)
        }
        Ok(Gathered::More) => {
            charge(env, BUDGET, 0);
            atoms::more().to_term(env)
        }
        Ok(Gathered::Poll) => atoms::poll().to_term(env),
        Ok(Gathered::Wait) => atoms::wait().to_term(env),
        Err(refusal) => refused(env, refusal),
    })
}

fn poll<'a>(env: Env<'a>, [id]: [Term<'a>; 1]) -> Option<Term<'a>> {
    let id = id.decode().ok()?;
    let look = handles::with_link(id, |entry| {
        let poller = Pid::caller(env);
        entry
            .link
            .busy_poll(poller, &NifNotifier::new(env, id, entry))
    });
    Some(match look.unwrap_or(Err(LinkError::Closed)) {
        Ok(Polled::Ready) => atoms::ready().to_term(env),
        Ok(Polled::Again) => atoms::poll().to_term(env),
        Ok(Polled::Wait) => atoms::wait().to_term(env),
        Err(refusal) => refused(env, refusal),
    })
}

/// Takes a message that is in the ring in one piece straight into a binary of the calling process.
struct Inline<'a> {
    env: Env<'a>,
    made: Option<(Term<'a>, *mut MaybeUninit<u8>)>,
}

impl MessageSink for Inline<'_> {
    fn room(&mut self, len: usize) -> bool {
        let mut term = MaybeUninit::uninit();
        // SAFETY: the VM gives `len` bytes, which live as long as the term, and initialises the term.
        self.made = unsafe {
            let bytes = enif_make_new_binary(self.env.as_c_arg(), len, term.as_mut_ptr());
            Some((Term::new(self.env, term.assume_init()), bytes.cast()))
        };
        true
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        if let Some((_, room)) = self.made {
            // SAFETY: made by the `room` before this, for as many bytes, and nobody else knows of it yet.
            let room = unsafe { std::slice::from_raw_parts_mut(room, bytes.len()) };
            bytes.copy_to(room);
        }
    }
}

/// A long message as a resource: its binary term is a view of it, so no byte is copied again.
pub struct Long(pub Buffer);

#[rustler::resource_impl]
impl Resource for Long {}
