//! Every impossible value that a peer can write is a violation, found before anything is done with
//! it: no panic, no byte outside the ring, no loop.
#![cfg(not(loom))]

mod support;

use std::sync::atomic::Ordering;

use support::{NONCE, Pages, push};
use tube_ring::wire::{
    CONSUMER, FEATURES_REQUIRED, GREFS, HEADER_COUNT, HEADER_DIRECTION, HEADER_FEATURES,
    HEADER_MAGIC, HEADER_NONCE, HEADER_ORDER, HEADER_VERSION, INDEX, Kind, LIMIT, LIVE_NOCK,
    LIVE_TIP, MARK, PRODUCER, STATE, header,
};
use tube_ring::{
    Armed, Consumer, Direction, Fragment, MESSAGE_MAX, Producer, Progress, Pull, Push, Role, Sink,
    Violation,
};

/// The indices of these tests wrap on the way.
const START: u32 = 0u32.wrapping_sub(64);
const LIMIT_BYTES: u32 = 10_000;

// The header of the control page.

#[test]
fn a_header_with_one_wrong_word_is_refused() {
    let cases: &[(usize, u32, Violation)] = &[
        (HEADER_MAGIC, 0, Violation::Magic(0)),
        (
            HEADER_MAGIC,
            u32::from_be_bytes(*b"Tube"),
            Violation::Magic(u32::from_be_bytes(*b"Tube")),
        ),
        (HEADER_VERSION, 0, Violation::Version(0)),
        (HEADER_VERSION, 2, Violation::Version(2)),
        (HEADER_FEATURES, 1, Violation::Features(1)),
        (
            HEADER_FEATURES,
            0xffff_8000,
            Violation::Features(0xffff_8000),
        ),
        (HEADER_DIRECTION, 0, Violation::Direction(0)),
        (HEADER_DIRECTION, 2, Violation::Direction(2)),
        (HEADER_ORDER, 9, Violation::Order(9)),
        (HEADER_ORDER, 32, Violation::Order(32)),
        (HEADER_ORDER, u32::MAX, Violation::Order(u32::MAX)),
        (HEADER_ORDER, 1, Violation::Count(4)),
        (HEADER_COUNT, 0, Violation::Count(0)),
        (HEADER_COUNT, 257, Violation::Count(257)),
        (HEADER_NONCE, 2, Violation::Nonce),
        (HEADER_NONCE + 4, 0, Violation::Nonce),
    ];
    for &(offset, value, violation) in cases {
        let pages = Pages::new(2);
        pages.set(offset, value);
        assert_eq!(pages.control().check(Direction::Tx, NONCE), Err(violation));
    }
}

#[test]
fn features_that_may_be_ignored_are() {
    let pages = Pages::new(0);
    pages.set(HEADER_FEATURES, !FEATURES_REQUIRED);
    assert_eq!(
        pages
            .control()
            .check(Direction::Tx, NONCE)
            .unwrap()
            .features,
        !FEATURES_REQUIRED
    );
}

#[test]
fn a_checked_header_is_a_private_copy() {
    let pages = Pages::new(1);
    let geometry = pages.control().check(Direction::Tx, NONCE).unwrap();
    pages.set(HEADER_ORDER, 8);
    pages.set(GREFS, 999);
    assert_eq!((geometry.order, geometry.grefs), (1, vec![100, 101]));
}

#[test]
fn a_live_byte_has_three_values() {
    let pages = Pages::new(0);
    for (offset, role) in [(LIVE_TIP, Role::Tip), (LIVE_NOCK, Role::Nock)] {
        for value in 3..=255 {
            pages.control_byte(offset).store(value, Ordering::SeqCst);
            assert_eq!(pages.control().live(role), Err(Violation::Live(value)));
        }
    }
}

// What a producer can do to a consumer.

/// Pulls until something other than progress comes, in a bounded number of calls.
fn drain(consumer: &mut Consumer) -> Result<Pull, Violation> {
    let mut message = Vec::new();
    for _ in 0..10_000 {
        match consumer.pull(&mut message, 1000)? {
            Pull::Message(_) | Pull::Partial(_) | Pull::Aborted => {}
            answer => return Ok(answer),
        }
    }
    panic!("no end");
}

/// Expects `violation` from a pull after the peer wrote what `lie` does, and for ever after.
fn caught(name: &str, violation: Violation, lie: impl FnOnce(&Pages)) {
    let pages = Pages::new(0);
    let (_, mut consumer) = pages.ends(START, LIMIT_BYTES);
    lie(&pages);
    assert_eq!(drain(&mut consumer), Err(violation), "{name}");
    // Even if the peer repents: whatever it writes now is not believed.
    let (_, _innocent) = pages.ends(START, LIMIT_BYTES);
    assert_eq!(drain(&mut consumer), Err(violation), "{name}, later");
    assert_eq!(consumer.arm(), Err(violation), "{name}, arm");
    assert_eq!(consumer.release(), Err(violation), "{name}, release");
    assert_eq!(
        consumer.peer_finished(),
        Err(violation),
        "{name}, peer_finished"
    );
    assert!(pages.canaries_sing(), "{name}");
}

