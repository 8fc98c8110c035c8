//! Joins fragments of the distribution protocol. The VM sends a long message in pieces of 64 KiB,
//! so that other messages get in between, and a message of a little more than 64 KiB in two. The
//! receiving VM would copy the first piece to append a few bytes. Here they are appended without a
//! copy.
//!
//! See "Distribution Protocol" in the ERTS User's Guide for the formats, and OTP's `external.h` for
//! the names.

/// Every packet starts with this byte; the next is its kind.
const VERSION_MAGIC: u8 = 131;
/// A message with its atom cache header.
const DIST_HEADER: u8 = 68;
/// The first fragment of a message: as above, after sequence id and fragment id.
const DIST_FRAG_HEADER: u8 = 69;
/// Another fragment: sequence id, fragment id, bytes.
const DIST_FRAG_CONT: u8 = 70;
/// Where the sequence id is, eight bytes long.
const SEQUENCE: usize = 2;
/// Where the fragment id is, eight bytes long: the number of fragments from this one on.
const NUMBER: usize = 10;
/// Where the bytes start.
const REST: usize = 18;

/// A packet that can grow at its end.
pub trait Packet {
    /// Its bytes.
    fn bytes(&mut self) -> &mut [u8];

    /// Appends `bytes`. Returns false, and changes nothing, if there is no room.
    fn append(&mut self, bytes: &[u8]) -> bool;
}

/// The first of two fragments, held back until the next packet shows whether they can be joined.
pub struct Held<P>(Option<(Sequence, P)>);

/// What to hand over when another packet has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<P> {
    /// Only this, from the given byte on: the packet that came is part of it.
    Joined(P, usize),
    /// The held packet, unchanged, and then the packet that came.
    Apart(Option<P>),
}

impl<P: Packet> Held<P> {
    /// Holds nothing.
    pub fn new() -> Self {
        Held(None)
    }

    /// Holds `packet` if it is the first of two fragments, else returns it. Take out what was held
    /// first.
    pub fn hold(&mut self, mut packet: P) -> Option<P> {
        match first_of_two(packet.bytes()) {
            Some(sequence) => {
                self.0 = Some((sequence, packet));
                None
            }
            None => Some(packet),
        }
    }

    /// Joins `packet` to the held one if it is the second fragment.
    pub fn next(&mut self, packet: &[u8]) -> Next<P> {
        let Some((sequence, mut first)) = self.0.take() else {
            return Next::Apart(None);
        };
        match last_of(sequence, packet) {
            Some(last) if first.append(last) => {
                let begin = remove_fragment_header(first.bytes());
                Next::Joined(first, begin)
            }
            _ => Next::Apart(Some(first)),
        }
    }

    /// Takes out the held packet, because the next one cannot be joined to it.
    pub fn take(&mut self) -> Option<P> {
        self.0.take().map(|(_, first)| first)
    }
}

/// Identifies the message of a fragment among the unfinished messages of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sequence([u8; 8]);

/// The sequence of `packet` if it is the first of two fragments.
fn first_of_two(packet: &[u8]) -> Option<Sequence> {
    let (sequence, number, _) = parse(packet, DIST_FRAG_HEADER)?;
    (number == 2).then_some(sequence)
}

/// The bytes of `packet` if it is the last fragment of `sequence`.
fn last_of(sequence: Sequence, packet: &[u8]) -> Option<&[u8]> {
    let (of, number, bytes) = parse(packet, DIST_FRAG_CONT)?;
    (of == sequence && number == 1).then_some(bytes)
}

/// Turns a first fragment, to which all other bytes are appended, into an unfragmented message.
/// Returns where that begins.
fn remove_fragment_header(packet: &mut [u8]) -> usize {
    let begin = REST - 2;
    packet[begin..REST].copy_from_slice(&[VERSION_MAGIC, DIST_HEADER]);
    begin
}

fn parse(packet: &[u8], kind: u8) -> Option<(Sequence, u64, &[u8])> {
    let (head, bytes) = packet.split_at_checked(REST)?;
    if head[..SEQUENCE] != [VERSION_MAGIC, kind] {
        return None;
    }
    let sequence = head[SEQUENCE..NUMBER].try_into().ok()?;
    let number = head[NUMBER..].try_into().ok()?;
    Some((Sequence(sequence), u64::from_be_bytes(number), bytes))
}
