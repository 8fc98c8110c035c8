//! Hostile and faulty clients.

mod common;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use common::*;
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown};
use tube_hub::probe::{Found, probe};
use tube_platform::Access;
use tube_platform::local::fdpass;
use tube_platform::local::proto::{Request, VERSION};

/// Reproducible noise.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    let step = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(step).collect()
}

#[test]
fn what_is_no_message_ends_the_connection_and_nothing_else() {
    let rig = Rig::with_hub(&[&kept(3)]);
    let five = rig.domain(Some(5));
    let hello = Request::Hello {
        version: VERSION,
        domid: None,
    }
    .encode(1);
    let share = Request::Share {
        peer: 5,
        pages: 1,
        access: Access::ReadOnly,
    }
    .encode(1);
    let alloc = Request::Alloc { peer: 5 }.encode(1);
    let mut far = share.clone();
    far[8..10].copy_from_slice(&0xFFFF_u16.to_le_bytes());
    let mut many = Request::Map {
        granter: 5,
        refs: vec![1],
    }
    .encode(1);
    many[10..14].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut long = hello.clone();
    long.push(0);
    let nonsense = [
        vec![0],
        vec![0xFF; 8],
        noise(64),
        noise(16 * 1024),
        noise(40 * 1024),
        far,
        many,
        long,
    ];
    let memory = memory(1);
    for socket in [
        "hub.sock",
        "dom3/control.sock",
        "dom5/grants.sock",
        "dom5/evtchn.sock",
    ] {
        // Well-formed, but on the wrong socket or without the descriptor that it needs.
        let misplaced = match socket {
            "dom5/grants.sock" => vec![hello.clone(), alloc.clone(), share.clone()],
            "dom5/evtchn.sock" => vec![hello.clone(), share.clone()],
            _ => vec![alloc.clone(), share.clone()],
        };
        for message in nonsense.iter().chain(&misplaced) {
            let mut client = rig.client(socket);
            client.send(message, &[]);
            client.expect_end();
        }
        // Unexpected or too many descriptors.
        for count in [2, 200] {
            let mut client = rig.client(socket);
            client.send(&share, &vec![memory.as_fd(); count]);
            client.expect_end();
        }
        if socket != "dom5/grants.sock" {
            let mut client = rig.client(socket);
            client.send(
                if socket == "dom5/evtchn.sock" {
                    &alloc
                } else {
                    &hello
                },
                &[memory.as_fd()],
            );
            client.expect_end();
        }
        // An empty packet.
        let client = rig.client(socket);
        rustix::net::send(&client.socket, &[], SendFlags::empty()).expect("sent");
        client.expect_end();
    }
    assert_eq!(probe(&rig.run(), TIMEOUT), Found::Hub);
    five.store().must(op::READ, b"domid\0");
    assert_eq!(rig.domain(None).domid, 1);
}

#[test]
fn noise_ends_only_its_connection_to_the_store() {
    let rig = Rig::with_hub(&[]);
    let five = rig.domain(Some(5));
    for socket in ["dom0/xenstored.sock", "dom5/xenstored.sock"] {
        let mut store = Store::connect(&rig.path(socket));
        // The hub may close the connection at any byte.
        let _ = store.0.write_all(&noise(100_000));
        let _ = store.0.shutdown(std::net::Shutdown::Write);
        while store.receive().is_ok() {}
        let mut store = Store::connect(&rig.path(socket));
        let header: Vec<u8> = [op::READ, 1, 0, 4097]
            .into_iter()
            .flat_map(u32::to_ne_bytes)
            .collect();
        store.0.write_all(&header).expect("sent");
        assert!(
            store.receive().is_err(),
            "an oversized request must end the connection"
        );
    }
    five.store().must(op::READ, b"domid\0");
}

#[test]
fn a_second_hello_ends_only_its_domain() {
    let rig = Rig::with_hub(&[]);
    let (mut five, seven) = (rig.domain(Some(5)), rig.domain(Some(7)));
    five.control.send(
        &Request::Hello {
            version: VERSION,
            domid: Some(7),
        }
        .encode(1),
        &[],
    );
    five.control.expect_end();
    seven.store().must(op::READ, b"domid\0");
}

