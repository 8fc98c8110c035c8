//! Calls that make links, and those outside the data path.

use super::notifier::NifNotifier;
use super::platform::Attached;
use super::{atoms, error_reply, named_error};
use crate::Beam;
use crate::handles::{self, Binding, Mode};
use crate::pid::Pid;
use crate::vm::catch_panic;
use rustler::{Atom, Encoder, Env, LocalPid, NifResult, ResourceArc, Term};
use std::time::Duration;
use tube_link::{ConnectError, Link, LinkError, NullDeliver, Offer};
use tube_platform::Domid;

#[rustler::nif(schedule = "DirtyIo")]
fn link_share<'a>(
    env: Env<'a>,
    platform: ResourceArc<Attached>,
    peer: Domid,
    order_tx: u32,
    order_rx: u32,
    nonce: u64,
    max_message: u32,
) -> NifResult<Term<'a>> {
    let offer = Offer {
        peer,
        order_tx,
        order_rx,
        nonce,
        max_message,
    };
    let shared = platform.get().map_err(ConnectError::from);
    let (link, refs) = match shared.and_then(|platform| Link::<Beam>::share(&*platform, offer)) {
        Ok(made) => made,
        Err(error) => return Ok(named_error(env, error.atom())),
    };
    let Some(id) = handles::insert_link(link) else {
        return Ok((atoms::error(), atoms::enospc()).encode(env));
    };
    let refs = Term::map_from_pairs(
        env,
        &[
            (atoms::tx_ring_ref(), refs.tx_ring_ref),
            (atoms::rx_ring_ref(), refs.rx_ring_ref),
            (atoms::event_channel(), refs.event_channel),
            (atoms::order_tx(), refs.order_tx),
            (atoms::order_rx(), refs.order_rx),
        ],
    )?;
    Ok((atoms::ok(), id, refs).encode(env))
}

#[rustler::nif(schedule = "DirtyIo")]
#[allow(clippy::too_many_arguments)] // The arguments of the Elixir function.
fn link_map<'a>(
    env: Env<'a>,
    platform: ResourceArc<Attached>,
    peer: Domid,
    tx_ref: u32,
    rx_ref: u32,
    event_channel: u32,
    nonce: u64,
    max_message: u32,
) -> Term<'a> {
    let refs = (tx_ref, rx_ref, event_channel);
    let mapped = platform
        .get()
        .map_err(ConnectError::from)
        .and_then(|platform| Link::<Beam>::map(&*platform, peer, refs, nonce, max_message));
    match mapped.map(handles::insert_link) {
        Ok(Some(id)) => (atoms::ok(), id).encode(env),
        Ok(None) => (atoms::error(), atoms::enospc()).encode(env),
        Err(error) => named_error(env, error.atom()),
    }
}

#[rustler::nif(schedule = "DirtyIo")]
fn link_free(id: u64) -> Atom {
    // A link with a port is closed by its port.
    if let Some(slot) = handles::claim_link(id) {
        handles::remove_link(id);
        catch_panic(|| slot.link.close(&mut NullDeliver));
    }
    atoms::ok()
}

#[rustler::nif]
fn link_bind<'a>(
    env: Env<'a>,
    id: u64,
    connection: LocalPid,
    owner: LocalPid,
    mode: Atom,
) -> NifResult<Term<'a>> {
    let mode = match mode {
        mode if mode == atoms::tube() => Mode::Tube,
        mode if mode == atoms::port() => Mode::Port,
        mode if mode == atoms::dist() => Mode::Dist,
        _ => return Err(rustler::Error::BadArg),
    };
    let Some(slot) = handles::link(id) else {
        return Ok(error_reply(env, LinkError::Closed));
    };
    let binding = Binding {
        connection: Pid::from_nif(connection),
        owner: Pid::from_nif(owner),
        mode,
    };
    Ok(match slot.binding.set(binding) {
        Ok(()) => atoms::ok().encode(env),
        Err(_) => error_reply(env, LinkError::Invalid),
    })
}

#[rustler::nif]
fn link_owner<'a>(env: Env<'a>, id: u64, owner: LocalPid) -> Term<'a> {
    call(env, id, |slot, notifier| {
        slot.link.set_owner(Pid::from_nif(owner), notifier)
    })
}

#[rustler::nif]
fn link_poll<'a>(env: Env<'a>, id: u64, microseconds: u32) -> Term<'a> {
    let most = Duration::from_micros(microseconds.into());
    call(env, id, |slot, notifier| {
        slot.link.set_busy_poll(most, notifier)
    })
}

#[rustler::nif]
fn send_cancel(env: Env<'_>, id: u64) -> Atom {
    call(env, id, |slot, notifier| {
        super::sender_monitor::update(env, id, slot, true, false);
        slot.link.cancel(Pid::caller(env), notifier)
    });
    atoms::ok()
}

#[rustler::nif]
fn recv_cancel(env: Env<'_>, id: u64) -> Atom {
    if let Some(slot) = handles::link(id) {
        slot.link.recv_cancel(Pid::caller(env));
    }
    atoms::ok()
}

#[rustler::nif]
fn shutdown<'a>(env: Env<'a>, id: u64) -> Term<'a> {
    call(env, id, |slot, notifier| slot.link.shutdown(notifier))
}

fn call<'a>(
    env: Env<'a>,
    id: u64,
    operation: impl FnOnce(&handles::LinkSlot, &NifNotifier<'a>) -> Result<(), LinkError>,
) -> Term<'a> {
    let called = handles::link(id).map(|slot| operation(&slot, &NifNotifier::new(env, id, &slot)));
    match called.unwrap_or(Err(LinkError::Closed)) {
        Ok(()) => atoms::ok().encode(env),
        Err(error) => error_reply(env, error),
    }
}
