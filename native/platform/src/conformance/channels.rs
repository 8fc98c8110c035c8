//! Event channels.

use std::time::Duration;

use super::{Actor, Case, Channel, SOON, Stage, settle};
use crate::{Ack, DOMID_MAX, Errno, ErrorKind};

pub(super) const CASES: &[Case] = &[
    (
        "a notification arrives at the other end, both ways",
        both_ways,
    ),
    ("notifications merge and never block", notifications_merge),
    ("a notification before the bind", early_notification),
    ("only the named peer can bind, once", only_the_named_peer),
    ("unknown ports are refused", unknown_ports),
    ("a closed port cannot be bound", closed_port),
    ("channels are independent", distinct),
    ("the maker closes the channel", maker_closes),
    ("the binder closes the channel", binder_closes),
    (
        "a notification before the end arrives first",
        notification_then_end,
    ),
];

const NOW: Duration = Duration::ZERO;

fn pair(s: &mut Stage) -> (Channel, Channel) {
    let (ours, port) = s.a.unbound(s.b.domid()).unwrap();
    let (theirs, _) = s.b.bind(s.a.domid(), port).unwrap();
    // Binding itself may send an event.
    drain(s.a.as_ref(), ours);
    drain(s.b.as_ref(), theirs);
    (ours, theirs)
}

/// Acknowledges until nothing is pending. Panics after too many rounds.
fn drain(actor: &dyn Actor, channel: Channel) {
    for _ in 0..100_000 {
        if !actor.wait(channel, NOW) {
            return;
        }
        assert_eq!(actor.acknowledge(channel), Ok(Ack::Open));
    }
    panic!("still pending after every acknowledgement");
}

#[track_caller]
fn check_notified(from: &dyn Actor, sender: Channel, to: &dyn Actor, receiver: Channel) {
    assert!(!to.wait(receiver, NOW), "pending before the notification");
    from.notify(sender).unwrap();
    assert!(to.wait(receiver, SOON), "no notification");
    assert_eq!(to.acknowledge(receiver), Ok(Ack::Open));
    assert!(!to.wait(receiver, NOW), "pending after its acknowledgement");
}

fn both_ways(s: &mut Stage) {
    let (ours, theirs) = pair(s);
    for _ in 0..10 {
        check_notified(s.a.as_ref(), ours, s.b.as_ref(), theirs);
        check_notified(s.b.as_ref(), theirs, s.a.as_ref(), ours);
    }
    // With nothing pending, acknowledging does not block either.
    assert_eq!(s.a.acknowledge(ours), Ok(Ack::Open));
    s.a.close(ours);
    s.b.close(theirs);
}

fn notifications_merge(s: &mut Stage) {
    let (ours, theirs) = pair(s);
    s.a.notify_times(ours, 100_000).unwrap();
    assert!(s.b.wait(theirs, SOON));
    drain(s.b.as_ref(), theirs);
    check_notified(s.a.as_ref(), ours, s.b.as_ref(), theirs);
    s.a.close(ours);
    s.b.close(theirs);
}

fn early_notification(s: &mut Stage) {
    let (ours, port) = s.a.unbound(s.b.domid()).unwrap();
    assert!(!s.a.wait(ours, NOW), "pending without a notification");
    s.a.notify(ours).unwrap();
    let (theirs, _) = s.b.bind(s.a.domid(), port).unwrap();
    if s.traits.keeps_early_notifications {
        assert!(s.b.wait(theirs, SOON));
    }
    // Whether it was kept or lost, the next one arrives.
    drain(s.b.as_ref(), theirs);
    check_notified(s.a.as_ref(), ours, s.b.as_ref(), theirs);
    s.a.close(ours);
    s.b.close(theirs);
}

fn only_the_named_peer(s: &mut Stage) {
    let (ours, port) = s.a.unbound(s.b.domid()).unwrap();
    let intruder = s.c.bind(s.a.domid(), port);
    s.refused(intruder, Errno::ACCESS);
    let (theirs, _) = s.b.bind(s.a.domid(), port).unwrap();
    let again = s.b.bind(s.a.domid(), port);
    s.refused(again, Errno::NOENT);
    // The failed attempts have not affected the channel.
    drain(s.b.as_ref(), theirs);
    check_notified(s.a.as_ref(), ours, s.b.as_ref(), theirs);
    s.a.close(ours);
    s.b.close(theirs);
}

fn unknown_ports(s: &mut Stage) {
    let a = s.a.domid();
    for port in [u32::MAX, u32::MAX - 1] {
        let refusal = s.b.bind(a, port);
        s.refused(refusal, Errno::NOENT);
    }
    let refusal = s.b.bind(DOMID_MAX + 1, 1);
    s.refused(refusal, Errno::INVAL);
    let refusal = s.a.unbound(DOMID_MAX + 1);
    s.refused(refusal, Errno::INVAL);
}

fn closed_port(s: &mut Stage) {
    let (ours, port) = s.a.unbound(s.b.domid()).unwrap();
    s.a.close(ours);
    settle(s.a.as_mut());
    let late = s.b.bind(s.a.domid(), port);
    s.refused(late, Errno::NOENT);
}

fn distinct(s: &mut Stage) {
    let (a, b) = (s.a.domid(), s.b.domid());
    let (one, one_port) = s.a.unbound(b).unwrap();
    let (two, two_port) = s.a.unbound(b).unwrap();
    assert_ne!(one_port, two_port);
    let (two_theirs, _) = s.b.bind(a, two_port).unwrap();
    let (one_theirs, _) = s.b.bind(a, one_port).unwrap();
    drain(s.b.as_ref(), one_theirs);
    drain(s.b.as_ref(), two_theirs);
    s.a.notify(one).unwrap();
    assert!(s.b.wait(one_theirs, SOON));
    assert!(!s.b.wait(two_theirs, NOW));
    check_notified(s.a.as_ref(), two, s.b.as_ref(), two_theirs);
    for channel in [one, two] {
        s.a.close(channel);
    }
    for channel in [one_theirs, two_theirs] {
        s.b.close(channel);
    }
}

/// Checks one end after the other was closed.
fn check_peer_gone(s: &Stage, actor: &dyn Actor, channel: Channel) {
    if s.traits.reports_peer_gone {
        assert!(actor.wait(channel, SOON), "the end was not reported");
        assert_eq!(actor.acknowledge(channel), Ok(Ack::PeerGone));
        // The state is permanent.
        assert!(actor.wait(channel, NOW));
        assert_eq!(actor.acknowledge(channel), Ok(Ack::PeerGone));
        let refusal = actor.notify(channel).unwrap_err();
        assert_eq!(refusal.kind, ErrorKind::PeerGone);
    } else {
        assert_eq!(actor.acknowledge(channel), Ok(Ack::Open));
    }
}

fn maker_closes(s: &mut Stage) {
    let (ours, theirs) = pair(s);
    s.a.close(ours);
    check_peer_gone(s, s.b.as_ref(), theirs);
    s.b.close(theirs);
}

fn binder_closes(s: &mut Stage) {
    let (ours, theirs) = pair(s);
    s.b.close(theirs);
    check_peer_gone(s, s.a.as_ref(), ours);
    s.a.close(ours);
}

fn notification_then_end(s: &mut Stage) {
    let (ours, theirs) = pair(s);
    s.a.notify(ours).unwrap();
    s.a.close(ours);
    assert!(s.b.wait(theirs, SOON));
    assert_eq!(s.b.acknowledge(theirs), Ok(Ack::Open));
    check_peer_gone(s, s.b.as_ref(), theirs);
    s.b.close(theirs);
}
