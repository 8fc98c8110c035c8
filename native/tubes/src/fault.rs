//! Why the program ends without having done what it was asked.

use std::fmt::Display;

/// One line for the user, and the exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// 1: it failed. 2: it was asked the wrong way.
    pub status: u8,
    /// What the user reads, without a newline.
    pub text: String,
}

impl Fault {
    /// It could not be done.
    pub fn failed(text: impl Display) -> Fault {
        Fault {
            status: 1,
            text: text.to_string(),
        }
    }

    /// It was asked the wrong way.
    pub fn usage(text: impl Display) -> Fault {
        Fault {
            status: 2,
            text: text.to_string(),
        }
    }
}

impl From<std::io::Error> for Fault {
    // Output is all that is written through this: whoever reads it has seen enough.
    fn from(error: std::io::Error) -> Fault {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Fault {
                status: 0,
                text: String::new(),
            },
            _ => Fault::failed(format_args!("cannot write: {error}")),
        }
    }
}
