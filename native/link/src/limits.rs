//! How much one call may do, so that it never keeps a scheduler of the VM for long.

/// Most bytes copied in one call: some ten microseconds of work.
pub(crate) const BYTES_PER_CALL: usize = 256 << 10;
/// Most messages sent or received in one call. Each costs the VM up to some hundred nanoseconds.
pub(crate) const MESSAGES_PER_CALL: usize = 1024;
/// How often one send tries again when room appears while it registers, before its caller does so.
pub(crate) const TRIES_PER_CALL: usize = 4;
/// Longest payload of a record that is a whole message. A pull with this budget takes any of them.
pub(crate) const RECORD_MAX: usize = 64 << 10;
