//! Random honest ends against a plain queue: messages arrive whole and in order, whatever the
//! sizes, budgets and interleaving; and a run in which each end sleeps until it is notified always
//! ends.
#![cfg(not(loom))]

mod support;

use std::collections::VecDeque;

use proptest::prelude::*;
use support::{Pages, message};
use tube_ring::{Consumer, MESSAGE_MAX, Producer, Progress, Pull, Push};

/// One step of one end.
#[derive(Clone, Debug)]
enum Step {
    /// Push the message in progress, or begin the next one.
    Push {
        budget: usize,
    },
    /// Put the next message.
    Put,
    Publish,
    /// Give up the message in progress.
    Abort,
    Pull {
        budget: usize,
    },
    Release,
    ReleaseBatch,
    ArmWriter,
    ArmReader,
    Disarm,
}

fn step(size: usize) -> impl Strategy<Value = Step> {
    let budget = prop_oneof![0..64usize, 1..=2 * size, Just(usize::MAX)];
    prop_oneof![
        8 => budget.clone().prop_map(|budget| Step::Push { budget }),
        4 => Just(Step::Put),
        4 => Just(Step::Publish),
        1 => Just(Step::Abort),
        8 => budget.prop_map(|budget| Step::Pull { budget }),
        2 => Just(Step::Release),
        4 => Just(Step::ReleaseBatch),
        1 => Just(Step::ArmWriter),
        2 => Just(Step::ArmReader),
        1 => Just(Step::Disarm),
    ]
}

fn length(size: usize) -> impl Strategy<Value = usize> {
    prop_oneof![
        Just(0),
        0..64usize,
        size / 2 - 16..size / 2 + 16,
        size - 24..size + 24,
        0..=4 * size,
    ]
}

/// Starts on both sides of every wrap that matters.
fn start() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0),
        (0u32..4096).prop_map(|eights| 0u32.wrapping_sub(8 * eights)),
        (0u32..4096).prop_map(|eights| (1u32 << 31).wrapping_sub(8 * eights)),
    ]
}

/// Both ends, the queue between them, and which of them sleep.
struct Pair {
    producer: Producer,
    consumer: Consumer,
    /// Lengths still to be sent; the front one may be in progress.
    to_send: VecDeque<usize>,
    number: u64,
    /// The message in progress, made once.
    current: Option<Vec<u8>>,
    done: Progress,
    /// Whole in the ring and not yet received.
    queue: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
    writer_sleeps: bool,
    reader_sleeps: bool,
}

impl Pair {
    fn push(&mut self, budget: usize) -> Push {
        let Some(&length) = self.to_send.front() else {
            return Push::Whole;
        };
        let before = self.done.sent();
        let bytes = self
            .current
            .get_or_insert_with(|| message(self.number, length));
        let (front, back) = bytes.split_at(length / 3);
        let outcome = self
            .producer
            .push_parts(&[front, back], &mut self.done, budget)
            .unwrap();
        assert!((self.done.sent() - before) as usize <= budget);
        match outcome {
            Push::Whole => {
                assert_eq!(self.done.sent() as usize, length);
                self.queue.extend(self.current.take());
                self.next();
            }
            Push::Budget | Push::Full => assert!((self.done.sent() as usize) < length.max(1)),
            other => panic!("{other:?}"),
        }
        outcome
    }

    /// `false`: the fast path is not possible, and nothing has happened.
    fn put(&mut self) -> bool {
        let Some(&length) = self.to_send.front() else {
            return false;
        };
        let bytes = message(self.number, length);
        let put = self.producer.put(&bytes);
        if put {
            assert!(
                self.current.is_none() || self.done.sent() == 0,
                "in between"
            );
            self.queue.push_back(bytes);
            self.next();
        }
        put
    }

    fn next(&mut self) {
        self.to_send.pop_front();
        self.number += 1;
        self.current = None;
        self.done = Progress::default();
    }

