//! How a tube ends: by agreement, by half, by a peer that goes, by our own hand.

mod toy;

use toy::{ALICE, BOB, Ear, Told, pattern, tube};
use tube_link::{Active, Event, LinkError, LiveCounts, Outcome, Received, Sent};

fn events<const N: usize>(events: [Event; N]) -> [Told; N] {
    events.map(Told::Event)
}

#[test]
fn what_was_sent_before_the_end_is_received_and_then_the_end() {
    let tube = tube(4);
    let mut ear = Ear::default();
    assert_eq!(tube.tip.send(ALICE, b"last", 0, &ear), Ok(Sent::Whole));
    let before = tube.world.rung();
    tube.tip.shutdown(&ear).unwrap();
    assert_eq!(tube.world.rung(), before + 1, "also when nobody sleeps");
    tube.tip.shutdown(&ear).unwrap();
    assert_eq!(
        tube.tip.send(ALICE, b"more", 0, &ear),
        Err(LinkError::Closed)
    );
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), events([Event::Fin]));
    let deaf = Ear::default();
    assert_eq!(tube.nock.recv(BOB, &mut ear, &deaf), Ok(Received::Small));
    assert_eq!(deaf.take(), events([Event::Drained]));
    assert_eq!(tube.nock.recv(BOB, &mut ear, &deaf), Err(LinkError::Closed));
    assert_eq!(deaf.take(), events([Event::OwnerTold]));
    assert_eq!(tube.nock.recv(BOB, &mut ear, &deaf), Err(LinkError::Closed));
    assert_eq!(deaf.take(), [], "said once");
    // The other direction is open still.
    assert_eq!(tube.nock.send(BOB, b"reply", 0, &ear), Ok(Sent::Whole));
    assert_eq!(tube.tip.recv(ALICE, &mut ear, &deaf), Ok(Received::Small));
}

#[test]
fn an_owner_that_waits_learns_of_the_end() {
    let tube = tube(4);
    let mut ear = Ear::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Wait)
    );
    tube.tip.shutdown(&ear).unwrap();
    tube.nock.bell(&mut ear);
    let told = ear.take();
    assert_eq!(told[0], Told::Data(BOB));
    assert_eq!(told[1..], events([Event::Fin, Event::Drained]));
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Err(LinkError::Closed)
    );
}

#[test]
fn a_message_under_way_is_finished_before_the_end() {
    let tube = tube(0);
    let (mut ear, deaf) = (Ear::default(), Ear::default());
    let message = pattern(10_000, 4);
    let Ok(Sent::Wait(mut done)) = tube.tip.send(ALICE, &message, 0, &ear) else {
        panic!("no room for all");
    };
    assert_eq!(tube.tip.send(7, b"late", 0, &ear), Ok(Sent::Wait(0)));
    tube.tip.shutdown(&ear).unwrap();
    assert_eq!(ear.take(), [Told::Space(7)]);
    assert_eq!(tube.tip.send(7, b"late", 0, &ear), Err(LinkError::Closed));
    assert!(tube.tip.info().unwrap().tx_finished);
    loop {
        match tube.nock.recv(BOB, &mut ear, &deaf) {
            Ok(Received::Long(toy::Bytes(got))) => {
                assert!(got == message);
                break;
            }
            Ok(_) => match tube.tip.send(ALICE, &message, done, &ear) {
                Ok(Sent::Wait(more) | Sent::More(more)) => done = more,
                Ok(Sent::Whole) => {}
                Err(refusal) => panic!("{refusal:?}"),
            },
            Err(refusal) => panic!("{refusal:?}"),
        }
    }
    assert_eq!(tube.nock.recv(BOB, &mut ear, &deaf), Err(LinkError::Closed));
    assert_eq!(
        deaf.take(),
        events([Event::Fin, Event::Drained, Event::OwnerTold])
    );
}

#[test]
fn a_message_given_up_lets_the_end_through() {
    let tube = tube(0);
    let (mut ear, deaf) = (Ear::default(), Ear::default());
    assert!(matches!(
        tube.tip.send(ALICE, &[1; 10_000], 0, &ear),
        Ok(Sent::Wait(1..))
    ));
    tube.tip.shutdown(&ear).unwrap();
    tube.tip.cancel(ALICE, &ear).unwrap();
    assert_eq!(tube.nock.recv(BOB, &mut ear, &deaf), Err(LinkError::Closed));
}

#[test]
fn a_peer_that_closes_is_seen_with_its_last_words() {
    let tube = tube(4);
    let mut ear = Ear::default();
    assert_eq!(tube.tip.send(ALICE, b"last", 0, &ear), Ok(Sent::Whole));
    tube.tip.close(&mut ear);
    assert_eq!(ear.take(), []);
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), events([Event::Fin, Event::Gone]));
    assert!(tube.nock.is_gone());
    assert_eq!(
        tube.nock.send(BOB, b"hello?", 0, &ear),
        Err(LinkError::Closed)
    );
    let deaf = Ear::default();
    assert_eq!(tube.nock.recv(BOB, &mut ear, &deaf), Ok(Received::Small));
    assert_eq!(ear.message(), b"last");
    assert_eq!(deaf.take(), events([Event::Drained]));
    assert_eq!(tube.nock.recv(BOB, &mut ear, &deaf), Err(LinkError::Closed));
}

