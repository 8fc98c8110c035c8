//! The xenstore wire format: a header and a payload, in the machine's byte order.
//!
//! Numbers and layout are those of xen/include/public/io/xs_wire.h.

use rustix::io::Errno;

use crate::{Error, ErrorKind};

/// XS_READ.
pub(super) const READ: u32 = 2;
/// XS_WATCH_EVENT.
pub(super) const WATCH_EVENT: u32 = 15;
/// XS_ERROR.
pub(super) const ERROR: u32 = 16;
/// Bytes of `struct xsd_sockmsg`: type, req_id, tx_id, len.
pub(super) const HEADER: usize = 16;
/// XENSTORE_PAYLOAD_MAX.
pub(super) const PAYLOAD_MAX: usize = 4096;

/// A request with one string, outside of any transaction.
pub(super) fn request(operation: u32, argument: &str) -> Vec<u8> {
    let mut packet = Vec::with_capacity(HEADER + argument.len() + 1);
    for word in [operation, 0, 0, argument.len() as u32 + 1] {
        packet.extend_from_slice(&word.to_ne_bytes());
    }
    packet.extend_from_slice(argument.as_bytes());
    packet.push(0);
    packet
}

/// The reply to `operation` once it is complete: its value, or the name of xenstored's error.
///
/// # Errors
/// `EPROTO` for a message that cannot be this reply.
pub(super) fn reply(operation: u32, bytes: &[u8]) -> Result<Option<Result<String, String>>, Error> {
    let Some((kind, len)) = header(bytes) else {
        return Ok(None);
    };
    if len > PAYLOAD_MAX || ![operation, ERROR].contains(&kind) {
        return Err(unexpected(format!(
            "unexpected xenstore reply of type {kind} and {len} bytes"
        )));
    }
    let Some(payload) = bytes[HEADER..].get(..len) else {
        return Ok(None);
    };
    let payload = payload.strip_suffix(b"\0").unwrap_or(payload);
    let text = String::from_utf8_lossy(payload).into_owned();
    Ok(Some(match kind {
        ERROR => Err(text),
        _ => Ok(text),
    }))
}

/// The error for a reply that xenstored should not have sent.
pub(super) fn unexpected(what: String) -> Error {
    Error::new(ErrorKind::Posix(Errno::PROTO), what)
}

/// The error reply to `request`, with its req_id and tx_id.
pub(super) fn error_reply(request: &[u8], name: &str) -> Vec<u8> {
    let mut reply = ERROR.to_ne_bytes().to_vec();
    reply.extend_from_slice(&request[4..12]);
    reply.extend_from_slice(&(name.len() as u32 + 1).to_ne_bytes());
    reply.extend_from_slice(name.as_bytes());
    reply.push(0);
    reply
}

/// Length of the first message, if it is complete.
///
/// # Errors
/// `E2BIG` for a payload that neither the device nor xenstored accepts.
pub(super) fn message_len(bytes: &[u8]) -> Result<Option<usize>, Errno> {
    match header(bytes) {
        Some((_, len)) if len > PAYLOAD_MAX => Err(Errno::TOOBIG),
        Some((_, len)) if bytes.len() >= HEADER + len => Ok(Some(HEADER + len)),
        _ => Ok(None),
    }
}

/// Type and payload length of the first message.
fn header(bytes: &[u8]) -> Option<(u32, usize)> {
    let header = bytes.first_chunk::<HEADER>()?;
    let word = |at: usize| {
        let bytes = header[at..at + 4].try_into().expect("four bytes");
        u32::from_ne_bytes(bytes)
    };
    Some((word(0), word(12) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_layout_of_the_wire_format() {
        let mut expected = Vec::new();
        for word in [2u32, 0, 0, 6] {
            expected.extend_from_slice(&word.to_ne_bytes());
        }
        expected.extend_from_slice(b"domid\0");
        assert_eq!(request(READ, "domid"), expected);
    }
}
