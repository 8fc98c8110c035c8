//! Formatting: untrusted text for a terminal, and numbers for people.
//!
//! Untrusted domains write the values in the store. Everything but printable ASCII is escaped, so
//! that a value can neither move the cursor nor look like another one (with a Cyrillic letter or a
//! character that changes the writing direction).

use std::time::{Duration, SystemTime};

/// Length of the longest value that is shown whole; the store allows 4,096 bytes.
const VALUE_MAX: usize = 160;

/// Marks the end of text that was cut.
const CUT: &str = "..";

/// Escapes text to one line of printable ASCII.
pub fn escape(text: &str) -> String {
    text.chars().map(visible).collect()
}

/// Escapes text for a column: spaces too, because they separate columns.
pub fn word(text: &str) -> String {
    escape(text).replace(' ', "\\x20")
}

fn visible(c: char) -> String {
    match c {
        '\\' => "\\\\".into(),
        ' '..='~' => c.into(),
        '\n' => "\\n".into(),
        '\t' => "\\t".into(),
        '\0'..='\x7f' => format!("\\x{:02x}", u32::from(c)),
        _ => format!("\\u{{{:x}}}", u32::from(c)),
    }
}

/// Escapes bytes, whether UTF-8 or not.
pub fn escape_bytes(bytes: &[u8]) -> String {
    bytes
        .utf8_chunks()
        .flat_map(|chunk| {
            let text = escape(chunk.valid());
            let rest = chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}"));
            std::iter::once(text).chain(rest).collect::<Vec<_>>()
        })
        .collect()
}

/// Escapes a value, and cuts it with a note of its length if it is long.
pub fn value(text: &str) -> String {
    let shown = escape(text);
    if shown.len() <= VALUE_MAX {
        shown
    } else {
        format!("{} ({} bytes)", cut(&shown, VALUE_MAX), text.len())
    }
}

/// Cuts escaped text, which is ASCII, to `width` characters.
pub fn cut(escaped: &str, width: usize) -> String {
    if escaped.len() <= width {
        escaped.to_owned()
    } else if width <= CUT.len() {
        CUT[..width].to_owned()
    } else {
        format!("{}{CUT}", &escaped[..width - CUT.len()])
    }
}

/// The size of a ring: `64K`, `1M`.
pub fn size(bytes: u32) -> String {
    match bytes {
        n if n > 0 && n % (1 << 20) == 0 => format!("{}M", n >> 20),
        n if n > 0 && n % (1 << 10) == 0 => format!("{}K", n >> 10),
        n => n.to_string(),
    }
}

/// An age in its two largest units: `42s`, `3m07s`, `5h09m`, `12d03h`.
pub fn age(passed: Duration) -> String {
    let s = passed.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// Seconds since 1970 as a date and time.
pub fn date(seconds: u64) -> String {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A number in at most five characters: `7`, `0.5`, `999`, `1.23k`, `45.6M`.
pub fn quantity(number: f64) -> String {
    const UNITS: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];
    let (mut n, mut unit) = (number, 0);
    // Use the next unit for what would round up to 1000.
    while n >= 999.5 && unit + 1 < UNITS.len() {
        (n, unit) = (n / 1000.0, unit + 1);
    }
    let digits = match n {
        _ if n >= 99.95 || (unit == 0 && n.fract() == 0.0) => 0,
        _ if n >= 9.995 || unit == 0 => 1,
        _ => 2,
    };
    format!("{n:.digits$}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_printable_ascii_reaches_the_terminal() {
        let nasty = "a\x1b[2J\u{202e}\u{430}\r\n\t\x7f\\\0";
        assert_eq!(escape(nasty), r"a\x1b[2J\u{202e}\u{430}\x0d\n\t\x7f\\\x00");
        assert_eq!(word("two words"), r"two\x20words");
        assert_eq!(escape_bytes(b"a\xff\x1bb"), r"a\xff\x1bb");
    }

    #[test]
    fn long_values_are_cut_and_marked() {
        let shown = value(&"x".repeat(4000));
        assert!(shown.ends_with("xx.. (4000 bytes)") && shown.len() < 200);
        assert_eq!(value("short"), "short");
        assert_eq!(cut("abcdef", 4), "ab..");
        assert_eq!(cut("abcdef", 1), ".");
        assert_eq!(cut("abc", 3), "abc");
    }

    #[test]
    fn numbers_for_people() {
        let sizes = [4096, 65_536, 1 << 20, 100, 0].map(size);
        assert_eq!(sizes, ["4K", "64K", "1M", "100", "0"]);
        let ages = [0, 59, 60, 3599, 3600, 86_399, 86_400, 2_000_000];
        let ages = ages.map(|seconds| age(Duration::from_secs(seconds)));
        let shown = [
            "0s", "59s", "1m00s", "59m59s", "1h00m", "23h59m", "1d00h", "23d03h",
        ];
        assert_eq!(ages, shown);
        assert_eq!(date(1_764_000_000), "2025-11-24T16:00:00Z");
        let numbers = [
            0.0,
            0.5,
            7.0,
            12.34,
            99.96,
            999.0,
            999.6,
            1234.0,
            45_600_000.0,
            1.8e19,
        ];
        let shown = [
            "0", "0.5", "7", "12.3", "100", "999", "1.00k", "1.23k", "45.6M", "18.0E",
        ];
        assert_eq!(numbers.map(quantity), shown);
    }
}