/// Sends a request repeatedly without reading a reply, until the hub takes no more.
fn flood(client: &Client, request: &[u8]) {
    for _ in 0..1_000_000 {
        match rustix::net::send(
            &client.socket,
            request,
            SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
        ) {
            Ok(_) => {}
            Err(Errno::AGAIN) => {
                let mut fds = [rustix::event::PollFd::new(
                    &client.socket,
                    rustix::event::PollFlags::OUT,
                )];
                let moment = rustix::event::Timespec {
                    tv_sec: 0,
                    tv_nsec: 50_000_000,
                };
                if rustix::event::poll(&mut fds, Some(&moment)).expect("poll") == 0 {
                    return;
                }
            }
            Err(_) => return,
        }
    }
    panic!("the hub takes every request");
}

#[test]
fn a_client_that_never_reads_is_dropped() {
    let hub = InProcessHub::with_timeouts(Duration::from_millis(300));
    let five = hub.rig.domain(Some(5));
    let client = five.client("grants.sock");
    flood(
        &client,
        &Request::Map {
            granter: 7,
            refs: vec![1],
        }
        .encode(1),
    );
    // Meanwhile the hub serves all other connections, including those of the same domain.
    five.store().must(op::READ, b"domid\0");
    let reply = five.client("grants.sock").ask(Request::Map {
        granter: 7,
        refs: vec![1],
    });
    assert_eq!(error_atom(&reply), "enoent");
    let mut fds = [rustix::event::PollFd::new(
        &client.socket,
        rustix::event::PollFlags::empty(),
    )];
    let limit = rustix::event::Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    assert_eq!(
        rustix::event::poll(&mut fds, Some(&limit)),
        Ok(1),
        "the client was not dropped"
    );
    five.store().must(op::READ, b"domid\0");
}

#[test]
fn a_connection_without_a_hello_is_dropped() {
    let hub = InProcessHub::with_timeouts(Duration::from_millis(100));
    let silent = hub.rig.client("hub.sock");
    let five = hub.rig.domain(Some(5));
    silent.expect_end();
    // An identified connection may stay silent.
    five.store().must(op::READ, b"domid\0");
}

#[test]
fn a_socket_shut_down_with_unread_replies_is_closed() {
    let rig = Rig::with_hub(&[]);
    let five = rig.domain(Some(5));
    // As many as the socket serves. The hub's timeout is longer than the test's, so if the hub
    // waited for them, it would not serve the next one in time.
    let unread: Vec<_> = (0..4)
        .map(|_| {
            let client = five.client("grants.sock");
            flood(
                &client,
                &Request::Map {
                    granter: 7,
                    refs: vec![1],
                }
                .encode(1),
            );
            rustix::net::shutdown(&client.socket, Shutdown::Both).expect("shut down");
            client
        })
        .collect();
    five.store().must(op::READ, b"domid\0");
    let reply = five.client("grants.sock").ask(Request::Map {
        granter: 7,
        refs: vec![1],
    });
    assert_eq!(error_atom(&reply), "enoent");
    drop(unread);
}

#[test]
fn a_watcher_that_never_reads_is_disconnected() {
    let rig = Rig::with_hub(&[]);
    let mut watcher = Store::connect(&rig.path("dom0/xenstored.sock"));
    watcher.must(op::WATCH, b"/flood\0t\0");
    let mut writer = Store::connect(&rig.path("dom0/xenstored.sock"));
    let mut count = 0;
    while !rig.log().contains("does not read") {
        // A different path each time, since a queued event is not queued again.
        let path = format!("/flood/{}{count}\0", "x".repeat(1000));
        writer.must(op::WRITE, path.as_bytes());
        writer.must(op::RM, path.as_bytes());
        count += 1;
        assert!(count < 100_000, "it is never disconnected");
    }
    // It can read what was sent before, and then end of file.
    while watcher.receive().is_ok() {}
}

#[test]
fn a_closed_connection_makes_room_for_another() {
    let rig = Rig::with_hub(&[]);
    let (five, seven) = (rig.domain(Some(5)), rig.domain(Some(7)));
    let mut open: Vec<_> = (0..64).map(|_| five.store()).collect();
    for store in &mut open {
        store.must(op::READ, b"domid\0");
    }
    assert!(five.store().receive().is_err());
    seven.store().must(op::READ, b"domid\0");
    drop(open.pop());
    // The event loop sees the closed connection before the new one.
    five.store().must(op::READ, b"domid\0");
}