fn at(offset: u32) -> u32 {
    START.wrapping_add(offset)
}

#[test]
fn impossible_producer_indices() {
    for index in [
        at(1),
        at(4),
        at(7),
        at(4097),
        at(4104),
        at(1 << 31),
        at(0u32.wrapping_sub(8)),
    ] {
        caught("index", Violation::ProducerIndex(index), |pages| {
            pages.put(at(0), Kind::Whole, 0);
            pages.publish(index);
        });
    }
}

#[test]
fn an_index_that_goes_back_or_overtakes_what_was_given_back() {
    let pages = Pages::new(0);
    for lie in [at(8), at(4096 + 8)] {
        let (_, mut consumer) = pages.ends(START, LIMIT_BYTES);
        pages.put(at(0), Kind::Whole, 0);
        pages.put(at(8), Kind::Whole, 0);
        pages.publish(at(16));
        assert_eq!(consumer.pull(&mut Vec::new(), 1), Ok(Pull::Message(0)));
        pages.publish(lie);
        // 16 read at least were seen; 8 were read but nothing was given back before `arm`.
        let expected = if lie == at(8) {
            Err(Violation::ProducerIndex(lie))
        } else {
            Ok(Armed {
                ready: true,
                notify: false,
            })
        };
        assert_eq!(consumer.arm(), expected);
    }
    let (_, mut consumer) = pages.ends(START, LIMIT_BYTES);
    pages.put(at(0), Kind::Whole, 0);
    pages.publish(at(8));
    assert_eq!(consumer.pull(&mut Vec::new(), 1), Ok(Pull::Message(0)));
    pages.publish(at(4096 + 8));
    assert_eq!(
        drain(&mut consumer),
        Err(Violation::ProducerIndex(at(4096 + 8)))
    );
}

#[test]
fn impossible_flags() {
    for flags in [
        0,
        3,
        6,
        12,
        17,
        24,
        31,
        32,
        0x100,
        0x10001,
        0x8000_0001,
        u32::MAX,
    ] {
        caught("flags", Violation::Flags(flags), |pages| {
            pages.put_raw(at(0), u64::from(flags) << 32);
            pages.publish(at(64));
        });
    }
}

#[test]
fn impossible_lengths() {
    for kind in [Kind::Whole, Kind::First] {
        for length in [
            57,
            64,
            4089,
            4096,
            1 << 31,
            u32::MAX - 15,
            u32::MAX - 7,
            u32::MAX,
        ] {
            caught("length", Violation::Length(length), |pages| {
                pages.put(at(0), kind, length);
                pages.put_raw(at(8), 5000);
                pages.publish(at(64));
            });
        }
    }
    caught(
        "longer than a full ring",
        Violation::Length(4089),
        |pages| {
            pages.put(at(0), Kind::Whole, 4089);
            pages.publish(at(4096));
        },
    );
    caught(
        "FIRST without room for its total",
        Violation::Length(0),
        |pages| {
            pages.put(at(0), Kind::First, 0);
            pages.publish(at(8));
        },
    );
    caught("ABORT with payload", Violation::Length(1), |pages| {
        first(pages, 100);
        pages.put(at(24), Kind::Abort, 1);
        pages.publish(at(40));
    });
}

/// A FIRST of 8 bytes of a message of `total`, in the first 24 bytes.
fn first(pages: &Pages, total: u64) {
    pages.put(at(0), Kind::First, 8);
    pages.put_raw(at(8), total);
    pages.publish(at(24));
}

#[test]
fn impossible_totals() {
    for total in [0, 1, 7, 8, 1 << 32, (1 << 32) + 100, u64::MAX] {
        caught("total", Violation::Total(total), |pages| {
            first(pages, total)
        });
    }
    for total in [LIMIT_BYTES + 1, MESSAGE_MAX + 1, u32::MAX] {
        caught("limit", Violation::TooLong(total), |pages| {
            first(pages, total.into())
        });
    }
    let pages = Pages::new(0);
    let (_, mut consumer) = pages.ends(START, 10);
    pages.put(at(0), Kind::Whole, 11);
    pages.publish(at(24));
    assert_eq!(drain(&mut consumer), Err(Violation::TooLong(11)));
}

