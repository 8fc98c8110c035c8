//! The part of a process's time slice that a call uses up, by the work that it has done. The VM
//! alone counts the longest call like the shortest.

/// Bytes copied that count as one percent of a time slice.
const BYTES: usize = 64 << 10;
/// Messages moved that count as one percent of a time slice.
const MESSAGES: usize = 128;

/// Percent of a time slice, 0 to 100.
#[inline]
pub fn percent(bytes: usize, messages: usize) -> usize {
    (bytes / BYTES + messages / MESSAGES).min(100)
}
