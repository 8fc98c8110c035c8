//! Shared pages.

use super::{Case, SOON, Stage, settle};
use crate::{Access, Ack, DOMID_MAX, Errno, Gref, Notify, PAGE};

const RW: Access = Access::ReadWrite;
const RO: Access = Access::ReadOnly;

pub(super) const CASES: &[Case] = &[
    ("both sides see the same bytes", both_see_the_same),
    ("shared pages are zeroed", zeroed),
    ("read-only pages cannot be mapped for writing", read_only),
    ("only the named peer can map", only_the_named_peer),
    ("unknown references are refused", unknown_references),
    ("references of several shares, in any order", any_order),
    ("one share of many pages", many_pages),
    ("many shares in one mapping", many_shares),
    ("pages may be mapped twice", mapped_twice),
    ("an ended grant cannot be mapped", ended),
    ("a mapping outlives its grant", outlives_its_grant),
    (
        "unmapping by the sharer zeroes the byte and notifies",
        sharer_unmaps,
    ),
    (
        "unmapping by the mapper zeroes the byte and notifies",
        mapper_unmaps,
    ),
    (
        "a channel may be closed before its notify byte",
        channel_first,
    ),
    ("invalid notify bytes are refused", invalid_notify),
    ("invalid numbers are refused", impossible_numbers),
    ("a domain may be its own peer", own_peer),
];

/// A pattern that differs in every page, so that a misplaced page is detected.
fn stamp(page: usize, salt: u8) -> Vec<u8> {
    (0..32).map(|i| (page * 7 + i) as u8 ^ salt).collect()
}

fn both_see_the_same(s: &mut Stage) {
    let (ours, refs) = s.a.share(s.b.domid(), 3, RW, None).unwrap();
    assert_eq!(refs.len(), 3);
    let theirs = s.b.map(s.a.domid(), &refs, RW, None).unwrap();
    for page in 0..3 {
        // Across the page boundary, if a page follows.
        let at = page * PAGE + if page < 2 { PAGE - 16 } else { 0 };
        s.a.poke(ours, at, &stamp(page, 0));
        assert_eq!(s.b.peek(theirs, at, 32), stamp(page, 0));
        s.b.poke(theirs, at, &stamp(page, 0x55));
        assert_eq!(s.a.peek(ours, at, 32), stamp(page, 0x55));
    }
    s.b.unmap(theirs);
    s.a.unmap(ours);
}

fn zeroed(s: &mut Stage) {
    for _ in 0..2 {
        let (ours, _) = s.a.share(s.b.domid(), 2, RW, None).unwrap();
        assert_eq!(s.a.peek(ours, 0, 2 * PAGE), vec![0; 2 * PAGE]);
        s.a.poke(ours, 0, &[1; 2 * PAGE]);
        s.a.unmap(ours);
    }
}

fn read_only(s: &mut Stage) {
    let (ours, refs) = s.a.share(s.b.domid(), 2, RO, None).unwrap();
    let writable = s.b.map(s.a.domid(), &refs, RW, None);
    s.refused(writable, Errno::ACCESS);
    let theirs = s.b.map(s.a.domid(), &refs, RO, None).unwrap();
    s.a.poke(ours, PAGE - 2, b"news");
    assert_eq!(s.b.peek(theirs, PAGE - 2, 4), b"news");
    s.b.unmap(theirs);
    s.a.unmap(ours);
}

fn only_the_named_peer(s: &mut Stage) {
    let (ours, refs) = s.a.share(s.b.domid(), 2, RW, None).unwrap();
    for access in [RW, RO] {
        let intruder = s.c.map(s.a.domid(), &refs, access, None);
        s.refused(intruder, Errno::ACCESS);
    }
    // Naming another granter does not help.
    let misdirected = s.b.map(s.c.domid(), &refs, RW, None);
    s.refused(misdirected, Errno::NOENT);
    let theirs = s.b.map(s.a.domid(), &refs, RW, None).unwrap();
    s.b.unmap(theirs);
    s.a.unmap(ours);
}

fn unknown_references(s: &mut Stage) {
    let (ours, refs) = s.a.share(s.b.domid(), 2, RW, None).unwrap();
    for wrong in [refs[1] + 1, refs[0] ^ 0x4000_0000, 0, Gref::MAX] {
        let alone = s.b.map(s.a.domid(), &[wrong], RW, None);
        s.refused(alone, Errno::NOENT);
        // Among valid references as well.
        let among = s.b.map(s.a.domid(), &[refs[0], wrong], RW, None);
        s.refused(among, Errno::NOENT);
    }
    s.a.unmap(ours);
}

