//! Joining the distribution protocol's fragments.

#[path = "../src/driver/fragments.rs"]
mod fragments;

use fragments::{Held, Next, Packet};

/// A packet with room for so many more bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bytes {
    bytes: Vec<u8>,
    room: usize,
}

impl Packet for Bytes {
    fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn append(&mut self, bytes: &[u8]) -> bool {
        let fits = bytes.len() <= self.room;
        if fits {
            self.bytes.extend(bytes);
        }
        fits
    }
}

fn packet(kind: u8, sequence: u64, number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut packet = vec![131, kind];
    packet.extend(sequence.to_be_bytes());
    packet.extend(number.to_be_bytes());
    packet.extend(bytes);
    packet
}

fn first(sequence: u64, number: u64) -> Bytes {
    let bytes = packet(69, sequence, number, b"\x01\x00\xffatoms and more");
    Bytes { bytes, room: 4 }
}

fn holding(packet: &Bytes) -> Held<Bytes> {
    let mut held = Held::new();
    assert_eq!(held.hold(packet.clone()), None);
    held
}

#[test]
fn two_fragments_become_one_unfragmented_message() {
    for end in [&b", all"[1..], b".", b""] {
        let mut held = holding(&first(7, 2));
        let Next::Joined(both, begin) = held.next(&packet(70, 7, 1, end)) else {
            panic!("fragments of one message");
        };
        let message = [&b"\x83\x44\x01\x00\xffatoms and more"[..], end].concat();
        assert_eq!(both.bytes[begin..], message);
        assert_eq!(held.next(b"another"), Next::Apart(None));
    }
}

#[test]
fn only_the_first_of_two_fragments_is_held() {
    for (kind, number) in [(69, 1), (69, 3), (69, 0), (68, 2), (70, 2), (112, 2)] {
        let other = Bytes {
            bytes: packet(kind, 7, number, b"bytes"),
            room: 4,
        };
        assert_eq!(Held::new().hold(other.clone()), Some(other));
    }
    for length in 0..18 {
        let mut short = first(7, 2);
        short.bytes.truncate(length);
        assert_eq!(Held::new().hold(short.clone()), Some(short));
    }
}

#[test]
fn other_packets_follow_the_first_fragment_unchanged() {
    let first = first(7, 2);
    for other in [
        packet(70, 8, 1, b"end"),
        packet(70, 7, 2, b"end"),
        packet(69, 7, 1, b"end"),
        packet(68, 7, 1, b"end"),
        packet(70, 7, 1, b"longer"),
        packet(70, 7, 1, b"")[..17].to_vec(),
        vec![],
    ] {
        let mut held = holding(&first);
        assert_eq!(held.next(&other), Next::Apart(Some(first.clone())));
        // A fragment of the same message that comes later is not joined.
        assert_eq!(held.next(&packet(70, 7, 1, b"end")), Next::Apart(None));
    }
    let mut held = holding(&first);
    assert_eq!(held.take(), Some(first));
    assert_eq!(held.take(), None);
}
