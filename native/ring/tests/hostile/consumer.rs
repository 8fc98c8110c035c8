//! A hostile consumer against a producer.

use std::sync::atomic::Ordering;

use tube_ring::wire::{CONSUMER, EVENT_INDEX, GREFS, INDEX, Kind, LIMIT, PRODUCER, STATE, header};
use tube_ring::{Armed, MESSAGE_MAX, Producer, Progress, Pull, Push, Violation};

use crate::support::{Pages, push};
use crate::{LIMIT_BYTES, START, at, drain};

#[test]
fn impossible_consumer_indices() {
    let indices = [
        at(1),
        at(4),
        at(24),
        at(32),
        at(4096),
        at(1 << 31),
        at(0u32.wrapping_sub(8)),
    ];
    for index in indices {
        let pages = Pages::new(0);
        let ends = || {
            let (mut producer, _) = pages.ends(START, LIMIT_BYTES);
            push(&mut producer, b"sixteen bytes.");
            let _ = producer.publish().unwrap();
            pages.set(CONSUMER + INDEX, index);
            producer
        };
        let violation = Violation::ConsumerIndex(index);
        if index == at(24) {
            // This one is possible.
            assert_eq!(
                ends().arm(),
                Ok(Armed {
                    ready: true,
                    notify: false
                })
            );
            continue;
        }
        let mut producer = ends();
        assert_eq!(producer.arm(), Err(violation));
        assert_eq!(
            producer.push(b"", &mut Progress::default(), 9),
            Err(violation)
        );
        assert_eq!(producer.publish(), Err(violation));
        assert_eq!(producer.has_room(), Err(violation));
        assert_eq!(producer.limit(), Err(violation));
        // A push loads the index only when room runs out, and by then 32 bytes have been published.
        if index == at(32) {
            continue;
        }
        let mut producer = ends();
        assert_eq!(fill(&mut producer), Err(violation));
        assert!(pages.canaries_intact());
    }
}

fn fill(producer: &mut Producer) -> Result<Push, Violation> {
    for _ in 0..100 {
        let outcome = producer.push(&[1; 100], &mut Progress::default(), usize::MAX)?;
        if outcome != Push::Whole {
            return Ok(outcome);
        }
    }
    panic!("a ring without end");
}

#[test]
fn a_consumer_index_that_goes_back() {
    let pages = Pages::new(0);
    let (mut producer, _) = pages.ends(START, LIMIT_BYTES);
    assert_eq!(fill(&mut producer), Ok(Push::Full));
    let _ = producer.publish().unwrap();
    pages.set(CONSUMER + INDEX, at(1024));
    assert_eq!(fill(&mut producer), Ok(Push::Full));
    pages.set(CONSUMER + INDEX, at(512));
    assert_eq!(fill(&mut producer), Err(Violation::ConsumerIndex(at(512))));
}

#[test]
fn a_consumer_index_beyond_what_was_published() {
    let pages = Pages::new(0);
    let (mut producer, _) = pages.ends(START, LIMIT_BYTES);
    assert_eq!(fill(&mut producer), Ok(Push::Full));
    // Most was published on the way, at every quarter of the ring; the last records are not yet.
    let published = pages.get(PRODUCER + INDEX);
    assert!((1..producer.backlog() as u32).contains(&published.wrapping_sub(START)));
    pages.set(CONSUMER + INDEX, published.wrapping_add(8));
    assert_eq!(
        fill(&mut producer),
        Err(Violation::ConsumerIndex(published.wrapping_add(8)))
    );
}

#[test]
fn impossible_consumer_event_indices_states_and_limits() {
    let pages = Pages::new(0);
    let ends = |offset, value| {
        let (mut producer, _) = pages.ends(START, LIMIT_BYTES);
        push(&mut producer, b"");
        pages.set(CONSUMER + offset, value);
        producer
    };
    for event_index in [1, 4, 7, u32::MAX] {
        assert_eq!(
            ends(EVENT_INDEX, event_index).publish(),
            Err(Violation::EventIndex(event_index))
        );
        assert_eq!(
            ends(EVENT_INDEX, event_index).arm(),
            Err(Violation::EventIndex(event_index))
        );
    }
    for state in [2, 3, 0x100, u32::MAX] {
        assert_eq!(ends(STATE, state).has_room(), Err(Violation::State(state)));
        assert_eq!(ends(STATE, state).arm(), Err(Violation::State(state)));
    }
    for limit in [MESSAGE_MAX + 1, u32::MAX] {
        let (mut producer, _) = pages.ends(START, LIMIT_BYTES);
        pages.set(CONSUMER + LIMIT, limit);
        let outcome = producer.push(b"", &mut Progress::default(), 9);
        assert_eq!(outcome, Err(Violation::Limit(limit)));
    }
}

#[test]
fn a_consumer_that_never_reads_only_stops_the_sender() {
    let pages = Pages::new(0);
    let (mut producer, _) = pages.ends(START, LIMIT_BYTES);
    let mut done = Progress::default();
    for _ in 0..100 {
        assert_eq!(
            producer.push(&[0; 10_000], &mut done, usize::MAX),
            Ok(Push::Full)
        );
        assert!(!producer.arm().unwrap().ready);
        assert!(done.sent() <= pages.size());
    }
    assert!(pages.canaries_intact());
}

#[test]
fn the_header_words_of_a_ring_in_use_are_never_read_again() {
    let pages = Pages::new(0);
    let (mut producer, mut consumer) = pages.ends(START, LIMIT_BYTES);
    for offset in (0..0x80).step_by(4).chain((GREFS..4096).step_by(4)) {
        pages.set(offset, u32::MAX);
    }
    push(&mut producer, b"unmoved");
    let _ = producer.publish().unwrap();
    assert_eq!(drain(&mut consumer), Ok(Pull::Empty));
    assert_eq!(consumer.counters().bytes, 7);
    assert_eq!(
        header(Kind::Whole, 7),
        pages.data(START).load(Ordering::SeqCst)
    );
}
