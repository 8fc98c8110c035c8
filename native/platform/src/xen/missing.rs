//! Reports one thing that a Xen domain with tubes needs and this machine lacks.

use std::fmt;

/// One missing requirement of a Xen domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// One lower-case word, suitable as an atom: `no_xenbus`, `no_gntalloc`, `no_gntdev`,
    /// `no_evtchn`, `no_libxengnttab`, `no_libxenevtchn`, or `eacces` for a device that this user
    /// may not open.
    pub word: &'static str,
    /// What is missing, and how to fix it.
    pub what: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.word)
    }
}
