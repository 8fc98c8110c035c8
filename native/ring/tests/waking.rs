//! When each end is notified: event indices of readers and writers.
#![cfg(not(loom))]

mod support;

use support::{ASLEEP, AWAKE, LIMIT, Pages, message, push};
use tube_ring::wire::{CONSUMER, EVENT_INDEX, INDEX, PRODUCER};
use tube_ring::{Armed, Producer, Progress, Pull, Push};

#[test]
fn a_sleeping_reader_is_notified_once_and_an_awake_one_never() {
    for start in [0, u32::MAX - 39] {
        let pages = Pages::new(0);
        let (mut producer, mut consumer) = pages.ends(start, LIMIT);
        let mut got = Vec::new();
        assert_eq!(consumer.arm(), Ok(ASLEEP));
        push(&mut producer, b"wake");
        assert_eq!(producer.publish(), Ok(true));
        push(&mut producer, b"awake already");
        assert_eq!(producer.publish(), Ok(false));
        assert_eq!(producer.publish(), Ok(false), "nothing new");
        // Data came before the reader slept: it stays awake, and is not notified of what follows.
        assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Message(4)));
        assert_eq!(consumer.arm(), Ok(AWAKE));
        assert_eq!(
            pages.get(CONSUMER + EVENT_INDEX),
            pages.get(CONSUMER + INDEX).wrapping_add(1 << 31)
        );
        push(&mut producer, b"third");
        assert_eq!(producer.publish(), Ok(false));
        for length in [13, 5] {
            assert_eq!(
                consumer.pull(&mut got, usize::MAX),
                Ok(Pull::Message(length))
            );
        }
        assert_eq!(consumer.arm(), Ok(ASLEEP));
        consumer.disarm();
        push(&mut producer, b"silent");
        assert_eq!(producer.publish(), Ok(false));
    }
}

#[test]
fn a_reader_in_the_middle_of_a_message_sleeps_until_half_the_ring_or_the_rest() {
    for (start, total, woken_after) in [
        (0, 20_000, 2048),
        (u32::MAX - 4095, 20_000, 2048),
        (0, 3_000, 3_000 - 1000),
    ] {
        let pages = Pages::new(0);
        let (mut producer, mut consumer) = pages.ends(start, LIMIT);
        let sent = message(1, total);
        let (mut done, mut got) = (Progress::default(), Vec::new());
        let mut more = |producer: &mut Producer, budget| {
            let pushed = producer.push(&sent, &mut done, budget).unwrap();
            (pushed, producer.publish().unwrap())
        };
        assert_eq!(consumer.arm(), Ok(ASLEEP));
        // The first record always wakes: the reader does not know the total yet.
        assert_eq!(more(&mut producer, 1000), (Push::Budget, true));
        assert_eq!(
            consumer.pull(&mut got, LIMIT as usize),
            Ok(Pull::Partial(1000))
        );
        assert_eq!(consumer.arm(), Ok(ASLEEP));
        let index = pages.get(CONSUMER + INDEX);
        let woken = (0..)
            .map(|_| more(&mut producer, 100))
            .position(|(_, notify)| notify);
        let reached = pages.get(PRODUCER + INDEX).wrapping_sub(index) as usize;
        assert!(
            reached >= woken_after && reached < woken_after + 150,
            "{reached} {woken:?}"
        );
    }
}

#[test]
fn a_writer_that_has_no_room_left_has_woken_its_reader() {
    for order in [0, 3, 8] {
        let pages = Pages::new(order);
        let (mut producer, mut consumer) = pages.ends(0, LIMIT);
        let sent = message(1, 3 * pages.size() as usize);
        let (mut done, mut got) = (Progress::default(), Vec::new());
        let _ = producer.push(&sent, &mut done, 1).unwrap();
        assert_eq!(producer.publish(), Ok(false));
        assert_eq!(consumer.pull(&mut got, 1), Ok(Pull::Partial(1)));
        assert_eq!(consumer.arm(), Ok(ASLEEP));
        assert_eq!(producer.push(&sent, &mut done, usize::MAX), Ok(Push::Full));
        let armed = producer.arm().unwrap();
        assert!(armed.notify && !armed.ready, "{armed:?}");
    }
}

