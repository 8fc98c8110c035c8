//! A peer that writes anything anywhere in the shared pages: each call returns data or a violation,
//! in bounded work, and touches nothing else.
#![cfg(not(loom))]

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use support::Pages;
use tube_ring::wire::{CONSUMER, EVENT_INDEX, INDEX, Kind, LIMIT, PRODUCER, STATE, header};
use tube_ring::{Consumer, Direction, Fragment, PAGE, Producer, Progress, Pull, Push, Role, Sink};

const LIMIT_BYTES: u32 = 20_000;

/// Checks everything that a sink can rely on.
#[derive(Default)]
struct Strict {
    total: Option<usize>,
    got: Vec<u8>,
}

impl Sink for Strict {
    fn begin(&mut self, total: usize) -> bool {
        assert!(total <= LIMIT_BYTES as usize);
        assert!(self.total.is_none(), "two messages in progress");
        self.total = Some(total);
        // Sometimes there is no memory.
        if total % 7 == 6 {
            self.total = None;
            return false;
        }
        true
    }

    fn put(&mut self, offset: usize, bytes: Fragment<'_>) {
        assert_eq!(offset, self.got.len());
        assert!(!bytes.is_empty());
        bytes.append_to(&mut self.got);
        assert!(self.got.len() <= self.total.expect("a message in progress"));
    }

    fn discard(&mut self) {
        assert!(self.total.take().is_some());
        self.got.clear();
    }
}

impl Strict {
    fn pull(&mut self, consumer: &mut Consumer, budget: usize) -> bool {
        match consumer.pull(self, budget) {
            Ok(Pull::Message(length)) => {
                assert_eq!((self.total.take(), self.got.len()), (Some(length), length));
                self.got.clear();
            }
            Ok(Pull::Partial(bytes)) => assert!(bytes <= budget),
            Ok(_) => {}
            Err(_) => return false,
        }
        true
    }
}

#[derive(Clone, Debug)]
enum Action {
    /// Any word of the page.
    Word(usize, u32),
    /// A word of an end's line, moved a little or replaced.
    Near(usize, u32),
    /// Any eight bytes of data.
    Data(u32, u64),
    /// A plausible header at the producer's index, and the index moved past it.
    Record(Kind, u32, u32),
    Push {
        length: usize,
        budget: usize,
    },
    Abort,
    Publish,
    Finish,
    ArmWriter,
    Pull {
        budget: usize,
    },
    Release,
    Leave,
    ArmReader,
    Query,
}

