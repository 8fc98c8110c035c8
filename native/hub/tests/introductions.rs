//! Grants and event channels between two domains, out of reach of a third.

mod common;

use std::os::fd::AsFd;

use common::*;
use rustix::event::PollFlags;
use tube_platform::local::Local;
use tube_platform::local::proto::{Reply, Request, Run};
use tube_platform::{Access, Ack, Platform};

fn share(client: &mut Client, peer: u16, pages: u32) -> Reply {
    let memory = memory(pages.into());
    client
        .ask_with(
            Request::Share {
                peer,
                pages,
                access: Access::ReadOnly,
            },
            &[memory.as_fd()],
        )
        .0
}

fn shared(client: &mut Client, peer: u16, pages: u32) -> u32 {
    match share(client, peer, pages) {
        Reply::Share { first_ref } => first_ref,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pages_are_for_the_named_peer() {
    let rig = Rig::with_hub(&[]);
    let (tip, nock, third) = (
        rig.domain(Some(5)),
        rig.domain(Some(7)),
        rig.domain(Some(9)),
    );
    let mut granter = tip.client("grants.sock");
    let mut mapper = nock.client("grants.sock");
    let mut other = third.client("grants.sock");
    let first = shared(&mut granter, 7, 4);
    let map = |refs: &[u32]| Request::Map {
        granter: 5,
        refs: refs.to_vec(),
    };

    let (reply, fds) = mapper.ask_with(map(&[first + 1, first + 2, first]), &[]);
    let run = |first_page, pages| Run {
        fd_index: 0,
        first_page,
        pages,
        access: Access::ReadOnly,
    };
    assert_eq!(
        reply,
        Reply::Map {
            runs: vec![run(1, 2), run(0, 1)]
        }
    );
    assert_eq!(fds.len(), 1);
    assert_eq!(
        rustix::fs::fstat(&fds[0]).expect("a memfd").st_size,
        4 * 4096
    );

    assert_eq!(error_atom(&other.ask(map(&[first]))), "eacces");
    assert_eq!(error_atom(&granter.ask(map(&[first]))), "eacces");
    assert_eq!(error_atom(&mapper.ask(map(&[first + 4]))), "enoent");
    assert_eq!(
        error_atom(&mapper.ask(Request::Map {
            granter: 9,
            refs: vec![first]
        })),
        "enoent"
    );

    // Only the granter can end a share. UNSHARE has no reply; the hub handles requests in order.
    other.send(&Request::Unshare { first_ref: first }.encode(1), &[]);
    assert_eq!(error_atom(&other.ask(map(&[first]))), "eacces");
    granter.send(&Request::Unshare { first_ref: first }.encode(1), &[]);
    shared(&mut granter, 7, 1);
    assert_eq!(error_atom(&mapper.ask(map(&[first]))), "enoent");
}

#[test]
fn a_new_domain_with_an_old_domid_inherits_nothing() {
    let rig = Rig::with_hub(&[]);
    let tip = rig.domain(Some(5));
    let nock = rig.domain(Some(7));
    let mut granter = tip.client("grants.sock");
    let first = shared(&mut granter, 7, 1);
    let mut channels = tip.client("evtchn.sock");
    let Reply::Alloc { port } = channels.ask(Request::Alloc { peer: 7 }) else {
        panic!("no port")
    };
    let mut admin = Store::connect(&rig.path("dom0/xenstored.sock"));
    admin.must(op::WATCH, b"@releaseDomain\0t\0");
    admin.await_event("@releaseDomain");
    drop(nock);
    admin.await_event("@releaseDomain");
    let next = rig.domain(Some(7));
    let refused = next.client("grants.sock").ask(Request::Map {
        granter: 5,
        refs: vec![first],
    });
    assert_eq!(error_atom(&refused), "enoent");
    let refused = next.client("evtchn.sock").ask(Request::Bind {
        remote: 5,
        remote_port: port,
    });
    assert_eq!(error_atom(&refused), "enoent");
}

#[test]
fn a_bound_channel_belongs_to_its_two_domains_alone() {
    let rig = Rig::with_hub(&[]);
    let (tip, nock, third) = (
        rig.domain(Some(5)),
        rig.domain(Some(7)),
        rig.domain(Some(9)),
    );
    let (reply, here) = tip
        .client("evtchn.sock")
        .ask_with(Request::Alloc { peer: 7 }, &[]);
    let Reply::Alloc { port } = reply else {
        panic!("{reply:?}")
    };
    let bind = Request::Bind {
        remote: 5,
        remote_port: port,
    };
    assert_eq!(
        error_atom(&third.client("evtchn.sock").ask(bind.clone())),
        "eacces"
    );
    let mut binder = nock.client("evtchn.sock");
    let (reply, there) = binder.ask_with(bind.clone(), &[]);
    assert!(matches!(reply, Reply::Bind { .. }), "{reply:?}");
    assert_eq!(error_atom(&binder.ask(bind)), "enoent");
    assert_eq!((here.len(), there.len()), (2, 2));

    // All ends are non-blocking.
    for end in here.iter().chain(&there) {
        assert!(
            rustix::fs::fcntl_getfl(end)
                .expect("flags")
                .contains(rustix::fs::OFlags::NONBLOCK)
        );
    }
    assert_eq!(rustix::io::write(&there[1], b"!"), Ok(1));
    assert_eq!(rustix::io::read(&here[0], &mut [0; 8]), Ok(1));

    // The hub has no copy: when one side closes its end, the other sees it at once.
    assert!(!ready(&here[0]).contains(PollFlags::HUP));
    // The test waits, since a child that another test forks has copies until it calls exec.
    drop(there);
    assert!(
        tube_hub::probe::wait_readable(&here[0], deadline()).expect("poll"),
        "no end"
    );
    assert_eq!(rustix::io::read(&here[0], &mut [0; 8]), Ok(0));
    assert_eq!(
        rustix::io::write(&here[1], b"!"),
        Err(rustix::io::Errno::PIPE)
    );
}

#[test]
fn an_unbound_channel_ends_with_either_domain() {
    let rig = Rig::with_hub(&[]);
    let (tip, nock) = (rig.domain(Some(5)), rig.domain(Some(7)));
    let (_, ends) = tip
        .client("evtchn.sock")
        .ask_with(Request::Alloc { peer: 7 }, &[]);
    let mut closer = tip.client("evtchn.sock");
    let (reply, closed) = closer.ask_with(Request::Alloc { peer: 7 }, &[]);
    let Reply::Alloc { port } = reply else {
        panic!("{reply:?}")
    };
    closer.send(&Request::Close { port }.encode(1), &[]);
    assert!(tube_hub::probe::wait_readable(&closed[0], deadline()).expect("poll"));
    assert!(!ready(&ends[0]).contains(PollFlags::HUP));
    drop(nock);
    assert!(
        tube_hub::probe::wait_readable(&ends[0], deadline()).expect("poll"),
        "no end of file"
    );
    assert_eq!(rustix::io::read(&ends[0], &mut [0; 8]), Ok(0));
}

#[test]
fn one_domain_cannot_exhaust_the_descriptors() {
    let rig = Rig::with_descriptor_limit(1100);
    let limited = rig.domain(Some(5));
    let mut grants = limited.client("grants.sock");
    let mut channels = limited.client("evtchn.sock");
    let mut held = Vec::new();
    let refused = loop {
        match share(&mut grants, 7, 1) {
            Reply::Share { first_ref } => held.push(first_ref),
            other => break other,
        }
        assert!(held.len() < 1100, "there is no limit");
    };
    assert_eq!(error_atom(&refused), "enospc");
    assert!(held.len() > 20, "{}", held.len());
    assert_eq!(
        error_atom(&channels.ask(Request::Alloc { peer: 7 })),
        "enospc"
    );
    // Other domains have room, and refunded descriptors can be charged again.
    let other = rig.domain(Some(7));
    shared(&mut other.client("grants.sock"), 5, 1);
    assert!(matches!(
        other.client("evtchn.sock").ask(Request::Alloc { peer: 5 }),
        Reply::Alloc { .. }
    ));
    for first_ref in held.drain(..2) {
        grants.send(&Request::Unshare { first_ref }.encode(1), &[]);
    }
    shared(&mut grants, 7, 1);
}

#[test]
fn bound_channels_hold_no_descriptors() {
    let rig = Rig::with_descriptor_limit(1100);
    let (tip, nock) = (rig.domain(Some(5)), rig.domain(Some(7)));
    let (mut here, mut there) = (tip.client("evtchn.sock"), nock.client("evtchn.sock"));
    for _ in 0..600 {
        let Reply::Alloc { port } = here.ask(Request::Alloc { peer: 7 }) else {
            panic!("no port")
        };
        let reply = there.ask(Request::Bind {
            remote: 5,
            remote_port: port,
        });
        assert!(matches!(reply, Reply::Bind { .. }), "{reply:?}");
    }
}

#[test]
fn two_domains_of_the_platform_library_connect() {
    let rig = Rig::with_hub(&[]);
    let tip = Local::attach(&rig.run(), Some(5)).expect("attached");
    let nock = Local::attach(&rig.run(), None).expect("attached");
    assert_eq!((tip.domid(), nock.domid()), (5, 1));
    let ours = tip.share(1, 3, Access::ReadOnly, None).expect("shared");
    let theirs = nock
        .map(5, ours.refs(), Access::ReadOnly, None)
        .expect("mapped");
    assert_eq!(theirs.len(), ours.len());
    let receiver = tip.evtchn_unbound(1).expect("allocated");
    let sender = nock.evtchn_bind(5, receiver.port()).expect("bound");
    sender.notify().expect("notified");
    assert!(tube_hub::probe::wait_readable(receiver.fd(), deadline()).expect("poll"));
    assert!(matches!(receiver.acknowledge(), Ok(Ack::Open)));
    drop(sender);
    assert!(tube_hub::probe::wait_readable(receiver.fd(), deadline()).expect("poll"));
    assert!(matches!(receiver.acknowledge(), Ok(Ack::PeerGone)));
    let error = Local::attach(&rig.run(), Some(5)).err().expect("taken");
    assert_eq!(error.atom(), "domid_taken");
}
