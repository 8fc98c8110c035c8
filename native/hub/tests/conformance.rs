//! The conformance suite on the local platform, with a real hub.
//!
//! One test in one process, since the suite counts descriptors and mappings.

mod common;

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::{LOCAL, Rig};
use tube_platform::conformance::{Member, Stage, run};
use tube_platform::local::Local;
use tube_platform::local::proto::{gref, share_of};
use tube_platform::{Access, Ack, Domid, ErrorKind, Gref, Platform};

fn member(rig: &Rig, below: &str, domid: Option<Domid>) -> Box<Member> {
    Box::new(Member::new(
        Local::attach(&rig.path(below), domid).expect("attached"),
    ))
}

#[test]
fn the_local_platform_conforms() {
    let mut rig = Rig::with_hub(&[]);
    let mut stage = Stage {
        a: member(&rig, "", None),
        b: member(&rig, "", Some(7)),
        c: member(&rig, "", Some(5)),
        traits: LOCAL,
        rounds: 200,
    };
    assert_eq!(stage.a.domid(), 1);
    run(&mut stage);
    let held = descriptors(&mut rig);
    run(&mut stage);
    assert_eq!(descriptors(&mut rig), held, "the hub leaks descriptors");
    many_threads(&rig);
    without_a_hub(&mut stage, &mut rig);
}

fn descriptors(rig: &mut Rig) -> usize {
    let pid = rig.hub().id();
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("/proc")
        .count()
}

/// Several threads share one attachment: every request gets its own reply, and a release from one
/// thread is not lost while another uses the connection.
fn many_threads(rig: &Rig) {
    let peer = Local::attach(&rig.run(), None).expect("attached");
    let local = Local::attach(&rig.run(), None).expect("attached");
    let highest = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (local, peer, highest) = (&local, &peer, &highest);
            scope.spawn(move || {
                for round in 0..100 {
                    let pages = 1 + (thread + round) % 3;
                    let ours = local
                        .share(peer.domid(), pages, Access::ReadWrite, None)
                        .expect("shared");
                    assert_eq!(ours.refs().len(), pages);
                    let theirs = peer
                        .map(local.domid(), ours.refs(), Access::ReadWrite, None)
                        .expect("mapped");
                    assert_eq!(theirs.refs(), ours.refs());
                    let sender = local.evtchn_unbound(peer.domid()).expect("a port");
                    let receiver = peer
                        .evtchn_bind(local.domid(), sender.port())
                        .expect("bound");
                    sender.notify().expect("notified");
                    assert_eq!(receiver.acknowledge(), Ok(Ack::Open));
                    highest.fetch_max(share_of(ours.refs()[0]), Ordering::Relaxed);
                }
            });
        }
    });
    // The hub replies to this only after it has handled all earlier messages without a reply.
    let nothing = local.map(peer.domid(), &[Gref::MAX], Access::ReadWrite, None);
    assert!(nothing.is_err());
    for share in 0..=highest.into_inner() {
        let left = peer.map(local.domid(), &[gref(share, 0)], Access::ReadWrite, None);
        assert_eq!(left.unwrap_err().atom(), "enoent", "share {share}");
    }
}

/// Shares, mappings and channels work on and can be released after the hub has been killed.
fn without_a_hub(stage: &mut Stage, rig: &mut Rig) {
    let Stage { a, b, .. } = stage;
    let (sender, port) = a.unbound(b.domid()).expect("a port");
    let (receiver, _) = b.bind(a.domid(), port).expect("bound");
    let (waiting, _) = a.unbound(b.domid()).expect("a port");
    let (ours, refs) = a
        .share(b.domid(), 4, Access::ReadWrite, None)
        .expect("shared");
    let theirs = b
        .map(a.domid(), &refs, Access::ReadWrite, None)
        .expect("mapped");

    rig.hub().kill().expect("killed");
    rig.hub().wait().expect("waited for");
    assert_eq!(a.alive(), Ok(false));
    let refused = a.share(b.domid(), 1, Access::ReadWrite, None);
    assert_eq!(refused.unwrap_err().kind, ErrorKind::HubGone);
    // It can never be bound.
    assert_eq!(a.acknowledge(waiting), Ok(Ack::PeerGone));

    a.poke(ours, 4096, b"still here");
    a.notify(sender).expect("notified");
    assert!(b.wait(receiver, Duration::ZERO));
    assert_eq!(b.acknowledge(receiver), Ok(Ack::Open));
    assert_eq!(b.peek(theirs, 4096, 10), b"still here");
    a.close(sender);
    assert_eq!(b.acknowledge(receiver), Ok(Ack::PeerGone));
    a.unmap(ours);
    b.unmap(theirs);
    b.close(receiver);
    a.close(waiting);
}
