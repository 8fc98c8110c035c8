//! The fast path for short messages: `put` writes what `push` would write, or nothing.
#![cfg(not(loom))]

mod support;

use support::{Pages, message};
use tube_ring::wire::{CONSUMER, INDEX, STATE, STATE_GONE};
use tube_ring::{Consumer, Producer, Progress, Pull, Push, Violation};

const LIMIT: u32 = 100_000;

/// A ring whose producer has read the consumer's limit, as it does at the first push.
fn ring(order: u32) -> (Pages, Producer, Consumer) {
    let pages = Pages::new(order);
    let (mut producer, consumer) = pages.ends(0u32.wrapping_sub(64), LIMIT);
    assert_eq!(producer.limit(), Ok(LIMIT));
    (pages, producer, consumer)
}

fn push(producer: &mut Producer, message: &[u8]) -> Push {
    producer
        .push(message, &mut Progress::default(), usize::MAX)
        .unwrap()
}

#[test]
fn messages_put_and_pushed_arrive_in_order() {
    let (pages, mut producer, mut consumer) = ring(3);
    let mut got = Vec::new();
    for (number, length) in [0, 1, 7, 8, 64, 1000, 5000, 16_376].into_iter().enumerate() {
        let (one, two) = (message(1, length), message(number as u64, length));
        assert!(producer.put(&one), "{length}");
        if length <= 1000 {
            assert_eq!(consumer.pull(&mut got, 1), Ok(Pull::Empty), "not published");
        }
        assert_eq!(producer.publish(), Ok(false));
        assert_eq!(push(&mut producer, &two), Push::Whole);
        assert_eq!(producer.publish(), Ok(false));
        for sent in [one, two] {
            assert_eq!(
                consumer.pull(&mut got, LIMIT as usize),
                Ok(Pull::Message(length))
            );
            assert_eq!(got, sent);
        }
        assert_eq!(consumer.release(), Ok(false));
    }
    assert_eq!(producer.counters().messages, 16);
    assert!(pages.canaries_intact());
}

#[test]
fn a_full_ring_accepts_no_put_and_push_reports_it() {
    let (pages, mut producer, mut consumer) = ring(0);
    while producer.put(&[7; 100]) {}
    assert_eq!(producer.backlog(), 4096 / 112 * 112);
    assert_eq!(push(&mut producer, &[7; 100]), Push::Full);
    assert_eq!(producer.publish(), Ok(false));
    let mut got = Vec::new();
    for _ in 0..4096 / 112 {
        assert_eq!(consumer.pull(&mut got, 1000), Ok(Pull::Message(100)));
        assert_eq!(got, [7; 100]);
    }
    assert_eq!(consumer.pull(&mut got, 1000), Ok(Pull::Empty));
    assert!(!producer.put(&[7; 100]), "nothing was given back");
    assert_eq!(consumer.release(), Ok(false));
    assert!(producer.put(&[7; 100]));
    assert!(pages.canaries_intact());
}

#[test]
fn put_leaves_long_and_forbidden_messages_to_push() {
    let (_pages, mut producer, _consumer) = ring(0);
    assert!(!producer.put(&[0; 2041]), "more than half the ring");
    let mut done = Progress::default();
    let begun = producer.push(&[0; 3000], &mut done, 1000);
    assert_eq!(begun, Ok(Push::Budget));
    assert!(!producer.put(b"in between"));
    producer.abort();
    assert!(producer.put(b"after"));
    producer.finish();
    assert!(!producer.put(b"too late"));

    let pages = Pages::new(8);
    let (mut producer, _consumer) = pages.ends(0, 10);
    assert!(!producer.put(b"short"), "the limit is not known");
    assert_eq!(producer.limit(), Ok(10));
    assert!(producer.put(b"short"));
    assert!(!producer.put(b"not so short"));
    let (mut producer, _consumer) = pages.ends(0, LIMIT);
    assert_eq!(producer.limit(), Ok(LIMIT));
    assert!(!producer.put(&[0; 65_537]), "more than one record");

    pages.set(CONSUMER + STATE, STATE_GONE);
    assert!(producer.arm().unwrap().ready);
    assert!(!producer.put(b"no reader"));
}

#[test]
fn push_reports_an_impossible_index_that_put_found() {
    let (pages, mut producer, _consumer) = ring(0);
    while producer.put(&[7; 100]) {}
    pages.set(CONSUMER + INDEX, 4);
    assert!(!producer.put(&[7; 100]));
    let pushed = producer.push(b"x", &mut Progress::default(), 1);
    assert_eq!(pushed, Err(Violation::ConsumerIndex(4)));
    pages.set(CONSUMER + INDEX, 0);
    assert!(!producer.put(b""), "a violation is permanent");
}
