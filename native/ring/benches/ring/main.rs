//! The ring alone, between two threads that never sleep, compared with upper bounds: memcpy of the
//! same blocks, and two cores that pass one word. `bin/bench ring` runs it; `bench/README.md`
//! describes the output.

mod host;
mod report;

use host::Pages;
use report::{Line, Options};
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tube_ring::{Consumer, PAGE, Producer, Progress, Pull, Push};

const ORDER: u32 = 8;
const BLOCKS: [(&str, usize); 4] = [
    ("ring_64B", 64),
    ("ring_1KiB", 1024),
    ("ring_4KiB", 4096),
    ("ring_64KiB", 64 << 10),
];
/// Round trips of one round.
const TRIPS: usize = 20_000;

fn main() {
    let options = Options::parse();
    for (case, block) in BLOCKS {
        let rounds =
            options.rounds(|| (streamed(block, options.time), copied(block, options.time)));
        options.print(&Line::new(case, "bytes_per_s", "memcpy", &rounds));
        let rounds =
            options.rounds(|| (streamed(block, options.time), spread(block, options.time)));
        options.print(&Line::new(case, "bytes_per_s", "memcpy_1MiB", &rounds));
    }
    let rounds = options.rounds(|| (ring_trip(), word_trip()));
    options.print(&Line::new(
        "ring_spin_rtt_p50",
        "ns",
        "two_atomics",
        &rounds,
    ));
}

/// Bytes per second through a ring, each copied in by one thread and out by another.
fn streamed(block: usize, time: Duration) -> f64 {
    let pages = Pages::new(ORDER);
    let (mut producer, mut consumer) = pages.ends();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let message = vec![0xA5; block];
            let mut backoff = Backoff::default();
            while !stop.load(Ordering::Relaxed) {
                match push(&mut producer, &message) {
                    true => backoff = Backoff::default(),
                    false => backoff.snooze(),
                }
            }
        });
        let mut into = Vec::with_capacity(block);
        let mut backoff = Backoff::default();
        let began = Instant::now();
        let mut bytes = 0;
        while began.elapsed() < time {
            for _ in 0..64 {
                match pull(&mut consumer, &mut into) {
                    Some(got) => {
                        bytes += got;
                        backoff = Backoff::default();
                    }
                    None => backoff.snooze(),
                }
            }
        }
        let rate = bytes as f64 / began.elapsed().as_secs_f64();
        stop.store(true, Ordering::Relaxed);
        rate
    })
}

/// Bytes per second from one private block to another.
fn copied(block: usize, time: Duration) -> f64 {
    copied_into(block, block, time)
}

/// The same, walking through as much memory as the ring has, as one end does.
fn spread(block: usize, time: Duration) -> f64 {
    copied_into(block, PAGE << ORDER, time)
}

fn copied_into(block: usize, size: usize, time: Duration) -> f64 {
    let from = vec![0xA5u8; block];
    let mut into = vec![0u8; size];
    let began = Instant::now();
    let (mut bytes, mut place) = (0, 0);
    while began.elapsed() < time {
        for _ in 0..64 {
            black_box(&mut into[place..][..block]).copy_from_slice(black_box(&from[..]));
            bytes += block;
            place = (place + block) % size;
        }
    }
    bytes as f64 / began.elapsed().as_secs_f64()
}

/// Nanoseconds of a round trip of one message: the median.
fn ring_trip() -> f64 {
    let (there, back) = (Pages::new(ORDER), Pages::new(ORDER));
    let (mut request_tx, mut request_rx) = there.ends();
    let (mut reply_tx, mut reply_rx) = back.ends();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut message = Vec::new();
            for _ in 0..TRIPS {
                await_message(&mut request_rx, &mut message);
                assert!(push(&mut reply_tx, &message));
            }
        });
        let mut message = Vec::new();
        median_trip(|| {
            assert!(push(&mut request_tx, b"12345678"));
            await_message(&mut reply_rx, &mut message);
        })
    })
}

/// The same of one word, in a cache line of its own in each direction.
fn word_trip() -> f64 {
    #[repr(align(128))]
    struct Word(AtomicU32);
    let (there, back) = (Word(AtomicU32::new(0)), Word(AtomicU32::new(0)));
    let await_word = |word: &AtomicU32, value: u32| {
        let mut backoff = Backoff::default();
        while word.load(Ordering::Acquire) != value {
            backoff.snooze();
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 1..=TRIPS as u32 {
                await_word(&there.0, n);
                back.0.store(n, Ordering::Release);
            }
        });
        let mut n = 0;
        median_trip(|| {
            n += 1;
            there.0.store(n, Ordering::Release);
            await_word(&back.0, n);
        })
    })
}

fn median_trip(mut trip: impl FnMut()) -> f64 {
    let mut took: Vec<_> = (0..TRIPS)
        .map(|_| {
            let began = Instant::now();
            trip();
            began.elapsed().as_nanos()
        })
        .collect();
    took.sort_unstable();
    took[TRIPS / 2] as f64
}

/// Spins, and yields now and then: on a machine with too few cores the other end may need this one.
#[derive(Default)]
struct Backoff(u32);

impl Backoff {
    fn snooze(&mut self) {
        self.0 += 1;
        match self.0 % 1000 {
            0 => thread::yield_now(),
            _ => spin_loop(),
        }
    }
}

/// False when the ring is full.
fn push(producer: &mut Producer, message: &[u8]) -> bool {
    // As a link does: the fast path first.
    let whole = producer.put(message) || {
        let pushed = producer.push(message, &mut Progress::default(), usize::MAX);
        pushed.expect("the other end keeps the protocol") == Push::Whole
    };
    // The peer never sleeps, so ignore a notification for an event index of 4 GiB ago. The
    // comparison is part of the ring's cost all the same.
    _ = producer
        .publish()
        .expect("the other end keeps the protocol");
    whole
}

/// The bytes of the next message, if there is one.
fn pull(consumer: &mut Consumer, into: &mut Vec<u8>) -> Option<usize> {
    match consumer.pull(into, usize::MAX) {
        Ok(Pull::Message(bytes)) => {
            black_box(into.last());
            _ = consumer
                .release_batch()
                .expect("the other end keeps the protocol");
            Some(bytes)
        }
        Ok(Pull::Empty) => None,
        other => panic!("{other:?}"),
    }
}

fn await_message(consumer: &mut Consumer, into: &mut Vec<u8>) {
    let mut backoff = Backoff::default();
    while pull(consumer, into).is_none() {
        backoff.snooze();
    }
}
