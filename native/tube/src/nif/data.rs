//! The calls of the data path. They are registered as plain C functions, because rustler's wrapper
//! allocates a vector for the arguments of each call.

use super::batch_builder::{BatchBuilder, LongMessage};
use super::notifier::NifNotifier;
use super::{atoms, error_reply, reason, sender_monitor};
use crate::handles::{self, LinkSlot};
use crate::limits::CALL_BYTES;
use crate::pid::Pid;
use crate::vm::catch_panic;
use rustler::sys::{
    ErlNifEnv, ErlNifTerm, enif_make_badarg, enif_make_new_binary, enif_raise_exception,
};
use rustler::{Binary, Encoder, Env, ResourceArc, Term};
use std::ffi::{c_int, c_uint};
use std::mem::MaybeUninit;
use tube_link::{Fragment, Gathered, LinkError, MessageSink, Polled, Received, Sent};

/// Registers a Rust function of `env` and the arguments under a name and arity. `None` raises
/// badarg.
macro_rules! register {
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
                        // SAFETY: the VM passes its environment, and as many terms as the arity.
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

register!(c"send", 2, send);
register!(c"send", 3, send_on);
register!(c"send_many", 2, send_many);
register!(c"recv", 1, recv);
register!(c"recv_many", 2, recv_many);
register!(c"poll", 1, poll);

fn send<'a>(env: Env<'a>, [id, message]: [Term<'a>; 2]) -> Option<Term<'a>> {
    let number = id.decode().ok()?;
    let bytes = Binary::from_term(message).ok()?;
    let put = |slot: &LinkSlot| !slot.is_dist() && slot.link.put(&bytes);
    match handles::with_link(number, put) {
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
    let sent = handles::with_link(id, |slot| {
        if slot.is_dist() {
            return None;
        }
        let sender = Pid::caller(env);
        let sent = slot
            .link
            .send(sender, &message, done, &NifNotifier::new(env, id, slot));
        sender_monitor::update(
            env,
            id,
            slot,
            done > 0,
            matches!(sent, Ok(Sent::More(n) | Sent::Wait(n)) if n > 0),
        );
        Some(sent)
    });
    // The peer would take a message between the VM's packets for one of them.
    let Some(sent) = sent.unwrap_or(Some(Err(LinkError::Closed))) else {
        return Some((atoms::error(), atoms::distribution()).encode(env));
    };
    charge(
        env,
        (message.len() - (done as usize).min(message.len())).min(CALL_BYTES),
        0,
    );
    Some(match sent {
        Ok(Sent::Whole) => atoms::ok().to_term(env),
        Ok(Sent::More(done)) => (atoms::more(), done).encode(env),
        Ok(Sent::Wait(done)) => (atoms::wait(), done).encode(env),
        Err(error) => error_reply(env, error),
    })
}

fn send_many<'a>(env: Env<'a>, [id, messages]: [Term<'a>; 2]) -> Option<Term<'a>> {
    let id = id.decode().ok()?;
    let mut messages = Messages::new(messages);
    let sent = handles::with_link(id, |slot| {
        if slot.is_dist() {
            return None;
        }
        let sender = Pid::caller(env);
        let notifier = NifNotifier::new(env, id, slot);
        let (count, next) = slot.link.send_many(sender, &mut messages, &notifier);
        let begun = matches!(next, Ok(Sent::More(n) | Sent::Wait(n)) if n > 0);
        sender_monitor::update(env, id, slot, false, begun);
        Some((count, next))
    });
    let Some((count, next)) = sent.unwrap_or(Some((0, Err(LinkError::Closed)))) else {
        return Some((atoms::error(), atoms::distribution(), messages.rest(0)).encode(env));
    };
    charge(env, messages.bytes.min(CALL_BYTES), count);
    let rest = messages.rest(count);
    Some(match next {
        Ok(Sent::Whole | Sent::More(0)) if rest.is_empty_list() => atoms::ok().to_term(env),
        // Not a list of binaries.
        Ok(Sent::Whole) => return None,
        Ok(Sent::More(done)) => (atoms::more(), rest, done).encode(env),
        Ok(Sent::Wait(done)) => (atoms::wait(), rest, done).encode(env),
        Err(error) => (atoms::error(), reason(env, error), rest).encode(env),
    })
}

/// Iterates over the binaries of a list.
struct Messages<'a> {
    /// The rest of the list.
    left: Term<'a>,
    /// The same, with the last message before it.
    last: Term<'a>,
    /// Messages that were returned.
    count: usize,
    /// Bytes of those.
    bytes: usize,
}

impl<'a> Messages<'a> {
    fn new(list: Term<'a>) -> Messages<'a> {
        Messages {
            left: list,
            last: list,
            count: 0,
            bytes: 0,
        }
    }

    /// The list without its first `count` messages: all that were returned, or all but the last.
    fn rest(&self, count: usize) -> Term<'a> {
        match self.count > count {
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
        self.count += 1;
        self.bytes += message.len();
        Some(message)
    }
}

/// Charges the calling process for the work of a call, so that long calls do not get it more than
/// its share of the scheduler. The VM alone counts the longest call like the shortest.
fn charge(env: Env<'_>, bytes: usize, messages: usize) {
    let percent = timeslice_percent(bytes, messages);
    if percent > 0 {
        _ = rustler::schedule::consume_timeslice(env, percent as i32);
    }
}

/// The percentage of a time slice that a call uses up, 0 to 100.
#[inline]
const fn timeslice_percent(bytes: usize, messages: usize) -> usize {
    /// Bytes copied that count as one percent.
    const BYTES: usize = 64 << 10;
    /// Messages moved that count as one percent.
    const MESSAGES: usize = 128;
    let percent = bytes / BYTES + messages / MESSAGES;
    if percent < 100 { percent } else { 100 }
}

// Short calls are free, and long ones count by their work.
const _: () = {
    assert!(timeslice_percent(64, 1) == 0);
    assert!(timeslice_percent((64 << 10) - 1, 127) == 0);
    assert!(timeslice_percent(64 << 10, 0) == 1);
    assert!(timeslice_percent(256 << 10, 1024) == 12);
    assert!(timeslice_percent(usize::MAX, 0) == 100);
};

fn recv<'a>(env: Env<'a>, [id]: [Term<'a>; 1]) -> Option<Term<'a>> {
    let id = id.decode().ok()?;
    let mut small = Inline { env, made: None };
    let received = handles::with_link(id, |slot| {
        let owner = Pid::caller(env);
        slot.link
            .recv(owner, &mut small, &NifNotifier::new(env, id, slot))
    });
    Some(match received.unwrap_or(Err(LinkError::Closed)) {
        Ok(Received::Small) => (atoms::ok(), small.made?.0).encode(env),
        Ok(Received::Long(buffer)) => {
            charge(env, buffer.len().min(CALL_BYTES), 0);
            let long = ResourceArc::new(LongMessage(buffer));
            (atoms::ok(), long.make_binary(env, |long| long.0.filled())).encode(env)
        }
        Ok(Received::More) => {
            charge(env, CALL_BYTES, 0);
            atoms::more().to_term(env)
        }
        Ok(Received::Poll) => atoms::poll().to_term(env),
        Ok(Received::Wait) => atoms::wait().to_term(env),
        Err(error) => error_reply(env, error),
    })
}

fn recv_many<'a>(env: Env<'a>, [id, most]: [Term<'a>; 2]) -> Option<Term<'a>> {
    let id = id.decode().ok()?;
    let mut batch = BatchBuilder::new(env, most.decode().ok()?);
    let received = handles::with_link(id, |slot| {
        let owner = Pid::caller(env);
        let notifier = NifNotifier::new(env, id, slot);
        let most = batch.most();
        slot.link.recv_many(owner, most, &mut batch, &notifier)
    });
    Some(match received.unwrap_or(Err(LinkError::Closed)) {
        Ok(Gathered::Messages(count)) => {
            charge(env, batch.bytes().min(CALL_BYTES), count);
            (atoms::ok(), batch.list()).encode(env)
        }
        Ok(Gathered::More) => {
            charge(env, CALL_BYTES, 0);
            atoms::more().to_term(env)
        }
        Ok(Gathered::Poll) => atoms::poll().to_term(env),
        Ok(Gathered::Wait) => atoms::wait().to_term(env),
        Err(error) => error_reply(env, error),
    })
}

fn poll<'a>(env: Env<'a>, [id]: [Term<'a>; 1]) -> Option<Term<'a>> {
    let id = id.decode().ok()?;
    let polled = handles::with_link(id, |slot| {
        let poller = Pid::caller(env);
        slot.link
            .busy_poll(poller, &NifNotifier::new(env, id, slot))
    });
    Some(match polled.unwrap_or(Err(LinkError::Closed)) {
        Ok(Polled::Ready) => atoms::ready().to_term(env),
        Ok(Polled::Again) => atoms::poll().to_term(env),
        Ok(Polled::Wait) => atoms::wait().to_term(env),
        Err(error) => error_reply(env, error),
    })
}

/// Copies a message that is in the ring in one piece into a binary of the calling process.
struct Inline<'a> {
    env: Env<'a>,
    made: Option<(Term<'a>, *mut MaybeUninit<u8>)>,
}

impl MessageSink for Inline<'_> {
    fn room(&mut self, len: usize) -> bool {
        let mut term = MaybeUninit::uninit();
        // SAFETY: the VM allocates `len` bytes, which live as long as the term, and initialises the
        // term.
        self.made = unsafe {
            let bytes = enif_make_new_binary(self.env.as_c_arg(), len, term.as_mut_ptr());
            Some((Term::new(self.env, term.assume_init()), bytes.cast()))
        };
        true
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        if let Some((_, room)) = self.made {
            // SAFETY: made by the last `room`, for as many bytes, and nothing else refers to it
            // yet.
            let room = unsafe { std::slice::from_raw_parts_mut(room, bytes.len()) };
            bytes.copy_to(room);
        }
    }
}
