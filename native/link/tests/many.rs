//! Many messages at once: the same ones in the same order as one at a time, and no more than a bound of them.

mod toy;

use std::mem::take;
use toy::{ALICE, BOB, Bytes, Ear, Told, Tube, pattern, poke_word, sleep, tube};
use tube_link::{
    Active, BatchSink, Event, Fragment, Gathered, LinkError, MessageSink, Received, Sent,
};
use tube_ring::wire;

/// Gathers everything.
#[derive(Default)]
struct Pile {
    last: Vec<u8>,
    messages: Vec<Vec<u8>>,
    expected: usize,
}

impl MessageSink for Pile {
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

impl BatchSink<Bytes> for Pile {
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

fn gather(tube: &Tube, most: usize) -> (Result<Gathered, LinkError>, Vec<Vec<u8>>) {
    let mut pile = Pile::default();
    let gathered = tube.nock.recv_many(BOB, most, &mut pile, &Ear::default());
    (gathered, pile.messages)
}

fn send(tube: &Tube, message: &[u8]) {
    let sent = tube.tip.send(ALICE, message, 0, &Ear::default());
    assert_eq!(sent, Ok(Sent::Whole));
}

#[test]
fn all_that_is_there_in_order_and_then_a_wait() {
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
    assert_eq!(gather(&tube, 1024), (Ok(Gathered::Messages(12)), messages));
    assert_eq!(gather(&tube, 1024), (Ok(Gathered::Wait), vec![]));
    send(&tube, b"woken");
    sleep(&tube.nock);
    let mut ear = Ear::default();
    _ = tube.nock.bell(&mut ear);
    assert_eq!(ear.take(), [Told::Data(BOB)]);
    assert_eq!(
        gather(&tube, 1),
        (Ok(Gathered::Messages(1)), vec![b"woken".to_vec()])
    );
}

#[test]
fn no_more_than_asked_for_and_what_is_left_stays() {
    let tube = tube(4);
    for n in 0..10 {
        send(&tube, &[n]);
    }
    assert_eq!(gather(&tube, 3).1, [[0], [1], [2]]);
    assert_eq!(gather(&tube, 0).1, [[3]], "one at least");
    let mut ear = Ear::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Small)
    );
    assert_eq!(ear.message(), [4]);
    assert_eq!(gather(&tube, 1024).1, [[5], [6], [7], [8], [9]]);
}

#[test]
fn one_call_does_bounded_work() {
    let tube = tube(8);
    for n in 0..3000u32 {
        send(&tube, &n.to_le_bytes());
    }
    assert_eq!(gather(&tube, usize::MAX).0, Ok(Gathered::Messages(1024)));
    while gather(&tube, usize::MAX).0 != Ok(Gathered::Wait) {}
    let large = pattern(60_000, 1);
    for _ in 0..16 {
        send(&tube, &large);
    }
    let bytes: usize = gather(&tube, usize::MAX).1.iter().map(Vec::len).sum();
    assert!(bytes <= (256 << 10) + 60_000, "{bytes}");
}

#[test]
fn a_long_message_comes_in_its_turn() {
    let tube = tube(4);
    let long = pattern(1 << 20, 3);
    send(&tube, b"before");
    let (mut done, mut sent, mut got) = (0, false, vec![]);
    for _ in 0..10_000 {
        if !sent {
            match tube.tip.send(ALICE, &long, done, &Ear::default()).unwrap() {
                Sent::Whole => sent = true,
                Sent::More(more) | Sent::Wait(more) => done = more,
            }
        }
        got.extend(gather(&tube, 1024).1);
        if got.len() == 2 {
            assert!(sent);
            assert!(got == [b"before".to_vec(), long]);
            return;
        }
    }
    panic!("{} messages, {done} bytes sent", got.len());
}

#[test]
fn room_is_given_back_as_it_goes() {
    let tube = tube(2);
    let message = pattern(2000, 9);
    let mut sent = 0;
    for _ in 0..100 {
        while tube.tip.send(ALICE, &message, 0, &Ear::default()) == Ok(Sent::Whole) {
            sent += 1;
        }
        let (gathered, messages) = gather(&tube, 1024);
        assert_eq!(gathered, Ok(Gathered::Messages(messages.len())));
        assert!(messages.iter().all(|got| *got == message));
        tube.tip.cancel(ALICE, &Ear::default()).unwrap();
    }
    assert!(sent > 500, "only {sent} fitted in a hundred rounds");
}

#[test]
fn messages_come_before_the_end() {
    let tube = tube(4);
    send(&tube, b"last");
    tube.tip.shutdown(&Ear::default()).unwrap();
    assert_eq!(gather(&tube, 9).1, [b"last"]);
    assert_eq!(gather(&tube, 9).0, Err(LinkError::Closed));
}

#[test]
fn messages_come_before_a_violation() {
    let tube = tube(4);
    send(&tube, b"good");
    send(&tube, b"good");
    let page = tube.world.page(tube.refs.tx_ring_ref);
    let mut ear = Ear::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Small)
    );
    // Both were seen with the first look; the next look finds this.
    poke_word(page, wire::PRODUCER + wire::INDEX, 1 << 20);
    assert_eq!(
        gather(&tube, 9),
        (Ok(Gathered::Messages(1)), vec![b"good".to_vec()])
    );
    let (told, mut pile) = (Ear::default(), Pile::default());
    let gathered = tube.nock.recv_many(BOB, 9, &mut pile, &told);
    assert_eq!(gathered, Err(LinkError::Protocol));
    assert!(told.take().contains(&Told::Event(Event::Violated)));
}

#[test]
fn only_for_a_passive_owner() {
    let tube = tube(4);
    send(&tube, b"mine");
    let mut pile = Pile::default();
    let asked = tube.nock.recv_many(ALICE, 9, &mut pile, &Ear::default());
    assert_eq!(asked, Err(LinkError::NotOwner));
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    assert_eq!(gather(&tube, 9), (Err(LinkError::Invalid), vec![]));
}

#[test]
fn a_polled_link_is_looked_at_again_before_anybody_waits() {
    let tube = tube(4);
    let long = std::time::Duration::from_secs(1000);
    tube.nock.set_poll(long, &Ear::default()).unwrap();
    assert_eq!(gather(&tube, 10), (Ok(Gathered::Poll), vec![]));
    let before = tube.world.rung();
    send(&tube, b"one");
    let one = vec![b"one".to_vec()];
    assert_eq!(gather(&tube, 10), (Ok(Gathered::Messages(1)), one));
    assert_eq!(tube.world.rung(), before);
}
