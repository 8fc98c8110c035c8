//! Messages of every size arrive as they were sent, one at a time, even with other senders.

mod support;

use support::{ALICE, BOB, Bytes, Call, Recorder, Tube, pattern, tube, tube_with};
use tube_link::{LinkError, Received, Sent};

/// Receives once for Bob. `true` if a message is complete in `recorder` or `long`.
fn pull(tube: &Tube, recorder: &mut Recorder, long: &mut Option<Vec<u8>>) -> bool {
    match tube.nock.recv(BOB, recorder, &Recorder::default()).unwrap() {
        Received::Small => *long = None,
        Received::Long(Bytes(message)) => *long = Some(message),
        Received::More | Received::Poll | Received::Wait => return false,
    }
    true
}

/// Sends `message` and receives it, both a piece at a time.
fn through(tube: &Tube, message: &[u8]) -> Vec<u8> {
    let (mut recorder, mut long) = (Recorder::default(), None);
    let mut done = 0;
    let mut sent = false;
    for _ in 0..100_000 {
        if !sent {
            match tube.tip.send(ALICE, message, done, &recorder).unwrap() {
                Sent::Whole => sent = true,
                Sent::More(more) | Sent::Wait(more) => done = more,
            }
        }
        if pull(tube, &mut recorder, &mut long) {
            assert!(sent, "a message is complete when all of it was sent");
            return long.unwrap_or_else(|| recorder.message().to_vec());
        }
    }
    panic!("{} of {} bytes got through", done, message.len());
}

#[test]
fn every_size_in_every_ring() {
    for order in [0, 1, 4, 8] {
        let tube = tube(order);
        let ring = 4096usize << order;
        let around = |n: usize| [n - 9, n - 8, n - 7, n - 1, n, n + 1];
        let sizes = [0, 1, 7, 8, 9, 63, 64, 65, 3 << 20]
            .into_iter()
            .chain(around(ring / 4))
            .chain(around(ring / 2))
            .chain(around(ring))
            .chain(around(64 << 10));
        for (seed, size) in sizes.enumerate() {
            let message = pattern(size, seed as u8);
            assert!(
                through(&tube, &message) == message,
                "{size} bytes, order {order}"
            );
        }
    }
}

#[test]
fn the_largest_message() {
    let tube = tube(8);
    let message = pattern(64 << 20, 1);
    assert!(through(&tube, &message) == message);
    let recorder = Recorder::default();
    let larger = vec![0; (64 << 20) + 1];
    assert_eq!(
        tube.tip.send(ALICE, &larger, 0, &recorder),
        Err(LinkError::TooLong)
    );
}

#[test]
fn a_message_longer_than_the_peer_takes_is_refused_without_other_effect() {
    let tube = tube_with(4, 1000);
    let recorder = Recorder::default();
    assert_eq!(
        tube.tip.send(ALICE, &[0; 1001], 0, &recorder),
        Err(LinkError::TooLong)
    );
    let message = pattern(1000, 0);
    assert_eq!(through(&tube, &message), message);
}

#[test]
fn a_restricted_end_takes_longer_messages_only_when_allowed() {
    let tube = tube_with(4, 3000);
    tube.nock.restrict(1000).unwrap();
    let message = pattern(1000, 0);
    assert_eq!(through(&tube, &message), message);
    // Never more than was announced.
    tube.nock.restrict(u32::MAX).unwrap();
    let message = pattern(3000, 1);
    assert_eq!(through(&tube, &message), message);
    let mut recorder = Recorder::default();
    let larger = pattern(3001, 2);
    assert_eq!(
        tube.tip.send(ALICE, &larger, 0, &recorder),
        Err(LinkError::TooLong)
    );
    // The announced limit is 3000, but the lower one counts, and a longer message ends the link.
    tube.nock.restrict(1000).unwrap();
    assert_eq!(
        tube.tip.send(ALICE, &message[..1001], 0, &recorder),
        Ok(Sent::Whole)
    );
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Err(LinkError::Protocol)
    );
}

#[test]
fn small_messages_stay_in_order_and_need_no_notification() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    let before = tube.host.notifications();
    for round in 0..500u32 {
        for i in 0..20u32 {
            let message = (round * 20 + i).to_le_bytes();
            assert_eq!(
                tube.tip.send(ALICE, &message, 0, &recorder),
                Ok(Sent::Whole)
            );
        }
        for i in 0..20u32 {
            assert_eq!(
                tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
                Ok(Received::Small)
            );
            assert_eq!(recorder.message(), (round * 20 + i).to_le_bytes());
        }
    }
    assert_eq!(tube.host.notifications(), before, "no end slept");
}

