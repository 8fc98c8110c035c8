//! Why the program ends without having done what it was asked.

use std::fmt::Display;

/// One line for the user, and the exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    /// 1: it failed. 2: it was asked the wrong way.
    pub status: u8,
    /// What the user reads, without a newline.
    pub text: String,
}

impl CommandError {
    /// It could not be done.
    pub fn failed(text: impl Display) -> CommandError {
        CommandError {
            status: 1,
            text: text.to_string(),
        }
    }

    /// It was asked the wrong way.
    pub fn usage(text: impl Display) -> CommandError {
        CommandError {
            status: 2,
            text: text.to_string(),
        }
    }
}

impl From<std::io::Error> for CommandError {
    // Output is all that is written through this: whoever reads it has seen enough.
    fn from(error: std::io::Error) -> CommandError {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => CommandError {
                status: 0,
                text: String::new(),
            },
            _ => CommandError::failed(format_args!("cannot write: {error}")),
        }
    }
}
