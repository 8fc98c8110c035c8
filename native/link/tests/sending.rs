//! Many messages in one call, and the short way of one: all that was accepted arrives, and the rest is
//! accounted for.

mod toy;

use toy::{ALICE, BOB, Bytes, Ear, Told, Tube, pattern, tube, tube_with};
use tube_link::{LinkError, Received, Sent};

fn send<const N: usize>(tube: &Tube, messages: [&[u8]; N]) -> (usize, Result<Sent, LinkError>) {
    send_all(tube, &messages)
}

fn send_all<B: AsRef<[u8]>>(tube: &Tube, messages: &[B]) -> (usize, Result<Sent, LinkError>) {
    let mut left = messages.iter().map(AsRef::as_ref);
    let (count, next) = tube.tip.send_many(ALICE, &mut left, &Ear::default());
    // Nothing is looked at but what was sent and the one that was not.
    let looked = messages.len() - left.len();
    assert!(looked == count || looked == count + 1, "{looked} {count}");
    (count, next)
}

/// What the peer has, whole messages only.
fn received(tube: &Tube) -> Vec<Vec<u8>> {
    let mut ear = Ear::default();
    let mut got = Vec::new();
    loop {
        match tube.nock.recv(BOB, &mut ear, &Ear::default()) {
            Ok(Received::Small) => got.push(ear.message().to_vec()),
            Ok(Received::Long(Bytes(message))) => got.push(message),
            Ok(Received::More) => {}
            _ => return got,
        }
    }
}

#[test]
fn all_that_there_is_room_for_in_order_for_one_bell() {
    let tube = tube(4);
    assert_eq!(received(&tube), Vec::<Vec<u8>>::new());
    let before = tube.world.rung();
    let messages: Vec<_> = (0..100).map(|n| pattern(n * 3, n as u8)).collect();
    assert_eq!(send_all(&tube, &messages), (100, Ok(Sent::Whole)));
    assert_eq!(tube.world.rung(), before + 1, "the reader sleeps");
    assert_eq!(received(&tube), messages);
    assert_eq!(send(&tube, []), (0, Ok(Sent::Whole)));
}

#[test]
fn the_first_that_finds_no_room_waits_and_the_rest_is_untouched() {
    let tube = tube(0);
    let messages = vec![pattern(500, 1); 20];
    let (count, next) = send_all(&tube, &messages);
    assert_eq!((count, next), (8, Ok(Sent::Wait(0))));
    // Behind it others wait too, and when it gives up it is as if it had not been there.
    let short = tube.tip.send(7, b"me too", 0, &Ear::default());
    assert_eq!(short, Ok(Sent::Wait(0)));
    tube.tip.cancel(ALICE, &Ear::default()).unwrap();
    assert_eq!(received(&tube), messages[..8]);
    assert_eq!(send_all(&tube, &messages[8..]), (0, Ok(Sent::Wait(0))));
    let mut ear = Ear::default();
    tube.tip.bell(&mut ear);
    assert_eq!(ear.take(), [Told::Space(7), Told::Space(ALICE)]);
}

#[test]
fn a_long_one_among_them_is_gone_on_with_alone() {
    let tube = tube(0);
    let long = pattern(10_000, 5);
    let (count, next) = send(&tube, [b"before", &long, b"after"]);
    let Ok(Sent::Wait(mut done)) = next else {
        panic!("{next:?}");
    };
    assert_eq!(count, 1);
    let ear = Ear::default();
    let mut got = received(&tube);
    loop {
        match tube.tip.send(ALICE, &long, done, &ear).unwrap() {
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
fn one_call_has_a_bound() {
    let tube = tube(8);
    let empty = vec![[]; 3000];
    assert_eq!(send_all(&tube, &empty), (1024, Ok(Sent::More(0))));
    let large = vec![pattern(60_000, 0); 15];
    assert_eq!(send_all(&tube, &large), (5, Ok(Sent::More(0))));
    assert_eq!(received(&tube).len(), 1029, "all of them are published");
}

#[test]
fn what_is_refused_is_refused_at_its_place() {
    let tube = tube_with(4, 1000);
    let long = pattern(1001, 0);
    let told = send(&tube, [b"one", b"two", &long, b"four"]);
    assert_eq!(told, (2, Err(LinkError::TooLong)));
    assert_eq!(received(&tube), [b"one", b"two"]);
    tube.tip.shutdown(&Ear::default()).unwrap();
    assert_eq!(send(&tube, [b"late"]), (0, Err(LinkError::Closed)));
    tube.tip.close(&mut Ear::default());
    assert_eq!(send(&tube, [b"later"]), (0, Err(LinkError::Closed)));
}

#[test]
fn the_short_way_sends_or_does_nothing() {
    let tube = tube_with(0, 1000);
    assert!(!tube.tip.put(b"first"), "the limit is not known");
    assert_eq!(send(&tube, [b"first"]), (1, Ok(Sent::Whole)));
    assert_eq!(received(&tube), [b"first"]);
    let before = tube.world.rung();
    assert!(tube.tip.put(b"one") && tube.tip.put(b"two"));
    assert_eq!(tube.world.rung(), before + 1, "one bell for one who sleeps");
    assert!(!tube.tip.put(&[0; 1001]));
    assert_eq!(received(&tube), [b"one", b"two"]);

    // Not past those who wait.
    while tube.tip.put(&[7; 500]) {}
    let ear = Ear::default();
    assert_eq!(tube.tip.send(7, &[7; 500], 0, &ear), Ok(Sent::Wait(0)));
    assert_eq!(received(&tube).len(), 8);
    assert!(!tube.tip.put(b""));
    assert_eq!(tube.tip.send(7, &[7; 500], 0, &ear), Ok(Sent::Whole));
    assert!(tube.tip.put(b""));

    // Nor when there is something to tell, or nobody to send to.
    tube.nock.close(&mut Ear::default());
    tube.tip.bell(&mut Ear::default());
    assert!(!tube.tip.put(b"gone"));
    tube.tip.close(&mut Ear::default());
    assert!(!tube.tip.put(b"closed"));
}
