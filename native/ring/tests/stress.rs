//! Two threads, real sleeping, random sizes, contents checked.
#![cfg(not(loom))]

mod support;

use crossbeam_utils::sync::{Parker, Unparker};
use support::{Pages, message};
use tube_ring::{Consumer, MESSAGE_MAX, Producer, Progress, Pull, Push};

fn size_of_message(number: u64, ring: u64) -> usize {
    let dice = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
    (match dice % 16 {
        0 => 0,
        1..12 => dice / 16 % 300,
        12..15 => dice / 16 % ring,
        _ => dice / 16 % (3 * ring),
    }) as usize
}

fn write(mut producer: Producer, messages: u64, reader: &Unparker, sleeper: &Parker) {
    let ring_size = producer.capacity() as u64;
    let notify_if = |notify: bool| {
        if notify {
            reader.unpark();
        }
    };
    for number in 0..messages {
        let bytes = message(number, size_of_message(number, ring_size));
        let mut done = Progress::default();
        loop {
            match producer.push(&bytes, &mut done, 50_000).unwrap() {
                Push::Whole => break,
                Push::Budget => notify_if(producer.publish().unwrap()),
                Push::Full => {
                    let armed = producer.arm().unwrap();
                    notify_if(armed.notify);
                    if !armed.ready {
                        sleeper.park();
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        // Batches of various lengths.
        if number % 5 < 3 {
            notify_if(producer.publish().unwrap());
        }
    }
    producer.finish();
    reader.unpark();
}

fn read(mut consumer: Consumer, writer: &Unparker, sleeper: &Parker) -> u64 {
    let ring_size = consumer.capacity() as u64;
    let (mut number, mut bytes) = (0, Vec::new());
    loop {
        match consumer.pull(&mut bytes, 30_000).unwrap() {
            Pull::Message(length) => {
                assert_eq!(length, size_of_message(number, ring_size));
                assert_eq!(bytes, message(number, length), "message {number}");
                number += 1;
            }
            Pull::Partial(_) => {}
            Pull::Empty => {
                let armed = consumer.arm().unwrap();
                if armed.notify {
                    writer.unpark();
                }
                if !armed.ready {
                    sleeper.park();
                }
            }
            Pull::Finished => return number,
            other => panic!("{other:?}"),
        }
        if consumer.release_batch().unwrap() {
            writer.unpark();
        }
    }
}

#[test]
fn every_message_arrives_whole_and_in_order() {
    for (order, messages) in [(0, 10_000), (4, 2_000), (8, 300)] {
        let messages = u64::from(support::cases(messages));
        let pages = Pages::new(order);
        let (producer, consumer) = pages.ends(0u32.wrapping_sub(1 << 20), MESSAGE_MAX);
        let (writer, reader) = (Parker::new(), Parker::new());
        let (wake_writer, wake_reader) = (writer.unparker().clone(), reader.unparker().clone());
        std::thread::scope(|scope| {
            scope.spawn(move || write(producer, messages, &wake_reader, &writer));
            assert_eq!(read(consumer, &wake_writer, &reader), messages);
        });
        assert!(pages.canaries_intact());
    }
}
