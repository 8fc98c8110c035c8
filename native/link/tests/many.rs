//! Many messages in one call: the same messages in the same order as one at a time, and a bounded
//! number.

mod support;

use std::mem::take;
use support::{
    ALICE, BOB, Bytes, Call, Recorder, Tube, await_notification, pattern, poke_word, tube,
};
use tube_link::{
    Active, BatchSink, Event, Fragment, Gathered, LinkError, MessageSink, Received, Sent,
};
use tube_ring::wire;

/// Collects everything.
#[derive(Default)]
struct Batch {
    last: Vec<u8>,
    messages: Vec<Vec<u8>>,
    expected: usize,
}

impl MessageSink for Batch {
    fn room(&mut self, len: usize) -> bool {
        self.last = Vec::with_capacity(len);
        true
    }

    fn take(&mut self, bytes: Fragment<'_>) {
        let room = bytes.len() + 8;
        assert!(
            self.expected == 0 || room <= self.expected,
            "a hint too low"
        );
        bytes.append_to(&mut self.last);
    }
}

impl BatchSink<Bytes> for Batch {
    fn expect(&mut self, bytes: usize) {
        self.expected = bytes;
    }

    fn small(&mut self) {
        self.messages.push(take(&mut self.last));
    }

    fn long(&mut self, message: Bytes) {
        self.messages.push(message.0);
    }
}

fn recv_many(tube: &Tube, most: usize) -> (Result<Gathered, LinkError>, Vec<Vec<u8>>) {
    let mut batch = Batch::default();
    let gathered = tube
        .nock
        .recv_many(BOB, most, &mut batch, &Recorder::default());
    (gathered, batch.messages)
}

fn send(tube: &Tube, message: &[u8]) {
    let sent = tube.tip.send(ALICE, message, 0, &Recorder::default());
    assert_eq!(sent, Ok(Sent::Whole));
}

#[test]
fn everything_in_order_and_then_wait() {
    let tube = tube(8);
    let sizes = [
        0, 1, 63, 64, 65, 1000, 4096, 4097, 65_535, 65_536, 70_000, 7,
    ];
    let messages: Vec<_> = sizes
        .iter()
        .map(|size| pattern(*size, *size as u8))
        .collect();
    for message in &messages {
        send(&tube, message);
    }
    assert_eq!(
        recv_many(&tube, 1024),
        (Ok(Gathered::Messages(12)), messages)
    );
    assert_eq!(recv_many(&tube, 1024), (Ok(Gathered::Wait), vec![]));
    send(&tube, b"woken");
    await_notification(&tube.nock);
    let mut recorder = Recorder::default();
    _ = tube.nock.notified(&mut recorder);
    assert_eq!(recorder.take(), [Call::Data(BOB)]);
    assert_eq!(
        recv_many(&tube, 1),
        (Ok(Gathered::Messages(1)), vec![b"woken".to_vec()])
    );
}

#[test]
fn no_more_than_the_given_number_and_the_rest_stays() {
    let tube = tube(4);
    for n in 0..10 {
        send(&tube, &[n]);
    }
    assert_eq!(recv_many(&tube, 3).1, [[0], [1], [2]]);
    assert_eq!(recv_many(&tube, 0).1, [[3]], "at least one");
    let mut recorder = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Small)
    );
    assert_eq!(recorder.message(), [4]);
    assert_eq!(recv_many(&tube, 1024).1, [[5], [6], [7], [8], [9]]);
}

#[test]
fn one_call_does_bounded_work() {
    let tube = tube(8);
    for n in 0..3000u32 {
        send(&tube, &n.to_le_bytes());
    }
    assert_eq!(recv_many(&tube, usize::MAX).0, Ok(Gathered::Messages(1024)));
    while recv_many(&tube, usize::MAX).0 != Ok(Gathered::Wait) {}
    let large = pattern(60_000, 1);
    for _ in 0..16 {
        send(&tube, &large);
    }
    let bytes: usize = recv_many(&tube, usize::MAX).1.iter().map(Vec::len).sum();
    assert!(bytes <= (256 << 10) + 60_000, "{bytes}");
}

