//! One check of the doctor, and its outcome.

/// The severity of an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// No problem.
    Fine,
    /// Works, but not in all cases.
    Warning,
    /// Does not work.
    Wrong,
}

impl Grade {
    /// Its name in the output.
    pub fn word(self) -> &'static str {
        match self {
            Grade::Fine => "ok",
            Grade::Warning => "warning",
            Grade::Wrong => "wrong",
        }
    }
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was checked.
    pub about: &'static str,
    /// The severity.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// What the admin can do about it. Empty if nothing needs to be done.
    pub cure: String,
}

impl Check {
    /// An outcome without a problem.
    pub fn fine(about: &'static str, found: impl Into<String>) -> Check {
        Check {
            about,
            grade: Grade::Fine,
            found: found.into(),
            cure: String::new(),
        }
    }

    /// A problem and its cure.
    pub fn bad(
        about: &'static str,
        grade: Grade,
        found: impl Into<String>,
        cure: impl Into<String>,
    ) -> Check {
        Check {
            about,
            grade,
            found: found.into(),
            cure: cure.into(),
        }
    }
}
