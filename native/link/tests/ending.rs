//! How a tube ends: by shutdown of one or both directions, by a gone peer, by close.

mod support;

use support::{ALICE, BOB, Call, Recorder, pattern, tube};
use tube_link::{Active, Event, LinkError, LiveCounts, Outcome, Received, Sent};

fn events<const N: usize>(events: [Event; N]) -> [Call; N] {
    events.map(Call::Event)
}

#[test]
fn data_sent_before_the_end_is_received_and_then_the_end() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    assert_eq!(tube.tip.send(ALICE, b"last", 0, &recorder), Ok(Sent::Whole));
    let before = tube.host.notifications();
    tube.tip.shutdown(&recorder).unwrap();
    assert_eq!(
        tube.host.notifications(),
        before + 1,
        "even if the reader does not sleep"
    );
    tube.tip.shutdown(&recorder).unwrap();
    assert_eq!(
        tube.tip.send(ALICE, b"more", 0, &recorder),
        Err(LinkError::Closed)
    );
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), events([Event::Fin]));
    let notifier = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Ok(Received::Small)
    );
    assert_eq!(notifier.take(), events([Event::Drained]));
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Err(LinkError::Closed)
    );
    assert_eq!(notifier.take(), events([Event::OwnerTold]));
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Err(LinkError::Closed)
    );
    assert_eq!(notifier.take(), [], "reported once");
    // The other direction is still open.
    assert_eq!(tube.nock.send(BOB, b"reply", 0, &recorder), Ok(Sent::Whole));
    assert_eq!(
        tube.tip.recv(ALICE, &mut recorder, &notifier),
        Ok(Received::Small)
    );
}

#[test]
fn an_owner_that_waits_learns_of_the_end() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Wait)
    );
    tube.tip.shutdown(&recorder).unwrap();
    tube.nock.notified(&mut recorder);
    let calls = recorder.take();
    assert_eq!(calls[0], Call::Data(BOB));
    assert_eq!(calls[1..], events([Event::Fin, Event::Drained]));
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Err(LinkError::Closed)
    );
}

#[test]
fn a_message_in_progress_is_completed_before_the_end() {
    let tube = tube(0);
    let (mut recorder, notifier) = (Recorder::default(), Recorder::default());
    let message = pattern(10_000, 4);
    let Ok(Sent::Wait(mut done)) = tube.tip.send(ALICE, &message, 0, &recorder) else {
        panic!("no room for all");
    };
    assert_eq!(tube.tip.send(7, b"late", 0, &recorder), Ok(Sent::Wait(0)));
    tube.tip.shutdown(&recorder).unwrap();
    assert_eq!(recorder.take(), [Call::Space(7)]);
    assert_eq!(
        tube.tip.send(7, b"late", 0, &recorder),
        Err(LinkError::Closed)
    );
    assert!(tube.tip.info().unwrap().tx_finished);
    loop {
        match tube.nock.recv(BOB, &mut recorder, &notifier) {
            Ok(Received::Long(support::Bytes(got))) => {
                assert!(got == message);
                break;
            }
            Ok(_) => match tube.tip.send(ALICE, &message, done, &recorder) {
                Ok(Sent::Wait(more) | Sent::More(more)) => done = more,
                Ok(Sent::Whole) => {}
                Err(error) => panic!("{error:?}"),
            },
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Err(LinkError::Closed)
    );
    assert_eq!(
        notifier.take(),
        events([Event::Fin, Event::Drained, Event::OwnerTold])
    );
}

#[test]
fn the_end_follows_a_message_given_up() {
    let tube = tube(0);
    let (mut recorder, notifier) = (Recorder::default(), Recorder::default());
    assert!(matches!(
        tube.tip.send(ALICE, &[1; 10_000], 0, &recorder),
        Ok(Sent::Wait(1..))
    ));
    tube.tip.shutdown(&recorder).unwrap();
    tube.tip.cancel(ALICE, &recorder).unwrap();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Err(LinkError::Closed)
    );
}

#[test]
fn a_peer_that_closes_is_gone_but_its_data_is_received() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    assert_eq!(tube.tip.send(ALICE, b"last", 0, &recorder), Ok(Sent::Whole));
    tube.tip.close(&mut recorder);
    assert_eq!(recorder.take(), []);
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), events([Event::Fin, Event::Gone]));
    assert!(tube.nock.is_gone());
    assert_eq!(
        tube.nock.send(BOB, b"hello?", 0, &recorder),
        Err(LinkError::Closed)
    );
    let notifier = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Ok(Received::Small)
    );
    assert_eq!(recorder.message(), b"last");
    assert_eq!(notifier.take(), events([Event::Drained]));
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Err(LinkError::Closed)
    );
}