#[test]
fn a_long_message_arrives_in_order() {
    let tube = tube(4);
    let long = pattern(1 << 20, 3);
    send(&tube, b"before");
    let (mut done, mut sent, mut got) = (0, false, vec![]);
    for _ in 0..10_000 {
        if !sent {
            match tube
                .tip
                .send(ALICE, &long, done, &Recorder::default())
                .unwrap()
            {
                Sent::Whole => sent = true,
                Sent::More(more) | Sent::Wait(more) => done = more,
            }
        }
        got.extend(recv_many(&tube, 1024).1);
        if got.len() == 2 {
            assert!(sent);
            assert!(got == [b"before".to_vec(), long]);
            return;
        }
    }
    panic!("{} messages, {done} bytes sent", got.len());
}

#[test]
fn room_is_released_during_the_call() {
    let tube = tube(2);
    let message = pattern(2000, 9);
    let mut sent = 0;
    for _ in 0..100 {
        while tube.tip.send(ALICE, &message, 0, &Recorder::default()) == Ok(Sent::Whole) {
            sent += 1;
        }
        let (gathered, messages) = recv_many(&tube, 1024);
        assert_eq!(gathered, Ok(Gathered::Messages(messages.len())));
        assert!(messages.iter().all(|got| *got == message));
        tube.tip.cancel(ALICE, &Recorder::default()).unwrap();
    }
    assert!(sent > 500, "only {sent} fitted in a hundred rounds");
}

#[test]
fn messages_come_before_the_end() {
    let tube = tube(4);
    send(&tube, b"last");
    tube.tip.shutdown(&Recorder::default()).unwrap();
    assert_eq!(recv_many(&tube, 9).1, [b"last"]);
    assert_eq!(recv_many(&tube, 9).0, Err(LinkError::Closed));
}

#[test]
fn messages_come_before_a_violation() {
    let tube = tube(4);
    send(&tube, b"good");
    send(&tube, b"good");
    let page = tube.host.page(tube.refs.tx_ring_ref);
    let mut recorder = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Small)
    );
    // The index of both is known since the first load; the next load finds this one.
    poke_word(page, wire::PRODUCER + wire::INDEX, 1 << 20);
    assert_eq!(
        recv_many(&tube, 9),
        (Ok(Gathered::Messages(1)), vec![b"good".to_vec()])
    );
    let (notifier, mut batch) = (Recorder::default(), Batch::default());
    let gathered = tube.nock.recv_many(BOB, 9, &mut batch, &notifier);
    assert_eq!(gathered, Err(LinkError::Protocol));
    assert!(notifier.take().contains(&Call::Event(Event::Violated)));
}

#[test]
fn recv_many_is_only_for_a_passive_owner() {
    let tube = tube(4);
    send(&tube, b"mine");
    let mut batch = Batch::default();
    let received = tube
        .nock
        .recv_many(ALICE, 9, &mut batch, &Recorder::default());
    assert_eq!(received, Err(LinkError::NotOwner));
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    assert_eq!(recv_many(&tube, 9), (Err(LinkError::Invalid), vec![]));
}

#[test]
fn a_busy_polled_link_is_polled_again_before_its_owner_waits() {
    let tube = tube(4);
    let long = std::time::Duration::from_secs(1000);
    tube.nock.set_busy_poll(long, &Recorder::default()).unwrap();
    assert_eq!(recv_many(&tube, 10), (Ok(Gathered::Poll), vec![]));
    let before = tube.host.notifications();
    send(&tube, b"one");
    let one = vec![b"one".to_vec()];
    assert_eq!(recv_many(&tube, 10), (Ok(Gathered::Messages(1)), one));
    assert_eq!(tube.host.notifications(), before);
}
