//! The wire format: a 16-byte header in native byte order, then at most 4096 bytes of payload.
//!
//! Payloads are NUL-terminated strings, except that the value of a WRITE runs to the end of the
//! payload.

/// Bytes of a header.
pub const HEADER: usize = 16;

/// The longest payload in either direction (`XENSTORE_PAYLOAD_MAX`).
pub const PAYLOAD_MAX: usize = 4096;

/// Operations, numbered as in `xs_wire.h`. 20 was removed from the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)] // the names are the protocol's
pub enum Op {
    Control = 0,
    Directory = 1,
    Read = 2,
    GetPerms = 3,
    Watch = 4,
    Unwatch = 5,
    TransactionStart = 6,
    TransactionEnd = 7,
    Introduce = 8,
    Release = 9,
    GetDomainPath = 10,
    Write = 11,
    Mkdir = 12,
    Rm = 13,
    SetPerms = 14,
    IsDomainIntroduced = 17,
    Resume = 18,
    SetTarget = 19,
    ResetWatches = 21,
    DirectoryPart = 22,
}

/// Message type of a watch event; never a request.
pub const WATCH_EVENT: u32 = 15;

/// Message type of an error reply; never a request.
pub const ERROR: u32 = 16;

impl Op {
    /// The operation with this number; None for those to which C xenstored replies ENOSYS.
    pub fn from_wire(kind: u32) -> Option<Op> {
        use Op::*;
        Some(match kind {
            0 => Control,
            1 => Directory,
            2 => Read,
            3 => GetPerms,
            4 => Watch,
            5 => Unwatch,
            6 => TransactionStart,
            7 => TransactionEnd,
            8 => Introduce,
            9 => Release,
            10 => GetDomainPath,
            11 => Write,
            12 => Mkdir,
            13 => Rm,
            14 => SetPerms,
            17 => IsDomainIntroduced,
            18 => Resume,
            19 => SetTarget,
            21 => ResetWatches,
            22 => DirectoryPart,
            _ => return None,
        })
    }

    /// Operations that only domain 0 may use. Others get EACCES before any other check.
    pub fn is_privileged(self) -> bool {
        use Op::*;
        matches!(
            self,
            Control | Introduce | Release | IsDomainIntroduced | Resume | SetTarget
        )
    }

    /// Operations whose transaction id is ignored.
    pub fn ignores_transaction(self) -> bool {
        matches!(self, Op::Watch | Op::Unwatch)
    }
}

/// A message header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Operation, [`WATCH_EVENT`] or [`ERROR`].
    pub kind: u32,
    /// Request id, chosen by the client and echoed.
    pub req_id: u32,
    /// Transaction, 0 for none; echoed.
    pub tx_id: u32,
    /// Bytes of payload that follow.
    pub len: u32,
}

impl Header {
    /// Decodes a header.
    pub fn decode(bytes: &[u8; HEADER]) -> Header {
        let word = |at: usize| {
            u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Header {
            kind: word(0),
            req_id: word(4),
            tx_id: word(8),
            len: word(12),
        }
    }
}

/// Encodes a message. The caller limits the payload to [`PAYLOAD_MAX`].
pub fn encode(kind: u32, req_id: u32, tx_id: u32, payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).expect("payloads are bounded by PAYLOAD_MAX");
    let mut message = Vec::with_capacity(HEADER + payload.len());
    for word in [kind, req_id, tx_id, len] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    message.extend_from_slice(payload);
    message
}

/// Reassembles requests from a byte stream.
#[derive(Default)]
pub struct Assembler {
    /// The beginning of an incomplete message: less than `HEADER + PAYLOAD_MAX` bytes.
    partial: Vec<u8>,
}

impl Assembler {
    /// Takes bytes from the front of `input`. Returns a message if one is complete, None if it took
    /// all input and needs more. `Err(len)` if the header gives too large a length: nothing after
    /// it can be decoded.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<(Header, Vec<u8>)>, u32> {
        self.fill(input, HEADER);
        let Some(head) = self.partial.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let header = Header::decode(head);
        let len = header.len as usize;
        if len > PAYLOAD_MAX {
            return Err(header.len);
        }
        self.fill(input, HEADER + len);
        if self.partial.len() < HEADER + len {
            return Ok(None);
        }
        let payload = self.partial[HEADER..].to_vec();
        self.partial.clear();
        Ok(Some((header, payload)))
    }

    /// Moves bytes from the input until there are `wanted`, or the input is empty.
    fn fill(&mut self, input: &mut &[u8], wanted: usize) {
        let missing = wanted.saturating_sub(self.partial.len()).min(input.len());
        let (taken, rest) = input.split_at(missing);
        self.partial.extend_from_slice(taken);
        *input = rest;
    }
}

/// A payload that is exactly one string: its only NUL is its last byte.
pub fn one_string(payload: &[u8]) -> Option<&[u8]> {
    let (last, string) = payload.split_last()?;
    (*last == 0 && !string.contains(&0)).then_some(string)
}