#[test]
fn one_call_does_bounded_work() {
    let tube = tube(8);
    let mut recorder = Recorder::default();
    let message = pattern(3 << 20, 0);
    let Ok(Sent::More(first)) = tube.tip.send(ALICE, &message, 0, &recorder) else {
        panic!("1 MiB of room and a budget of 256 KiB");
    };
    assert!((64 << 10..=256 << 10).contains(&first), "{first}");
    let mut done = first;
    while let Ok(Sent::More(more)) = tube.tip.send(ALICE, &message, done, &recorder) {
        assert!(more - done <= 256 << 10);
        done = more;
    }
    // 1 MiB is there; one call takes a part of it.
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::More)
    );
    let taken = tube.nock.info().unwrap();
    assert!(taken.rx_backlog > 512 << 10, "{taken:?}");
}

#[test]
fn a_long_message_is_not_torn_by_another_sender() {
    let tube = tube(0);
    let (mut recorder, mut long) = (Recorder::default(), None);
    let message = pattern(10_000, 3);
    let Ok(Sent::Wait(mut done)) = tube.tip.send(ALICE, &message, 0, &recorder) else {
        panic!("10,000 bytes do not fit 4096");
    };
    assert!(done > 0);
    // Another sender waits for its end, however much room there is.
    assert_eq!(tube.tip.send(7, b"mine", 0, &recorder), Ok(Sent::Wait(0)));
    assert_eq!(tube.tip.send(7, b"mine", 0, &recorder), Ok(Sent::Wait(0)));
    let mut got = None;
    while got.is_none() {
        if pull(&tube, &mut recorder, &mut long) {
            got = long.take();
            break;
        }
        match tube.tip.send(ALICE, &message, done, &recorder).unwrap() {
            Sent::Whole => {
                // Woken once, although it tried twice; the sender that just called is not woken.
                assert_eq!(recorder.take(), [Call::Space(7)]);
            }
            Sent::More(more) | Sent::Wait(more) => done = more,
        }
    }
    assert!(got.unwrap() == message);
    assert_eq!(tube.tip.send(7, b"mine", 0, &recorder), Ok(Sent::Whole));
    assert!(pull(&tube, &mut recorder, &mut long));
    assert_eq!(recorder.message(), b"mine");
}

#[test]
fn progress_of_another_caller_is_refused() {
    let tube = tube(0);
    let recorder = Recorder::default();
    let message = pattern(10_000, 3);
    for done in [1, 100, u64::MAX] {
        assert_eq!(
            tube.tip.send(ALICE, &message, done, &recorder),
            Err(LinkError::Invalid)
        );
    }
    let Ok(Sent::Wait(done)) = tube.tip.send(ALICE, &message, 0, &recorder) else {
        panic!("no room for all");
    };
    assert_eq!(
        tube.tip.send(7, &message, done, &recorder),
        Err(LinkError::Invalid)
    );
    assert_eq!(
        tube.tip.send(ALICE, &message, done - 1, &recorder),
        Err(LinkError::Invalid)
    );
    assert_eq!(
        tube.tip.send(ALICE, &message[1..], done, &recorder),
        Err(LinkError::Invalid)
    );
    assert_eq!(
        tube.tip.send(ALICE, b"another", 0, &recorder),
        Err(LinkError::Invalid)
    );
    // None of this affects the message.
    let (mut mine, mut long, mut done) = (Recorder::default(), None, done);
    let mut sent = false;
    while !pull(&tube, &mut mine, &mut long) {
        if sent {
            continue;
        }
        match tube.tip.send(ALICE, &message, done, &recorder).unwrap() {
            Sent::Whole => sent = true,
            Sent::More(more) | Sent::Wait(more) => done = more,
        }
    }
    assert!(long.unwrap() == message);
}

#[test]
fn without_memory_a_message_stays_where_it_is() {
    let tube = tube(0);
    let mut recorder = Recorder::default();
    let none = |none: bool| support::NO_MEMORY.with(|flag| *flag.borrow_mut() = none);
    let long = pattern(10_000, 3);
    assert_eq!(
        tube.tip.send(ALICE, b"small", 0, &recorder),
        Ok(Sent::Whole)
    );
    assert!(matches!(
        tube.tip.send(ALICE, &long, 0, &recorder),
        Ok(Sent::Wait(1..))
    ));
    none(true);
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Err(LinkError::NoMemory)
    );
    none(false);
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Small)
    );
    assert_eq!(recorder.message(), b"small");
    none(true);
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Err(LinkError::NoMemory)
    );
    none(false);
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Wait)
    );
}
