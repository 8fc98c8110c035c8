//! What honest ends see: whole messages, fragments, budgets, the end of data, counters.
#![cfg(not(loom))]

mod support;

use support::{ASLEEP, AWAKE, LIMIT, NONCE, Pages, message, push};
use tube_ring::{
    Counters, Direction, Fragment, Live, MESSAGE_MAX, ORDER_MAX, Progress, Pull, Push, Role, Sink,
};

#[test]
fn the_mapper_reads_what_the_owner_wrote() {
    for order in 0..=ORDER_MAX {
        let pages = Pages::new(order);
        let geometry = pages.control().check(Direction::Tx, NONCE).unwrap();
        assert_eq!(geometry.order, order);
        assert_eq!(geometry.features, 0);
        assert_eq!(
            geometry.grefs,
            (100..100 + (1 << order)).collect::<Vec<u32>>()
        );
        assert!(pages.canaries_intact());
    }
}

#[test]
fn live_bytes_belong_to_the_tx_page() {
    let pages = Pages::new(0);
    let control = pages.control();
    assert_eq!(control.live(Role::Tip), Ok(Live::Here));
    assert_eq!(control.live(Role::Nock), Ok(Live::Awaited));
    control.set_live(Role::Nock, Live::Here);
    assert_eq!(control.live(Role::Nock), Ok(Live::Here));
    // As the kernel's unmap-notify does.
    pages
        .control_byte(tube_ring::LIVE_TIP)
        .store(0, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(control.live(Role::Tip), Ok(Live::Gone));
}

#[test]
fn messages_are_visible_only_after_publish() {
    let pages = Pages::new(0);
    let (mut producer, mut consumer) = pages.ends(0, LIMIT);
    let mut got = Vec::new();
    for number in 0..3 {
        push(&mut producer, &message(number, 20));
    }
    assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Empty));
    assert_eq!(producer.publish(), Ok(false));
    for number in 0..3 {
        assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Message(20)));
        assert_eq!(got, message(number, 20));
    }
    assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Empty));
}

#[test]
fn messages_of_no_bytes_are_messages() {
    let pages = Pages::new(0);
    let (mut producer, mut consumer) = pages.ends(0, LIMIT);
    assert_eq!(
        producer.push(b"", &mut Progress::default(), 0),
        Ok(Push::Whole)
    );
    assert_eq!(producer.publish(), Ok(false));
    let mut got = vec![1, 2, 3];
    assert_eq!(consumer.pull(&mut got, 0), Ok(Pull::Message(0)));
    assert!(got.is_empty());
}

#[test]
fn parts_become_one_message() {
    let pages = Pages::new(0);
    let (mut producer, mut consumer) = pages.ends(u32::MAX - 71, LIMIT);
    let whole = message(7, 10_000);
    let parts = [
        &whole[..1],
        &[],
        &whole[1..5000],
        &whole[5000..9999],
        &whole[9999..],
        &[],
    ];
    let (mut done, mut got) = (Progress::default(), Vec::new());
    loop {
        let outcome = producer.push_parts(&parts, &mut done, 777).unwrap();
        assert_eq!(producer.publish(), Ok(false));
        match consumer.pull(&mut got, usize::MAX).unwrap() {
            Pull::Message(10_000) => break,
            Pull::Partial(_) | Pull::Empty => {}
            other => panic!("{other:?} after {outcome:?}"),
        }
        assert_eq!(consumer.release(), Ok(false));
    }
    assert_eq!(got, whole);
}

#[test]
fn a_message_fills_a_ring_to_the_last_byte_and_larger_ones_stream() {
    for order in [0, 1, 4] {
        let pages = Pages::new(order);
        let (mut producer, mut consumer) = pages.ends(0, LIMIT);
        let size = pages.size() as usize;
        for length in [
            size / 2 - 9,
            size / 2 - 8,
            size / 2 - 7,
            size - 8,
            size,
            3 * size + 1,
        ] {
            let (sent, mut got) = (message(length as u64, length), Vec::new());
            let (mut done, mut pulled) = (Progress::default(), Pull::Empty);
            let mut steps = 0;
            while pulled != Pull::Message(length) {
                if done.sent() < length as u32 {
                    let outcome = producer.push(&sent, &mut done, usize::MAX).unwrap();
                    assert!(matches!(outcome, Push::Whole | Push::Full));
                }
                let _ = producer.publish().unwrap();
                pulled = consumer.pull(&mut got, usize::MAX).unwrap();
                let _ = consumer.release().unwrap();
                steps += 1;
                assert!(steps < 100, "{length} bytes through {size} did not arrive");
            }
            assert_eq!(got, sent);
        }
    }
}

