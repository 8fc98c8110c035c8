//! Many messages in one call, and the fast path for one: everything accepted arrives, and the
//! outcome accounts for the rest.

mod support;

use support::{ALICE, BOB, Bytes, Call, Recorder, Tube, pattern, tube, tube_with};
use tube_link::{LinkError, Received, Sent};

fn send<const N: usize>(tube: &Tube, messages: [&[u8]; N]) -> (usize, Result<Sent, LinkError>) {
    send_all(tube, &messages)
}

fn send_all<B: AsRef<[u8]>>(tube: &Tube, messages: &[B]) -> (usize, Result<Sent, LinkError>) {
    let mut left = messages.iter().map(AsRef::as_ref);
    let (count, next) = tube.tip.send_many(ALICE, &mut left, &Recorder::default());
    // Only the messages sent and the next one are taken from the iterator.
    let taken = messages.len() - left.len();
    assert!(taken == count || taken == count + 1, "{taken} {count}");
    (count, next)
}

/// Receives all complete messages.
fn received(tube: &Tube) -> Vec<Vec<u8>> {
    let mut recorder = Recorder::default();
    let mut got = Vec::new();
    loop {
        match tube.nock.recv(BOB, &mut recorder, &Recorder::default()) {
            Ok(Received::Small) => got.push(recorder.message().to_vec()),
            Ok(Received::Long(Bytes(message))) => got.push(message),
            Ok(Received::More) => {}
            _ => return got,
        }
    }
}

#[test]
fn many_messages_in_order_for_one_notification() {
    let tube = tube(4);
    assert_eq!(received(&tube), Vec::<Vec<u8>>::new());
    let before = tube.host.notifications();
    let messages: Vec<_> = (0..100).map(|n| pattern(n * 3, n as u8)).collect();
    assert_eq!(send_all(&tube, &messages), (100, Ok(Sent::Whole)));
    assert_eq!(tube.host.notifications(), before + 1, "the reader sleeps");
    assert_eq!(received(&tube), messages);
    assert_eq!(send(&tube, []), (0, Ok(Sent::Whole)));
}

#[test]
fn the_first_message_without_room_waits_and_the_rest_is_untouched() {
    let tube = tube(0);
    let messages = vec![pattern(500, 1); 20];
    let (count, next) = send_all(&tube, &messages);
    assert_eq!((count, next), (8, Ok(Sent::Wait(0))));
    // Other senders wait behind it, and when it gives up it leaves no trace.
    let short = tube.tip.send(7, b"me too", 0, &Recorder::default());
    assert_eq!(short, Ok(Sent::Wait(0)));
    tube.tip.cancel(ALICE, &Recorder::default()).unwrap();
    assert_eq!(received(&tube), messages[..8]);
    assert_eq!(send_all(&tube, &messages[8..]), (0, Ok(Sent::Wait(0))));
    let mut recorder = Recorder::default();
    tube.tip.notified(&mut recorder);
    assert_eq!(recorder.take(), [Call::Space(7), Call::Space(ALICE)]);
}

#[test]
fn a_long_message_among_them_is_continued_alone() {
    let tube = tube(0);
    let long = pattern(10_000, 5);
    let (count, next) = send(&tube, [b"before", &long, b"after"]);
    let Ok(Sent::Wait(mut done)) = next else {
        panic!("{next:?}");
    };
    assert_eq!(count, 1);
    let recorder = Recorder::default();
    let mut got = received(&tube);
    loop {
        match tube.tip.send(ALICE, &long, done, &recorder).unwrap() {
            Sent::Whole => break,
            Sent::More(more) | Sent::Wait(more) => done = more,
        }
        got.append(&mut received(&tube));
    }
    assert_eq!(send(&tube, [b"after"]), (1, Ok(Sent::Whole)));
    got.append(&mut received(&tube));
    assert_eq!(got, [&b"before"[..], &long, b"after"]);
}

#[test]
fn one_call_does_bounded_work() {
    let tube = tube(8);
    let empty = vec![[]; 3000];
    assert_eq!(send_all(&tube, &empty), (1024, Ok(Sent::More(0))));
    let large = vec![pattern(60_000, 0); 15];
    assert_eq!(send_all(&tube, &large), (5, Ok(Sent::More(0))));
    assert_eq!(received(&tube).len(), 1029, "all of them are published");
}

#[test]
fn a_refused_message_is_refused_in_order() {
    let tube = tube_with(4, 1000);
    let long = pattern(1001, 0);
    let sent = send(&tube, [b"one", b"two", &long, b"four"]);
    assert_eq!(sent, (2, Err(LinkError::TooLong)));
    assert_eq!(received(&tube), [b"one", b"two"]);
    tube.tip.shutdown(&Recorder::default()).unwrap();
    assert_eq!(send(&tube, [b"late"]), (0, Err(LinkError::Closed)));
    tube.tip.close(&mut Recorder::default());
    assert_eq!(send(&tube, [b"later"]), (0, Err(LinkError::Closed)));
}

#[test]
fn put_sends_or_does_nothing() {
    let tube = tube_with(0, 1000);
    assert!(!tube.tip.put(b"first"), "the limit is not known");
    assert_eq!(send(&tube, [b"first"]), (1, Ok(Sent::Whole)));
    assert_eq!(received(&tube), [b"first"]);
    let before = tube.host.notifications();
    assert!(tube.tip.put(b"one") && tube.tip.put(b"two"));
    assert_eq!(
        tube.host.notifications(),
        before + 1,
        "one notification for a sleeping reader"
    );
    assert!(!tube.tip.put(&[0; 1001]));
    assert_eq!(received(&tube), [b"one", b"two"]);

    // It does not overtake waiting senders.
    while tube.tip.put(&[7; 500]) {}
    let recorder = Recorder::default();
    assert_eq!(tube.tip.send(7, &[7; 500], 0, &recorder), Ok(Sent::Wait(0)));
    assert_eq!(received(&tube).len(), 8);
    assert!(!tube.tip.put(b""));
    assert_eq!(tube.tip.send(7, &[7; 500], 0, &recorder), Ok(Sent::Whole));
    assert!(tube.tip.put(b""));

    // Nor does it send if there is an event to report, or the link has ended.
    tube.nock.close(&mut Recorder::default());
    tube.tip.notified(&mut Recorder::default());
    assert!(!tube.tip.put(b"gone"));
    tube.tip.close(&mut Recorder::default());
    assert!(!tube.tip.put(b"closed"));
}
