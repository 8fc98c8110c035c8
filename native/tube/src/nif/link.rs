//! Making links, and the calls about them that are not on the data path.

use super::platform::Attached;
use super::{NifNotifier, atoms, failed, refused};
use crate::catch_panic::catch_panic;
use crate::handles::{self, Mode, Parties};
use crate::process::{Beam, Pid};
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
        Err(error) => return Ok(failed(env, error.atom())),
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
#[allow(clippy::too_many_arguments)] // They are those of the call in Elixir.
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
        Err(error) => failed(env, error.atom()),
    }
}

#[rustler::nif(schedule = "DirtyIo")]
fn link_free(id: u64) -> Atom {
    // Whoever has the port, or gets it first, is the one who closes.
    if let Some(entry) = handles::claim_link(id) {
        handles::remove_link(id);
        catch_panic(|| entry.link.close(&mut NullDeliver));
    }
    atoms::ok()
}

#[rustler::nif]
fn link_bind<'a>(
    env: Env<'a>,
    id: u64,
    _port: Term<'a>,
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
    let Some(entry) = handles::link(id) else {
        return Ok(refused(env, LinkError::Closed));
    };
    let parties = Parties {
        connection: Pid::from_nif(connection),
        owner: Pid::from_nif(owner),
        mode,
    };
    Ok(match entry.parties.set(parties) {
        Ok(()) => atoms::ok().encode(env),
        Err(_) => refused(env, LinkError::Invalid),
    })
}

#[rustler::nif]
fn link_owner<'a>(env: Env<'a>, id: u64, owner: LocalPid) -> Term<'a> {
    answer(env, id, |entry, voice| {
        entry.link.set_owner(Pid::from_nif(owner), voice)
    })
}

#[rustler::nif]
fn link_poll<'a>(env: Env<'a>, id: u64, microseconds: u32) -> Term<'a> {
    let most = Duration::from_micros(microseconds.into());
    answer(env, id, |entry, voice| {
        entry.link.set_busy_poll(most, voice)
    })
}

#[rustler::nif]
fn send_cancel(env: Env<'_>, id: u64, _done: u64) -> Atom {
    answer(env, id, |entry, voice| {
        super::sender_monitor::follow(env, id, entry, true, false);
        entry.link.cancel(Pid::caller(env), voice)
    });
    atoms::ok()
}

#[rustler::nif]
fn recv_cancel(env: Env<'_>, id: u64) -> Atom {
    if let Some(entry) = handles::link(id) {
        entry.link.recv_cancel(Pid::caller(env));
    }
    atoms::ok()
}

#[rustler::nif]
fn shutdown<'a>(env: Env<'a>, id: u64) -> Term<'a> {
    answer(env, id, |entry, voice| entry.link.shutdown(voice))
}

fn answer<'a>(
    env: Env<'a>,
    id: u64,
    call: impl FnOnce(&handles::Entry, &NifNotifier<'a>) -> Result<(), LinkError>,
) -> Term<'a> {
    let called = handles::link(id).map(|entry| call(&entry, &NifNotifier::new(env, id, &entry)));
    match called.unwrap_or(Err(LinkError::Closed)) {
        Ok(()) => atoms::ok().encode(env),
        Err(refusal) => refused(env, refusal),
    }
}
