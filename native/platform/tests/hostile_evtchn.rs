//! Event channels from a faulty hub, and connections that fail.

mod fake_hub;

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;

use fake_hub::FakeHub;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use tube_platform::local::proto::{Reply, Request};
use tube_platform::{Ack, ErrorKind, Notify, Platform};

const PORT: u32 = 9;

fn pipe(flags: PipeFlags) -> [OwnedFd; 2] {
    pipe_with(flags | PipeFlags::CLOEXEC).unwrap().into()
}

/// A hub that replies to ALLOC with these descriptors, once.
fn hub_with(fds: Vec<OwnedFd>) -> FakeHub {
    let fds = Mutex::new(Some(fds));
    FakeHub::start(move |seq, request| {
        Some(match request {
            Request::Alloc { .. } => {
                let fds = fds.lock().unwrap().take().unwrap_or_default();
                vec![(Reply::Alloc { port: PORT }.encode(seq), fds)]
            }
            _ => Vec::new(),
        })
    })
}

#[test]
fn only_non_blocking_pipe_ends_are_accepted() {
    let [here, there] = pipe(PipeFlags::NONBLOCK);
    let [_far, outgoing] = pipe(PipeFlags::NONBLOCK);
    let again = |fd: &OwnedFd| fd.try_clone().unwrap();
    let [blocking_read, blocking_write] = pipe(PipeFlags::empty());
    let (socket, _other) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    for (why, fds) in [
        ("none", vec![]),
        ("one", vec![again(&here)]),
        ("three", vec![again(&here), again(&outgoing), again(&there)]),
        ("in the wrong order", vec![again(&outgoing), again(&here)]),
        ("two read ends", vec![again(&here), again(&here)]),
        ("blocking read", vec![blocking_read, again(&outgoing)]),
        ("blocking write", vec![again(&here), blocking_write]),
        ("not pipes", vec![again(&socket), again(&socket)]),
    ] {
        let hub = hub_with(fds);
        let local = hub.attach();
        let error = local.evtchn_unbound(3).err().expect(why);
        assert_eq!(error.kind, ErrorKind::NotAHub, "{why}");
        // The port that came with them is closed.
        assert_eq!(hub.notice(), Some(Request::Close { port: PORT }), "{why}");
    }
}

#[test]
fn a_channel_notifies_acknowledges_and_closes() {
    let [incoming, peer_writes] = pipe(PipeFlags::NONBLOCK);
    let [peer_reads, outgoing] = pipe(PipeFlags::NONBLOCK);
    let hub = hub_with(vec![incoming, outgoing]);
    let local = hub.attach();
    let channel = local.evtchn_unbound(3).unwrap();
    assert_eq!(channel.port(), PORT);
    // More than the pipe holds. A full pipe is a pending event.
    for _ in 0..70_000 {
        channel.notify().unwrap();
    }
    assert!(rustix::io::read(&peer_reads, &mut [0; 8]).unwrap() > 0);
    // Acknowledging costs a bounded amount even if the peer notifies without end.
    while rustix::io::write(&peer_writes, &[1; 512]).is_ok() {}
    assert_eq!(channel.acknowledge(), Ok(Ack::Open));
    assert!(rustix::io::read(channel.fd(), &mut [0; 1]) == Ok(1));
    drop(peer_writes);
    // Notifications from before the end arrive before the end.
    let mut rounds = 0;
    while channel.acknowledge() == Ok(Ack::Open) {
        rounds += 1;
        assert!(rounds < 1000, "never ends");
    }
    assert_eq!(channel.acknowledge(), Ok(Ack::PeerGone));
    drop(peer_reads);
    assert_eq!(channel.notify().unwrap_err().kind, ErrorKind::PeerGone);
    let late = Some(Notify {
        offset: 0,
        port: PORT,
    });
    drop(channel);
    assert_eq!(hub.notice(), Some(Request::Close { port: PORT }));
    // A closed channel can no longer be named.
    let error = local.share(3, 1, tube_platform::Access::ReadWrite, late);
    assert_eq!(error.unwrap_err().atom(), "einval");
}

