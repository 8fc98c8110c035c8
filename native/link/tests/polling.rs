//! A polled link: looks instead of bells, as long as they pay.

mod toy;

use std::time::Duration;
use toy::{ALICE, BOB, Ear, Process, Told, Tube, pattern, tube};
use tube_link::{Active, Event, LinkError, Outcome, Polled, Received, Sent};
use tube_ring::wire;

const POLLER: Process = 7;
/// Longer than any test, even where somebody else has the processor.
const LONG: Duration = Duration::from_secs(1000);
/// Over before the second look.
const SHORT: Duration = Duration::from_nanos(1);

fn polled(most: Duration) -> (Tube, Ear) {
    let (tube, ear) = (tube(4), Ear::default());
    tube.nock.set_poll(most, &ear).unwrap();
    (tube, ear)
}

fn active(most: Duration) -> (Tube, Ear) {
    let (tube, mut ear) = polled(most);
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    assert_eq!(tube.nock.resume(&mut ear), Outcome::Idle);
    (tube, ear)
}

fn send(tube: &Tube, message: &[u8]) {
    let sent = tube.tip.send(ALICE, message, 0, &Ear::default());
    assert_eq!(sent, Ok(Sent::Whole));
}

fn recv(tube: &Tube, ear: &mut Ear) -> Received<toy::Bytes> {
    tube.nock.recv(BOB, ear, &Ear::default()).unwrap()
}

fn look(tube: &Tube) -> Polled {
    tube.nock.poll(POLLER, &Ear::default()).unwrap()
}

/// Looks until it is told to wait. A first look may find the budget spent already.
fn fall_asleep(tube: &Tube) {
    while look(tube) != Polled::Wait {}
}

#[test]
fn a_passive_owner_that_polls_gets_its_message_without_a_bell() {
    let (tube, mut ear) = polled(LONG);
    let before = tube.world.rung();
    for n in 0..10u8 {
        assert_eq!(recv(&tube, &mut ear), Received::Poll);
        send(&tube, &[n]);
        assert_eq!(recv(&tube, &mut ear), Received::Small);
        assert_eq!(ear.message(), [n]);
    }
    assert_eq!(tube.world.rung(), before);
    assert_eq!(tube.nock.info().unwrap().rx.waits, 0);
}

#[test]
fn when_the_budget_is_spent_a_bell_is_asked_for() {
    let (tube, mut ear) = polled(SHORT);
    while recv(&tube, &mut ear) == Received::Poll {}
    assert_eq!(recv(&tube, &mut ear), Received::Wait);
    let before = tube.world.rung();
    send(&tube, b"hello");
    assert_eq!(tube.world.rung(), before + 1);
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), [Told::Data(BOB)]);
    assert_eq!(recv(&tube, &mut ear), Received::Small);
}

#[test]
fn without_polling_or_once_it_is_off_nobody_is_told_to_look_again() {
    let (tube, mut ear) = polled(LONG);
    assert_eq!(recv(&tube, &mut ear), Received::Poll);
    tube.nock.set_poll(Duration::ZERO, &ear).unwrap();
    assert_eq!(recv(&tube, &mut ear), Received::Wait);
    assert_eq!(look(&tube), Polled::Wait);
}

#[test]
fn the_peers_end_is_seen_while_polling() {
    let (tube, mut ear) = polled(LONG);
    assert_eq!(recv(&tube, &mut ear), Received::Poll);
    tube.tip.shutdown(&ear).unwrap();
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Err(LinkError::Closed)
    );
}

#[test]
fn a_poller_delivers_to_an_active_owner_without_a_bell() {
    let (tube, mut ear) = active(LONG);
    assert_eq!(look(&tube), Polled::Again);
    let before = tube.world.rung();
    for n in 0..10u8 {
        assert_eq!(look(&tube), Polled::Again);
        send(&tube, &[n]);
        assert_eq!(look(&tube), Polled::Ready);
        assert_eq!(tube.nock.deliver_now(&mut ear), Outcome::Idle);
        assert_eq!(ear.take(), [Told::Message(BOB, vec![n])]);
    }
    assert_eq!(tube.world.rung(), before);
    // A long one too, in pieces.
    let long = pattern(200_000, 3);
    let mut sent = tube.tip.send(ALICE, &long, 0, &ear).unwrap();
    while let Sent::Wait(done) | Sent::More(done) = sent {
        assert_eq!(look(&tube), Polled::Ready);
        tube.nock.deliver_now(&mut ear);
        // The room may have rung.
        tube.tip.bell(&mut Ear::default());
        sent = tube.tip.send(ALICE, &long, done, &ear).unwrap();
    }
    while look(&tube) == Polled::Ready {
        tube.nock.deliver_now(&mut ear);
    }
    assert_eq!(ear.take(), [Told::Message(BOB, long)]);
}

