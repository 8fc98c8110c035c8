//! Why a command ends without success.

use std::fmt::Display;

/// What `main` reports to the user: one line on standard error, and an exit status.
///
/// Every other error of this crate is converted to this one on its way to `main`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    /// 1: the command failed. 2: it was used wrongly.
    pub status: u8,
    /// The line for the user, without a newline. Empty if there is nothing to report.
    pub text: String,
}

impl CommandError {
    /// The command failed.
    pub fn failed(text: impl Display) -> CommandError {
        CommandError {
            status: 1,
            text: text.to_string(),
        }
    }

    /// The arguments are wrong.
    pub fn usage(text: impl Display) -> CommandError {
        CommandError {
            status: 2,
            text: text.to_string(),
        }
    }
}

impl From<std::io::Error> for CommandError {
    // Only writing output is converted this way. A closed pipe means that the reader is done.
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