/// The strings of a payload, in order, without their NULs. Ignores bytes after the last NUL, as
/// C xenstored does.
pub fn strings(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = payload.iter().rposition(|&byte| byte == 0);
    let terminated = end.map(|end| &payload[..end]);
    terminated
        .into_iter()
        .flat_map(|bytes| bytes.split(|&byte| byte == 0))
}

/// The payload's first string, and all that follows its NUL.
pub fn split_string(payload: &[u8]) -> Option<(&[u8], &[u8])> {
    let nul = payload.iter().position(|&byte| byte == 0)?;
    Some((&payload[..nul], &payload[nul + 1..]))
}

/// Parses a number as C's `atoi` does into an `unsigned int`: leading blanks, a sign, digits up to
/// the first other byte, 0 without digits. C xenstored accepts requests by this rule.
pub fn atoi(text: &[u8]) -> u32 {
    let text = skip_blanks(text);
    let (negative, digits) = split_sign(text);
    let value = parse(digits, 10).0;
    signed(negative, value) as u32
}

/// Parses a number as C's `strtol` with base 0 does (decimal, `0x` for hexadecimal or `0` for
/// octal). The number must fill the whole text.
pub fn strtol(text: &[u8]) -> Option<u32> {
    let (negative, digits) = split_sign(skip_blanks(text));
    let (digits, base) = match digits {
        [b'0', b'x' | b'X', rest @ ..] => (rest, 16),
        [b'0', rest @ ..] if !rest.is_empty() => (rest, 8),
        _ => (digits, 10),
    };
    let (value, used) = parse(digits, base);
    (used > 0 && used == digits.len()).then(|| signed(negative, value) as u32)
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text
        .iter()
        .take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r'))
        .count();
    &text[blanks..]
}

fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// The value of the leading digits, saturating above the range of `long`, and their number.
fn parse(digits: &[u8], base: u32) -> (i128, usize) {
    let mut value: i128 = 0;
    let mut used = 0;
    for &byte in digits {
        let Some(digit) = char::from(byte).to_digit(base) else {
            break;
        };
        value = (value * i128::from(base) + i128::from(digit)).min(1 << 64);
        used += 1;
    }
    (value, used)
}

/// Clamps to `long` as the C library does. Callers keep the low 32 bits.
fn signed(negative: bool, value: i128) -> i64 {
    let value = if negative { -value } else { value };
    value.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_the_numbers_of_the_protocol() {
        for kind in 0..=64 {
            if let Some(op) = Op::from_wire(kind) {
                assert_eq!(op as u32, kind);
            }
        }
        let unknown: Vec<u32> = (0..24)
            .filter(|&kind| Op::from_wire(kind).is_none())
            .collect();
        assert_eq!(unknown, [15, 16, 20, 23]);
    }

    #[test]
    fn messages_reassemble_from_pieces_of_any_size() {
        let mut bytes = encode(2, 7, 9, b"name\0");
        bytes.extend(encode(11, 8, 0, b""));
        bytes.extend(encode(1, 9, 1, &[b'x'; PAYLOAD_MAX]));
        for step in 1..bytes.len() {
            let mut assembler = Assembler::default();
            let mut seen = Vec::new();
            for chunk in bytes.chunks(step) {
                let mut input = chunk;
                while let Some((header, payload)) = assembler.next(&mut input).unwrap() {
                    seen.extend(encode(header.kind, header.req_id, header.tx_id, &payload));
                }
                assert!(input.is_empty());
            }
            assert_eq!(seen, bytes);
        }
    }

    #[test]
    fn the_header_alone_shows_that_a_payload_is_too_long() {
        let mut header = encode(2, 0, 0, b"");
        header[12..16].copy_from_slice(&4097u32.to_ne_bytes());
        assert_eq!(Assembler::default().next(&mut header.as_slice()), Err(4097));
    }

    #[test]
    fn strings_end_with_the_last_nul() {
        let all = |payload: &'static [u8]| strings(payload).collect::<Vec<_>>();
        assert_eq!(all(b"a\0b\0"), [b"a", b"b"]);
        assert_eq!(all(b"a\0\0tail"), [b"a".as_slice(), b""]);
        assert_eq!(all(b"\0"), [b""]);
        assert!(all(b"tail").is_empty());
        assert!(all(b"").is_empty());
        assert_eq!(one_string(b"a\0"), Some(b"a".as_slice()));
        for bad in [b"".as_slice(), b"a", b"a\0b", b"a\0b\0"] {
            assert_eq!(one_string(bad), None);
        }
    }

    #[test]
    fn numbers_parse_as_in_c() {
        assert_eq!(
            [atoi(b"12x"), atoi(b""), atoi(b" -1"), atoi(b"+7")],
            [12, 0, u32::MAX, 7]
        );
        assert_eq!(atoi(b"99999999999999999999"), u32::MAX);
        assert_eq!(strtol(b"0x10"), Some(16));
        assert_eq!(strtol(b"010"), Some(8));
        assert_eq!(strtol(b"0"), Some(0));
        assert_eq!(strtol(b" -1"), Some(u32::MAX));
        for bad in [b"".as_slice(), b"x", b"1 ", b"0x", b"08", b"-", b"1.0"] {
            assert_eq!(strtol(bad), None);
        }
    }
}
