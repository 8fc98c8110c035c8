//! Who waits is told, once, and not before it is worth trying.

mod toy;

use toy::{ALICE, BOB, Ear, Told, Tube, pattern, tube};
use tube_link::{LinkError, Outcome, Received, Sent};

/// Fills the ring with small messages from Alice; how many there was room for.
fn fill(tube: &Tube, ear: &Ear) -> usize {
    let message = pattern(100, 0);
    (0..)
        .find(|_| match tube.tip.send(ALICE, &message, 0, ear).unwrap() {
            Sent::Whole => false,
            Sent::Wait(0) => true,
            other => panic!("{other:?}"),
        })
        .unwrap()
}

#[test]
fn an_owner_that_found_nothing_is_told_of_data_once() {
    let tube = tube(4);
    let mut ear = Ear::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Wait)
    );
    // A bell that means nothing wakes nobody.
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), []);
    let before = tube.world.rung();
    for _ in 0..5 {
        assert_eq!(tube.tip.send(ALICE, b"hello", 0, &ear), Ok(Sent::Whole));
    }
    assert_eq!(tube.world.rung(), before + 1, "one bell for one who sleeps");
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), [Told::Data(BOB)]);
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), []);
    for _ in 0..5 {
        assert_eq!(
            tube.nock.recv(BOB, &mut ear, &Ear::default()),
            Ok(Received::Small)
        );
    }
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Wait)
    );
}

#[test]
fn an_owner_that_gave_up_is_left_in_peace() {
    let tube = tube(4);
    let mut ear = Ear::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Wait)
    );
    tube.nock.recv_cancel(ALICE);
    tube.nock.recv_cancel(BOB);
    assert_eq!(tube.tip.send(ALICE, b"hello", 0, &ear), Ok(Sent::Whole));
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), []);
}

#[test]
fn only_the_owner_receives() {
    let tube = tube(4);
    let mut ear = Ear::default();
    assert_eq!(tube.tip.send(ALICE, b"hello", 0, &ear), Ok(Sent::Whole));
    assert_eq!(
        tube.nock.recv(ALICE, &mut ear, &Ear::default()),
        Err(LinkError::NotOwner)
    );
    tube.nock.set_owner(ALICE, &ear).unwrap();
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Err(LinkError::NotOwner)
    );
    assert_eq!(
        tube.nock.recv(ALICE, &mut ear, &Ear::default()),
        Ok(Received::Small)
    );
    assert_eq!(ear.take(), []);
}

#[test]
fn an_owner_that_waits_when_it_is_replaced_is_told_to_come_and_see() {
    let tube = tube(4);
    let mut ear = Ear::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Wait)
    );
    tube.nock.set_owner(9, &ear).unwrap();
    assert_eq!(ear.take(), [Told::Data(BOB)]);
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Err(LinkError::NotOwner)
    );
    // The wait is not the new owner's.
    assert_eq!(tube.tip.send(ALICE, b"hello", 0, &ear), Ok(Sent::Whole));
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), []);
}

#[test]
fn senders_are_told_of_room_when_there_is_enough() {
    let tube = tube(0);
    let mut ear = Ear::default();
    let count = fill(&tube, &ear);
    assert_eq!(tube.tip.send(7, b"me too", 0, &ear), Ok(Sent::Wait(0)));
    assert_eq!(tube.tip.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), [], "nothing was taken yet");
    let before = tube.world.rung();
    let mut rung_after = None;
    for taken in 1..=count {
        assert_eq!(
            tube.nock.recv(BOB, &mut ear, &Ear::default()),
            Ok(Received::Small)
        );
        if tube.world.rung() > before && rung_after.is_none() {
            rung_after = Some(taken);
        }
    }
    let rung_after = rung_after.expect("a bell for those who wait");
    assert!(
        rung_after > count / 4 && rung_after < count,
        "after {rung_after} of {count}"
    );
    assert_eq!(tube.world.rung(), before + 1);
    assert_eq!(tube.tip.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), [Told::Space(ALICE), Told::Space(7)]);
    assert_eq!(tube.tip.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), []);
}