#[test]
fn a_peer_that_dies_leaves_its_data_and_a_broken_link() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    assert_eq!(tube.tip.send(ALICE, b"last", 0, &recorder), Ok(Sent::Whole));
    assert!(matches!(
        tube.tip.send(ALICE, &[0; 100_000], 0, &recorder),
        Ok(Sent::Wait(1..))
    ));
    while tube.nock.send(BOB, &[0; 1000], 0, &recorder) == Ok(Sent::Whole) {}
    // As the kernel does at a death: the live byte is zeroed, then the channel is notified.
    let page = tube.host.page(tube.refs.tx_ring_ref);
    support::poke(page, tube_ring::LIVE_TIP, 0);
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(
        recorder.take(),
        [Call::Space(BOB), Call::Event(Event::Gone)]
    );
    assert_eq!(
        tube.nock.send(BOB, b"hello?", 0, &recorder),
        Err(LinkError::PeerDown)
    );
    let notifier = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Ok(Received::Small)
    );
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Err(LinkError::PeerDown)
    );
    assert_eq!(notifier.take(), events([Event::Drained, Event::OwnerTold]));
    // An owner that becomes active now gets the end message.
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    tube.nock.resume(&mut recorder);
    assert_eq!(recorder.take(), [Call::End(BOB, Some(LinkError::PeerDown))]);
}

#[test]
fn the_end_of_the_channel_is_the_end_of_the_peer() {
    let tube = tube(4);
    let mut recorder = Recorder::default();
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Ok(Received::Wait)
    );
    tube.tip.close(&mut Recorder::default());
    drop(tube.tip);
    // A second notification, at end of file, changes nothing.
    tube.nock.notified(&mut recorder);
    tube.nock.notified(&mut recorder);
    let calls = recorder.take();
    assert_eq!(calls[0], Call::Data(BOB));
    assert_eq!(
        calls[1..],
        events([Event::Fin, Event::Gone, Event::Drained])
    );
}

#[test]
fn a_reader_that_leaves_stops_the_writer() {
    let tube = tube(0);
    let mut recorder = Recorder::default();
    while tube.tip.send(ALICE, &[0; 500], 0, &recorder) == Ok(Sent::Whole) {}
    tube.nock.close(&mut Recorder::default());
    tube.tip.notified(&mut recorder);
    assert!(recorder.take().contains(&Call::Space(ALICE)));
    assert_eq!(
        tube.tip.send(ALICE, &[0; 500], 0, &recorder),
        Err(LinkError::Closed)
    );
}

#[test]
fn closing_wakes_waiting_processes_and_leaves_an_empty_link() {
    let tube = tube(0);
    let mut recorder = Recorder::default();
    while tube.tip.send(ALICE, &[0; 500], 0, &recorder) == Ok(Sent::Whole) {}
    assert_eq!(
        tube.tip.recv(ALICE, &mut recorder, &Recorder::default()),
        Ok(Received::Wait)
    );
    tube.tip.close(&mut recorder);
    assert_eq!(recorder.take(), [Call::Space(ALICE), Call::Data(ALICE)]);
    tube.tip.close(&mut recorder);
    assert_eq!(recorder.take(), []);
    assert_eq!(
        tube.tip.send(ALICE, b"", 0, &recorder),
        Err(LinkError::Closed)
    );
    assert_eq!(
        tube.tip.recv(ALICE, &mut recorder, &Recorder::default()),
        Err(LinkError::Closed)
    );
    assert_eq!(
        tube.tip.set_active(Some(ALICE), Active::Always),
        Err(LinkError::Closed)
    );
    assert_eq!(tube.tip.set_owner(BOB, &recorder), Err(LinkError::Closed));
    assert_eq!(tube.tip.shutdown(&recorder), Err(LinkError::Closed));
    assert_eq!(tube.tip.cancel(ALICE, &recorder), Err(LinkError::Closed));
    assert_eq!(tube.tip.notified(&mut recorder), Outcome::Idle);
    assert!(tube.tip.info().is_none() && tube.tip.channel().is_none());
}

#[test]
fn a_panic_under_a_lock_closes_only_that_half() {
    let tube = tube(4);
    struct Panicking;
    impl tube_link::MessageSink for Panicking {
        fn room(&mut self, _len: usize) -> bool {
            panic!("on purpose")
        }
        fn take(&mut self, _bytes: tube_link::Fragment<'_>) {}
    }
    let mut recorder = Recorder::default();
    assert_eq!(tube.tip.send(ALICE, b"boom", 0, &recorder), Ok(Sent::Whole));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tube.nock.recv(BOB, &mut Panicking, &Recorder::default())
    }));
    assert!(outcome.is_err());
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &Recorder::default()),
        Err(LinkError::Closed)
    );
    assert_eq!(
        tube.nock.send(BOB, b"still here", 0, &recorder),
        Ok(Sent::Whole)
    );
    tube.nock.close(&mut recorder);
    tube.tip.notified(&mut recorder);
    assert!(tube.tip.is_gone());
}

/// The counts are of the whole process, so this test runs in its own.
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
        tube.tip.close(&mut Recorder::default());
        tube.nock.close(&mut Recorder::default());
        assert_eq!(
            LiveCounts::now(),
            before,
            "although the handles are still there"
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
