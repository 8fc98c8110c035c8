//! The counters that one end of a tube publishes, and the rates between two samples of them.
//!
//! The numbers are whatever the VM claims; only their form is checked.

/// No VM writes a longer line.
const LINE_MAX: usize = 512;

/// The names in a line. Later versions may add others.
pub const NAMES: [&str; 11] = [
    "time",
    "sent",
    "sent-bytes",
    "send-pending",
    "received",
    "received-bytes",
    "receive-pending",
    "full-waits",
    "empty-waits",
    "bells",
    "bells-spared",
];

/// The names that are levels rather than counters, so that they may decrease.
const LEVELS: [&str; 2] = ["send-pending", "receive-pending"];

/// The counters of one end at one moment, in the order of [`NAMES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample([u64; NAMES.len()]);

impl Sample {
    /// Parses a line. Known names must occur exactly once, as decimal numbers without a sign.
    pub fn parse(line: &str) -> Option<Sample> {
        if line.len() > LINE_MAX {
            return None;
        }
        let mut found = [None; NAMES.len()];
        for word in line.split(' ') {
            let (name, text) = word.split_once('=')?;
            if let Some(at) = index(name) {
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                let number = text.parse().ok().filter(|_| digits)?;
                if found[at].replace(number).is_some() {
                    return None;
                }
            }
        }
        let mut numbers = [0; NAMES.len()];
        for (number, found) in numbers.iter_mut().zip(found) {
            *number = found?;
        }
        Some(Sample(numbers))
    }

    /// The number with this name.
    pub fn get(&self, name: &str) -> u64 {
        index(name).map_or(0, |at| self.0[at])
    }

    /// Rates per second since an earlier sample. None if a counter has decreased: the earlier
    /// sample then belongs to another tube.
    pub(super) fn since(&self, earlier: &Sample) -> Option<Rates> {
        let ms = self.0[0].checked_sub(earlier.0[0]).filter(|ms| *ms > 0)?;
        let mut rates = [0.0; NAMES.len()];
        for (at, name) in NAMES.iter().enumerate() {
            rates[at] = match self.0[at].checked_sub(earlier.0[at]) {
                Some(more) => more as f64 * 1000.0 / ms as f64,
                None if LEVELS.contains(name) => 0.0,
                None => return None,
            };
        }
        Some(Rates(rates))
    }
}

/// Rates per second, in the order of [`NAMES`].
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Rates([f64; NAMES.len()]);

impl Rates {
    /// The rate with this name.
    pub(super) fn get(&self, name: &str) -> f64 {
        index(name).map_or(0.0, |at| self.0[at])
    }
}

fn index(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A valid line, but for its first word.
    const REST: &str = "sent=1 sent-bytes=1 send-pending=1 received=1 received-bytes=9 \
                        receive-pending=1 full-waits=1 empty-waits=1 bells=1 bells-spared=1";

    #[test]
    fn a_line_is_parsed_strictly() {
        let valid = format!("time=1 {REST} from-the-future=x");
        let sample = Sample::parse(&valid).unwrap();
        assert_eq!(sample.get("received-bytes"), 9);
        let huge = "x".repeat(600);
        let twice = format!("time=1 time=2 {REST}");
        let signed = format!("time=+1 {REST}");
        for bad in [
            "time=1 sent=2",
            "",
            "time",
            "time=-1",
            "time=+1",
            "\x1b[2J",
            &huge,
            &twice,
            &signed,
        ] {
            assert_eq!(Sample::parse(bad), None, "{bad}");
        }
    }
}
