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

/// Which message a fragment is of: unique among those of a connection that are under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence([u8; 8]);

/// The message of which this packet is the first of two fragments.
pub fn first_of_two(packet: &[u8]) -> Option<Sequence> {
    let (sequence, number, _) = parse(packet, FIRST)?;
    (number == 2).then_some(sequence)
}

/// The bytes of this packet, if it is the last fragment of that message.
pub fn last_of(sequence: Sequence, packet: &[u8]) -> Option<&[u8]> {
    let (of, number, bytes) = parse(packet, FURTHER)?;
    (of == sequence && number == 1).then_some(bytes)
}

/// Makes the header of a first fragment, with all other bytes behind it, that of a whole message; where that
/// begins now.
pub fn make_whole(packet: &mut [u8]) -> usize {
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
