//! Active owners: as many messages as they want, in order, and a report when the count is used up.

mod support;

use support::{ALICE, BOB, Call, Recorder, Tube, pattern, tube};
use tube_link::{Active, Event, LinkError, Outcome, Received, Sent};

fn send(tube: &Tube, message: &[u8]) {
    let sent = tube.tip.send(ALICE, message, 0, &Recorder::default());
    assert_eq!(sent, Ok(Sent::Whole));
}

fn set(tube: &Tube, recorder: &mut Recorder, active: Active) -> Outcome {
    tube.nock.set_active(Some(BOB), active).unwrap();
    tube.nock.resume(recorder)
}

fn message(text: &[u8]) -> Call {
    Call::Message(BOB, text.to_vec())
}

#[test]
fn always_delivers_present_and_future_messages() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    send(&tube, b"one");
    send(&tube, b"");
    assert_eq!(set(&tube, &mut recorder, Active::Always), Outcome::Idle);
    assert_eq!(recorder.take(), [message(b"one"), message(b"")]);
    let before = tube.host.notifications();
    send(&tube, b"three");
    assert_eq!(tube.host.notifications(), before + 1);
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), [message(b"three")]);
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Err(LinkError::Invalid)
    );
}

#[test]
fn passive_delivers_nothing() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    set(&tube, &mut recorder, Active::Always);
    set(&tube, &mut recorder, Active::Passive);
    send(&tube, b"one");
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), []);
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Small)
    );
}

#[test]
fn once_is_one_message_and_no_report() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    send(&tube, b"one");
    send(&tube, b"two");
    assert_eq!(set(&tube, &mut recorder, Active::Once), Outcome::Idle);
    assert_eq!(recorder.take(), [message(b"one")]);
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), []);
    set(&tube, &mut recorder, Active::Once);
    assert_eq!(recorder.take(), [message(b"two")]);
    set(&tube, &mut recorder, Active::Once);
    assert_eq!(recorder.take(), []);
    send(&tube, b"three");
    tube.nock.notified(&mut recorder);
    assert_eq!(recorder.take(), [message(b"three")]);
}

#[test]
fn a_count_ends_with_a_report_and_can_be_extended() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    for text in [b"1", b"2", b"3", b"4"] {
        send(&tube, text);
    }
    set(&tube, &mut recorder, Active::Count(2));
    assert_eq!(
        recorder.take(),
        [message(b"1"), message(b"2"), Call::Passive(BOB)]
    );
    set(&tube, &mut recorder, Active::Count(1));
    assert_eq!(recorder.take(), [message(b"3"), Call::Passive(BOB)]);
    set(&tube, &mut recorder, Active::Count(3));
    assert_eq!(recorder.take(), [message(b"4")]);
    assert_eq!(tube.nock.info().unwrap().active, Active::Count(2));
    set(&tube, &mut recorder, Active::Count(5));
    assert_eq!(tube.nock.info().unwrap().active, Active::Count(7));
    assert_eq!(recorder.take(), []);
}

#[test]
fn only_the_owner_or_the_connection_sets_the_mode() {
    let tube = tube(4);
    assert_eq!(
        tube.nock.set_active(Some(ALICE), Active::Always),
        Err(LinkError::NotOwner)
    );
    assert_eq!(tube.nock.set_active(None, Active::Always), Ok(()));
    assert_eq!(tube.nock.info().unwrap().active, Active::Always);
}

#[test]
fn a_mode_can_change_in_the_middle_of_a_long_message() {
    let tube = tube(0);
    let mut recorder = Recorder::default();
    let long = pattern(10_000, 9);
    let Ok(Sent::Wait(mut done)) = tube.tip.send(ALICE, &long, 0, &recorder) else {
        panic!("no room for all");
    };
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Wait)
    );
    set(&tube, &mut recorder, Active::Always);
    let mut calls = Vec::new();
    loop {
        match tube
            .tip
            .send(ALICE, &long, done, &Recorder::default())
            .unwrap()
        {
            Sent::Whole => break,
            Sent::More(more) | Sent::Wait(more) => done = more,
        }
        assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
        calls.append(&mut recorder.take());
    }
    tube.nock.notified(&mut recorder);
    calls.append(&mut recorder.take());
    assert!(calls == [message(&long)]);
}

