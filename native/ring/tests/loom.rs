//! All interleavings of two ends over a ring of 64 bytes, by loom.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p tube-ring --release --test loom`
//!
//! loom runs every order of the two threads (up to a number of preemptions) with every value that
//! the C11 memory model lets a load return, fails on a data race of any payload byte, and reports
//! a deadlock if an end sleeps and is never notified: a lost wake-up.
#![cfg(loom)]

use std::sync::Arc;

use loom::sync::Notify;
use loom::thread;
use tube_ring::model::{Weakness, weaken};
use tube_ring::{Consumer, ControlPage, DataArea, Producer, Progress, Pull, Push};

/// Just below 2^32, so that every model wraps the index as well as the ring.
const START: u32 = 0u32.wrapping_sub(32);
const SIZE: usize = 64;

fn model(
    preemptions: usize,
    run: impl Fn(Producer, Consumer, Notification) + Send + Sync + 'static,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        let control = ControlPage::model(START);
        let (theirs, ours) = DataArea::model(SIZE);
        run(
            Producer::starting_at(control.clone(), theirs, START),
            Consumer::starting_at(control, ours, 1 << 20, START),
            Notification(Arc::new(Notify::new())),
        );
    });
}

/// One bit that stays set until a wait takes it, as of an event channel or a pipe with a byte.
/// Not loom's Arc, whose drop panics once more while a deadlock unwinds.
#[derive(Clone)]
struct Notification(Arc<Notify>);

impl Notification {
    fn send_if(&self, notify: bool) {
        if notify {
            self.0.notify();
        }
    }
}

/// Sends the messages, one publication each, sleeping while the ring is full.
fn send(producer: &mut Producer, messages: &[&[u8]], reader: &Notification, writer: &Notification) {
    for message in messages {
        let mut done = Progress::default();
        while producer.push(message, &mut done, usize::MAX).unwrap() == Push::Full {
            let armed = producer.arm().unwrap();
            reader.send_if(armed.notify);
            if !armed.ready {
                writer.0.wait();
            }
        }
        reader.send_if(producer.publish().unwrap());
    }
}

/// Receives until `count` messages are there, sleeping while the ring is empty.
fn receive(
    consumer: &mut Consumer,
    count: usize,
    reader: &Notification,
    writer: &Notification,
) -> Vec<Vec<u8>> {
    let (mut messages, mut message) = (Vec::new(), Vec::new());
    while messages.len() < count {
        match consumer.pull(&mut message, usize::MAX).unwrap() {
            Pull::Message(_) => {
                messages.push(message.clone());
                writer.send_if(consumer.release_batch().unwrap());
            }
            Pull::Partial(_) => writer.send_if(consumer.release_batch().unwrap()),
            Pull::Empty => {
                let armed = consumer.arm().unwrap();
                writer.send_if(armed.notify);
                if !armed.ready {
                    reader.0.wait();
                }
            }
            other => panic!("{other:?}"),
        }
    }
    messages
}

#[test]
fn published_bytes_are_seen_whole_and_in_order() {
    model(3, |mut producer, mut consumer, _| {
        let sender = thread::spawn(move || {
            for message in [&b"first message"[..], b"second"] {
                assert_eq!(
                    producer.push(message, &mut Progress::default(), 64),
                    Ok(Push::Whole)
                );
                assert_eq!(producer.publish(), Ok(false));
            }
            producer.finish();
        });
        let (mut got, mut message, mut finished) = (Vec::new(), Vec::new(), false);
        let mut pull = |consumer: &mut Consumer| {
            let outcome = consumer.pull(&mut message, 64).unwrap();
            assert!(
                !finished || outcome == Pull::Finished,
                "data after the end of data"
            );
            finished = outcome == Pull::Finished;
            match outcome {
                Pull::Message(_) => got.push(message.clone()),
                Pull::Empty | Pull::Finished => {}
                other => panic!("{other:?}"),
            }
            outcome
        };
        for _ in 0..3 {
            let _ = pull(&mut consumer);
        }
        sender.join().unwrap();
        // Everything that the thread did is visible now.
        while pull(&mut consumer) != Pull::Finished {}
        assert_eq!(got, [&b"first message"[..], b"second"]);
    });
}

