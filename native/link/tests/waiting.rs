//! Waiting processes are woken once, and not before another try can succeed.

mod support;

use support::{ALICE, BOB, Call, Recorder, Tube, pattern, tube};
use tube_link::{LinkError, Outcome, Received, Sent};

/// Fills the ring with small messages from Alice. Returns their number.
fn fill(tube: &Tube, recorder: &Recorder) -> usize {
    let message = pattern(100, 0);
    (0..)
        .find(
            |_| match tube.tip.send(ALICE, &message, 0, recorder).unwrap() {
                Sent::Whole => false,
                Sent::Wait(0) => true,
                other => panic!("{other:?}"),
            },
        )
        .unwrap()
}

#[test]
fn a_waiting_owner_is_woken_once_when_there_is_data() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Wait)
    );
    // A notification without data wakes no process.
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), []);
    let before = tube.host.notifications();
    for _ in 0..5 {
        assert_eq!(
            tube.tip.send(ALICE, b"hello", 0, &recorder),
            Ok(Sent::Whole)
        );
    }
    assert_eq!(
        tube.host.notifications(),
        before + 1,
        "one notification for a sleeping reader"
    );
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), [Call::Data(BOB)]);
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), []);
    for _ in 0..5 {
        assert_eq!(
            tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
            Ok(Received::Small)
        );
    }
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Wait)
    );
}

#[test]
fn an_owner_that_gave_up_is_not_woken() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Wait)
    );
    tube.nock.recv_cancel(ALICE);
    tube.nock.recv_cancel(BOB);
    assert_eq!(
        tube.tip.send(ALICE, b"hello", 0, &recorder),
        Ok(Sent::Whole)
    );
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), []);
}

#[test]
fn only_the_owner_receives() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    assert_eq!(
        tube.tip.send(ALICE, b"hello", 0, &recorder),
        Ok(Sent::Whole)
    );
    assert_eq!(
        tube.nock.recv(ALICE, &mut recorder, &Recorder::default()),
        Err(LinkError::NotOwner)
    );
    tube.nock.set_owner(ALICE, &recorder).unwrap();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Err(LinkError::NotOwner)
    );
    assert_eq!(
        tube.nock.recv(ALICE, &mut recorder, &Recorder::default()),
        Ok(Received::Small)
    );
    assert_eq!(recorder.take(), []);
}

#[test]
fn a_waiting_owner_is_woken_when_it_is_replaced() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Wait)
    );
    tube.nock.set_owner(9, &recorder).unwrap();
    assert_eq!(recorder.take(), [Call::Data(BOB)]);
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Err(LinkError::NotOwner)
    );
    // The new owner does not wait.
    assert_eq!(
        tube.tip.send(ALICE, b"hello", 0, &recorder),
        Ok(Sent::Whole)
    );
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), []);
}

#[test]
fn senders_are_woken_when_there_is_enough_room() {
    let tube = tube(0);
    let mut recorder = Recorder::default();
    let count = fill(&tube, &recorder);
    assert_eq!(tube.tip.send(7, b"me too", 0, &recorder), Ok(Sent::Wait(0)));
    assert_eq!(tube.tip.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), [], "nothing was taken yet");
    let before = tube.host.notifications();
    let mut notified_after = None;
    for taken in 1..=count {
        assert_eq!(
            tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
            Ok(Received::Small)
        );
        if tube.host.notifications() > before && notified_after.is_none() {
            notified_after = Some(taken);
        }
    }
    let notified_after = notified_after.expect("a notification for the waiting senders");
    assert!(
        notified_after > count / 4 && notified_after < count,
        "after {notified_after} of {count}"
    );
    assert_eq!(tube.host.notifications(), before + 1);
    assert_eq!(tube.tip.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), [Call::Space(ALICE), Call::Space(7)]);
    assert_eq!(tube.tip.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), []);
}

#[test]
fn no_sender_overtakes_a_waiting_one() {
    let tube = tube(0);
    let mut recorder = Recorder::default();
    fill(&tube, &recorder);
    // There is room again, but not yet enough for a notification.
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Small)
    );
    assert_eq!(tube.tip.send(7, b"small", 0, &recorder), Ok(Sent::Wait(0)));
    while tube.nock.recv(BOB, &mut recorder, &Recorder::default()) == Ok(Received::Small) {}
    tube.tip.notified(&mut recorder);
    assert_eq!(recorder.take(), [Call::Space(ALICE), Call::Space(7)]);
    assert_eq!(tube.tip.send(7, b"small", 0, &recorder), Ok(Sent::Whole));
}

