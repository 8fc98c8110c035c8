//! The report of one thing that a Xen domain needs and this machine lacks.

use std::fmt;

/// One thing that is missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// One lower-case word, fit to become an atom: `no_xenbus`, `no_gntalloc`,
    /// `no_gntdev`, `no_evtchn`, `no_libxengnttab`, `no_libxenevtchn`, or
    /// `eacces` for a device that is there and not for us.
    pub word: &'static str,
    /// What it is, and the cure.
    pub what: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.word)
    }
}