    fn pull(&mut self, budget: usize) -> Pull {
        let outcome = self.consumer.pull(&mut self.buffer, budget).unwrap();
        match outcome {
            Pull::Message(length) => {
                assert_eq!(self.buffer.len(), length);
                assert_eq!(Some(&self.buffer), self.queue.pop_front().as_ref());
            }
            Pull::Partial(bytes) => assert!(bytes <= budget),
            Pull::Aborted | Pull::Empty => {}
            other => panic!("{other:?}"),
        }
        outcome
    }

    fn publish(&mut self) {
        if self.producer.publish().unwrap() {
            self.reader_sleeps = false;
        }
    }

    fn arm_writer(&mut self) {
        let armed = self.producer.arm().unwrap();
        self.reader_sleeps &= !armed.notify;
        self.writer_sleeps = !armed.ready;
    }

    fn arm_reader(&mut self) {
        let armed = self.consumer.arm().unwrap();
        self.writer_sleeps &= !armed.notify;
        self.reader_sleeps = !armed.ready;
    }

    fn random(&mut self, step: &Step) {
        match *step {
            Step::Push { budget } => {
                let _ = self.push(budget);
            }
            Step::Put => _ = self.put(),
            Step::Publish => self.publish(),
            Step::Abort => {
                let begun = self.done.sent() > 0;
                self.producer.abort();
                if begun {
                    // Notified in any case.
                    self.publish();
                    self.reader_sleeps = false;
                    self.next();
                }
            }
            Step::Pull { budget } => {
                let _ = self.pull(budget);
            }
            Step::Release => {
                self.writer_sleeps &= !self.consumer.release().unwrap();
            }
            Step::ReleaseBatch => {
                self.writer_sleeps &= !self.consumer.release_batch().unwrap();
            }
            Step::ArmWriter => self.arm_writer(),
            Step::ArmReader => self.arm_reader(),
            // A reader that is awake withdraws its event index.
            Step::Disarm => {
                self.consumer.disarm();
                self.reader_sleeps = false;
            }
        }
    }

    /// Runs both ends as in production: each until it cannot go on, then asleep until notified.
    fn run_to_the_end(&mut self) {
        (self.writer_sleeps, self.reader_sleeps) = (false, false);
        loop {
            if !self.writer_sleeps {
                // The fast path for every other message, where possible.
                match self.number.is_multiple_of(2) && self.put() {
                    true => self.publish(),
                    false => match self.push(10_000) {
                        Push::Full => self.arm_writer(),
                        _ => self.publish(),
                    },
                }
            }
            if self.to_send.is_empty() && self.queue.is_empty() && self.done.sent() == 0 {
                return;
            }
            if !self.reader_sleeps {
                match self.pull(5_000) {
                    Pull::Empty => self.arm_reader(),
                    _ => self.writer_sleeps &= !self.consumer.release_batch().unwrap(),
                }
            }
            assert!(
                !(self.writer_sleeps && self.reader_sleeps),
                "both sleep: a lost wake-up"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: support::cases(250), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_ring_is_a_queue(
        (order, lengths, steps) in (0u32..=3).prop_flat_map(|order| {
            let size = 4096usize << order;
            (
                Just(order),
                prop::collection::vec(length(size), 1..24),
                prop::collection::vec(step(size), 0..200),
            )
        }),
        start in start(),
    ) {
        let pages = Pages::new(order);
        let (producer, consumer) = pages.ends(start, MESSAGE_MAX);
        let mut pair = Pair {
            producer,
            consumer,
            to_send: lengths.into(),
            number: 0,
            current: None,
            done: Progress::default(),
            queue: VecDeque::new(),
            buffer: Vec::new(),
            writer_sleeps: false,
            reader_sleeps: false,
        };
        for step in &steps {
            pair.random(step);
        }
        pair.run_to_the_end();
        pair.publish();
        let (sent, got) = (pair.producer.counters(), pair.consumer.counters());
        prop_assert_eq!((sent.messages, sent.bytes), (got.messages, got.bytes));
        prop_assert!(pages.canaries_intact());
    }
}
