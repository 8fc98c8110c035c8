//! Introspection: the counters of a link, the native objects of this VM, the build id.

use super::{atoms, error_reply};
use crate::{handles, vm};
use rustler::{Encoder, Env, NifMap, Term};
use tube_link::{Active, Counters, Info, LinkError, LiveCounts};

/// The native objects of this VM.
#[derive(NifMap)]
struct Counts {
    links: usize,
    streams: usize,
    pages: usize,
    fds: usize,
}

/// The counters of one direction.
#[derive(NifMap)]
struct Direction {
    ring: usize,
    backlog: usize,
    messages: u64,
    bytes: u64,
    largest: usize,
    waits: u64,
    bells: u64,
    bells_spared: u64,
    finished: bool,
}

/// The counters of one link.
#[derive(NifMap)]
struct Report {
    tx: Direction,
    rx: Direction,
    gone: bool,
    active: i64,
}

#[rustler::nif]
fn build_id() -> &'static str {
    vm::build_id()
}

#[rustler::nif]
fn live_counts() -> Counts {
    let counts = LiveCounts::now();
    let streams = handles::streams();
    Counts {
        links: counts.links,
        streams,
        pages: counts.pages,
        fds: counts.channels + streams,
    }
}

#[rustler::nif]
fn info<'a>(env: Env<'a>, id: u64) -> Term<'a> {
    match handles::link(id).and_then(|slot| slot.link.info()) {
        Some(info) => (atoms::ok(), Report::from(info)).encode(env),
        None => error_reply(env, LinkError::Closed),
    }
}

impl From<Info> for Report {
    fn from(info: Info) -> Report {
        Report {
            tx: direction(
                info.tx,
                info.tx_largest,
                info.tx_ring,
                info.tx_backlog,
                info.tx_finished,
            ),
            rx: direction(
                info.rx,
                info.rx_largest,
                info.rx_ring,
                info.rx_backlog,
                info.rx_finished,
            ),
            gone: info.gone,
            active: match info.active {
                Active::Passive => 0,
                Active::Always => -1,
                Active::Once => -2,
                Active::Count(left) => left.into(),
            },
        }
    }
}

fn direction(
    counted: Counters,
    largest: usize,
    ring: usize,
    backlog: usize,
    finished: bool,
) -> Direction {
    Direction {
        ring,
        backlog,
        messages: counted.messages,
        bytes: counted.bytes,
        largest,
        waits: counted.waits,
        bells: counted.notifications,
        bells_spared: counted.notifications_saved,
        finished,
    }
}