#[test]
fn a_sender_that_gave_up_is_not_woken() {
    let tube = tube(0);
    let mut recorder = Recorder::default();
    fill(&tube, &recorder);
    assert_eq!(tube.tip.send(7, b"me too", 0, &recorder), Ok(Sent::Wait(0)));
    tube.tip.cancel(ALICE, &recorder).unwrap();
    while tube.nock.recv(BOB, &mut recorder, &Recorder::default()) == Ok(Received::Small) {}
    assert_eq!(tube.tip.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), [Call::Space(7)]);
}

#[test]
fn a_message_given_up_half_way_is_not_received_and_the_next_one_is() {
    let tube = tube(0);
    let mut recorder = Recorder::default();
    let message = pattern(10_000, 1);
    assert!(matches!(
        tube.tip.send(ALICE, &message, 0, &recorder),
        Ok(Sent::Wait(1..))
    ));
    assert_eq!(tube.tip.send(7, b"next", 0, &recorder), Ok(Sent::Wait(0)));
    // Part of it is already on the other side.
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Wait)
    );
    let before = tube.host.notifications();
    tube.tip.cancel(ALICE, &recorder).unwrap();
    assert_eq!(
        tube.host.notifications(),
        before + 1,
        "the end of the message wakes the reader"
    );
    assert_eq!(recorder.take(), [Call::Space(7)]);
    assert_eq!(tube.tip.send(7, b"next", 0, &recorder), Ok(Sent::Whole));
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Small)
    );
    assert_eq!(recorder.message(), b"next");
    // Its sender cannot go on with it, but can send another.
    assert_eq!(
        tube.tip.send(ALICE, &message, 100, &recorder),
        Err(LinkError::Invalid)
    );
    assert_eq!(
        tube.tip.send(ALICE, b"again", 0, &recorder),
        Ok(Sent::Whole)
    );
}

#[test]
fn while_a_long_message_is_in_progress_only_its_sender_can_use_room() {
    let tube = tube(0);
    let mut recorder = Recorder::default();
    let message = pattern(10_000, 1);
    assert!(matches!(
        tube.tip.send(ALICE, &message, 0, &recorder),
        Ok(Sent::Wait(1..))
    ));
    assert_eq!(tube.tip.send(7, b"next", 0, &recorder), Ok(Sent::Wait(0)));
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Wait)
    );
    assert_eq!(tube.tip.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), [Call::Space(ALICE)]);
}

/// Both ends on their own threads, each sleeping as in the VM: in poll, until it is woken.
#[test]
fn no_wake_up_is_lost() {
    const MESSAGES: usize = 20_000;
    for order in [0, 3] {
        let tube = tube(order);
        let sizes = |i: usize| [0, 5, 100, 1000, 2500, 9000][i * 7 % 6];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut recorder = Recorder::default();
                for i in 0..MESSAGES {
                    let message = pattern(sizes(i), i as u8);
                    let mut done = 0;
                    loop {
                        match tube.tip.send(ALICE, &message, done, &recorder).unwrap() {
                            Sent::Whole => break,
                            Sent::More(more) => done = more,
                            Sent::Wait(more) => {
                                done = more;
                                while recorder.take() != [Call::Space(ALICE)] {
                                    support::await_notification(&tube.tip);
                                    tube.tip.notified(&mut recorder);
                                }
                            }
                        }
                    }
                }
            });
            scope.spawn(|| {
                let mut recorder = Recorder::default();
                for i in 0..MESSAGES {
                    let message = loop {
                        match tube
                            .nock
                            .recv(BOB, &mut recorder, &Recorder::default())
                            .unwrap()
                        {
                            Received::Small => break recorder.message().to_vec(),
                            Received::Long(support::Bytes(message)) => break message,
                            Received::More | Received::Poll => {}
                            Received::Wait => {
                                while recorder.take() != [Call::Data(BOB)] {
                                    support::await_notification(&tube.nock);
                                    tube.nock.notified(&mut recorder);
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
