//! A hostile producer against a consumer.

use tube_ring::wire::{EVENT_INDEX, Kind, PRODUCER, STATE};
use tube_ring::{Armed, Fragment, MESSAGE_MAX, Pull, Sink, Violation};

use crate::support::Pages;
use crate::{LIMIT_BYTES, START, at, drain};

/// Expects `violation` from a pull after the peer has done `write`, and from every later call.
fn expect_violation(name: &str, violation: Violation, write: impl FnOnce(&Pages)) {
    let pages = Pages::new(0);
    let (_, mut consumer) = pages.ends(START, LIMIT_BYTES);
    write(&pages);
    assert_eq!(drain(&mut consumer), Err(violation), "{name}");
    // Even if what the peer writes now is correct.
    let (_, _fresh) = pages.ends(START, LIMIT_BYTES);
    assert_eq!(drain(&mut consumer), Err(violation), "{name}, later");
    assert_eq!(consumer.arm(), Err(violation), "{name}, arm");
    assert_eq!(consumer.release(), Err(violation), "{name}, release");
    assert_eq!(
        consumer.peer_finished(),
        Err(violation),
        "{name}, peer_finished"
    );
    assert!(pages.canaries_intact(), "{name}");
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
        expect_violation("index", Violation::ProducerIndex(index), |pages| {
            pages.put(at(0), Kind::Whole, 0);
            pages.publish(index);
        });
    }
}

#[test]
fn an_index_that_goes_back_or_overtakes_what_was_released() {
    let pages = Pages::new(0);
    for index in [at(8), at(4096 + 8)] {
        let (_, mut consumer) = pages.ends(START, LIMIT_BYTES);
        pages.put(at(0), Kind::Whole, 0);
        pages.put(at(8), Kind::Whole, 0);
        pages.publish(at(16));
        assert_eq!(consumer.pull(&mut Vec::new(), 1), Ok(Pull::Message(0)));
        pages.publish(index);
        // The index was at 16; 8 bytes were read, but nothing was released before `arm`.
        let expected = if index == at(8) {
            Err(Violation::ProducerIndex(index))
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
        expect_violation("flags", Violation::Flags(flags), |pages| {
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
            expect_violation("length", Violation::Length(length), |pages| {
                pages.put(at(0), kind, length);
                pages.put_raw(at(8), 5000);
                pages.publish(at(64));
            });
        }
    }
    expect_violation(
        "longer than a full ring",
        Violation::Length(4089),
        |pages| {
            pages.put(at(0), Kind::Whole, 4089);
            pages.publish(at(4096));
        },
    );
    expect_violation(
        "FIRST without room for its total",
        Violation::Length(0),
        |pages| {
            pages.put(at(0), Kind::First, 0);
            pages.publish(at(8));
        },
    );
    expect_violation("ABORT with payload", Violation::Length(1), |pages| {
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
        expect_violation("total", Violation::Total(total), |pages| {
            first(pages, total)
        });
    }
    for total in [LIMIT_BYTES + 1, MESSAGE_MAX + 1, u32::MAX] {
        expect_violation("limit", Violation::TooLong(total), |pages| {
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
        expect_violation("sum", violation, |pages| {
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
    expect_violation("empty FIRST", Violation::EmptyFragment, |pages| {
        pages.put(at(0), Kind::First, 0);
        pages.put_raw(at(8), 24);
        pages.publish(at(16));
    });
}

#[test]
fn records_out_of_order() {
    for kind in [Kind::More, Kind::Last, Kind::Abort] {
        expect_violation("not begun", Violation::NotBegun, |pages| {
            pages.put(at(0), kind, 0);
            pages.publish(at(8));
        });
        expect_violation("ended by LAST, then more", Violation::NotBegun, |pages| {
            first(pages, 16);
            pages.put(at(24), Kind::Last, 8);
            pages.put(at(40), kind, 0);
            pages.publish(at(48));
        });
        expect_violation("ended by ABORT, then more", Violation::NotBegun, |pages| {
            first(pages, 16);
            pages.put(at(24), Kind::Abort, 0);
            pages.put(at(32), kind, 0);
            pages.publish(at(40));
        });
    }
    for kind in [Kind::Whole, Kind::First] {
        expect_violation("not ended", Violation::NotEnded, |pages| {
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
        expect_violation("state", Violation::State(state), |pages| {
            pages.set(PRODUCER + STATE, state)
        });
    }
    expect_violation("end within a message", Violation::FinInMessage, |pages| {
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
fn impossible_producer_event_indices() {
    for event_index in [1, 4, 7, u32::MAX] {
        let pages = Pages::new(0);
        let ends = || {
            let (_, mut consumer) = pages.ends(START, LIMIT_BYTES);
            pages.put(at(0), Kind::Whole, 0);
            pages.publish(at(8));
            pages.set(PRODUCER + EVENT_INDEX, event_index);
            assert_eq!(consumer.pull(&mut Vec::new(), 1), Ok(Pull::Message(0)));
            consumer
        };
        assert_eq!(ends().release(), Err(Violation::EventIndex(event_index)));
        assert_eq!(ends().arm(), Err(Violation::EventIndex(event_index)));
    }
}

/// A sink during whose calls the peer changes the ring.
struct Changing<'a> {
    pages: &'a Pages,
    record: u32,
    taken: Vec<u8>,
}

impl Sink for Changing<'_> {
    fn begin(&mut self, _total: usize) -> bool {
        // The header was checked; now change it.
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
    let mut sink = Changing {
        pages: &pages,
        record: at(0),
        taken: Vec::new(),
    };
    assert_eq!(consumer.pull(&mut sink, 5), Ok(Pull::Partial(5)));
    assert_eq!(consumer.pull(&mut sink, 5), Ok(Pull::Partial(5)));
    assert_eq!(consumer.pull(&mut sink, 5), Ok(Pull::Message(13)));
    assert_eq!(sink.taken.len(), 13);
}

/// Publishes more records whenever the consumer calls it.
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
fn a_flood_of_aborts_costs_one_record_per_call() {
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