#[test]
fn many_unidentified_connections_delay_others_only_briefly() {
    let hub = InProcessHub::with_timeouts(Duration::from_millis(300));
    let crowd: Vec<_> = (0..300).map(|_| hub.rig.client("hub.sock")).collect();
    for silent in crowd {
        silent.expect_end();
    }
    assert_eq!(hub.rig.domain(None).domid, 1);
}

#[test]
fn memory_without_seals_or_of_the_wrong_size_is_refused() {
    let rig = Rig::with_hub(&[]);
    let five = rig.domain(Some(5));
    let mut grants = five.client("grants.sock");
    let soft =
        rustix::fs::memfd_create("soft", rustix::fs::MemfdFlags::ALLOW_SEALING).expect("a memfd");
    rustix::fs::ftruncate(&soft, 4096).expect("sized");
    let request = Request::Share {
        peer: 7,
        pages: 1,
        access: Access::ReadWrite,
    };
    for fd in [soft.as_fd(), memory(2).as_fd()] {
        assert_eq!(
            error_atom(&grants.ask_with(request.clone(), &[fd]).0),
            "einval"
        );
    }
    fdpass::send(&grants.socket, &request.encode(9), &[memory(1).as_fd()]).expect("sent");
    assert!(grants.receive().is_some_and(|(seq, ..)| seq == 9));
}

/// A descriptor whose last close takes a minute: a TCP connection with unsent data and SO_LINGER.
/// A file on FUSE could take for ever.
fn lingering() -> (OwnedFd, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut stream =
        TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
    stream.set_nonblocking(true).expect("set");
    while stream.write(&[0; 65536]).is_ok() {}
    stream.set_nonblocking(false).expect("set");
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::from_secs(60))).expect("set");
    (stream.into(), listener)
}

#[test]
fn a_slow_close_delays_no_other_domain() {
    let mut rig = Rig::with_hub(&[&kept(5)]);
    let mut five = rig.client("dom5/control.sock");
    five.ask(Request::Hello {
        version: VERSION,
        domid: None,
    });
    let seven = rig.domain(Some(7));
    let hub = rustix::process::Pid::from_child(rig.hub());
    let request = Request::Share {
        peer: 7,
        pages: 1,
        access: Access::ReadWrite,
    }
    .encode(1);
    let mut listeners = Vec::new();
    for socket in [
        "dom5/grants.sock",
        "dom5/evtchn.sock",
        "dom5/control.sock",
        "dom5/xenstored.sock",
    ] {
        // Alone; behind a message that ends the connection; in a queue that the hub never reads.
        for before in [&[][..], &[&[0][..]], &[&[]]] {
            // Stop the hub, so that the test closes its copy first and the hub's is the last.
            rustix::process::kill_process(hub, rustix::process::Signal::STOP).expect("stopped");
            let (slow, listener) = lingering();
            let client = if socket.ends_with("xenstored.sock") {
                Store::connect(&rig.path(socket)).0.into()
            } else {
                rig.client(socket).socket
            };
            for message in before {
                rustix::net::send(&client, message, SendFlags::empty()).expect("sent");
            }
            fdpass::send(&client, &request, &[slow.as_fd()]).expect("sent");
            drop(slow);
            rustix::process::kill_process(hub, rustix::process::Signal::CONT).expect("continued");
            assert!(
                tube_hub::probe::wait_readable(&client, deadline()).expect("poll"),
                "{socket}"
            );
            listeners.push(listener);
        }
    }
    let reply = seven.client("grants.sock").ask(Request::Map {
        granter: 5,
        refs: vec![1],
    });
    assert_eq!(error_atom(&reply), "enoent");
    // The end of the domain delays no other domain either.
    drop(five);
    let mut admin = Store::connect(&rig.path("dom0/xenstored.sock"));
    admin.must(op::WATCH, b"@releaseDomain\0t\0");
    admin.await_event("@releaseDomain");
    seven.store().must(op::READ, b"domid\0");
}
