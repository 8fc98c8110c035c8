//! Making links, and failing to.

mod support;

use std::sync::atomic::Ordering;
use support::{NONCE, Recorder, TestPlatform, TestVm, offer};
use tube_link::{ConnectError, Event, Link, Offer, Outcome};

fn share(platform: &TestPlatform, offer: Offer) -> Result<(u32, u32), &'static str> {
    let made = Link::<TestVm>::share(platform, offer);
    made.map(|(_, refs)| (refs.order_tx, refs.order_rx))
        .map_err(|error| error.atom())
}

#[test]
fn when_pages_are_scarce_the_larger_ring_is_halved_first() {
    let (platform, _) = TestPlatform::pair();
    let sized = |order_tx, order_rx| Offer {
        order_tx,
        order_rx,
        ..offer(0, 1)
    };
    assert_eq!(share(&platform, sized(8, 8)), Ok((8, 8)));
    for (room, asked, made) in [
        (256, (8, 8), (8, 8)),
        (255, (8, 8), (7, 7)),
        (64, (8, 8), (6, 6)),
        (64, (8, 4), (6, 4)),
        (8, (8, 4), (3, 3)),
        (8, (2, 8), (2, 3)),
        (1, (8, 8), (0, 0)),
    ] {
        platform.host().room.store(room + 1, Ordering::Relaxed);
        assert_eq!(
            share(&platform, sized(asked.0, asked.1)),
            Ok(made),
            "{room} pages"
        );
    }
    platform.host().room.store(1, Ordering::Relaxed);
    assert_eq!(share(&platform, sized(8, 8)), Err("enospc"));
}

#[test]
fn an_order_above_the_limit_is_refused() {
    let (platform, _) = TestPlatform::pair();
    assert_eq!(share(&platform, offer(9, 1)), Err("einval"));
}

#[test]
fn the_nock_checks_what_it_maps() {
    let (tip, nock) = TestPlatform::pair();
    let (link, refs) = Link::<TestVm>::share(&tip, offer(0, 100)).unwrap();
    let map = |tx, rx, port, nonce| {
        let made = Link::<TestVm>::map(&nock, 1, (tx, rx, port), nonce, 100);
        made.map(drop).map_err(|error: ConnectError| error.atom())
    };
    let (tx, rx, port) = (refs.tx_ring_ref, refs.rx_ring_ref, refs.event_channel);
    assert_eq!(map(tx, rx, port + 1000, NONCE), Err("enoent"));
    // A channel can be bound only once, so each of these needs its own link.
    assert_eq!(map(tx, rx, port, NONCE + 1), Err("protocol"));
    link.close(&mut Recorder::default());
    for swapped in [true, false] {
        let (link, refs) = Link::<TestVm>::share(&tip, offer(0, 100)).unwrap();
        let (tx, rx) = (refs.tx_ring_ref, refs.rx_ring_ref);
        let tried = match swapped {
            true => map(rx, tx, refs.event_channel, NONCE),
            false => map(tx, rx, refs.event_channel, NONCE),
        };
        assert_eq!(tried, if swapped { Err("protocol") } else { Ok(()) });
        link.close(&mut Recorder::default());
    }
    assert_eq!(map(4_000_000, rx, port, NONCE), Err("enoent"));
}

#[test]
fn events_before_the_start_are_kept() {
    let (one, two) = TestPlatform::pair();
    let (tip, refs) = Link::<TestVm>::share(&one, offer(0, 100)).unwrap();
    let named = (refs.tx_ring_ref, refs.rx_ring_ref, refs.event_channel);
    let nock = Link::<TestVm>::map(&two, 1, named, NONCE, 100).unwrap();
    nock.close(&mut Recorder::default());
    let mut recorder = Recorder::default();
    assert_eq!(tip.resume(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), [], "not started yet");
    tip.start(1).unwrap();
    tip.resume(&mut recorder);
    let events = [Event::Fin, Event::Gone, Event::Drained];
    assert_eq!(recorder.take(), events.map(support::Call::Event));
}
