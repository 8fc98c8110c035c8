//! Shared pages that are released before their link: those of a dead peer, and all of them at a
//! cut. Unread data goes on from a copy.

mod support;

use tube_link::{Active, Event, Link, LinkError, Outcome, Received, Sent};
use tube_platform::{Gref, PAGE};
use tube_ring::{Direction, LIVE_NOCK, LIVE_TIP};

use support::{ALICE, BOB, Call, NONCE, Recorder, TestVm, Tube, pattern, poke, tube};

/// The references of a control page and of a data page of each ring.
fn pages(tube: &Tube) -> [Gref; 4] {
    let (tx, rx) = (tube.refs.tx_ring_ref, tube.refs.rx_ring_ref);
    let data = |gref, direction| {
        // SAFETY: the host keeps the page, and the handle does not leave this function.
        let control = unsafe { tube_ring::ControlPage::from_raw(tube.host.page(gref)) };
        control.check(direction, NONCE).unwrap().grefs[0]
    };
    [tx, rx, data(tx, Direction::Tx), data(rx, Direction::Rx)]
}

fn mapped(tube: &Tube, pages: [Gref; 4]) -> [usize; 4] {
    pages.map(|gref| tube.host.mapped(gref))
}

fn cut(link: &Link<TestVm>, why: LinkError, recorder: &mut Recorder) -> Outcome {
    link.cut(why);
    link.resume(recorder)
}

/// Acts as the kernel of a peer that dies.
fn kill(tube: &Tube, live: usize) {
    poke(tube.host.page(tube.refs.tx_ring_ref), live, 0);
}

fn corrupt(tube: &Tube, pages: [Gref; 4]) {
    for gref in pages {
        (0..PAGE).for_each(|at| poke(tube.host.page(gref), at, 0xff));
    }
}

#[test]
fn a_dead_tips_pages_are_released_at_once_but_its_data_is_kept() {
    let tube = tube(4);
    let all = pages(&tube);
    assert_eq!(mapped(&tube, all), [2; 4]);
    let (mut recorder, notifier) = (Recorder::default(), Recorder::default());
    let long = pattern(40_000, 3);
    for message in [b"one".as_slice(), b"two", &long] {
        assert_eq!(tube.tip.send(ALICE, message, 0, &recorder), Ok(Sent::Whole));
    }
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Ok(Received::Small)
    );
    assert_eq!(
        tube.nock.send(BOB, b"unread", 0, &recorder),
        Ok(Sent::Whole)
    );
    kill(&tube, LIVE_TIP);
    assert_eq!(tube.nock.notified(&mut recorder), Outcome::Idle);
    assert_eq!(recorder.take(), [Call::Event(Event::Gone)]);
    assert_eq!(mapped(&tube, all), [1; 4], "only by the tip");
    // The peer may still be running.
    corrupt(&tube, all);
    let info = tube.nock.info().unwrap();
    assert!(info.gone && info.rx_backlog > 40_000);
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Ok(Received::Small)
    );
    assert_eq!(recorder.message(), b"two");
    let received = tube.nock.recv(BOB, &mut recorder, &notifier);
    assert!(matches!(received, Ok(Received::Long(bytes)) if bytes.0 == long));
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Err(LinkError::PeerDown)
    );
    let ended = [Event::Drained, Event::OwnerTold].map(Call::Event);
    assert_eq!(notifier.take(), ended);
    assert_eq!(
        tube.nock.send(BOB, b"", 0, &recorder),
        Err(LinkError::PeerDown)
    );
    tube.nock.notified(&mut recorder);
    tube.nock.close(&mut recorder);
    assert_eq!(recorder.take(), []);
}