#[test]
fn a_peer_that_dies_leaves_its_last_words_and_a_broken_link() {
    let tube = tube(4);
    let mut ear = Ear::default();
    assert_eq!(tube.tip.send(ALICE, b"last", 0, &ear), Ok(Sent::Whole));
    assert!(matches!(
        tube.tip.send(ALICE, &[0; 100_000], 0, &ear),
        Ok(Sent::Wait(1..))
    ));
    while tube.nock.send(BOB, &[0; 1000], 0, &ear) == Ok(Sent::Whole) {}
    // A death: the byte is zeroed and the bell rings, as the kernel does it.
    let page = tube.world.page(tube.refs.tx_ring_ref);
    toy::poke(page, tube_ring::LIVE_TIP, 0);
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), [Told::Space(BOB), Told::Event(Event::Gone)]);
    assert_eq!(
        tube.nock.send(BOB, b"hello?", 0, &ear),
        Err(LinkError::PeerDown)
    );
    let deaf = Ear::default();
    assert_eq!(tube.nock.recv(BOB, &mut ear, &deaf), Ok(Received::Small));
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &deaf),
        Err(LinkError::PeerDown)
    );
    assert_eq!(deaf.take(), events([Event::Drained, Event::OwnerTold]));
    // An owner that turns active now is told the same way.
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    tube.nock.resume(&mut ear);
    assert_eq!(ear.take(), [Told::End(BOB, Some(LinkError::PeerDown))]);
}

#[test]
fn the_end_of_the_channel_is_the_end_of_the_peer() {
    let tube = tube(4);
    let mut ear = Ear::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Ok(Received::Wait)
    );
    tube.tip.close(&mut Ear::default());
    drop(tube.tip);
    // A second bell, at the end of file, changes nothing.
    tube.nock.bell(&mut ear);
    tube.nock.bell(&mut ear);
    let told = ear.take();
    assert_eq!(told[0], Told::Data(BOB));
    assert_eq!(told[1..], events([Event::Fin, Event::Gone, Event::Drained]));
}

#[test]
fn a_reader_that_leaves_stops_the_writer() {
    let tube = tube(0);
    let mut ear = Ear::default();
    while tube.tip.send(ALICE, &[0; 500], 0, &ear) == Ok(Sent::Whole) {}
    tube.nock.close(&mut Ear::default());
    tube.tip.bell(&mut ear);
    assert!(ear.take().contains(&Told::Space(ALICE)));
    assert_eq!(
        tube.tip.send(ALICE, &[0; 500], 0, &ear),
        Err(LinkError::Closed)
    );
}

#[test]
fn closing_tells_those_who_wait_and_leaves_a_shell() {
    let tube = tube(0);
    let mut ear = Ear::default();
    while tube.tip.send(ALICE, &[0; 500], 0, &ear) == Ok(Sent::Whole) {}
    assert_eq!(
        tube.tip.recv(ALICE, &mut ear, &Ear::default()),
        Ok(Received::Wait)
    );
    tube.tip.close(&mut ear);
    assert_eq!(ear.take(), [Told::Space(ALICE), Told::Data(ALICE)]);
    tube.tip.close(&mut ear);
    assert_eq!(ear.take(), []);
    assert_eq!(tube.tip.send(ALICE, b"", 0, &ear), Err(LinkError::Closed));
    assert_eq!(
        tube.tip.recv(ALICE, &mut ear, &Ear::default()),
        Err(LinkError::Closed)
    );
    assert_eq!(
        tube.tip.set_active(Some(ALICE), Active::Always),
        Err(LinkError::Closed)
    );
    assert_eq!(tube.tip.set_owner(BOB, &ear), Err(LinkError::Closed));
    assert_eq!(tube.tip.shutdown(&ear), Err(LinkError::Closed));
    assert_eq!(tube.tip.cancel(ALICE, &ear), Err(LinkError::Closed));
    assert_eq!(tube.tip.bell(&mut ear), Outcome::Idle);
    assert!(tube.tip.info().is_none() && tube.tip.channel().is_none());
}

#[test]
fn a_panic_under_a_lock_closes_that_half_and_nothing_more() {
    let tube = tube(4);
    struct Bomb;
    impl tube_link::MessageSink for Bomb {
        fn room(&mut self, _len: usize) -> bool {
            panic!("on purpose")
        }
        fn take(&mut self, _bytes: tube_link::Fragment<'_>) {}
    }
    let mut ear = Ear::default();
    assert_eq!(tube.tip.send(ALICE, b"boom", 0, &ear), Ok(Sent::Whole));
    let blown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tube.nock.recv(BOB, &mut Bomb, &Ear::default())
    }));
    assert!(blown.is_err());
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &Ear::default()),
        Err(LinkError::Closed)
    );
    assert_eq!(tube.nock.send(BOB, b"still here", 0, &ear), Ok(Sent::Whole));
    tube.nock.close(&mut ear);
    tube.tip.bell(&mut ear);
    assert!(tube.tip.is_gone());
}

/// Counts are of the whole process, so this is the only test that may look: it has a process of its own.
#[test]
#[ignore = "run alone by `nothing_is_left`"]
fn live_counts() {
    let before = LiveCounts::now();
    for _ in 0..50 {
        let tube = tube(2);
        let during = LiveCounts::now();
        assert_eq!(during.links - before.links, 2);
        assert_eq!(during.channels - before.channels, 2);
        assert_eq!(during.pages - before.pages, 2 * (2 + 4 + 4));
        tube.tip.close(&mut Ear::default());
        tube.nock.close(&mut Ear::default());
        assert_eq!(
            LiveCounts::now(),
            before,
            "although the shells are still there"
        );
    }
}

#[test]
fn nothing_is_left() {
    let me = std::env::current_exe().unwrap();
    let run = std::process::Command::new(me)
        .args(["--ignored", "--exact", "live_counts"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success() && said.contains("1 passed"), "{said}");
}