#[test]
fn nobody_slips_past_those_who_wait() {
    let tube = tube(0);
    let mut ear = Ear::default();
    fill(&tube, &ear);
    // There is room again, but not yet enough for the bell.
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Small)
    );
    assert_eq!(tube.tip.send(7, b"small", 0, &ear), Ok(Sent::Wait(0)));
    while tube.nock.recv(BOB, &mut ear, &Ear::default()) == Ok(Received::Small) {}
    tube.tip.bell(&mut ear);
    assert_eq!(ear.take(), [Told::Space(ALICE), Told::Space(7)]);
    assert_eq!(tube.tip.send(7, b"small", 0, &ear), Ok(Sent::Whole));
}

#[test]
fn a_sender_that_gave_up_is_left_in_peace() {
    let tube = tube(0);
    let mut ear = Ear::default();
    fill(&tube, &ear);
    assert_eq!(tube.tip.send(7, b"me too", 0, &ear), Ok(Sent::Wait(0)));
    tube.tip.cancel(ALICE, &ear).unwrap();
    while tube.nock.recv(BOB, &mut ear, &Ear::default()) == Ok(Received::Small) {}
    assert_eq!(tube.tip.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), [Told::Space(7)]);
}

#[test]
fn a_message_given_up_half_way_is_never_seen_and_the_next_one_is() {
    let tube = tube(0);
    let mut ear = Ear::default();
    let message = pattern(10_000, 1);
    assert!(matches!(
        tube.tip.send(ALICE, &message, 0, &ear),
        Ok(Sent::Wait(1..))
    ));
    assert_eq!(tube.tip.send(7, b"next", 0, &ear), Ok(Sent::Wait(0)));
    // Part of it is already on the other side.
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Wait)
    );
    let before = tube.world.rung();
    tube.tip.cancel(ALICE, &ear).unwrap();
    assert_eq!(
        tube.world.rung(),
        before + 1,
        "the end of the message wakes the reader"
    );
    assert_eq!(ear.take(), [Told::Space(7)]);
    assert_eq!(tube.tip.send(7, b"next", 0, &ear), Ok(Sent::Whole));
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Small)
    );
    assert_eq!(ear.message(), b"next");
    // Its sender, if it comes back, learns that it is over; and may start again.
    assert_eq!(
        tube.tip.send(ALICE, &message, 100, &ear),
        Err(LinkError::Invalid)
    );
    assert_eq!(tube.tip.send(ALICE, b"again", 0, &ear), Ok(Sent::Whole));
}

#[test]
fn while_a_long_message_is_under_way_room_is_for_its_sender_alone() {
    let tube = tube(0);
    let mut ear = Ear::default();
    let message = pattern(10_000, 1);
    assert!(matches!(
        tube.tip.send(ALICE, &message, 0, &ear),
        Ok(Sent::Wait(1..))
    ));
    assert_eq!(tube.tip.send(7, b"next", 0, &ear), Ok(Sent::Wait(0)));
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Wait)
    );
    assert_eq!(tube.tip.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), [Told::Space(ALICE)]);
}

/// Both ends on their own threads, each sleeping as the VM would: in poll, and until it is told.
#[test]
fn nobody_sleeps_for_ever() {
    const MESSAGES: usize = 20_000;
    for order in [0, 3] {
        let tube = tube(order);
        let sizes = |i: usize| [0, 5, 100, 1000, 2500, 9000][i * 7 % 6];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut ear = Ear::default();
                for i in 0..MESSAGES {
                    let message = pattern(sizes(i), i as u8);
                    let mut done = 0;
                    loop {
                        match tube.tip.send(ALICE, &message, done, &ear).unwrap() {
                            Sent::Whole => break,
                            Sent::More(more) => done = more,
                            Sent::Wait(more) => {
                                done = more;
                                while ear.take() != [Told::Space(ALICE)] {
                                    toy::sleep(&tube.tip);
                                    tube.tip.bell(&mut ear);
                                }
                            }
                        }
                    }
                }
            });
            scope.spawn(|| {
                let mut ear = Ear::default();
                for i in 0..MESSAGES {
                    let message = loop {
                        match tube.nock.recv(BOB, &mut ear, &Ear::default()).unwrap() {
                            Received::Small => break ear.message().to_vec(),
                            Received::Long(toy::Bytes(message)) => break message,
                            Received::More | Received::Poll => {}
                            Received::Wait => {
                                while ear.take() != [Told::Data(BOB)] {
                                    toy::sleep(&tube.nock);
                                    tube.nock.bell(&mut ear);
                                }
                            }
                        }
                    };
                    assert!(message == pattern(sizes(i), i as u8), "message {i}");
                }
            });
        });
    }
}
