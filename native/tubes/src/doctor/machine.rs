//! The machine that the doctor examines.

use std::ffi::OsString;
use std::path::PathBuf;

/// Looks up an environment variable.
type Env = Box<dyn Fn(&str) -> Option<OsString>>;

/// Files and environment of a machine: this one, or one that a test has set up.
pub struct Machine {
    root: PathBuf,
    /// Its environment.
    pub env: Env,
}

impl Machine {
    /// The machine that this program runs on.
    pub fn this() -> Machine {
        Machine {
            root: "/".into(),
            env: Box::new(|name| std::env::var_os(name)),
        }
    }

    /// A machine without environment variables, with its files below `root`.
    #[cfg(test)]
    pub fn below(root: &std::path::Path) -> Machine {
        Machine {
            root: root.into(),
            env: Box::new(|_| None),
        }
    }

    /// Where a file of the machine is.
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The content of a file with one line.
    pub fn line(&self, absolute: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path(absolute)).ok()?;
        Some(text.trim().to_owned())
    }

    /// The number in a file.
    pub fn number(&self, absolute: &str) -> Option<u64> {
        self.line(absolute)?.parse().ok()
    }
}
