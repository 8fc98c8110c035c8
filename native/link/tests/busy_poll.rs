//! Busy-polling instead of notifications, as long as it pays off.

mod support;

use std::time::Duration;
use support::{ALICE, BOB, Call, Process, Recorder, Tube, pattern, tube};
use tube_link::{Active, Event, LinkError, Outcome, Polled, Received, Sent};
use tube_ring::wire;

const POLLER: Process = 7;
/// Longer than any test, even on a busy machine.
const LONG: Duration = Duration::from_secs(1000);
/// Over before the second poll.
const SHORT: Duration = Duration::from_nanos(1);

fn polled(most: Duration) -> (Tube, Recorder) {
    let (tube, recorder) = (tube(4), Recorder::default());
    tube.nock.set_busy_poll(most, &recorder).unwrap();
    (tube, recorder)
}

fn active(most: Duration) -> (Tube, Recorder) {
    let (tube, mut recorder) = polled(most);
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    assert_eq!(tube.nock.resume(&mut recorder), Outcome::Idle);
    (tube, recorder)
}

fn send(tube: &Tube, message: &[u8]) {
    let sent = tube.tip.send(ALICE, message, 0, &Recorder::default());
    assert_eq!(sent, Ok(Sent::Whole));
}

fn recv(tube: &Tube, recorder: &mut Recorder) -> Received<support::Bytes> {
    tube.nock.recv(BOB, recorder, &Recorder::default()).unwrap()
}

fn poll(tube: &Tube) -> Polled {
    tube.nock.busy_poll(POLLER, &Recorder::default()).unwrap()
}

/// Polls until the outcome is to wait. The first poll may find the budget spent already.
fn poll_until_wait(tube: &Tube) {
    while poll(tube) != Polled::Wait {}
}

#[test]
fn a_polling_passive_owner_gets_messages_without_notifications() {
    let (tube, mut recorder) = polled(LONG);
    let before = tube.host.notifications();
    for n in 0..10u8 {
        assert_eq!(recv(&tube, &mut recorder), Received::Poll);
        send(&tube, &[n]);
        assert_eq!(recv(&tube, &mut recorder), Received::Small);
        assert_eq!(recorder.message(), [n]);
    }
    assert_eq!(tube.host.notifications(), before);
    assert_eq!(tube.nock.info().unwrap().rx.waits, 0);
}

#[test]
fn when_the_budget_is_spent_a_notification_is_asked_for() {
    let (tube, mut recorder) = polled(SHORT);
    while recv(&tube, &mut recorder) == Received::Poll {}
    assert_eq!(recv(&tube, &mut recorder), Received::Wait);
    let before = tube.host.notifications();
    send(&tube, b"hello");
    assert_eq!(tube.host.notifications(), before + 1);
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), [Call::Data(BOB)]);
    assert_eq!(recv(&tube, &mut recorder), Received::Small);
}

#[test]
fn without_polling_or_once_it_is_off_the_outcome_is_wait() {
    let (tube, mut recorder) = polled(LONG);
    assert_eq!(recv(&tube, &mut recorder), Received::Poll);
    tube.nock.set_busy_poll(Duration::ZERO, &recorder).unwrap();
    assert_eq!(recv(&tube, &mut recorder), Received::Wait);
    assert_eq!(poll(&tube), Polled::Wait);
}

#[test]
fn the_peers_end_is_seen_while_polling() {
    let (tube, mut recorder) = polled(LONG);
    assert_eq!(recv(&tube, &mut recorder), Received::Poll);
    tube.tip.shutdown(&recorder).unwrap();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Err(LinkError::Closed)
    );
}

#[test]
fn a_poller_delivers_to_an_active_owner_without_notifications() {
    let (tube, mut recorder) = active(LONG);
    assert_eq!(poll(&tube), Polled::Again);
    let before = tube.host.notifications();
    for n in 0..10u8 {
        assert_eq!(poll(&tube), Polled::Again);
        send(&tube, &[n]);
        assert_eq!(poll(&tube), Polled::Ready);
        assert_eq!(tube.nock.deliver_now(&mut recorder), Outcome::Idle);
        assert_eq!(recorder.take(), [Call::Message(BOB, vec![n])]);
    }
    assert_eq!(tube.host.notifications(), before);
    // A long one too, in pieces.
    let long = pattern(200_000, 3);
    let mut sent = tube.tip.send(ALICE, &long, 0, &recorder).unwrap();
    while let Sent::Wait(done) | Sent::More(done) = sent {
        assert_eq!(poll(&tube), Polled::Ready);
        tube.nock.deliver_now(&mut recorder);
        // The released room may have caused a notification.
        tube.tip.notified(&mut Recorder::default());
        sent = tube.tip.send(ALICE, &long, done, &recorder).unwrap();
    }
    while poll(&tube) == Polled::Ready {
        tube.nock.deliver_now(&mut recorder);
    }
    assert_eq!(recorder.take(), [Call::Message(BOB, long)]);
}