#[test]
fn fragments_that_do_not_add_up() {
    let follow = |kind, length, violation| {
        caught("sum", violation, |pages| {
            first(pages, 24);
            pages.put(at(24), kind, length);
            pages.publish(at(24 + 40));
        });
    };
    follow(Kind::Last, 15, Violation::Sum(23));
    follow(Kind::Last, 17, Violation::Sum(25));
    follow(Kind::More, 16, Violation::Sum(24));
    follow(Kind::More, 17, Violation::Sum(25));
    follow(Kind::More, 0, Violation::EmptyFragment);
    follow(Kind::Last, 0, Violation::EmptyFragment);
    caught("empty FIRST", Violation::EmptyFragment, |pages| {
        pages.put(at(0), Kind::First, 0);
        pages.put_raw(at(8), 24);
        pages.publish(at(16));
    });
}

#[test]
fn records_out_of_order() {
    for kind in [Kind::More, Kind::Last, Kind::Abort] {
        caught("not begun", Violation::NotBegun, |pages| {
            pages.put(at(0), kind, 0);
            pages.publish(at(8));
        });
        caught("ended by LAST, then more", Violation::NotBegun, |pages| {
            first(pages, 16);
            pages.put(at(24), Kind::Last, 8);
            pages.put(at(40), kind, 0);
            pages.publish(at(48));
        });
        caught("ended by ABORT, then more", Violation::NotBegun, |pages| {
            first(pages, 16);
            pages.put(at(24), Kind::Abort, 0);
            pages.put(at(32), kind, 0);
            pages.publish(at(40));
        });
    }
    for kind in [Kind::Whole, Kind::First] {
        caught("not ended", Violation::NotEnded, |pages| {
            first(pages, 100);
            pages.put(at(24), kind, 8);
            pages.put_raw(at(32), 100);
            pages.publish(at(48));
        });
    }
}

#[test]
fn impossible_ends() {
    for state in [2, 3, 0x100, u32::MAX] {
        caught("state", Violation::State(state), |pages| {
            pages.set(PRODUCER + STATE, state)
        });
    }
    caught("end within a message", Violation::FinInMessage, |pages| {
        first(pages, 100);
        pages.fin();
    });
    let pages = Pages::new(0);
    for arm in [false, true] {
        let (_, mut consumer) = pages.ends(START, LIMIT_BYTES);
        pages.fin();
        assert_eq!(drain(&mut consumer), Ok(Pull::Finished));
        pages.put(at(0), Kind::Whole, 0);
        pages.publish(at(8));
        let violation = Violation::AfterFin(at(8));
        if arm {
            assert_eq!(consumer.arm(), Err(violation));
        }
        assert_eq!(drain(&mut consumer), Err(violation));
    }
}

#[test]
fn impossible_producer_marks() {
    for mark in [1, 4, 7, u32::MAX] {
        let pages = Pages::new(0);
        let ends = || {
            let (_, mut consumer) = pages.ends(START, LIMIT_BYTES);
            pages.put(at(0), Kind::Whole, 0);
            pages.publish(at(8));
            pages.set(PRODUCER + MARK, mark);
            assert_eq!(consumer.pull(&mut Vec::new(), 1), Ok(Pull::Message(0)));
            consumer
        };
        assert_eq!(ends().release(), Err(Violation::Mark(mark)));
        assert_eq!(ends().arm(), Err(Violation::Mark(mark)));
    }
}

/// A sink that has an accomplice on the other side change the ring while it is asked.
struct Accomplice<'a> {
    pages: &'a Pages,
    record: u32,
    taken: Vec<u8>,
}

impl Sink for Accomplice<'_> {
    fn begin(&mut self, _total: usize) -> bool {
        // The header was checked; now make it a lie.
        self.pages.put(self.record, Kind::Whole, u32::MAX);
        true
    }

    fn put(&mut self, offset: usize, bytes: Fragment<'_>) {
        assert_eq!(offset, self.taken.len());
        bytes.append_to(&mut self.taken);
    }

    fn discard(&mut self) {}
}

#[test]
fn a_header_changed_after_it_was_checked_changes_nothing() {
    let pages = Pages::new(0);
    let (_, mut consumer) = pages.ends(START, LIMIT_BYTES);
    pages.put(at(0), Kind::Whole, 13);
    pages.publish(at(24));
    let mut sink = Accomplice {
        pages: &pages,
        record: at(0),
        taken: Vec::new(),
    };
    assert_eq!(consumer.pull(&mut sink, 5), Ok(Pull::Partial(5)));
    assert_eq!(consumer.pull(&mut sink, 5), Ok(Pull::Partial(5)));
    assert_eq!(consumer.pull(&mut sink, 5), Ok(Pull::Message(13)));
    assert_eq!(sink.taken.len(), 13);
}

/// Publishes a ring of records at a time, and one more whenever the consumer says anything to it.
struct Flood<'a> {
    pages: &'a Pages,
    index: u32,
    calls: usize,
}