#[test]
fn a_partly_taken_message_is_completed_from_the_copy_or_not_at_all() {
    for complete in [true, false] {
        let tube = tube(4);
        let all = pages(&tube);
        let (mut recorder, notifier) = (Recorder::default(), Recorder::default());
        let long = pattern(100_000, 9);
        let Ok(Sent::Wait(done)) = tube.tip.send(ALICE, &long, 0, &recorder) else {
            panic!("fits");
        };
        assert_eq!(
            tube.nock.recv(BOB, &mut recorder, &notifier),
            Ok(Received::Wait),
            "part of it"
        );
        if complete {
            assert_eq!(
                tube.tip.send(ALICE, &long, done, &recorder),
                Ok(Sent::Whole)
            );
        }
        kill(&tube, LIVE_TIP);
        tube.nock.notified(&mut recorder);
        corrupt(&tube, all);
        if complete {
            let received = tube.nock.recv(BOB, &mut recorder, &notifier);
            assert!(matches!(received, Ok(Received::Long(bytes)) if bytes.0 == long));
        }
        assert_eq!(
            tube.nock.recv(BOB, &mut recorder, &notifier),
            Err(LinkError::PeerDown)
        );
    }
}

#[test]
fn when_the_nock_dies_the_tip_keeps_its_own_pages() {
    let tube = tube(0);
    let all = pages(&tube);
    assert_eq!(
        tube.nock.send(BOB, b"last", 0, &Recorder::default()),
        Ok(Sent::Whole)
    );
    kill(&tube, LIVE_NOCK);
    let mut recorder = Recorder::default();
    tube.tip.notified(&mut recorder);
    assert_eq!(mapped(&tube, all), [2; 4]);
    let received = tube.tip.recv(ALICE, &mut recorder, &Recorder::default());
    assert_eq!(received, Ok(Received::Small));
}

#[test]
fn a_cut_releases_everything_on_either_side_and_gives_the_reason() {
    for (why, of_tip) in [(LinkError::DomainGone, false), (LinkError::Suspended, true)] {
        let tube = tube(0);
        let all = pages(&tube);
        let (one, me, other, you) = match of_tip {
            true => (&tube.tip, ALICE, &tube.nock, BOB),
            false => (&tube.nock, BOB, &tube.tip, ALICE),
        };
        let (mut recorder, notifier) = (Recorder::default(), Recorder::default());
        assert_eq!(one.recv(me, &mut recorder, &notifier), Ok(Received::Wait));
        while one.send(me, &[7; 500], 0, &recorder) == Ok(Sent::Whole) {}
        assert_eq!(other.send(you, b"last", 0, &notifier), Ok(Sent::Whole));
        recorder.take();
        assert_eq!(cut(one, why, &mut recorder), Outcome::Idle);
        let calls = [Call::Space(me), Call::Data(me), Call::Event(Event::Gone)];
        let recorded = recorder.take();
        assert!(
            calls.iter().all(|call| recorded.contains(call)),
            "{recorded:?}"
        );
        assert_eq!(mapped(&tube, all), [1; 4]);
        assert_eq!(one.recv(me, &mut recorder, &notifier), Ok(Received::Small));
        assert_eq!(recorder.message(), b"last");
        assert_eq!(one.recv(me, &mut recorder, &notifier), Err(why));
        assert_eq!(one.send(me, b"", 0, &notifier), Err(why));
        // It is reported once, and a second cut changes nothing.
        assert_eq!(cut(one, LinkError::PeerDown, &mut recorder), Outcome::Idle);
        assert_eq!(one.recv(me, &mut recorder, &notifier), Err(why));
        assert_eq!(recorder.take(), []);
        // To the other end, this one is gone.
        other.notified(&mut recorder);
        assert!(other.is_gone());
        one.close(&mut recorder);
        other.close(&mut recorder);
    }
}

