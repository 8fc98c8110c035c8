//! The log: one line per event, with a timestamp, to stderr or to a file of bounded size.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Size in bytes at which the file is rotated (to `hub.log.1`, replacing an older one).
const MAX_SIZE: u64 = 1 << 20;

/// Further lines within a second are counted, not written: clients cause lines, and could fill a
/// disk or keep the hub busy.
const MAX_LINES_PER_SECOND: u32 = 50;

/// A log with a rate limit.
#[derive(Debug)]
pub struct Log {
    file: Option<LogFile>,
    second: Instant,
    lines: u32,
    dropped: u64,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    with_stderr: bool,
}

impl Log {
    /// A log to stderr.
    pub fn stderr() -> Log {
        Log {
            file: None,
            second: Instant::now(),
            lines: 0,
            dropped: 0,
        }
    }

    /// Appends to a file. `with_stderr` redirects the process's stderr there too, so that the file
    /// shows panics.
    ///
    /// # Errors
    /// Those of opening the file.
    pub fn file(path: &Path, with_stderr: bool) -> std::io::Result<Log> {
        let file = LogFile::open(path, with_stderr)?;
        Ok(Log {
            file: Some(file),
            ..Log::stderr()
        })
    }

    /// Writes a line. Ignores failures: the hub serves on without a log.
    pub fn note(&mut self, text: fmt::Arguments<'_>) {
        if self.second.elapsed() >= Duration::from_secs(1) {
            (self.second, self.lines) = (Instant::now(), 0);
            let dropped = std::mem::take(&mut self.dropped);
            if dropped > 0 {
                self.write_line(format_args!("({dropped} lines dropped: too many at once)"));
            }
        }
        if self.lines < MAX_LINES_PER_SECOND {
            self.lines += 1;
            self.write_line(text);
        } else {
            self.dropped += 1;
        }
    }

    fn write_line(&mut self, text: fmt::Arguments<'_>) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut line = format!(
            "{} tube-hub[{}]: ",
            Timestamp(now.as_secs()),
            std::process::id()
        );
        // Lines contain text from clients: an event must stay one line.
        line.extend(
            text.to_string()
                .chars()
                .map(|c| if c.is_control() { '?' } else { c }),
        );
        line.push('\n');
        match &mut self.file {
            None => drop(std::io::stderr().write_all(line.as_bytes())),
            Some(file) => file.append(line.as_bytes()),
        }
    }
}

impl LogFile {
    fn open(path: &Path, with_stderr: bool) -> std::io::Result<LogFile> {
        // Not through a link. The directory is ours, so this is only to be safe.
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)?;
        if with_stderr {
            rustix::stdio::dup2_stderr(&file)?;
        }
        let size = file.metadata()?.len();
        Ok(LogFile {
            path: path.to_owned(),
            file,
            size,
            with_stderr,
        })
    }

    fn append(&mut self, line: &[u8]) {
        if self.size >= MAX_SIZE {
            let mut rotated = self.path.clone().into_os_string();
            rotated.push(".1");
            if std::fs::rename(&self.path, rotated).is_ok()
                && let Ok(fresh) = LogFile::open(&self.path, self.with_stderr)
            {
                *self = fresh;
            }
        }
        if self.file.write_all(line).is_ok() {
            self.size += line.len() as u64;
        }
    }
}

/// Seconds since 1970 as `2026-11-22T14:44:29Z`.
struct Timestamp(u64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        // Civil date from a day number. Years begin in March, so that the leap day is their last
        // day; 400 years have 146,097 days.
        let day = days + 719_468;
        let (era, day) = (day / 146_097, day % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let month = if month < 10 { month + 3 } else { month - 9 };
        let year = era * 400 + year + u64::from(month <= 2);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_civil_dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Timestamp(seconds).to_string(), date);
        }
    }

    #[test]
    fn a_full_file_is_rotated() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        std::fs::write(&path, vec![b'x'; MAX_SIZE as usize]).expect("written");
        let mut log = Log::file(&path, false).expect("a file");
        log.note(format_args!("first"));
        log.note(format_args!("second"));
        let text = std::fs::read_to_string(&path).expect("the log");
        assert_eq!(text.lines().count(), 2, "{text}");
        let rotated = std::fs::metadata(dir.path().join("log.1")).expect("the old one");
        assert_eq!(rotated.len(), MAX_SIZE);
    }

    #[test]
    fn excess_lines_are_counted_and_control_characters_replaced() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        let mut log = Log::file(&path, false).expect("a file");
        for count in 0..MAX_LINES_PER_SECOND + 10 {
            log.note(format_args!("line\n{count}"));
        }
        log.second -= Duration::from_secs(1);
        log.note(format_args!("after"));
        let text = std::fs::read_to_string(&path).expect("the log");
        assert_eq!(
            text.lines().count() as u32,
            MAX_LINES_PER_SECOND + 2,
            "{text}"
        );
        assert!(
            text.contains("line?0\n")
                && text.contains("(10 lines dropped")
                && text.ends_with("after\n")
        );
    }
}