#[test]
fn a_poller_sleeps_when_its_budget_is_spent_and_the_bell_wakes_it() {
    let (tube, mut ear) = active(SHORT);
    fall_asleep(&tube);
    let before = tube.world.rung();
    send(&tube, b"one");
    assert_eq!(tube.world.rung(), before + 1);
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(
        ear.take(),
        [Told::Message(BOB, b"one".to_vec()), Told::Data(POLLER)]
    );
    // Once; from here on it looks, or it would be told again.
    send(&tube, b"two");
    tube.nock.bell(&mut ear);
    assert_eq!(ear.take(), [Told::Message(BOB, b"two".to_vec())]);
}

#[test]
fn a_poller_has_nothing_to_do_for_a_passive_owner() {
    let (tube, mut ear) = polled(LONG);
    assert_eq!(look(&tube), Polled::Wait);
    tube.nock.set_active(Some(BOB), Active::Once).unwrap();
    tube.nock.resume(&mut ear);
    send(&tube, b"one");
    tube.nock.bell(&mut ear);
    assert_eq!(
        ear.take(),
        [Told::Message(BOB, b"one".to_vec()), Told::Data(POLLER)]
    );
    assert_eq!(look(&tube), Polled::Wait);
}

#[test]
fn a_poller_is_told_when_polling_begins_and_when_the_link_is_closed() {
    let (tube, mut ear) = active(Duration::ZERO);
    assert_eq!(look(&tube), Polled::Wait);
    tube.nock.set_poll(LONG, &ear).unwrap();
    assert_eq!(ear.take(), [Told::Data(POLLER)]);
    assert_eq!(look(&tube), Polled::Again);
    tube.nock.set_poll(Duration::ZERO, &ear).unwrap();
    assert_eq!(look(&tube), Polled::Wait);
    tube.nock.close(&mut ear);
    assert_eq!(ear.take(), [Told::Data(POLLER)]);
    assert_eq!(tube.nock.poll(POLLER, &ear), Err(LinkError::Closed));
}

#[test]
fn when_a_poller_is_no_more_the_bell_is_asked_for_again() {
    let (tube, mut ear) = active(LONG);
    assert_eq!(look(&tube), Polled::Again);
    let before = tube.world.rung();
    send(&tube, b"one");
    assert_eq!(tube.world.rung(), before, "somebody looks");
    tube.nock.set_poll(Duration::ZERO, &ear).unwrap();
    assert_eq!(tube.nock.deliver_now(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), [Told::Message(BOB, b"one".to_vec())]);
    send(&tube, b"two");
    assert_eq!(tube.world.rung(), before + 1);
}

#[test]
fn a_poller_brings_the_end_and_then_rests() {
    let (tube, mut ear) = active(LONG);
    assert_eq!(look(&tube), Polled::Again);
    send(&tube, b"last");
    tube.tip.shutdown(&ear).unwrap();
    assert_eq!(look(&tube), Polled::Ready);
    tube.nock.deliver_now(&mut ear);
    while look(&tube) == Polled::Ready {
        tube.nock.deliver_now(&mut ear);
    }
    let told = ear.take();
    let position = |what: Told| told.iter().position(|told| *told == what);
    let (message, end) = (
        position(Told::Message(BOB, b"last".to_vec())),
        position(Told::End(BOB, None)),
    );
    assert!(message.is_some() && message < end, "{told:?}");
    assert!(told.contains(&Told::Event(Event::Drained)));
    // Even if the owner asks for more.
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    assert_eq!(look(&tube), Polled::Wait);
}

#[test]
fn a_poller_that_meets_an_impossible_word_has_it_told() {
    let (tube, mut ear) = active(LONG);
    assert_eq!(look(&tube), Polled::Again);
    let page = tube.world.page(tube.refs.tx_ring_ref);
    toy::poke_word(page, wire::PRODUCER + wire::INDEX, 3);
    assert_eq!(look(&tube), Polled::Ready);
    tube.nock.deliver_now(&mut ear);
    assert!(
        ear.take()
            .contains(&Told::End(BOB, Some(LinkError::Protocol)))
    );
    assert_eq!(look(&tube), Polled::Wait);
}
