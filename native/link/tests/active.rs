//! Active owners: as many messages as they asked for, in order, and a word when it is over.

mod toy;

use toy::{ALICE, BOB, Ear, Told, Tube, pattern, tube};
use tube_link::{Active, Event, LinkError, Outcome, Received, Sent};

fn send(tube: &Tube, message: &[u8]) {
    let sent = tube.tip.send(ALICE, message, 0, &Ear::default());
    assert_eq!(sent, Ok(Sent::Whole));
}

fn set(tube: &Tube, ear: &mut Ear, active: Active) -> Outcome {
    tube.nock.set_active(Some(BOB), active).unwrap();
    tube.nock.resume(ear)
}

fn message(text: &[u8]) -> Told {
    Told::Message(BOB, text.to_vec())
}

#[test]
fn always_delivers_what_is_there_and_what_comes() {
    let tube = tube(4);
    let mut ear = Ear::default();
    send(&tube, b"one");
    send(&tube, b"");
    assert_eq!(set(&tube, &mut ear, Active::Always), Outcome::Idle);
    assert_eq!(ear.take(), [message(b"one"), message(b"")]);
    let before = tube.world.rung();
    send(&tube, b"three");
    assert_eq!(tube.world.rung(), before + 1);
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), [message(b"three")]);
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Err(LinkError::Invalid)
    );
}

#[test]
fn passive_delivers_nothing() {
    let tube = tube(4);
    let mut ear = Ear::default();
    set(&tube, &mut ear, Active::Always);
    set(&tube, &mut ear, Active::Passive);
    send(&tube, b"one");
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), []);
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Small)
    );
}

#[test]
fn once_is_one_message_and_no_word() {
    let tube = tube(4);
    let mut ear = Ear::default();
    send(&tube, b"one");
    send(&tube, b"two");
    assert_eq!(set(&tube, &mut ear, Active::Once), Outcome::Idle);
    assert_eq!(ear.take(), [message(b"one")]);
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), []);
    set(&tube, &mut ear, Active::Once);
    assert_eq!(ear.take(), [message(b"two")]);
    set(&tube, &mut ear, Active::Once);
    assert_eq!(ear.take(), []);
    send(&tube, b"three");
    tube.nock.bell(&mut ear);
    assert_eq!(ear.take(), [message(b"three")]);
}

#[test]
fn a_count_ends_with_a_word_and_can_be_topped_up() {
    let tube = tube(4);
    let mut ear = Ear::default();
    for text in [b"1", b"2", b"3", b"4"] {
        send(&tube, text);
    }
    set(&tube, &mut ear, Active::Count(2));
    assert_eq!(
        ear.take(),
        [message(b"1"), message(b"2"), Told::Passive(BOB)]
    );
    set(&tube, &mut ear, Active::Count(1));
    assert_eq!(ear.take(), [message(b"3"), Told::Passive(BOB)]);
    set(&tube, &mut ear, Active::Count(3));
    assert_eq!(ear.take(), [message(b"4")]);
    assert_eq!(tube.nock.info().unwrap().active, Active::Count(2));
    set(&tube, &mut ear, Active::Count(5));
    assert_eq!(tube.nock.info().unwrap().active, Active::Count(7));
    assert_eq!(ear.take(), []);
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
    let mut ear = Ear::default();
    let long = pattern(10_000, 9);
    let Ok(Sent::Wait(mut done)) = tube.tip.send(ALICE, &long, 0, &ear) else {
        panic!("no room for all");
    };
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Wait)
    );
    set(&tube, &mut ear, Active::Always);
    let mut told = Vec::new();
    loop {
        match tube.tip.send(ALICE, &long, done, &Ear::default()).unwrap() {
            Sent::Whole => break,
            Sent::More(more) | Sent::Wait(more) => done = more,
        }
        assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
        told.append(&mut ear.take());
    }
    tube.nock.bell(&mut ear);
    told.append(&mut ear.take());
    assert!(told == [message(&long)]);
}

