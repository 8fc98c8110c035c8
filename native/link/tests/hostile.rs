//! A peer that writes impossible values: the link ends with `Protocol`, each process involved
//! learns of it once, and nothing is read or written any more. `tube_ring` tests each impossible
//! value.

mod support;

use std::ptr::NonNull;
use support::{ALICE, BOB, Call, Recorder, Tube, poke, poke_word, tube};
use tube_link::{Active, Event, LinkError, Outcome, Received, Sent};
use tube_ring::wire;

fn tx_page(tube: &Tube) -> NonNull<u8> {
    tube.host.page(tube.refs.tx_ring_ref)
}

/// Checks the nock, whose peer has broken the protocol, and its `calls` so far.
fn assert_violated(tube: &Tube, calls: &[Call]) {
    let violations = calls
        .iter()
        .filter(|call| **call == Call::Event(Event::Violated));
    assert_eq!(violations.count(), 1, "{calls:?}");
    let mut recorder = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Err(LinkError::Protocol)
    );
    assert_eq!(
        tube.nock.send(BOB, b"", 0, &recorder),
        Err(LinkError::Protocol)
    );
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), [], "reported once");
}

#[test]
fn an_impossible_index_while_pulling() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    poke_word(tx_page(&tube), wire::PRODUCER + wire::INDEX, 1 << 20);
    let calls = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &calls),
        Err(LinkError::Protocol)
    );
    assert_violated(&tube, &calls.take());
}

#[test]
fn an_impossible_index_while_waiting() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Wait)
    );
    poke_word(tx_page(&tube), wire::PRODUCER + wire::INDEX, 3);
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    let calls = recorder.take();
    assert!(calls.contains(&Call::Data(BOB)), "{calls:?}");
    assert_violated(&tube, &calls);
}

#[test]
fn an_impossible_index_while_active() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    tube.nock.resume(&mut recorder);
    poke_word(tx_page(&tube), wire::PRODUCER + wire::INDEX, 3);
    tube.nock.notified(&mut recorder);
    let calls = recorder.take();
    assert_eq!(calls[0], Call::End(BOB, Some(LinkError::Protocol)));
    assert_violated(&tube, &calls);
}

#[test]
fn unknown_close_flags() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    poke_word(tx_page(&tube), wire::PRODUCER + wire::STATE, 0x80);
    tube.nock.notified(&mut recorder);
    assert_violated(&tube, &recorder.take());
}

#[test]
fn an_impossible_live_byte() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    poke(tx_page(&tube), tube_ring::LIVE_TIP, 77);
    tube.nock.notified(&mut recorder);
    assert_violated(&tube, &recorder.take());
}

#[test]
fn an_impossible_index_of_the_reader() {
    let tube = tube(0);
    let mut recorder = Recorder::default();
    while tube.tip.send(ALICE, &[0; 500], 0, &recorder) == Ok(Sent::Whole) {}
    assert_eq!(tube.tip.send(7, &[0; 500], 0, &recorder), Ok(Sent::Wait(0)));
    poke_word(tx_page(&tube), wire::CONSUMER + wire::INDEX, 1 << 30);
    tube.tip.notified(&mut recorder);
    let calls = recorder.take();
    assert!(
        calls.contains(&Call::Space(ALICE)) && calls.contains(&Call::Space(7)),
        "{calls:?}"
    );
    assert!(calls.contains(&Call::Event(Event::Violated)));
    assert_eq!(
        tube.tip.send(ALICE, b"", 0, &recorder),
        Err(LinkError::Protocol)
    );
    assert_eq!(
        tube.tip.recv(ALICE, &mut recorder, &Recorder::default()),
        Err(LinkError::Protocol)
    );
}

#[test]
fn close_delivers_to_an_active_owner_a_violation_that_a_sender_found() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    tube.tip.set_active(Some(ALICE), Active::Always).unwrap();
    tube.tip.resume(&mut recorder);
    poke_word(tx_page(&tube), wire::CONSUMER + wire::EVENT_INDEX, 3);
    assert_eq!(
        tube.tip.send(ALICE, b"", 0, &recorder),
        Err(LinkError::Protocol)
    );
    assert_eq!(recorder.take(), [Call::Event(Event::Violated)]);
    tube.tip.close(&mut recorder);
    assert_eq!(
        recorder.take(),
        [Call::End(ALICE, Some(LinkError::Protocol))]
    );
}

#[test]
fn a_total_above_the_limit_allocates_nothing() {
    let tube = support::tube_with(4, 1000);
    let mut recorder = Recorder::default();
    assert_eq!(
        tube.tip.send(ALICE, &[0; 500], 0, &recorder),
        Ok(Sent::Whole)
    );
    // The record's header, in the first data page: first of many, of 40 MiB.
    let data = NonNull::new(tube.host.data(tube.refs.tx_ring_ref)).unwrap();
    let first = wire::header(wire::Kind::First, 400);
    poke_word(data, 0, first as u32);
    poke_word(data, 4, (first >> 32) as u32);
    poke_word(data, 8, 40 << 20);
    poke_word(data, 12, 0);
    let calls = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &calls),
        Err(LinkError::Protocol)
    );
    assert_violated(&tube, &calls.take());
}

#[test]
fn short_messages_in_pieces_are_unusual_but_allowed() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    assert_eq!(
        tube.tip.send(ALICE, &[7; 100], 0, &recorder),
        Ok(Sent::Whole)
    );
    assert_eq!(
        tube.tip.send(ALICE, &[8; 100], 0, &recorder),
        Ok(Sent::Whole)
    );
    let data = NonNull::new(tube.host.data(tube.refs.tx_ring_ref)).unwrap();
    let write = |at: usize, header: u64| {
        poke_word(data, at, header as u32);
        poke_word(data, at + 4, (header >> 32) as u32);
    };
    // The same bytes seen as 96 + 100 of one message of 196: a first record's header is 8 bytes
    // longer.
    write(0, wire::header(wire::Kind::First, 96));
    write(8, 196);
    write(112, wire::header(wire::Kind::Last, 100));
    let mut received = tube
        .nock
        .recv(BOB, &mut recorder, &Recorder::default())
        .unwrap();
    let Received::Long(support::Bytes(message)) = &mut received else {
        panic!("{received:?}");
    };
    assert_eq!(message.len(), 196);
    assert_eq!(message[96..], [8; 100]);
}