#[test]
fn a_sleeping_writer_is_notified_when_half_the_ring_is_free() {
    for start in [0, u32::MAX - 2047] {
        let pages = Pages::new(0);
        let (mut producer, mut consumer) = pages.ends(start, LIMIT);
        let mut got = Vec::new();
        for _ in 0..32 {
            push(&mut producer, &[0; 120]);
        }
        let outcome = producer.push(b"", &mut Progress::default(), usize::MAX);
        assert_eq!(outcome, Ok(Push::Full));
        assert_eq!(producer.arm(), Ok(ASLEEP));
        for taken in 1..=32 {
            assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Message(120)));
            assert_eq!(consumer.release(), Ok(taken == 16), "after {taken}");
        }
        push(&mut producer, &[0; 2000]);
        push(&mut producer, &[0; 2032]);
        push(&mut producer, &[0; 40]);
        let outcome = producer.push(b"", &mut Progress::default(), usize::MAX);
        assert_eq!(outcome, Ok(Push::Full));
        let _ = producer.publish().unwrap();
        assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Message(2000)));
        assert_eq!(consumer.release(), Ok(false));
        assert_eq!(producer.arm(), Ok(AWAKE));
        assert_eq!(
            pages.get(PRODUCER + EVENT_INDEX),
            pages.get(PRODUCER + INDEX).wrapping_add(1 << 31)
        );
    }
}

#[test]
fn room_that_a_reader_holds_back_never_starves_a_writer() {
    let pages = Pages::new(0);
    let (mut producer, mut consumer) = pages.ends(0, LIMIT);
    let (mut got, mut notified) = (Vec::new(), 0);
    while producer
        .push(&[0; 40], &mut Progress::default(), usize::MAX)
        .unwrap()
        == Push::Whole
    {}
    assert_eq!(producer.arm(), Ok(ASLEEP));
    // The reader stops after the last message, without a final release.
    while consumer.pull(&mut got, usize::MAX).unwrap() != Pull::Empty {
        notified += usize::from(consumer.release_batch().unwrap());
    }
    assert_eq!(notified, 1);
    push(&mut producer, &[0; 2040]);
}

#[test]
fn arming_publishes_and_releases() {
    let pages = Pages::new(0);
    let (mut producer, mut consumer) = pages.ends(0, LIMIT);
    let mut got = Vec::new();
    assert_eq!(consumer.arm(), Ok(ASLEEP));
    let mut done = Progress::default();
    assert_eq!(
        producer.push(&[3; 8000], &mut done, usize::MAX),
        Ok(Push::Full)
    );
    assert_eq!(
        producer.arm(),
        Ok(Armed {
            ready: false,
            notify: true
        })
    );
    while matches!(
        consumer.pull(&mut got, usize::MAX).unwrap(),
        Pull::Partial(_)
    ) {}
    assert_eq!(
        consumer.arm(),
        Ok(Armed {
            ready: false,
            notify: true
        })
    );
    assert_eq!(pages.get(PRODUCER + INDEX), pages.get(CONSUMER + INDEX));
    // Half the ring, since more than that is still to come.
    let ahead = pages.get(CONSUMER + EVENT_INDEX) - pages.get(CONSUMER + INDEX);
    assert_eq!(ahead, 2048);
}

#[test]
fn a_writer_sees_room_without_a_notification() {
    for start in [0, u32::MAX - 39] {
        let pages = Pages::new(0);
        let (mut producer, mut consumer) = pages.ends(start, LIMIT);
        let (block, mut got) = (message(3, 2000), Vec::new());
        while producer.push(&block, &mut Progress::default(), 4096) == Ok(Push::Whole) {}
        assert_eq!(producer.publish(), Ok(false));
        assert_eq!(producer.has_room(), Ok(false));
        assert_eq!(
            consumer.pull(&mut got, usize::MAX),
            Ok(Pull::Message(block.len()))
        );
        assert_eq!(producer.has_room(), Ok(false), "not yet released");
        assert_eq!(consumer.release(), Ok(false), "the writer does not sleep");
        assert_eq!(producer.has_room(), Ok(true));
        // The peer's index is checked.
        pages.set(
            CONSUMER + INDEX,
            pages.get(PRODUCER + INDEX).wrapping_add(8),
        );
        assert!(producer.has_room().is_err());
    }
}
