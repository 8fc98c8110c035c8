//! A process that has run out of descriptors. In a file of its own, because the limit is per
//! process.

mod fake_hub;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Mutex;

use fake_hub::FakeHub;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tube_platform::local::fdpass::{receive, send};
use tube_platform::local::proto::{FDS_MAX, Reply, Request};
use tube_platform::{Error, Platform};

/// Runs `f` in a process that can open only `spare` more descriptors.
fn with_spare<T>(spare: u64, f: impl FnOnce() -> T) -> T {
    let next = rustix::io::dup(std::io::stdin()).unwrap();
    let before = getrlimit(Resource::Nofile);
    // The lowest free descriptor is used first, so all below `next` are taken.
    let current = Some(next.as_raw_fd() as u64 + spare);
    drop(next);
    setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
    let result = f();
    setrlimit(Resource::Nofile, before).unwrap();
    result
}

fn all_closed(read_end: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(read_end, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).unwrap();
    fds[0].revents().contains(PollFlags::HUP)
}

#[test]
fn without_free_descriptors_a_packet_is_refused_whole() {
    a_packet_cut_short();
    more_than_the_receiver_wants();
    a_port_without_its_ends();
}

fn a_packet_cut_short() {
    let (sender, receiver) = packets();
    let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    let copies = [(); 5].map(|()| write_end.try_clone().unwrap());
    send(&sender, b"five", &copies.each_ref().map(AsFd::as_fd)).unwrap();
    drop((copies, write_end));
    let received = with_spare(2, || receive(&receiver, &mut [0; 16], FDS_MAX));
    assert_eq!(received.unwrap_err(), Errno::MFILE);
    assert!(all_closed(&read_end), "received descriptors are closed");
}

fn more_than_the_receiver_wants() {
    let (sender, receiver) = packets();
    let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC).unwrap();
    send(&sender, b"two", &[write_end.as_fd(), write_end.as_fd()]).unwrap();
    send(&sender, b"one", &[write_end.as_fd()]).unwrap();
    send(&sender, b"longer", &[write_end.as_fd()]).unwrap();
    drop((write_end, sender));
    let mut buffer = [0; 4];
    assert_eq!(
        receive(&receiver, &mut buffer, 1).unwrap_err(),
        Errno::BADMSG
    );
    let (len, fds) = receive(&receiver, &mut buffer, 1).unwrap().unwrap();
    assert_eq!((&buffer[..len], fds.len()), (&b"one"[..], 1));
    let flags = rustix::io::fcntl_getfd(&fds[0]).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    drop(fds);
    assert_eq!(
        receive(&receiver, &mut buffer, 1).unwrap_err(),
        Errno::MSGSIZE
    );
    assert!(all_closed(&read_end));
    assert!(receive(&receiver, &mut buffer, 1).unwrap().is_none());
}

/// The hub has allocated a port that we cannot use: it is closed again.
fn a_port_without_its_ends() {
    let (read_end, write_end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
    // The hub closes these after sending. With high numbers, that frees no descriptor below the
    // limit.
    let ends = [read_end, write_end].map(|end| fcntl_dupfd_cloexec(end, 300).unwrap());
    let ends = Mutex::new(Some(ends));
    let hub = FakeHub::start(move |seq, request| {
        Some(match request {
            Request::Alloc { .. } => {
                let ends = ends.lock().unwrap().take().unwrap();
                vec![(Reply::Alloc { port: 9 }.encode(seq), ends.into())]
            }
            Request::Bind { .. } => {
                let none = Reply::Error(Error::posix(Errno::NOENT, "no such port"));
                vec![(none.encode(seq), Vec::new())]
            }
            _ => Vec::new(),
        })
    });
    let local = hub.attach();
    // After this reply, the hub needs no more descriptors to serve us.
    assert_eq!(local.evtchn_bind(3, 1).err().unwrap().atom(), "enoent");
    let error = with_spare(1, || local.evtchn_unbound(3)).err().unwrap();
    assert_eq!(error.atom(), "emfile");
    assert_eq!(hub.notice(), Some(Request::Close { port: 9 }));
}

fn packets() -> (OwnedFd, OwnedFd) {
    let flags = SocketFlags::CLOEXEC;
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
}