#[test]
fn an_active_owner_gets_the_rest_and_the_reason() {
    let tube = tube(0);
    let mut recorder = Recorder::default();
    for message in [b"one", b"two"] {
        assert_eq!(tube.tip.send(ALICE, message, 0, &recorder), Ok(Sent::Whole));
    }
    tube.nock.set_active(Some(BOB), Active::Count(1)).unwrap();
    tube.nock.resume(&mut recorder);
    cut(&tube.nock, LinkError::Suspended, &mut recorder);
    let calls = [
        Call::Message(BOB, b"one".to_vec()),
        Call::Passive(BOB),
        Call::Event(Event::Gone),
    ];
    assert_eq!(recorder.take(), calls);
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    tube.nock.resume(&mut recorder);
    let calls = [
        Call::Message(BOB, b"two".to_vec()),
        Call::End(BOB, Some(LinkError::Suspended)),
        Call::Event(Event::Drained),
        Call::Event(Event::OwnerTold),
    ];
    assert_eq!(recorder.take(), calls);
}

#[test]
fn a_finished_peer_stays_finished_unless_it_was_because_of_our_suspension() {
    for (why, expected) in [
        (LinkError::DomainGone, LinkError::Closed),
        (LinkError::PeerDown, LinkError::Closed),
        (LinkError::Suspended, LinkError::Suspended),
    ] {
        let tube = tube(0);
        let (mut recorder, notifier) = (Recorder::default(), Recorder::default());
        assert_eq!(tube.tip.send(ALICE, b"last", 0, &recorder), Ok(Sent::Whole));
        tube.tip.shutdown(&recorder).unwrap();
        cut(&tube.nock, why, &mut recorder);
        assert_eq!(tube.nock.send(BOB, b"", 0, &notifier), Err(expected));
        assert_eq!(
            tube.nock.recv(BOB, &mut recorder, &notifier),
            Ok(Received::Small)
        );
        assert_eq!(tube.nock.recv(BOB, &mut recorder, &notifier), Err(expected));
    }
}

#[test]
fn a_peer_that_closes_because_of_our_suspension_is_not_the_reason() {
    let tube = tube(0);
    let (mut recorder, notifier) = (Recorder::default(), Recorder::default());
    tube.nock.suspend();
    assert_eq!(tube.nock.send(BOB, b"still", 0, &notifier), Ok(Sent::Whole));
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Ok(Received::Wait)
    );
    tube.tip.close(&mut Recorder::default());
    tube.nock.notified(&mut recorder);
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Err(LinkError::Suspended)
    );
    assert_eq!(
        tube.nock.send(BOB, b"", 0, &notifier),
        Err(LinkError::Suspended)
    );
    recorder.take();
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    tube.nock.resume(&mut recorder);
    assert_eq!(
        recorder.take(),
        [Call::End(BOB, Some(LinkError::Suspended))]
    );
}

#[test]
fn a_violation_outlives_the_shared_pages() {
    let tube = tube(0);
    let (mut recorder, notifier) = (Recorder::default(), Recorder::default());
    let page = tube.host.page(tube.refs.tx_ring_ref);
    let index = tube_ring::wire::PRODUCER + tube_ring::wire::INDEX;
    support::poke_word(page, index, 3);
    let all = pages(&tube);
    cut(&tube.nock, LinkError::DomainGone, &mut recorder);
    assert_eq!(mapped(&tube, all), [1; 4]);
    assert_eq!(
        tube.nock.recv(BOB, &mut recorder, &notifier),
        Err(LinkError::Protocol)
    );
}

#[test]
fn a_half_that_panicked_keeps_no_pages() {
    struct Panicking;
    impl tube_link::MessageSink for Panicking {
        fn room(&mut self, _len: usize) -> bool {
            panic!("on purpose")
        }
        fn take(&mut self, _bytes: tube_link::Fragment<'_>) {}
    }
    let tube = tube(0);
    let all = pages(&tube);
    let mut recorder = Recorder::default();
    assert_eq!(tube.tip.send(ALICE, b"boom", 0, &recorder), Ok(Sent::Whole));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tube.nock.recv(BOB, &mut Panicking, &Recorder::default())
    }));
    assert!(outcome.is_err());
    cut(&tube.nock, LinkError::Suspended, &mut recorder);
    assert_eq!(mapped(&tube, all), [1; 4]);
    assert_eq!(
        tube.nock.send(BOB, b"", 0, &recorder),
        Err(LinkError::Suspended)
    );
}