#[test]
fn a_poller_sleeps_when_its_budget_is_spent_and_a_notification_wakes_it() {
    let (tube, mut recorder) = active(SHORT);
    poll_until_wait(&tube);
    let before = tube.host.notifications();
    send(&tube, b"one");
    assert_eq!(tube.host.notifications(), before + 1);
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(
        recorder.take(),
        [Call::Message(BOB, b"one".to_vec()), Call::Data(POLLER)]
    );
    // It is woken once, since it has not polled again.
    send(&tube, b"two");
    tube.nock.notified(&mut recorder);
    assert_eq!(recorder.take(), [Call::Message(BOB, b"two".to_vec())]);
}

#[test]
fn a_poller_has_nothing_to_do_for_a_passive_owner() {
    let (tube, mut recorder) = polled(LONG);
    assert_eq!(poll(&tube), Polled::Wait);
    tube.nock.set_active(Some(BOB), Active::Once).unwrap();
    tube.nock.resume(&mut recorder);
    send(&tube, b"one");
    tube.nock.notified(&mut recorder);
    assert_eq!(
        recorder.take(),
        [Call::Message(BOB, b"one".to_vec()), Call::Data(POLLER)]
    );
    assert_eq!(poll(&tube), Polled::Wait);
}

#[test]
fn a_poller_is_woken_when_polling_begins_and_when_the_link_is_closed() {
    let (tube, mut recorder) = active(Duration::ZERO);
    assert_eq!(poll(&tube), Polled::Wait);
    tube.nock.set_busy_poll(LONG, &recorder).unwrap();
    assert_eq!(recorder.take(), [Call::Data(POLLER)]);
    assert_eq!(poll(&tube), Polled::Again);
    tube.nock.set_busy_poll(Duration::ZERO, &recorder).unwrap();
    assert_eq!(poll(&tube), Polled::Wait);
    tube.nock.close(&mut recorder);
    assert_eq!(recorder.take(), [Call::Data(POLLER)]);
    assert_eq!(
        tube.nock.busy_poll(POLLER, &recorder),
        Err(LinkError::Closed)
    );
}

#[test]
fn when_polling_stops_notifications_are_asked_for_again() {
    let (tube, mut recorder) = active(LONG);
    assert_eq!(poll(&tube), Polled::Again);
    let before = tube.host.notifications();
    send(&tube, b"one");
    assert_eq!(tube.host.notifications(), before, "the link is polled");
    tube.nock.set_busy_poll(Duration::ZERO, &recorder).unwrap();
    assert_eq!(tube.nock.deliver_now(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), [Call::Message(BOB, b"one".to_vec())]);
    send(&tube, b"two");
    assert_eq!(tube.host.notifications(), before + 1);
}

#[test]
fn a_poller_delivers_the_end_and_then_waits() {
    let (tube, mut recorder) = active(LONG);
    assert_eq!(poll(&tube), Polled::Again);
    send(&tube, b"last");
    tube.tip.shutdown(&recorder).unwrap();
    assert_eq!(poll(&tube), Polled::Ready);
    tube.nock.deliver_now(&mut recorder);
    while poll(&tube) == Polled::Ready {
        tube.nock.deliver_now(&mut recorder);
    }
    let calls = recorder.take();
    let position = |what: Call| calls.iter().position(|call| *call == what);
    let (message, end) = (
        position(Call::Message(BOB, b"last".to_vec())),
        position(Call::End(BOB, None)),
    );
    assert!(message.is_some() && message < end, "{calls:?}");
    assert!(calls.contains(&Call::Event(Event::Drained)));
    // Even if the owner asks for more.
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    assert_eq!(poll(&tube), Polled::Wait);
}

#[test]
fn a_poller_that_finds_a_violation_has_it_delivered() {
    let (tube, mut recorder) = active(LONG);
    assert_eq!(poll(&tube), Polled::Again);
    let page = tube.host.page(tube.refs.tx_ring_ref);
    support::poke_word(page, wire::PRODUCER + wire::INDEX, 3);
    assert_eq!(poll(&tube), Polled::Ready);
    tube.nock.deliver_now(&mut recorder);
    assert!(
        recorder
            .take()
            .contains(&Call::End(BOB, Some(LinkError::Protocol)))
    );
    assert_eq!(poll(&tube), Polled::Wait);
}
