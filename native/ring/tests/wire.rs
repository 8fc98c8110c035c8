//! Wire version 1, byte by byte: these literals are those of docs/wire.md, and change only with the
//! version.
#![cfg(not(loom))]

mod support;

use std::sync::atomic::Ordering;

use support::{Pages, message, push};
use tube_ring::{Direction, Progress, Pull, Push};

fn control(pages: &Pages, offset: usize, length: usize) -> Vec<u8> {
    (offset..offset + length)
        .map(|at| pages.control_byte(at).load(Ordering::SeqCst))
        .collect()
}

fn data(pages: &Pages, index: u32, words: u32) -> Vec<u8> {
    (0..words)
        .flat_map(|i| {
            pages
                .data(index + 8 * i)
                .load(Ordering::SeqCst)
                .to_ne_bytes()
        })
        .collect()
}

#[test]
fn header_of_a_fresh_page() {
    let pages = Pages::new(1);
    pages
        .control()
        .initialise(Direction::Rx, 1, 0x1122_3344_5566_7788, &[0x0a0b_0c0d, 7]);
    #[rustfmt::skip]
    assert_eq!(control(&pages, 0, 0x20), [
        b'T', b'u', b'b', b'e',  1, 0, 0, 0,  0, 0, 0, 0,  2, 0, 0, 0,
        1, 0, 0, 0,  2, 0, 0, 0,  0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,
    ]);
    for line in [0x080, 0x100] {
        #[rustfmt::skip]
        assert_eq!(control(&pages, line, 16), [
            0, 0, 0, 0,  0, 0, 0, 0x80,  0, 0, 0, 0,  0, 0, 0, 0,
        ]);
    }
    assert_eq!(
        control(&pages, 0x400, 12),
        [0x0d, 0x0c, 0x0b, 0x0a, 7, 0, 0, 0, 0, 0, 0, 0]
    );
}

#[test]
fn live_bytes_of_a_fresh_tx_page() {
    let pages = Pages::new(0);
    assert_eq!(control(&pages, 0x180, 2), [1, 0]);
    assert_eq!(control(&pages, 0x200, 2), [2, 0]);
    assert_eq!((tube_ring::LIVE_TIP, tube_ring::LIVE_NOCK), (0x180, 0x200));
}

#[test]
fn lines_of_a_ring_in_use() {
    let pages = Pages::new(0);
    let (mut producer, mut consumer) = pages.ends(0, 0x0010_0000);
    push(&mut producer, b"abc");
    assert!(!consumer.arm().unwrap().ready);
    assert_eq!(
        control(&pages, 0x100, 16),
        [0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0]
    );
    assert_eq!(producer.publish(), Ok(true));
    assert_eq!(control(&pages, 0x080, 4), [16, 0, 0, 0]);
    producer.finish();
    assert_eq!(control(&pages, 0x088, 4), [1, 0, 0, 0]);
    assert_eq!(consumer.pull(&mut Vec::new(), 9), Ok(Pull::Message(3)));
    assert_eq!(consumer.release(), Ok(false));
    assert_eq!(control(&pages, 0x100, 4), [16, 0, 0, 0]);
    consumer.leave();
    assert_eq!(control(&pages, 0x108, 4), [1, 0, 0, 0]);
    // messages, bytes, waits, notifications, notifications saved
    let counters = |line| {
        control(&pages, line, 40)
            .into_iter()
            .step_by(8)
            .collect::<Vec<u8>>()
    };
    assert_eq!(counters(0x280), [1, 3, 0, 1, 0]);
    assert_eq!(counters(0x300), [1, 3, 1, 0, 1]);
}

#[test]
fn records_of_every_kind() {
    let pages = Pages::new(0);
    let (mut producer, _consumer) = pages.ends(0, 1 << 20);
    push(&mut producer, b"whole");
    let mut done = Progress::default();
    let bytes = message(1, 2100);
    for (budget, outcome) in [(2, Push::Budget), (9, Push::Budget)] {
        assert_eq!(producer.push(&bytes, &mut done, budget), Ok(outcome));
    }
    let aborted = done;
    producer.abort();
    let mut done = Progress::default();
    for (budget, outcome) in [(1, Push::Budget), (1, Push::Whole)] {
        assert_eq!(producer.push(b"yz", &mut done, budget), Ok(outcome));
    }
    assert_eq!(aborted.sent(), 11);
    let (a, b) = (&bytes[..2], &bytes[2..11]);
    let mut expected = Vec::new();
    let mut record = |head: &[u8], payload: &[u8]| {
        expected.extend_from_slice(head);
        expected.extend_from_slice(payload);
        expected.resize(expected.len().next_multiple_of(8), 0);
    };
    record(&[5, 0, 0, 0, 1, 0, 0, 0], b"whole");
    record(&[2, 0, 0, 0, 2, 0, 0, 0, 0x34, 8, 0, 0, 0, 0, 0, 0], a);
    record(&[9, 0, 0, 0, 4, 0, 0, 0], b);
    record(&[0, 0, 0, 0, 16, 0, 0, 0], b"");
    record(&[1, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0], b"y");
    record(&[1, 0, 0, 0, 8, 0, 0, 0], b"z");
    assert_eq!(data(&pages, 0, expected.len() as u32 / 8), expected);
}
