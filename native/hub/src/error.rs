//! The error that ends the process.
//!
//! The hub has four error types. [`FatalError`] ends the process; `domains::ClaimError` refuses a
//! domain to a client; [`ConnectionError`](crate::store::ConnectionError) closes a connection to
//! the store; and `store::error::Error` is the store's reply to a request that fails.

use std::fmt;

/// Ends the process: one line for the user who started it, and an exit status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FatalError {
    text: String,
    status: u8,
}

impl FatalError {
    /// Exit status of everything except wrong usage.
    pub const FAILED: u8 = 1;
    /// Exit status of wrong usage.
    pub const USAGE: u8 = 2;

    /// A failure at run time.
    pub fn new(text: impl Into<String>) -> FatalError {
        FatalError {
            text: text.into(),
            status: FatalError::FAILED,
        }
    }

    /// A wrong command line.
    pub fn usage(text: impl Into<String>) -> FatalError {
        FatalError {
            text: text.into(),
            status: FatalError::USAGE,
        }
    }

    /// The exit status.
    pub fn status(&self) -> u8 {
        self.status
    }
}

impl fmt::Display for FatalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for FatalError {}