fn action() -> impl Strategy<Value = Action> {
    let line_word = prop::sample::select(vec![
        PRODUCER + INDEX,
        PRODUCER + EVENT_INDEX,
        PRODUCER + STATE,
        CONSUMER + INDEX,
        CONSUMER + EVENT_INDEX,
        CONSUMER + STATE,
        CONSUMER + LIMIT,
    ]);
    let kind = prop::sample::select(vec![
        Kind::Whole,
        Kind::First,
        Kind::More,
        Kind::Last,
        Kind::Abort,
    ]);
    let near = prop_oneof![
        (0u32..64).prop_map(|eights| 8 * eights),
        (0u32..64).prop_map(|eights| 0u32.wrapping_sub(8 * eights)),
        0..4u32,
        any::<u32>(),
    ];
    let budget = prop_oneof![0..64usize, 0..10_000usize, Just(usize::MAX)];
    prop_oneof![
        1 => ((0..PAGE / 4), any::<u32>()).prop_map(|(word, value)| Action::Word(4 * word, value)),
        2 => (line_word, near).prop_map(|(word, by)| Action::Near(word, by)),
        2 => ((0u32..1024), any::<u64>()).prop_map(|(at, value)| Action::Data(8 * at, value)),
        6 => (kind, 0u32..200, 0u32..64).prop_map(|(kind, length, total)| Action::Record(kind, length, total)),
        8 => (0..6000usize, budget.clone()).prop_map(|(length, budget)| Action::Push { length, budget }),
        1 => Just(Action::Abort),
        4 => Just(Action::Publish),
        1 => Just(Action::Finish),
        2 => Just(Action::ArmWriter),
        12 => budget.prop_map(|budget| Action::Pull { budget }),
        4 => Just(Action::Release),
        1 => Just(Action::Leave),
        2 => Just(Action::ArmReader),
        1 => Just(Action::Query),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::cases(400), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn corrupted_pages_do_no_harm(
        actions in prop::collection::vec(action(), 1..150),
        order in 0u32..=1,
        start in prop_oneof![Just(0u32), Just(0u32.wrapping_sub(4096))],
    ) {
        let pages = Pages::new(order);
        let (mut producer, mut consumer) = pages.ends(start, LIMIT_BYTES);
        let (mut sink, mut done) = (Strict::default(), Progress::default());
        let zeroes = vec![0; 6000];
        let mut length = 0;
        for action in actions {
            match action {
                Action::Word(offset, value) => pages.set(offset, value),
                Action::Near(offset, by) => pages.set(offset, pages.get(offset).wrapping_add(by)),
                Action::Data(index, value) => pages.put_raw(index, value),
                Action::Record(kind, bytes, total) => {
                    let index = pages.get(PRODUCER + INDEX) & !7;
                    pages.put(index, kind, bytes);
                    pages.put_raw(index.wrapping_add(8), (bytes + total).into());
                    let head = if kind == Kind::First { 16 } else { 8 };
                    pages.publish(index.wrapping_add(head + bytes.next_multiple_of(8)));
                }
                Action::Push { length: next, budget } => {
                    if done.sent() == 0 {
                        length = next;
                    }
                    if let Ok(Push::Whole | Push::Aborted) =
                        producer.push(&zeroes[..length], &mut done, budget)
                    {
                        done = Progress::default();
                    }
                }
                Action::Abort => producer.abort(),
                Action::Publish => {
                    let _ = producer.publish();
                }
                Action::Finish => producer.finish(),
                Action::ArmWriter => {
                    let _ = producer.arm();
                }
                Action::Pull { budget } => {
                    let _ = sink.pull(&mut consumer, budget);
                }
                Action::Release => {
                    let _ = consumer.release();
                }
                Action::Leave => consumer.leave(),
                Action::ArmReader => {
                    let _ = consumer.arm();
                }
                Action::Query => {
                    let _ = (producer.has_room(), consumer.peer_finished(), producer.limit());
                    let _ = pages.control().check(Direction::Tx, support::NONCE);
                    let _ = pages.control().live(Role::Nock);
                }
            }
            prop_assert!(producer.backlog() <= producer.capacity());
            prop_assert!(consumer.backlog() <= consumer.capacity());
        }
        prop_assert!(pages.canaries_intact());
    }
}

/// The same while another thread corrupts the pages *during* the calls. It writes only words of the
/// lines and headers, with atomics: payload bytes are copied and control nothing.
#[test]
fn corruption_by_another_thread_does_no_harm() {
    let rounds = u64::from(support::cases(150));
    const TIME_LIMIT: Duration = Duration::from_secs(60);
    let pages = Pages::new(0);
    let stop = AtomicBool::new(false);
    let mut random = 1u64;
    let mut next = move || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let (mut violations, mut messages) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let words = [
                PRODUCER + INDEX,
                PRODUCER + EVENT_INDEX,
                CONSUMER + INDEX,
                CONSUMER + EVENT_INDEX,
            ];
            while !stop.load(Ordering::Relaxed) {
                let dice = next();
                let word = words[(dice % 4) as usize];
                let by = (dice >> 8) as u32 % 32 * 8;
                match dice >> 60 {
                    0..6 => pages.set(word, pages.get(word).wrapping_add(by)),
                    6 => pages.set(word, (dice >> 16) as u32),
                    _ => {
                        let flags = [
                            Kind::Whole,
                            Kind::First,
                            Kind::More,
                            Kind::Last,
                            Kind::Abort,
                        ];
                        let kind = flags[(dice >> 20) as usize % 5];
                        pages.put_raw(by * 16, header(kind, (dice >> 32) as u32 % 300));
                    }
                }
            }
        });
        let started = Instant::now();
        // On a busy machine the other thread may start late.
        for round in 0.. {
            let both = violations > 0 && messages > 0;
            if round >= rounds && (both || started.elapsed() > TIME_LIMIT) {
                break;
            }
            let (mut producer, mut consumer) = pages.ends(0u32.wrapping_sub(1024), LIMIT_BYTES);
            let mut sink = Strict::default();
            for _ in 0..200 {
                messages += u64::from(one_of_each(&mut producer, &mut consumer, &mut sink));
            }
            violations += u64::from(consumer.release().is_err());
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(pages.canaries_intact());
    assert!(violations > 0, "no corruption was detected");
    assert!(messages > 0, "no call ever succeeded");
}

fn one_of_each(producer: &mut Producer, consumer: &mut Consumer, sink: &mut Strict) -> bool {
    // No payload: its bytes would race with the headers that the other thread writes.
    let pushed = producer.push(b"", &mut Progress::default(), 0);
    let _ = producer.publish();
    let _ = producer.arm();
    let _ = sink.pull(consumer, 0);
    let _ = consumer.release_batch();
    let _ = consumer.arm();
    pushed == Ok(Push::Whole)
}
