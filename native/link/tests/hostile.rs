//! A peer that writes what cannot be: the link ends with `Protocol`, everybody who has to do with it learns of
//! it, once, and nothing is read or written any more. What exactly can be wrong is for `tube_ring` to test.

mod toy;

use std::ptr::NonNull;
use toy::{ALICE, BOB, Ear, Told, Tube, poke, poke_word, tube};
use tube_link::{Active, Event, LinkError, Outcome, Received, Sent};
use tube_ring::wire;

fn tx_page(tube: &Tube) -> NonNull<u8> {
    tube.world.page(tube.refs.tx_ring_ref)
}

/// The nock, whose producer of bytes breaks the rules, at its next look.
fn assert_violated(tube: &Tube, told: &[Told]) {
    let violations = told
        .iter()
        .filter(|told| **told == Told::Event(Event::Violated));
    assert_eq!(violations.count(), 1, "{told:?}");
    let mut ear = Ear::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Err(LinkError::Protocol)
    );
    assert_eq!(tube.nock.send(BOB, b"", 0, &ear), Err(LinkError::Protocol));
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), [], "told once");
}

#[test]
fn an_impossible_index_while_pulling() {
    let tube = tube(4);
    let mut ear = Ear::default();
    poke_word(tx_page(&tube), wire::PRODUCER + wire::INDEX, 1 << 20);
    let told = Ear::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &told),
        Err(LinkError::Protocol)
    );
    assert_violated(&tube, &told.take());
}

#[test]
fn an_impossible_index_while_waiting() {
    let tube = tube(4);
    let mut ear = Ear::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Wait)
    );
    poke_word(tx_page(&tube), wire::PRODUCER + wire::INDEX, 3);
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    let told = ear.take();
    assert!(told.contains(&Told::Data(BOB)), "{told:?}");
    assert_violated(&tube, &told);
}

#[test]
fn an_impossible_index_while_active() {
    let tube = tube(4);
    let mut ear = Ear::default();
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    tube.nock.resume(&mut ear);
    poke_word(tx_page(&tube), wire::PRODUCER + wire::INDEX, 3);
    tube.nock.bell(&mut ear);
    let told = ear.take();
    assert_eq!(told[0], Told::End(BOB, Some(LinkError::Protocol)));
    assert_violated(&tube, &told);
}

#[test]
fn unknown_close_flags() {
    let tube = tube(4);
    let mut ear = Ear::default();
    poke_word(tx_page(&tube), wire::PRODUCER + wire::STATE, 0x80);
    tube.nock.bell(&mut ear);
    assert_violated(&tube, &ear.take());
}

#[test]
fn an_impossible_live_byte() {
    let tube = tube(4);
    let mut ear = Ear::default();
    poke(tx_page(&tube), tube_ring::LIVE_TIP, 77);
    tube.nock.bell(&mut ear);
    assert_violated(&tube, &ear.take());
}

#[test]
fn an_impossible_index_of_the_reader() {
    let tube = tube(0);
    let mut ear = Ear::default();
    while tube.tip.send(ALICE, &[0; 500], 0, &ear) == Ok(Sent::Whole) {}
    assert_eq!(tube.tip.send(7, &[0; 500], 0, &ear), Ok(Sent::Wait(0)));
    poke_word(tx_page(&tube), wire::CONSUMER + wire::INDEX, 1 << 30);
    tube.tip.bell(&mut ear);
    let told = ear.take();
    assert!(
        told.contains(&Told::Space(ALICE)) && told.contains(&Told::Space(7)),
        "{told:?}"
    );
    assert!(told.contains(&Told::Event(Event::Violated)));
    assert_eq!(tube.tip.send(ALICE, b"", 0, &ear), Err(LinkError::Protocol));
    assert_eq!(
        tube.tip.recv(ALICE, &mut ear, &Ear::default()),
        Err(LinkError::Protocol)
    );
}

#[test]
fn a_close_tells_an_active_owner_what_only_a_sender_has_seen() {
    let tube = tube(4);
    let mut ear = Ear::default();
    tube.tip.set_active(Some(ALICE), Active::Always).unwrap();
    tube.tip.resume(&mut ear);
    poke_word(tx_page(&tube), wire::CONSUMER + wire::MARK, 3);
    assert_eq!(tube.tip.send(ALICE, b"", 0, &ear), Err(LinkError::Protocol));
    assert_eq!(ear.take(), [Told::Event(Event::Violated)]);
    tube.tip.close(&mut ear);
    assert_eq!(ear.take(), [Told::End(ALICE, Some(LinkError::Protocol))]);
}

#[test]
fn a_total_above_the_limit_allocates_nothing() {
    let tube = toy::tube_with(4, 1000);
    let mut ear = Ear::default();
    assert_eq!(tube.tip.send(ALICE, &[0; 500], 0, &ear), Ok(Sent::Whole));
    // The record's header, in the first data page: first of many, of 40 MiB.
    let data = NonNull::new(tube.world.data(tube.refs.tx_ring_ref)).unwrap();
    let first = wire::header(wire::Kind::First, 400);
    poke_word(data, 0, first as u32);
    poke_word(data, 4, (first >> 32) as u32);
    poke_word(data, 8, 40 << 20);
    poke_word(data, 12, 0);
    let told = Ear::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &told),
        Err(LinkError::Protocol)
    );
    assert_violated(&tube, &told.take());
}

#[test]
fn short_messages_in_pieces_are_strange_but_allowed() {
    let tube = tube(4);
    let mut ear = Ear::default();
    assert_eq!(tube.tip.send(ALICE, &[7; 100], 0, &ear), Ok(Sent::Whole));
    assert_eq!(tube.tip.send(ALICE, &[8; 100], 0, &ear), Ok(Sent::Whole));
    let data = NonNull::new(tube.world.data(tube.refs.tx_ring_ref)).unwrap();
    let write = |at: usize, header: u64| {
        poke_word(data, at, header as u32);
        poke_word(data, at + 4, (header >> 32) as u32);
    };
    // The same bytes seen as 96 + 100 of one message of 196: a first record's header is 8 bytes longer.
    write(0, wire::header(wire::Kind::First, 96));
    write(8, 196);
    write(112, wire::header(wire::Kind::Last, 100));
    let mut received = tube.nock.recv(BOB, &mut ear, &Ear::default()).unwrap();
    let Received::Long(toy::Bytes(message)) = &mut received else {
        panic!("{received:?}");
    };
    assert_eq!(message.len(), 196);
    assert_eq!(message[96..], [8; 100]);
}
