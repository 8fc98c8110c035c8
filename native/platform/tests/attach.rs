//! Attaching to a hub, to no hub, and to something else.

mod fake_hub;

use std::fs;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use fake_hub::{DOMID, FakeHub, listener, run_dir, set_mode, welcome};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::SocketType;
use rustix::pipe::pipe;
use tube_platform::local::Local;
use tube_platform::local::proto::{Reply, Request, VERSION};
use tube_platform::{DOMID_MAX, Error, ErrorKind, Platform};

fn refusal(run: &Path) -> Error {
    match Local::attach(run, None) {
        Ok(_) => panic!("attached"),
        Err(error) => error,
    }
}

/// The error of attaching if the hub replies to HELLO like this.
fn hello_error(reply: fn(u32) -> Vec<u8>) -> Error {
    let hub = FakeHub::start(move |seq, _| Some(vec![(reply(seq), Vec::new())]));
    refusal(hub.run())
}

#[test]
fn a_domain_is_requested_or_assigned() {
    let hub = FakeHub::start(|_, _| Some(Vec::new()));
    for requested in [None, Some(DOMID)] {
        let local = Local::attach(hub.run(), requested).unwrap();
        assert_eq!((local.name(), local.domid()), ("local", DOMID));
        let hello = hub.requests().next().unwrap();
        assert_eq!(
            hello,
            Request::Hello {
                version: VERSION,
                domid: requested
            }
        );
    }
    assert_eq!(
        Local::attach(hub.run(), Some(DOMID + 1))
            .err()
            .unwrap()
            .kind,
        ErrorKind::NotAHub,
        "the hub assigned another domain"
    );
    assert_eq!(
        Local::attach(hub.run(), Some(DOMID_MAX + 1))
            .err()
            .unwrap()
            .atom(),
        "einval"
    );
}

#[test]
fn the_domains_own_directory_is_enough() {
    let hub = FakeHub::start(|_, _| Some(Vec::new()));
    let own = hub.run().join(format!("dom{DOMID}"));
    set_mode(&own, 0o700);
    fs::rename(hub.run().join("hub.sock"), own.join("control.sock")).unwrap();
    assert_eq!(Local::attach(&own, None).unwrap().domid(), DOMID);
    assert_eq!(refusal(hub.run()).atom(), "enoent");
}

#[test]
fn a_path_longer_than_a_socket_address_works() {
    let hub = FakeHub::start(|_, _| Some(Vec::new()));
    let deep = hub.run().join("d".repeat(100)).join("d".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    set_mode(&deep, 0o700);
    for name in ["hub.sock", "dom5"] {
        fs::rename(hub.run().join(name), deep.join(name)).unwrap();
    }
    assert_eq!(Local::attach(&deep, None).unwrap().domid(), DOMID);
}

#[test]
fn no_hub_and_a_bad_directory_are_different_errors() {
    let dir = run_dir();
    assert_eq!(refusal(&dir.path().join("missing")).atom(), "enoent");
    assert_eq!(refusal(dir.path()).atom(), "enoent");
    // A socket left behind by a killed hub.
    drop(listener(
        &dir.path().join("hub.sock"),
        SocketType::SEQPACKET,
    ));
    assert_eq!(refusal(dir.path()).atom(), "econnrefused");

    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(refusal(&file).kind, ErrorKind::BadRunDir);
    for mode in [0o770, 0o707] {
        set_mode(dir.path(), mode);
        assert_eq!(refusal(dir.path()).kind, ErrorKind::BadRunDir, "{mode:o}");
    }
    set_mode(dir.path(), 0o711);
    assert_eq!(refusal(dir.path()).atom(), "econnrefused");
    // Only root can change a directory's owner.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(dir.path(), Some(4242), None).unwrap();
        let error = refusal(dir.path());
        assert_eq!(error.kind, ErrorKind::BadRunDir);
        assert!(error.what.contains("another user"), "{error}");
    }
}