fn any_order(s: &mut Stage) {
    let b = s.b.domid();
    let mut shared = Vec::new();
    let mut refs = Vec::new();
    for pages in [3, 1, 4] {
        let (ours, more) = s.a.share(b, pages, RW, None).unwrap();
        for (page, gref) in more.into_iter().enumerate() {
            s.a.poke(ours, page * PAGE, &stamp(refs.len(), 0x0f));
            refs.push(gref);
        }
        shared.push(ours);
    }
    // Adjacent, with gaps, backwards, and one omitted.
    let order = [5, 6, 0, 3, 2, 1, 7];
    let picked: Vec<Gref> = order.iter().map(|i| refs[*i]).collect();
    let theirs = s.b.map(s.a.domid(), &picked, RW, None).unwrap();
    for (at, index) in order.into_iter().enumerate() {
        assert_eq!(s.b.peek(theirs, at * PAGE, 32), stamp(index, 0x0f), "{at}");
    }
    s.b.unmap(theirs);
    for ours in shared {
        s.a.unmap(ours);
    }
}

fn many_pages(s: &mut Stage) {
    const PAGES: usize = 600;
    let (ours, refs) = s.a.share(s.b.domid(), PAGES, RW, None).unwrap();
    let sampled = || (0..PAGES).rev().step_by(PAGES / s.rounds);
    for page in sampled() {
        s.a.poke(ours, page * PAGE, &stamp(page, 3));
    }
    let theirs = s.b.map(s.a.domid(), &refs, RW, None).unwrap();
    for page in sampled() {
        assert_eq!(s.b.peek(theirs, page * PAGE, 32), stamp(page, 3));
    }
    s.b.unmap(theirs);
    s.a.unmap(ours);
}

/// More shares than one message can carry descriptors, on a platform that passes descriptors.
fn many_shares(s: &mut Stage) {
    let b = s.b.domid();
    let shares = s.rounds * 3 / 2;
    let mut shared = Vec::new();
    let mut refs = Vec::new();
    for share in 0..shares {
        let (ours, more) = s.a.share(b, 1, RW, None).unwrap();
        s.a.poke(ours, 0, &stamp(share, 9));
        shared.push(ours);
        refs.extend(more);
    }
    let theirs = s.b.map(s.a.domid(), &refs, RW, None).unwrap();
    for share in 0..shares {
        assert_eq!(s.b.peek(theirs, share * PAGE, 32), stamp(share, 9));
    }
    s.b.unmap(theirs);
    for ours in shared {
        s.a.unmap(ours);
    }
}

fn mapped_twice(s: &mut Stage) {
    let (ours, refs) = s.a.share(s.b.domid(), 1, RW, None).unwrap();
    let one = s.b.map(s.a.domid(), &refs, RW, None).unwrap();
    let other = s.b.map(s.a.domid(), &refs, RW, None).unwrap();
    s.b.poke(one, 0, b"twice");
    assert_eq!(s.b.peek(other, 0, 5), b"twice");
    s.b.unmap(one);
    assert_eq!(s.b.peek(other, 0, 5), b"twice");
    s.b.unmap(other);
    s.a.unmap(ours);
}

fn ended(s: &mut Stage) {
    let (ours, refs) = s.a.share(s.b.domid(), 2, RW, None).unwrap();
    s.a.unmap(ours);
    settle(s.a.as_mut());
    let late = s.b.map(s.a.domid(), &refs, RW, None);
    s.refused(late, Errno::NOENT);
}

fn outlives_its_grant(s: &mut Stage) {
    let (ours, refs) = s.a.share(s.b.domid(), 2, RW, None).unwrap();
    let theirs = s.b.map(s.a.domid(), &refs, RW, None).unwrap();
    s.a.poke(ours, PAGE, b"last bytes");
    s.a.unmap(ours);
    assert_eq!(s.b.peek(theirs, PAGE, 10), b"last bytes");
    s.b.poke(theirs, 0, b"unread!");
    s.b.unmap(theirs);
}