#[test]
fn room_given_back_is_written_again_without_a_race() {
    model(2, |mut producer, mut consumer, _| {
        let sender = thread::spawn(move || {
            let mut sent = 0u8;
            for _ in 0..4 {
                let bytes = [sent; 20];
                match producer.push(&bytes, &mut Progress::default(), 64).unwrap() {
                    Push::Whole => sent += 1,
                    Push::Full => thread::yield_now(),
                    other => panic!("{other:?}"),
                }
                let _ = producer.publish().unwrap();
            }
            sent
        });
        let (mut expected, mut message) = (0u8, Vec::new());
        let mut take = |consumer: &mut Consumer| {
            let pulled = consumer.pull(&mut message, 64).unwrap();
            if pulled != Pull::Empty {
                assert_eq!(message, [expected; 20]);
                expected += 1;
                let _ = consumer.release().unwrap();
            }
            pulled
        };
        for _ in 0..3 {
            let _ = take(&mut consumer);
        }
        let sent = sender.join().unwrap();
        while take(&mut consumer) != Pull::Empty {}
        assert_eq!(expected, sent);
    });
}

fn sleeping_reader() {
    model(3, |mut producer, mut consumer, reader| {
        let to_reader = reader.clone();
        let writer = Notification(Arc::new(Notify::new()));
        let to_writer = writer.clone();
        let sender =
            thread::spawn(move || send(&mut producer, &[b"one", b"two"], &to_reader, &to_writer));
        assert_eq!(
            receive(&mut consumer, 2, &reader, &writer),
            [b"one", b"two"]
        );
        sender.join().unwrap();
    });
}

fn sleeping_writer() {
    model(3, |mut producer, mut consumer, writer| {
        // Full before the threads start: the writer has to sleep or see the room in time.
        for _ in 0..2 {
            let pushed = producer.push(&[7; 24], &mut Progress::default(), 64);
            assert_eq!(pushed, Ok(Push::Whole));
        }
        assert_eq!(producer.publish(), Ok(false));
        let to_writer = writer.clone();
        let sender = thread::spawn(move || {
            let to_reader = Notification(Arc::new(Notify::new()));
            send(&mut producer, &[&[7; 24]], &to_reader, &to_writer);
        });
        // Takes two messages and stops.
        let mut message = Vec::new();
        for _ in 0..2 {
            assert_eq!(consumer.pull(&mut message, 64), Ok(Pull::Message(24)));
            writer.send_if(consumer.release_batch().unwrap());
        }
        sender.join().unwrap();
    });
}

#[test]
fn a_reader_is_always_woken() {
    sleeping_reader();
}

#[test]
fn a_writer_is_always_woken() {
    sleeping_writer();
}

#[test]
fn a_message_larger_than_the_ring_streams_between_sleepers() {
    model(2, |mut producer, mut consumer, reader| {
        let writer = Notification(Arc::new(Notify::new()));
        let (to_reader, to_writer) = (reader.clone(), writer.clone());
        let long: &[u8] = b"forty bytes: more than half the ring is.";
        let sender = thread::spawn(move || send(&mut producer, &[long], &to_reader, &to_writer));
        assert_eq!(receive(&mut consumer, 1, &reader, &writer), [long]);
        sender.join().unwrap();
    });
}

// Counter-proofs: each half of the wake-up order is necessary, and this model detects its absence.

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fence_a_reader_sleeps_for_ever() {
    weaken(Weakness::NoFence);
    sleeping_reader();
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fence_a_writer_sleeps_for_ever() {
    weaken(Weakness::NoFence);
    sleeping_writer();
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_re_check_a_reader_sleeps_for_ever() {
    weaken(Weakness::LookFirst);
    sleeping_reader();
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_re_check_a_writer_sleeps_for_ever() {
    weaken(Weakness::LookFirst);
    sleeping_writer();
}
