//! Fragments of the distribution protocol. The VM sends a message in pieces of 64 KiB, so that others get in
//! between, and one that is only a little longer, 64 KiB and what is said about them, in two. The receiving
//! VM would copy the 64 KiB to put some bytes behind them. Here they are put there without.
//!
//! The formats are those of "Distribution Protocol", ERTS User's Guide.

/// Every packet begins so, and then says of what kind it is.
const VERSION: u8 = 131;
/// A message with its header of atoms.
const WHOLE: u8 = 68;
/// The first fragment of one: as above, with the sequence and a number between.
const FIRST: u8 = 69;
/// A further fragment: sequence, number, bytes.
const FURTHER: u8 = 70;
/// Where the sequence is, eight bytes long, and behind it the number of this and all that follow.
const SEQUENCE: usize = 2;
const NUMBER: usize = 10;
/// What comes behind that.
const REST: usize = 18;

/// A packet that more can be put behind.
pub trait Packet {
    /// Its bytes.
    fn bytes(&mut self) -> &mut [u8];

    /// Puts bytes behind it. False, and nothing is done: there is no room.
    fn append(&mut self, bytes: &[u8]) -> bool;
}

/// The first of two fragments, until the next packet shows whether they can be made one.
pub struct Held<P>(Option<(Sequence, P)>);

/// What is to be handed over, now that another packet has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<P> {
    /// Only this, from that byte on: the packet that came is part of it.
    Joined(P, usize),
    /// What was held, as it came, and then the packet: all keep their order.
    Apart(Option<P>),
}

impl<P: Packet> Held<P> {
    /// Nothing.
    pub fn nothing() -> Self {
        Held(None)
    }

    /// A packet is to be handed over after what was held. `Some` if it is not itself to be held.
    pub fn hold(&mut self, mut packet: P) -> Option<P> {
        match first_of_two(packet.bytes()) {
            Some(sequence) => {
                self.0 = Some((sequence, packet));
                None
            }
            None => Some(packet),
        }
    }

    /// A packet has come.
    pub fn next(&mut self, packet: &[u8]) -> Next<P> {
        let Some((sequence, mut first)) = self.0.take() else {
            return Next::Apart(None);
        };
        match last_of(sequence, packet) {
            Some(last) if first.append(last) => {
                let begin = make_whole(first.bytes());
                Next::Joined(first, begin)
            }
            _ => Next::Apart(Some(first)),
        }
    }

    /// What was held, since something comes that can be no part of it.
    pub fn let_go(&mut self) -> Option<P> {
        self.0.take().map(|(_, first)| first)
    }
}

/// Which message a fragment is of: unique among those of a connection that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sequence([u8; 8]);

/// The message of which this packet is the first of two fragments.
fn first_of_two(packet: &[u8]) -> Option<Sequence> {
    let (sequence, number, _) = parse(packet, FIRST)?;
    (number == 2).then_some(sequence)
}

/// The bytes of this packet, if it is the last fragment of that message.
fn last_of(sequence: Sequence, packet: &[u8]) -> Option<&[u8]> {
    let (of, number, bytes) = parse(packet, FURTHER)?;
    (of == sequence && number == 1).then_some(bytes)
}

/// Makes the header of a first fragment, with all other bytes behind it, that of a whole message; where that
/// begins now.
fn make_whole(packet: &mut [u8]) -> usize {
    let begin = REST - 2;
    packet[begin..REST].copy_from_slice(&[VERSION, WHOLE]);
    begin
}

fn parse(packet: &[u8], kind: u8) -> Option<(Sequence, u64, &[u8])> {
    let (head, bytes) = packet.split_at_checked(REST)?;
    if head[..SEQUENCE] != [VERSION, kind] {
        return None;
    }
    let sequence = head[SEQUENCE..NUMBER].try_into().ok()?;
    let number = head[NUMBER..].try_into().ok()?;
    Some((Sequence(sequence), u64::from_be_bytes(number), bytes))
}
