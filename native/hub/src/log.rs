//! One line per event, with the time; to stderr, or to a file of bounded size.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Size at which the file is put aside (as `hub.log.1`, over the one before).
const FULL: u64 = 1 << 20;

/// Lines per second; what is above is counted, not written: clients cause lines, so they
/// could fill a disk or keep us busy.
const RATE: u32 = 50;

/// Where the hub says what happened.
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
    whole: bool,
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

    /// A log to a file, appended to. `whole` is for a process of its own: its stderr goes
    /// there as well, so that a panic is found in it.
    ///
    /// # Errors
    /// Those of opening the file.
    pub fn file(path: &Path, whole: bool) -> std::io::Result<Log> {
        let file = LogFile::open(path, whole)?;
        Ok(Log {
            file: Some(file),
            ..Log::stderr()
        })
    }

    /// Writes a line. A log that cannot be written is no reason to stop serving.
    pub fn note(&mut self, text: fmt::Arguments<'_>) {
        if self.second.elapsed() >= Duration::from_secs(1) {
            (self.second, self.lines) = (Instant::now(), 0);
            let dropped = std::mem::take(&mut self.dropped);
            if dropped > 0 {
                self.line(format_args!("({dropped} lines left out: too many at once)"));
            }
        }
        if self.lines < RATE {
            self.lines += 1;
            self.line(text);
        } else {
            self.dropped += 1;
        }
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let mut line = format!(
            "{} tube-hub[{}]: ",
            Stamp(now.as_secs()),
            std::process::id()
        );
        // What clients send gets into lines: one line stays one line.
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
    fn open(path: &Path, whole: bool) -> std::io::Result<LogFile> {
        // Not through a link: the directory is ours, but it costs nothing to be sure.
        let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(flags)
            .open(path)?;
        if whole {
            rustix::stdio::dup2_stderr(&file)?;
        }
        let size = file.metadata()?.len();
        Ok(LogFile {
            path: path.to_owned(),
            file,
            size,
            whole,
        })
    }

    fn append(&mut self, line: &[u8]) {
        if self.size >= FULL {
            let mut aside = self.path.clone().into_os_string();
            aside.push(".1");
            if std::fs::rename(&self.path, aside).is_ok()
                && let Ok(fresh) = LogFile::open(&self.path, self.whole)
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
struct Stamp(u64);

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        // Civil date from a day number: years that begin in March make the leap day the last
        // one, 146,097 days are 400 years.
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
    fn stamps_are_dates() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_798_761_599, "2026-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(Stamp(seconds).to_string(), date);
        }
    }

    #[test]
    fn a_full_file_is_put_aside() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        std::fs::write(&path, vec![b'x'; FULL as usize]).expect("written");
        let mut log = Log::file(&path, false).expect("a file");
        log.note(format_args!("first"));
        log.note(format_args!("second"));
        let text = std::fs::read_to_string(&path).expect("the log");
        assert_eq!(text.lines().count(), 2, "{text}");
        let aside = std::fs::metadata(dir.path().join("log.1")).expect("the old one");
        assert_eq!(aside.len(), FULL);
    }

    #[test]
    fn a_flood_is_counted_and_a_line_stays_a_line() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("log");
        let mut log = Log::file(&path, false).expect("a file");
        for count in 0..RATE + 10 {
            log.note(format_args!("line\n{count}"));
        }
        log.second -= Duration::from_secs(1);
        log.note(format_args!("after"));
        let text = std::fs::read_to_string(&path).expect("the log");
        assert_eq!(text.lines().count() as u32, RATE + 2, "{text}");
        assert!(
            text.contains("line?0\n")
                && text.contains("(10 lines left out")
                && text.ends_with("after\n")
        );
    }
}
