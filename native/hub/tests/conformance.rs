//! The local platform under the suite that every platform has to pass, with a real hub.
//!
//! One test in one process: the suite counts descriptors and mappings.

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
    assert_eq!(descriptors(&mut rig), held, "the hub keeps something");
    many_threads(&rig);
    without_a_hub(&mut stage, &mut rig);
}

fn descriptors(rig: &mut Rig) -> usize {
    let pid = rig.hub().id();
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("/proc")
        .count()
}

/// One membership, used by several threads at once: every request gets its own reply, and
/// what one thread lets go of while another has the connection is not forgotten.
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
                    let bell = local.evtchn_unbound(peer.domid()).expect("a port");
                    let ear = peer.evtchn_bind(local.domid(), bell.port()).expect("bound");
                    bell.notify().expect("rung");
                    assert_eq!(ear.acknowledge(), Ok(Ack::Open));
                    highest.fetch_max(share_of(ours.refs()[0]), Ordering::Relaxed);
                }
            });
        }
    });
    // Once this is answered, all notices before it have been taken in.
    let nothing = local.map(peer.domid(), &[Gref::MAX], Access::ReadWrite, None);
    assert!(nothing.is_err());
    for share in 0..=highest.into_inner() {
        let left = peer.map(local.domid(), &[gref(share, 0)], Access::ReadWrite, None);
        assert_eq!(left.unwrap_err().atom(), "enoent", "share {share}");
    }
}

/// What is set up lives on when the hub dies, and lets go without it.
fn without_a_hub(stage: &mut Stage, rig: &mut Rig) {
    let Stage { a, b, .. } = stage;
    let (bell, port) = a.unbound(b.domid()).expect("a port");
    let (ear, _) = b.bind(a.domid(), port).expect("bound");
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
    let refusal = a.share(b.domid(), 1, Access::ReadWrite, None);
    assert_eq!(refusal.unwrap_err().kind, ErrorKind::HubGone);
    // Nobody will ever bind to it.
    assert_eq!(a.acknowledge(waiting), Ok(Ack::PeerGone));

    a.poke(ours, 4096, b"still here");
    a.notify(bell).expect("rung");
    assert!(b.wait(ear, Duration::ZERO));
    assert_eq!(b.acknowledge(ear), Ok(Ack::Open));
    assert_eq!(b.peek(theirs, 4096, 10), b"still here");
    a.close(bell);
    assert_eq!(b.acknowledge(ear), Ok(Ack::PeerGone));
    a.unmap(ours);
    b.unmap(theirs);
    b.close(ear);
    a.close(waiting);
}
