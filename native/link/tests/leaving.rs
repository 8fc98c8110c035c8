//! Shared pages that have to go before their link: those of a dead peer, and all of them at a cut. What was
//! unread goes on from a copy.

mod toy;

use tube_link::{Active, Event, Link, LinkError, Outcome, Received, Sent};
use tube_platform::{Gref, PAGE};
use tube_ring::{Direction, LIVE_NOCK, LIVE_TIP};

use toy::{ALICE, BOB, Ear, Machine, NONCE, Told, Tube, pattern, poke, tube};

/// The references of a control page and of a data page of each ring.
fn pages(tube: &Tube) -> [Gref; 4] {
    let (tx, rx) = (tube.refs.tx_ring_ref, tube.refs.rx_ring_ref);
    let data = |gref, direction| {
        // SAFETY: the world keeps the page, and the handle does not leave this function.
        let control = unsafe { tube_ring::ControlPage::from_raw(tube.world.page(gref)) };
        control.check(direction, NONCE).unwrap().grefs[0]
    };
    [tx, rx, data(tx, Direction::Tx), data(rx, Direction::Rx)]
}

fn mapped(tube: &Tube, pages: [Gref; 4]) -> [usize; 4] {
    pages.map(|gref| tube.world.mapped(gref))
}

fn cut(link: &Link<Machine>, why: LinkError, ear: &mut Ear) -> Outcome {
    link.cut(why);
    link.resume(ear)
}

/// The peer's kernel, or whoever has the pages now.
fn kill(tube: &Tube, live: usize) {
    poke(tube.world.page(tube.refs.tx_ring_ref), live, 0);
}

fn scribble(tube: &Tube, pages: [Gref; 4]) {
    for gref in pages {
        (0..PAGE).for_each(|at| poke(tube.world.page(gref), at, 0xff));
    }
}

#[test]
fn a_dead_tips_pages_go_at_once_and_what_it_sent_does_not() {
    let tube = tube(4);
    let all = pages(&tube);
    assert_eq!(mapped(&tube, all), [2; 4]);
    let (mut ear, deaf) = (Ear::default(), Ear::default());
    let long = pattern(40_000, 3);
    for message in [b"one".as_slice(), b"two", &long] {
        assert_eq!(tube.tip.send(ALICE, message, 0, &ear), Ok(Sent::Whole));
    }
    assert_eq!(tube.nock.recv(BOB, &mut ear, &deaf), Ok(Received::Small));
    assert_eq!(tube.nock.send(BOB, b"unread", 0, &ear), Ok(Sent::Whole));
    kill(&tube, LIVE_TIP);
    assert_eq!(tube.nock.bell(&mut ear), Outcome::Idle);
    assert_eq!(ear.take(), [Told::Event(Event::Gone)]);
    assert_eq!(mapped(&tube, all), [1; 4], "only by the tip itself");
    // The dead are not always dead.
    scribble(&tube, all);
    let info = tube.nock.info().unwrap();
    assert!(info.gone && info.rx_backlog > 40_000);
    assert_eq!(tube.nock.recv(BOB, &mut ear, &deaf), Ok(Received::Small));
    assert_eq!(ear.message(), b"two");
    let received = tube.nock.recv(BOB, &mut ear, &deaf);
    assert!(matches!(received, Ok(Received::Long(bytes)) if bytes.0 == long));
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &deaf),
        Err(LinkError::PeerDown)
    );
    let ended = [Event::Drained, Event::OwnerTold].map(Told::Event);
    assert_eq!(deaf.take(), ended);
    assert_eq!(tube.nock.send(BOB, b"", 0, &ear), Err(LinkError::PeerDown));
    tube.nock.bell(&mut ear);
    tube.nock.close(&mut ear);
    assert_eq!(ear.take(), []);
}