impl Flood<'_> {
    fn more(&mut self) {
        for _ in 0..2 {
            self.pages.put(self.index, Kind::First, 1);
            self.pages.put_raw(self.index.wrapping_add(8), 2);
            self.pages.put(self.index.wrapping_add(24), Kind::Abort, 0);
            self.index = self.index.wrapping_add(32);
        }
        self.pages.publish(self.index);
        self.calls += 1;
    }
}

impl Sink for Flood<'_> {
    fn begin(&mut self, _total: usize) -> bool {
        self.more();
        true
    }

    fn put(&mut self, _offset: usize, bytes: Fragment<'_>) {
        bytes.append_to(&mut Vec::new());
    }

    fn discard(&mut self) {
        self.more();
    }
}

#[test]
fn a_flood_of_aborts_costs_one_record_a_call() {
    let pages = Pages::new(0);
    let (_, mut consumer) = pages.ends(START, LIMIT_BYTES);
    let mut sink = Flood {
        pages: &pages,
        index: START,
        calls: 0,
    };
    sink.more();
    for round in 0..20 {
        assert_eq!(consumer.pull(&mut sink, 100), Ok(Pull::Partial(1)));
        assert_eq!(consumer.pull(&mut sink, 100), Ok(Pull::Aborted));
        assert_eq!(sink.calls, 1 + 2 * (round + 1));
    }
}

// What a consumer can do to a producer.

#[test]
fn impossible_consumer_indices() {
    let lies = [
        at(1),
        at(4),
        at(24),
        at(32),
        at(4096),
        at(1 << 31),
        at(0u32.wrapping_sub(8)),
    ];
    for lie in lies {
        let pages = Pages::new(0);
        let ends = || {
            let (mut producer, _) = pages.ends(START, LIMIT_BYTES);
            push(&mut producer, b"sixteen bytes.");
            let _ = producer.publish().unwrap();
            pages.set(CONSUMER + INDEX, lie);
            producer
        };
        let violation = Violation::ConsumerIndex(lie);
        if lie == at(24) {
            // The truth, for once.
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
        assert_eq!(producer.peer_gone(), Err(violation));
        assert_eq!(producer.limit(), Err(violation));
        // A push asks only when room runs out, and by then 32 bytes have been published.
        if lie == at(32) {
            continue;
        }
        let mut producer = ends();
        assert_eq!(fill(&mut producer), Err(violation));
        assert!(pages.canaries_sing());
    }
}

fn fill(producer: &mut Producer) -> Result<Push, Violation> {
    for _ in 0..100 {
        let answer = producer.push(&[1; 100], &mut Progress::default(), usize::MAX)?;
        if answer != Push::Whole {
            return Ok(answer);
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
fn records_not_yet_published_cannot_have_been_read() {
    let pages = Pages::new(0);
    let (mut producer, _) = pages.ends(START, LIMIT_BYTES);
    assert_eq!(fill(&mut producer), Ok(Push::Full));
    // Most was shown on the way, at every quarter of the ring; the last records are still private.
    let shown = pages.get(PRODUCER + INDEX);
    assert!((1..producer.backlog() as u32).contains(&shown.wrapping_sub(START)));
    pages.set(CONSUMER + INDEX, shown.wrapping_add(8));
    assert_eq!(
        fill(&mut producer),
        Err(Violation::ConsumerIndex(shown.wrapping_add(8)))
    );
}

#[test]
fn impossible_consumer_marks_states_and_limits() {
    let pages = Pages::new(0);
    let ends = |offset, value| {
        let (mut producer, _) = pages.ends(START, LIMIT_BYTES);
        push(&mut producer, b"");
        pages.set(CONSUMER + offset, value);
        producer
    };
    for mark in [1, 4, 7, u32::MAX] {
        assert_eq!(ends(MARK, mark).publish(), Err(Violation::Mark(mark)));
        assert_eq!(ends(MARK, mark).arm(), Err(Violation::Mark(mark)));
    }
    for state in [2, 3, 0x100, u32::MAX] {
        assert_eq!(ends(STATE, state).peer_gone(), Err(Violation::State(state)));
        assert_eq!(ends(STATE, state).arm(), Err(Violation::State(state)));
    }
    for limit in [MESSAGE_MAX + 1, u32::MAX] {
        let (mut producer, _) = pages.ends(START, LIMIT_BYTES);
        pages.set(CONSUMER + LIMIT, limit);
        let answer = producer.push(b"", &mut Progress::default(), 9);
        assert_eq!(answer, Err(Violation::Limit(limit)));
    }
}

#[test]
fn a_consumer_that_never_reads_stops_the_sender_and_no_more() {
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
    assert!(pages.canaries_sing());
}

#[test]
fn a_lie_in_the_header_words_of_a_ring_in_use_is_never_read() {
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