#[test]
fn a_late_reply_is_released() {
    let held = Mutex::new(None);
    let hub = FakeHub::start(move |seq, request| {
        Some(match request {
            Request::Alloc { .. } => {
                let [read, write] = pipe(PipeFlags::NONBLOCK);
                let reply = |seq, port| Reply::Alloc { port }.encode(seq);
                let mut held = held.lock().unwrap();
                match held.take() {
                    // The first reply is held back until the second request.
                    None => {
                        *held = Some(reply(seq, 1));
                        Vec::new()
                    }
                    Some(late) => vec![(late, Vec::new()), (reply(seq, 2), vec![read, write])],
                }
            }
            _ => Vec::new(),
        })
    });
    let local = hub.attach();
    let error = local.evtchn_unbound(3).err().unwrap();
    assert_eq!(error.atom(), "etimedout");
    let channel = local.evtchn_unbound(3).unwrap();
    assert_eq!(channel.port(), 2);
    assert_eq!(hub.notice(), Some(Request::Close { port: 1 }));
}

#[test]
fn closing_does_not_wait_for_a_request_in_flight() {
    let (request_sender, requests) = mpsc::channel();
    let (go_on, wait) = mpsc::channel::<()>();
    let (request_sender, wait) = (Mutex::new(request_sender), Mutex::new(wait));
    let hub = FakeHub::start(move |seq, request| {
        Some(match request {
            Request::Alloc { .. } => {
                let fds = pipe(PipeFlags::NONBLOCK).into();
                vec![(Reply::Alloc { port: PORT }.encode(seq), fds)]
            }
            Request::Bind { .. } => {
                request_sender.lock().unwrap().send(()).unwrap();
                wait.lock().unwrap().recv().unwrap();
                vec![(Reply::Bind { port: PORT + 1 }.encode(seq), Vec::new())]
            }
            _ => Vec::new(),
        })
    });
    let local = hub.attach();
    let channel = local.evtchn_unbound(3).unwrap();
    thread::scope(|scope| {
        let bind = scope.spawn(|| local.evtchn_bind(3, 1).err().unwrap().kind);
        requests.recv().unwrap();
        // This must not wait for the bind, which holds the connection: otherwise the test hangs.
        drop(channel);
        go_on.send(()).unwrap();
        assert_eq!(bind.join().unwrap(), ErrorKind::NotAHub);
    });
    // The thread that held the connection sent them. No further call was needed.
    let closed = [hub.notice(), hub.notice()];
    let close = |port| Some(Request::Close { port });
    assert!(closed.contains(&close(PORT)) && closed.contains(&close(PORT + 1)));
}

#[test]
fn a_malformed_reply_breaks_the_connection() {
    let replied = AtomicBool::new(false);
    let hub = FakeHub::start(move |seq, request| {
        Some(match request {
            Request::Alloc { .. } if replied.swap(true, Ordering::Relaxed) => {
                let fds = pipe(PipeFlags::NONBLOCK).into();
                vec![(Reply::Alloc { port: PORT }.encode(seq), fds)]
            }
            Request::Alloc { .. } => vec![(vec![1, 2, 3], Vec::new())],
            _ => Vec::new(),
        })
    });
    let local = hub.attach();
    for _ in 0..2 {
        let error = local.evtchn_unbound(3).err().unwrap();
        assert_eq!(error.kind, ErrorKind::NotAHub);
    }
}

#[test]
fn closing_a_channel_works_without_the_hub() {
    let [read, write] = pipe(PipeFlags::NONBLOCK);
    let fds = Mutex::new(Some(vec![read, write]));
    let hub = FakeHub::start(move |seq, request| match request {
        Request::Alloc { .. } => {
            let fds = fds.lock().unwrap().take().unwrap_or_default();
            Some(vec![(Reply::Alloc { port: PORT }.encode(seq), fds)])
        }
        Request::Bind { .. } => None,
        _ => Some(Vec::new()),
    });
    let local = hub.attach();
    let channel = local.evtchn_unbound(3).unwrap();
    for _ in 0..2 {
        let error = local.evtchn_bind(3, 1).err().unwrap();
        assert_eq!(error.kind, ErrorKind::HubGone);
    }
    drop(local);
    // After set-up, a channel needs no hub.
    channel.notify().unwrap();
    assert_eq!(channel.acknowledge(), Ok(Ack::Open));
    drop(channel);
}