#[test]
fn a_message_half_taken_is_completed_from_the_copy_or_not_at_all() {
    for complete in [true, false] {
        let tube = tube(4);
        let all = pages(&tube);
        let (mut ear, deaf) = (Ear::default(), Ear::default());
        let long = pattern(100_000, 9);
        let Ok(Sent::Wait(done)) = tube.tip.send(ALICE, &long, 0, &ear) else {
            panic!("fits");
        };
        assert_eq!(
            tube.nock.recv(BOB, &mut ear, &deaf),
            Ok(Received::Wait),
            "part of it"
        );
        if complete {
            assert_eq!(tube.tip.send(ALICE, &long, done, &ear), Ok(Sent::Whole));
        }
        kill(&tube, LIVE_TIP);
        tube.nock.bell(&mut ear);
        scribble(&tube, all);
        if complete {
            let received = tube.nock.recv(BOB, &mut ear, &deaf);
            assert!(matches!(received, Ok(Received::Long(bytes)) if bytes.0 == long));
        }
        assert_eq!(
            tube.nock.recv(BOB, &mut ear, &deaf),
            Err(LinkError::PeerDown)
        );
    }
}

#[test]
fn a_dead_nock_leaves_the_tip_its_own_pages() {
    let tube = tube(0);
    let all = pages(&tube);
    assert_eq!(
        tube.nock.send(BOB, b"last", 0, &Ear::default()),
        Ok(Sent::Whole)
    );
    kill(&tube, LIVE_NOCK);
    let mut ear = Ear::default();
    tube.tip.bell(&mut ear);
    assert_eq!(mapped(&tube, all), [2; 4]);
    let received = tube.tip.recv(ALICE, &mut ear, &Ear::default());
    assert_eq!(received, Ok(Received::Small));
}

#[test]
fn a_cut_lets_go_of_everything_on_either_side_and_says_why() {
    for (why, of_tip) in [(LinkError::DomainGone, false), (LinkError::Suspended, true)] {
        let tube = tube(0);
        let all = pages(&tube);
        let (one, me, other, you) = match of_tip {
            true => (&tube.tip, ALICE, &tube.nock, BOB),
            false => (&tube.nock, BOB, &tube.tip, ALICE),
        };
        let (mut ear, deaf) = (Ear::default(), Ear::default());
        assert_eq!(one.recv(me, &mut ear, &deaf), Ok(Received::Wait));
        while one.send(me, &[7; 500], 0, &ear) == Ok(Sent::Whole) {}
        assert_eq!(other.send(you, b"last", 0, &deaf), Ok(Sent::Whole));
        ear.take();
        assert_eq!(cut(one, why, &mut ear), Outcome::Idle);
        let told = [Told::Space(me), Told::Data(me), Told::Event(Event::Gone)];
        let heard = ear.take();
        assert!(told.iter().all(|told| heard.contains(told)), "{heard:?}");
        assert_eq!(mapped(&tube, all), [1; 4]);
        assert_eq!(one.recv(me, &mut ear, &deaf), Ok(Received::Small));
        assert_eq!(ear.message(), b"last");
        assert_eq!(one.recv(me, &mut ear, &deaf), Err(why));
        assert_eq!(one.send(me, b"", 0, &deaf), Err(why));
        // It says so once, and a second cut changes nothing.
        assert_eq!(cut(one, LinkError::PeerDown, &mut ear), Outcome::Idle);
        assert_eq!(one.recv(me, &mut ear, &deaf), Err(why));
        assert_eq!(ear.take(), []);
        // To the other it is gone.
        other.bell(&mut ear);
        assert!(other.is_gone());
        one.close(&mut ear);
        other.close(&mut ear);
    }
}

#[test]
fn an_active_owner_gets_the_rest_and_the_reason() {
    let tube = tube(0);
    let mut ear = Ear::default();
    for message in [b"one", b"two"] {
        assert_eq!(tube.tip.send(ALICE, message, 0, &ear), Ok(Sent::Whole));
    }
    tube.nock.set_active(Some(BOB), Active::Count(1)).unwrap();
    tube.nock.resume(&mut ear);
    cut(&tube.nock, LinkError::Suspended, &mut ear);
    let told = [
        Told::Message(BOB, b"one".to_vec()),
        Told::Passive(BOB),
        Told::Event(Event::Gone),
    ];
    assert_eq!(ear.take(), told);
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    tube.nock.resume(&mut ear);
    let told = [
        Told::Message(BOB, b"two".to_vec()),
        Told::End(BOB, Some(LinkError::Suspended)),
        Told::Event(Event::Drained),
        Told::Event(Event::OwnerTold),
    ];
    assert_eq!(ear.take(), told);
}

