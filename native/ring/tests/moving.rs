//! An end that moves to private pages, because the shared ones must be released.
#![cfg(not(loom))]

mod support;

use std::sync::atomic::Ordering;

use support::{Pages, message, push};
use tube_ring::wire::{INDEX, PRODUCER, STATE, STATE_FIN};
use tube_ring::{Consumer, MESSAGE_MAX, Progress, Pull, Push, Violation};

/// Initial indices: one of them wraps within the test.
const STARTS: [u32; 2] = [0, 0u32.wrapping_sub(2048)];

/// What the peer may do to the pages, which it still has.
fn corrupt(pages: &Pages) {
    for offset in (0..pages.size()).step_by(8) {
        pages.data(offset).store(u64::MAX, Ordering::SeqCst);
    }
    for offset in (0..tube_ring::PAGE).step_by(4) {
        pages.set(offset, u32::MAX);
    }
}

fn moved(consumer: &mut Consumer, from: &Pages, to: &Pages) {
    let (control, area) = to.parts();
    consumer.move_to(control, area);
    corrupt(from);
}

#[test]
fn only_published_data_is_read_from_the_copy() {
    for start in STARTS {
        let (shared, own) = (Pages::new(0), Pages::zeroed(0));
        let (mut producer, mut consumer) = shared.ends(start, MESSAGE_MAX);
        for number in 0..4 {
            push(&mut producer, &message(number, 700));
        }
        assert_eq!(producer.publish(), Ok(false));
        push(&mut producer, b"not published");
        let mut got = Vec::new();
        assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Message(700)));
        // In the middle of a record, unaligned.
        assert_eq!(consumer.pull(&mut got, 101), Ok(Pull::Partial(101)));
        moved(&mut consumer, &shared, &own);
        assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Message(700)));
        assert_eq!(got, message(1, 700));
        for number in 2..4 {
            assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Message(700)));
            assert_eq!(got, message(number, 700));
            assert_eq!(consumer.release(), Ok(false));
        }
        assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Empty));
        let armed = consumer.arm().unwrap();
        assert!(!armed.ready && !armed.notify);
        assert_eq!(consumer.peer_finished(), Ok(false));
        consumer.leave();
        assert!(shared.canaries_intact() && own.canaries_intact());
        assert_eq!(shared.get(0), u32::MAX, "nothing was written there since");
    }
}

#[test]
fn a_declared_end_of_data_stays_declared() {
    let (shared, own) = (Pages::new(0), Pages::zeroed(0));
    let (mut producer, mut consumer) = shared.ends(0, MESSAGE_MAX);
    push(&mut producer, b"last");
    producer.finish();
    moved(&mut consumer, &shared, &own);
    let mut got = Vec::new();
    assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Message(4)));
    assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Finished));
}

#[test]
fn a_full_ring_and_an_empty_one_move_too() {
    let (shared, own) = (Pages::new(0), Pages::zeroed(0));
    let (mut producer, mut consumer) = shared.ends(96, MESSAGE_MAX);
    let mut sent = 0;
    while producer.push(&message(sent, 248), &mut Progress::default(), usize::MAX)
        == Ok(Push::Whole)
    {
        sent += 1;
    }
    _ = producer.publish();
    assert_eq!(sent, 16, "to the last byte");
    moved(&mut consumer, &shared, &own);
    let mut got = Vec::new();
    for number in 0..sent {
        assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Message(248)));
        assert_eq!(got, message(number, 248));
    }
    assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Empty));
    let third = Pages::zeroed(0);
    moved(&mut consumer, &own, &third);
    assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Empty));
}

#[test]
fn an_impossible_last_word_is_a_violation() {
    for (offset, value) in [
        (PRODUCER + INDEX, 3),
        (PRODUCER + INDEX, 8192),
        (PRODUCER + STATE, STATE_FIN | 4),
    ] {
        let (shared, own) = (Pages::new(0), Pages::zeroed(0));
        let (mut producer, mut consumer) = shared.ends(0, MESSAGE_MAX);
        push(&mut producer, b"never seen");
        _ = producer.publish();
        shared.set(offset, value);
        moved(&mut consumer, &shared, &own);
        let expected = match offset {
            o if o == PRODUCER + STATE => Violation::State(value),
            _ => Violation::ProducerIndex(value),
        };
        let mut got = Vec::new();
        assert_eq!(consumer.pull(&mut got, usize::MAX), Err(expected));
        assert_eq!(consumer.arm().map(|_| ()), Err(expected));
        assert!(own.canaries_intact());
    }
}

#[test]
fn a_hostile_record_is_still_a_violation_in_the_copy() {
    let (shared, own) = (Pages::new(0), Pages::zeroed(0));
    let (mut producer, mut consumer) = shared.ends(0, MESSAGE_MAX);
    push(&mut producer, &message(0, 64));
    _ = producer.publish();
    shared.data(0).store(u64::MAX, Ordering::SeqCst);
    moved(&mut consumer, &shared, &own);
    assert!(consumer.pull(&mut Vec::new(), usize::MAX).is_err());
}

#[test]
fn a_moved_producer_finds_the_reader_gone() {
    let (shared, own) = (Pages::new(0), Pages::zeroed(0));
    let (mut producer, _consumer) = shared.ends(0, MESSAGE_MAX);
    let mut begun = Progress::default();
    assert_eq!(
        producer.push(&message(0, 9000), &mut begun, usize::MAX),
        Ok(Push::Full)
    );
    let (control, area) = own.parts();
    producer.move_to(control, area);
    corrupt(&shared);
    producer.abort();
    assert_eq!(producer.publish(), Ok(false));
    assert!(producer.arm().unwrap().ready);
    assert_eq!(
        producer.push(b"late", &mut Progress::default(), usize::MAX),
        Ok(Push::Gone)
    );
    producer.finish();
    assert!(shared.canaries_intact() && own.canaries_intact());
    assert_eq!(shared.get(PRODUCER + STATE), u32::MAX);
}
