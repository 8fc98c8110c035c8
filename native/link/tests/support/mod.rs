//! A platform and a VM for tests, and tubes made of them.

// Each test binary uses its own part.
#![allow(dead_code, unused_imports)]

mod platform;
mod vm;

pub use platform::{Host, TestPlatform};
pub use vm::{Bytes, Call, NO_MEMORY, Process, Recorder, TestVm};

use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tube_link::{Link, Offer, Outcome, Refs};
use tube_platform::PAGE;

/// The owners of the tip and of the nock in these tests.
pub const ALICE: Process = 1;
pub const BOB: Process = 2;

/// One tube: both ends, started, with nothing pending.
pub struct Tube {
    pub tip: Link<TestVm>,
    pub nock: Link<TestVm>,
    pub refs: Refs,
    pub host: Arc<Host>,
}

/// A tube with rings of 2^order pages that takes messages of up to 64 MiB.
pub fn tube(order: u32) -> Tube {
    tube_with(order, 64 << 20)
}

/// A tube with a limit on messages, the same for both ends.
pub fn tube_with(order: u32, max_message: u32) -> Tube {
    let (one, two) = TestPlatform::pair();
    let (tip, refs) = Link::share(&one, offer(order, max_message)).unwrap();
    let named = (refs.tx_ring_ref, refs.rx_ring_ref, refs.event_channel);
    let nock = Link::map(&two, 1, named, NONCE, max_message).unwrap();
    for (link, owner) in [(&tip, ALICE), (&nock, BOB)] {
        let mut recorder = Recorder::default();
        link.start(owner).unwrap();
        assert_eq!(link.resume(&mut recorder), Outcome::Idle);
        assert_eq!(recorder.take(), []);
    }
    let host = one.host.clone();
    Tube {
        tip,
        nock,
        refs,
        host,
    }
}

pub const NONCE: u64 = 0x0123_4567_89ab_cdef;

pub fn offer(order: u32, max_message: u32) -> Offer {
    Offer {
        peer: 2,
        order_tx: order,
        order_rx: order,
        nonce: NONCE,
        max_message,
    }
}

/// Bytes that depend on their position and `seed`.
pub fn pattern(len: usize, seed: u8) -> Vec<u8> {
    (0..len)
        .map(|i| (i as u8).wrapping_mul(31) ^ (i >> 8) as u8 ^ seed)
        .collect()
}

/// Waits until the link's descriptor is readable. Fails after a time limit.
pub fn await_notification(link: &Link<TestVm>) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let channel = link.channel().unwrap();
    // SAFETY: the channel, and with it the descriptor, is held until the poll is over.
    let fd = unsafe { BorrowedFd::borrow_raw(channel.fd()) };
    let limit = Timespec {
        tv_sec: 20,
        tv_nsec: 0,
    };
    let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ready, 1, "a wake-up was lost");
}

/// Writes a byte of a shared page, as the peer can.
pub fn poke(page: NonNull<u8>, offset: usize, value: u8) {
    assert!(offset < PAGE);
    // SAFETY: within the page; the test's links access it through atomics, and so do we.
    let byte = unsafe {
        page.add(offset)
            .cast::<std::sync::atomic::AtomicU8>()
            .as_ref()
    };
    byte.store(value, Ordering::SeqCst);
}

/// Writes a word of a shared page, as the peer can.
pub fn poke_word(page: NonNull<u8>, offset: usize, value: u32) {
    assert!(offset + 4 <= PAGE && offset.is_multiple_of(4));
    // SAFETY: as for `poke`.
    let word = unsafe {
        page.add(offset)
            .cast::<std::sync::atomic::AtomicU32>()
            .as_ref()
    };
    word.store(value.to_le(), Ordering::SeqCst);
}