#[test]
fn a_peer_that_had_finished_has_finished_unless_it_was_in_answer() {
    for (why, told) in [
        (LinkError::DomainGone, LinkError::Closed),
        (LinkError::PeerDown, LinkError::Closed),
        (LinkError::Suspended, LinkError::Suspended),
    ] {
        let tube = tube(0);
        let (mut ear, deaf) = (Ear::default(), Ear::default());
        assert_eq!(tube.tip.send(ALICE, b"last", 0, &ear), Ok(Sent::Whole));
        tube.tip.shutdown(&ear).unwrap();
        cut(&tube.nock, why, &mut ear);
        assert_eq!(tube.nock.send(BOB, b"", 0, &deaf), Err(told));
        assert_eq!(tube.nock.recv(BOB, &mut ear, &deaf), Ok(Received::Small));
        assert_eq!(tube.nock.recv(BOB, &mut ear, &deaf), Err(told));
    }
}

#[test]
fn a_peer_that_closes_because_we_are_suspended_is_no_reason() {
    let tube = tube(0);
    let (mut ear, deaf) = (Ear::default(), Ear::default());
    tube.nock.suspend();
    assert_eq!(tube.nock.send(BOB, b"still", 0, &deaf), Ok(Sent::Whole));
    assert_eq!(tube.nock.recv(BOB, &mut ear, &deaf), Ok(Received::Wait));
    tube.tip.close(&mut Ear::default());
    tube.nock.bell(&mut ear);
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &deaf),
        Err(LinkError::Suspended)
    );
    assert_eq!(
        tube.nock.send(BOB, b"", 0, &deaf),
        Err(LinkError::Suspended)
    );
    ear.take();
    tube.nock.set_active(Some(BOB), Active::Always).unwrap();
    tube.nock.resume(&mut ear);
    assert_eq!(ear.take(), [Told::End(BOB, Some(LinkError::Suspended))]);
}

#[test]
fn a_peer_that_lied_has_lied() {
    let tube = tube(0);
    let (mut ear, deaf) = (Ear::default(), Ear::default());
    let page = tube.world.page(tube.refs.tx_ring_ref);
    let index = tube_ring::wire::PRODUCER + tube_ring::wire::INDEX;
    toy::poke_word(page, index, 3);
    let all = pages(&tube);
    cut(&tube.nock, LinkError::DomainGone, &mut ear);
    assert_eq!(mapped(&tube, all), [1; 4]);
    assert_eq!(
        tube.nock.recv(BOB, &mut ear, &deaf),
        Err(LinkError::Protocol)
    );
}

#[test]
fn a_half_that_panicked_holds_nothing_back() {
    struct Bomb;
    impl tube_link::MessageSink for Bomb {
        fn room(&mut self, _len: usize) -> bool {
            panic!("on purpose")
        }
        fn take(&mut self, _bytes: tube_link::Fragment<'_>) {}
    }
    let tube = tube(0);
    let all = pages(&tube);
    let mut ear = Ear::default();
    assert_eq!(tube.tip.send(ALICE, b"boom", 0, &ear), Ok(Sent::Whole));
    let blown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        tube.nock.recv(BOB, &mut Bomb, &Ear::default())
    }));
    assert!(blown.is_err());
    cut(&tube.nock, LinkError::Suspended, &mut ear);
    assert_eq!(mapped(&tube, all), [1; 4]);
    assert_eq!(tube.nock.send(BOB, b"", 0, &ear), Err(LinkError::Suspended));
}