#[test]
fn a_large_message_does_not_wait_for_an_empty_ring() {
    let pages = Pages::new(0);
    let (mut producer, mut consumer) = pages.ends(0, LIMIT);
    push(&mut producer, &[0; 2000]);
    let mut done = Progress::default();
    assert_eq!(
        producer.push(&[0; 4000], &mut done, usize::MAX),
        Ok(Push::Full)
    );
    assert_eq!(done.sent(), 2048);
    // An awake reader sees it without a `publish`.
    assert_eq!(
        consumer.pull(&mut Vec::new(), usize::MAX),
        Ok(Pull::Message(2000))
    );
    assert_eq!(
        consumer.pull(&mut Vec::new(), usize::MAX),
        Ok(Pull::Partial(1024))
    );
}

#[test]
fn budgets_bound_each_call() {
    let pages = Pages::new(4);
    let (mut producer, mut consumer) = pages.ends(0, LIMIT);
    let sent = message(1, 1000);
    let mut done = Progress::default();
    assert_eq!(producer.push(&sent, &mut done, 0), Ok(Push::Budget));
    assert_eq!(done.sent(), 0);
    for step in 1..=3 {
        assert_eq!(producer.push(&sent, &mut done, 300), Ok(Push::Budget));
        assert_eq!(done.sent(), 300 * step);
    }
    // Another message has to wait; this one goes on from the number of bytes alone.
    assert_eq!(
        producer.push(b"x", &mut Progress::default(), 300),
        Ok(Push::Busy)
    );
    let mut done = Progress::at(done.sent());
    assert_eq!(producer.push(&sent, &mut done, 300), Ok(Push::Whole));
    let _ = producer.publish().unwrap();

    let (mut got, mut taken) = (Vec::new(), 0);
    loop {
        match consumer.pull(&mut got, 7).unwrap() {
            Pull::Partial(bytes) => {
                assert!(bytes <= 7);
                taken += bytes;
            }
            outcome => break assert_eq!(outcome, Pull::Message(1000)),
        }
    }
    assert!(1000 - taken <= 7);
    assert_eq!(got, sent);
}

#[test]
fn an_abandoned_message_is_aborted_even_when_the_ring_is_full() {
    let pages = Pages::new(0);
    let (mut producer, mut consumer) = pages.ends(0, LIMIT);
    let mut got = Vec::new();
    // Sized so that the fragments leave exactly the header that ABORT needs.
    push(&mut producer, &[0; 2016]);
    let mut done = Progress::default();
    let outcome = producer.push(&[0; 9000], &mut done, usize::MAX);
    assert_eq!((outcome, done.sent()), (Ok(Push::Full), 1024 + 1016));
    assert_eq!(producer.backlog(), 4096 - 8);
    producer.abort();
    producer.abort();
    assert_eq!(
        producer.push(&[0; 9000], &mut done, usize::MAX),
        Ok(Push::Aborted)
    );
    assert_eq!(
        producer.push(&[1; 9], &mut Progress::default(), usize::MAX),
        Ok(Push::Full)
    );
    let _ = producer.publish().unwrap();
    assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Message(2016)));
    let mut pulled = Pull::Partial(0);
    while matches!(pulled, Pull::Partial(_)) {
        pulled = consumer.pull(&mut got, usize::MAX).unwrap();
    }
    assert_eq!(pulled, Pull::Aborted);
    assert!(got.is_empty());
    assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Empty));
    assert_eq!(consumer.counters().messages, 1);
}

#[test]
fn the_producer_sees_the_consumers_limit() {
    let pages = Pages::new(0);
    let (mut producer, _consumer) = pages.ends(0, 500);
    assert_eq!(producer.limit(), Ok(500));
    let outcome = producer.push(&[0; 501], &mut Progress::default(), usize::MAX);
    assert_eq!(outcome, Ok(Push::TooLong { limit: 500 }));
    push(&mut producer, &[0; 500]);
    let (mut producer, _consumer) = pages.ends(0, u32::MAX);
    assert_eq!(producer.limit(), Ok(MESSAGE_MAX));
    let part = [0u8; 1 << 15];
    let parts = vec![part.as_slice(); 1 << 16];
    let outcome = producer.push_parts(&parts, &mut Progress::default(), usize::MAX);
    assert_eq!(outcome, Ok(Push::TooLong { limit: MESSAGE_MAX }));
}