#[test]
fn one_bell_does_bounded_work_and_stays_readable_until_all_is_delivered() {
    let tube = tube(8);
    let mut ear = Ear::default();
    set(&tube, &mut ear, Active::Always);
    let text = pattern(60_000, 2);
    for _ in 0..15 {
        send(&tube, &text);
    }
    let mut rounds = 0;
    while tube.nock.bell(&mut ear) == Outcome::Ready {
        rounds += 1;
        assert!(ear.take().len() <= 6, "256 KiB and a message more, at most");
        toy::sleep(&tube.nock);
    }
    assert!((2..8).contains(&rounds), "{rounds}");
    assert_eq!(tube.nock.info().unwrap().rx.messages, 15);
    // Counted in messages too, since each has its price.
    for _ in 0..3000 {
        send(&tube, b"");
    }
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Ready);
    assert_eq!(ear.take().len(), 1024);
    while tube.nock.bell(&mut ear) == Outcome::Ready {}
    assert_eq!(tube.nock.info().unwrap().rx.messages, 3015);
}

#[test]
fn without_a_bell_the_rest_is_asked_for() {
    let tube = tube(8);
    let mut ear = Ear::default();
    for _ in 0..1500 {
        send(&tube, b"");
    }
    assert_eq!(set(&tube, &mut ear, Active::Always), Outcome::Later);
    assert_eq!(tube.nock.resume(&mut ear), Outcome::Idle);
    assert_eq!(ear.take().len(), 1500);
}

#[test]
fn a_sender_waits_for_room_while_much_is_delivered() {
    let tube = tube(4);
    let mut ear = Ear::default();
    set(&tube, &mut ear, Active::Always);
    // Bob sends until the other ring is full; Alice sends more than one round can deliver.
    let mut waits = 0;
    while tube.nock.send(BOB, &[0; 1000], 0, &ear) == Ok(Sent::Whole) {
        waits += 1;
    }
    assert!(waits > 10);
    for _ in 0..2000 {
        send(&tube, b"");
    }
    while tube.tip.recv(ALICE, &mut ear, &Ear::default()) == Ok(Received::Small) {}
    ear.take();
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Ready);
    assert!(
        ear.take().contains(&Told::Space(BOB)),
        "room is not forgotten over data"
    );
}

#[test]
fn a_dead_owner_gets_no_more_and_the_rest_is_kept() {
    let tube = tube(4);
    let mut ear = Ear::default();
    for text in [b"1", b"2", b"3"] {
        send(&tube, text);
    }
    ear.dead = Some(BOB);
    assert_eq!(set(&tube, &mut ear, Active::Always), Outcome::Idle);
    assert_eq!(ear.take(), []);
    assert_eq!(tube.nock.info().unwrap().active, Active::Passive);
    tube.nock.set_owner(8, &ear).unwrap();
    assert_eq!(
        tube.nock.recv(8, &mut ear, &Ear::default()),
        Ok(Received::Small)
    );
    assert_eq!(ear.message(), b"2");
}

#[test]
fn the_end_comes_after_the_data_and_once() {
    let tube = tube(4);
    let mut ear = Ear::default();
    set(&tube, &mut ear, Active::Always);
    send(&tube, b"last");
    tube.tip.shutdown(&ear).unwrap();
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    let told = ear.take();
    assert_eq!(told[..2], [message(b"last"), Told::End(BOB, None)]);
    let events = [Event::Fin, Event::Drained, Event::OwnerTold];
    assert_eq!(told[2..], events.map(Told::Event));
    set(&tube, &mut ear, Active::Always);
    assert_eq!(ear.take(), []);
}

#[test]
fn the_end_waits_for_an_owner_that_wants_to_know() {
    let tube = tube(4);
    let mut ear = Ear::default();
    send(&tube, b"last");
    tube.tip.shutdown(&ear).unwrap();
    tube.nock.bell(&mut ear);
    assert_eq!(ear.take(), [Told::Event(Event::Fin)]);
    set(&tube, &mut ear, Active::Once);
    assert_eq!(ear.take(), [message(b"last"), Told::Event(Event::Drained)]);
    set(&tube, &mut ear, Active::Once);
    assert_eq!(
        ear.take(),
        [Told::End(BOB, None), Told::Event(Event::OwnerTold)]
    );
}