#[test]
fn another_file_or_socket_is_not_a_hub() {
    let dir = run_dir();
    let path = dir.path().join("hub.sock");
    fs::write(&path, "").unwrap();
    assert_eq!(refusal(dir.path()).kind, ErrorKind::NotAHub);
    fs::remove_file(&path).unwrap();
    let _stream = listener(&path, SocketType::STREAM);
    assert_eq!(refusal(dir.path()).kind, ErrorKind::NotAHub);
}

#[test]
fn invalid_replies_are_not_a_hub() {
    let garbage = hello_error(|_| vec![0xa5; 300]);
    assert_eq!(garbage.kind, ErrorKind::NotAHub, "{garbage}");
    let short = hello_error(|seq| welcome().encode(seq)[..13].to_vec());
    assert_eq!(short.kind, ErrorKind::NotAHub, "{short}");
    let long = hello_error(|_| vec![0; 100_000]);
    assert_eq!(long.kind, ErrorKind::NotAHub, "{long}");
    let wrong_seq = hello_error(|seq| welcome().encode(seq + 1));
    assert_eq!(wrong_seq.kind, ErrorKind::NotAHub, "{wrong_seq}");
    let other_reply = hello_error(|seq| Reply::Alloc { port: 1 }.encode(seq));
    assert_eq!(other_reply.kind, ErrorKind::NotAHub, "{other_reply}");
}

#[test]
fn a_refusal_carries_the_text_of_the_hub() {
    let taken = hello_error(|seq| {
        Reply::Error(Error::new(ErrorKind::DomidTaken, "domain 5 is taken")).encode(seq)
    });
    assert_eq!(
        taken,
        Error::new(ErrorKind::DomidTaken, "domain 5 is taken")
    );
    let newer = hello_error(|seq| {
        let welcome = Reply::Welcome {
            version: VERSION + 1,
            domid: DOMID,
        };
        welcome.encode(seq)
    });
    assert_eq!(newer.kind, ErrorKind::HubVersion);
    assert!(newer.what.contains(&format!("{}", VERSION + 1)), "{newer}");
    assert!(newer.what.contains(&format!("{VERSION}")), "{newer}");
}

#[test]
fn a_hub_that_closes_the_connection_has_gone() {
    let hub = FakeHub::start(|_, _| None);
    assert_eq!(refusal(hub.run()).kind, ErrorKind::HubGone);
}

#[test]
fn a_hub_that_does_not_reply_times_out() {
    let dir = run_dir();
    let _silent = listener(&dir.path().join("hub.sock"), SocketType::SEQPACKET);
    let start = Instant::now();
    assert_eq!(refusal(dir.path()).atom(), "etimedout");
    assert!(start.elapsed() < Duration::from_secs(8));
}

#[test]
fn surplus_descriptors_are_closed() {
    let (read_end, write_end) = pipe().unwrap();
    let surplus = std::sync::Mutex::new(Some(write_end));
    let hub = FakeHub::start(move |seq, _| {
        let end = surplus.lock().unwrap().take().unwrap();
        let copies = (0..253).map(|_| end.try_clone().unwrap()).collect();
        Some(vec![(welcome().encode(seq), copies)])
    });
    let local = Local::attach(hub.run(), None).unwrap();
    // The end of file shows that the last copy is closed.
    let mut fds = [PollFd::new(&read_end, PollFlags::IN)];
    let limit = Timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    assert_eq!(poll(&mut fds, Some(&limit)), Ok(1));
    assert!(fds[0].revents().contains(PollFlags::HUP));
    drop(local);
}

#[test]
fn leaving_ends_the_domain_despite_copies_of_its_descriptor() {
    let hub = FakeHub::start(|_, _| Some(Vec::new()));
    let local = hub.attach();
    let life = local.life().unwrap();
    drop(local);
    let mut fds = [PollFd::new(&life, PollFlags::IN)];
    assert_eq!(poll(&mut fds, Some(&Timespec::default())), Ok(1));
    assert!(fds[0].revents().contains(PollFlags::HUP));
    assert_eq!(rustix::io::read(life.as_fd(), &mut [0; 1]), Ok(0));
}