#[test]
fn one_notification_does_bounded_work_and_stays_pending_until_all_is_delivered() {
    let tube = tube(8);
    let mut recorder = Recorder::default();
    set(&tube, &mut recorder, Active::Always);
    let text = pattern(60_000, 2);
    for _ in 0..15 {
        send(&tube, &text);
    }
    let mut rounds = 0;
    while tube.nock.notified(&mut recorder) == Outcome::Ready {
        rounds += 1;
        assert!(
            recorder.take().len() <= 6,
            "at most 256 KiB and one message"
        );
        support::await_notification(&tube.nock);
    }
    assert!((2..8).contains(&rounds), "{rounds}");
    assert_eq!(tube.nock.info().unwrap().rx.messages, 15);
    // Messages are limited too, since each has its cost.
    for _ in 0..3000 {
        send(&tube, b"");
    }
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Ready);
    assert_eq!(recorder.take().len(), 1024);
    while tube.nock.notified(&mut recorder) == Outcome::Ready {}
    assert_eq!(tube.nock.info().unwrap().rx.messages, 3015);
}

#[test]
fn without_a_notification_the_outcome_is_later() {
    let tube = tube(8);
    let mut recorder = Recorder::default();
    for _ in 0..1500 {
        send(&tube, b"");
    }
    assert_eq!(set(&tube, &mut recorder, Active::Always), Outcome::Later);
    assert_eq!(tube.nock.resume(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take().len(), 1500);
}

#[test]
fn a_waiting_sender_is_woken_while_much_is_delivered() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    set(&tube, &mut recorder, Active::Always);
    // Bob sends until the other ring is full; Alice sends more than one round can deliver.
    let mut waits = 0;
    while tube.nock.send(BOB, &[0; 1000], 0, &recorder) == Ok(Sent::Whole) {
        waits += 1;
    }
    assert!(waits > 10);
    for _ in 0..2000 {
        send(&tube, b"");
    }
    while tube.tip.recv(ALICE, &mut recorder, &Recorder::default()) == Ok(Received::Small) {}
    recorder.take();
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Ready);
    assert!(
        recorder.take().contains(&Call::Space(BOB)),
        "delivery must not starve senders"
    );
}

#[test]
fn a_dead_owner_gets_no_more_and_the_rest_is_kept() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    for text in [b"1", b"2", b"3"] {
        send(&tube, text);
    }
    recorder.dead = Some(BOB);
    assert_eq!(set(&tube, &mut recorder, Active::Always), Outcome::Idle);
    assert_eq!(recorder.take(), []);
    assert_eq!(tube.nock.info().unwrap().active, Active::Passive);
    tube.nock.set_owner(8, &recorder).unwrap();
    assert_eq!(
        tube.nock.recv(8, &mut recorder, &Recorder::default()),
        Ok(Received::Small)
    );
    assert_eq!(recorder.message(), b"2");
}

#[test]
fn the_end_comes_after_the_data_and_once() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    set(&tube, &mut recorder, Active::Always);
    send(&tube, b"last");
    tube.tip.shutdown(&recorder).unwrap();
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    let calls = recorder.take();
    assert_eq!(calls[..2], [message(b"last"), Call::End(BOB, None)]);
    let events = [Event::Fin, Event::Drained, Event::OwnerTold];
    assert_eq!(calls[2..], events.map(Call::Event));
    set(&tube, &mut recorder, Active::Always);
    assert_eq!(recorder.take(), []);
}

#[test]
fn the_end_waits_for_an_active_owner() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    send(&tube, b"last");
    tube.tip.shutdown(&recorder).unwrap();
    tube.nock.notified(&mut recorder);
    assert_eq!(recorder.take(), [Call::Event(Event::Fin)]);
    set(&tube, &mut recorder, Active::Once);
    assert_eq!(
        recorder.take(),
        [message(b"last"), Call::Event(Event::Drained)]
    );
    set(&tube, &mut recorder, Active::Once);
    assert_eq!(
        recorder.take(),
        [Call::End(BOB, None), Call::Event(Event::OwnerTold)]
    );
}