fn sharer_unmaps(s: &mut Stage) {
    let (our_channel, port) = s.a.unbound(s.b.domid()).unwrap();
    let (their_channel, _) = s.b.bind(s.a.domid(), port).unwrap();
    let notify = Some(Notify { offset: 77, port });
    // Our own mapping is always writable.
    let (ours, refs) = s.a.share(s.b.domid(), 1, RO, notify).unwrap();
    let theirs = s.b.map(s.a.domid(), &refs, RO, None).unwrap();
    s.a.poke(ours, 76, &[1; 3]);
    assert_eq!(s.b.peek(theirs, 76, 3), [1, 1, 1]);
    s.a.unmap(ours);
    assert!(s.b.wait(their_channel, SOON));
    assert_eq!(s.b.acknowledge(their_channel), Ok(Ack::Open));
    assert_eq!(s.b.peek(theirs, 76, 3), [1, 0, 1]);
    s.b.unmap(theirs);
    s.a.close(our_channel);
    s.b.close(their_channel);
}

fn mapper_unmaps(s: &mut Stage) {
    let (our_channel, port) = s.a.unbound(s.b.domid()).unwrap();
    let (their_channel, port) = s.b.bind(s.a.domid(), port).unwrap();
    let (ours, refs) = s.a.share(s.b.domid(), 1, RW, None).unwrap();
    let offset = PAGE - 2;
    let notify = Some(Notify { offset, port });
    let theirs = s.b.map(s.a.domid(), &refs, RW, notify).unwrap();
    s.b.poke(theirs, offset - 1, &[1; 3]);
    s.b.unmap(theirs);
    assert!(s.a.wait(our_channel, SOON));
    assert_eq!(s.a.peek(ours, offset - 1, 3), [1, 0, 1]);
    s.a.unmap(ours);
    s.a.close(our_channel);
    s.b.close(their_channel);
}

/// A channel may be closed before the pages that name it.
fn channel_first(s: &mut Stage) {
    let (channel, port) = s.a.unbound(s.b.domid()).unwrap();
    let notify = Some(Notify { offset: 0, port });
    let (ours, refs) = s.a.share(s.b.domid(), 1, RW, notify).unwrap();
    let theirs = s.b.map(s.a.domid(), &refs, RW, None).unwrap();
    s.a.poke(ours, 0, &[1]);
    s.a.close(channel);
    s.a.unmap(ours);
    assert_eq!(s.b.peek(theirs, 0, 1), [0]);
    s.b.unmap(theirs);
}

fn invalid_notify(s: &mut Stage) {
    let (a, b) = (s.a.domid(), s.b.domid());
    let (channel, port) = s.a.unbound(b).unwrap();
    let outside = Some(Notify { offset: PAGE, port });
    let nobodys = Some(Notify {
        offset: 0,
        port: u32::MAX - 1,
    });
    for wrong in [outside, nobodys] {
        let refusal = s.a.share(b, 1, RW, wrong);
        s.refused(refusal, Errno::INVAL);
    }
    let (ours, refs) = s.a.share(b, 1, RO, None).unwrap();
    let (their_channel, port) = s.b.bind(a, port).unwrap();
    let read_only = Some(Notify { offset: 0, port });
    let refusal = s.b.map(a, &refs, RO, read_only);
    s.refused(refusal, Errno::INVAL);
    s.a.unmap(ours);
    s.a.close(channel);
    s.b.close(their_channel);
}

fn impossible_numbers(s: &mut Stage) {
    let (a, b) = (s.a.domid(), s.b.domid());
    for pages in [0, usize::MAX / PAGE, usize::MAX] {
        let refusal = s.a.share(b, pages, RW, None);
        s.refused(refusal, Errno::INVAL);
    }
    let refusal = s.a.share(DOMID_MAX + 1, 1, RW, None);
    s.refused(refusal, Errno::INVAL);
    let refusal = s.b.map(a, &[], RW, None);
    s.refused(refusal, Errno::INVAL);
    let refusal = s.b.map(DOMID_MAX + 1, &[1], RW, None);
    s.refused(refusal, Errno::INVAL);
}

fn own_peer(s: &mut Stage) {
    if !s.traits.peer_may_be_self {
        return;
    }
    let a = s.a.domid();
    let (one, refs) = s.a.share(a, 1, RW, None).unwrap();
    let other = s.a.map(a, &refs, RW, None).unwrap();
    s.a.poke(one, 0, b"me");
    assert_eq!(s.a.peek(other, 0, 2), b"me");
    s.a.unmap(one);
    s.a.unmap(other);
    let (channel, port) = s.a.unbound(a).unwrap();
    let (other_end, _) = s.a.bind(a, port).unwrap();
    s.a.notify(channel).unwrap();
    assert!(s.a.wait(other_end, SOON));
    s.a.close(channel);
    s.a.close(other_end);
}