/// A sink without memory until the test gives it some.
struct NoMemory(Option<Vec<u8>>);

impl Sink for NoMemory {
    fn begin(&mut self, total: usize) -> bool {
        self.0.as_mut().is_some_and(|room| room.begin(total))
    }

    fn put(&mut self, offset: usize, bytes: Fragment<'_>) {
        self.0.as_mut().expect("room").put(offset, bytes);
    }

    fn discard(&mut self) {
        self.0.as_mut().expect("room").discard();
    }
}

#[test]
fn a_refused_message_stays_and_can_be_taken_later() {
    let pages = Pages::new(0);
    let (mut producer, mut consumer) = pages.ends(0, LIMIT);
    let small = message(1, 100);
    let large = message(2, 2500);
    push(&mut producer, &small);
    push(&mut producer, &large);
    let _ = producer.publish().unwrap();
    let mut sink = NoMemory(None);
    for sent in [&small, &large] {
        for _ in 0..3 {
            assert_eq!(consumer.pull(&mut sink, usize::MAX), Ok(Pull::Refused));
        }
        sink.0 = Some(Vec::new());
        while !matches!(
            consumer.pull(&mut sink, usize::MAX).unwrap(),
            Pull::Message(_)
        ) {}
        assert_eq!(sink.0.take().as_ref(), Some(sent));
    }
}

#[test]
fn the_end_of_data_comes_after_the_data() {
    let pages = Pages::new(0);
    let (mut producer, mut consumer) = pages.ends(0, LIMIT);
    let mut got = Vec::new();
    push(&mut producer, b"last words");
    assert_eq!(consumer.peer_finished(), Ok(false));
    let mut done = Progress::default();
    assert_eq!(producer.push(&[0; 3000], &mut done, 1000), Ok(Push::Budget));
    producer.finish();
    producer.finish();
    assert_eq!(
        producer.push(b"", &mut Progress::default(), 0),
        Ok(Push::Finished)
    );
    assert_eq!(consumer.peer_finished(), Ok(true));
    assert_eq!(consumer.arm(), Ok(AWAKE));
    assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Message(10)));
    assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Partial(1000)));
    assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Aborted));
    for _ in 0..2 {
        assert_eq!(consumer.pull(&mut got, usize::MAX), Ok(Pull::Finished));
        assert!(
            consumer.arm().unwrap().ready,
            "do not wait for data that will not come"
        );
    }
}

#[test]
fn a_writer_learns_that_the_reader_has_left() {
    let pages = Pages::new(0);
    let (mut producer, mut consumer) = pages.ends(0, LIMIT);
    let mut done = Progress::default();
    assert_eq!(
        producer.push(&[0; 9000], &mut done, usize::MAX),
        Ok(Push::Full)
    );
    assert_eq!(producer.arm(), Ok(ASLEEP));
    consumer.leave();
    assert_eq!(producer.arm(), Ok(AWAKE));
    assert_eq!(
        producer.push(b"", &mut Progress::default(), 0),
        Ok(Push::Gone)
    );
}

#[test]
fn each_end_counts() {
    let pages = Pages::new(0);
    let (mut producer, mut consumer) = pages.ends(0, LIMIT);
    let mut got = Vec::new();
    assert_eq!(consumer.arm(), Ok(ASLEEP));
    push(&mut producer, &[0; 10]);
    assert_eq!(producer.publish(), Ok(true));
    push(&mut producer, &[0; 20]);
    assert_eq!(producer.publish(), Ok(false));
    for length in [10, 20] {
        assert_eq!(
            consumer.pull(&mut got, usize::MAX),
            Ok(Pull::Message(length))
        );
    }
    assert_eq!(consumer.release(), Ok(false));
    let written = Counters {
        messages: 2,
        bytes: 30,
        waits: 0,
        notifications: 1,
        notifications_saved: 1,
    };
    let read = Counters {
        messages: 2,
        bytes: 30,
        waits: 1,
        notifications: 0,
        notifications_saved: 1,
    };
    assert_eq!(producer.counters(), written);
    assert_eq!(consumer.counters(), read);
}
