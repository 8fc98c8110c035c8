//! Why the process has to give up: one line for whoever started it.

use std::fmt;

/// A failure that ends the process, with the exit status it ends with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    text: String,
    status: u8,
}

impl Fault {
    /// Exit status of everything but wrong usage.
    pub const FAILED: u8 = 1;
    /// Exit status of a command line that makes no sense.
    pub const USAGE: u8 = 2;

    /// Something that went wrong while running.
    pub fn new(text: impl Into<String>) -> Fault {
        Fault {
            text: text.into(),
            status: Fault::FAILED,
        }
    }

    /// A command line that makes no sense.
    pub fn usage(text: impl Into<String>) -> Fault {
        Fault {
            text: text.into(),
            status: Fault::USAGE,
        }
    }

    /// The exit status for it.
    pub fn status(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}
