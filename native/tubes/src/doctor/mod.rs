//! `tubes doctor`: whether this machine can have tubes, and what to do if not.

mod local;
mod store;
mod xen;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

use serde_json::json;

use crate::error::CommandError;
use crate::socket::Found;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// Not wrong.
    Fine,
    /// Works, but will not always.
    Warning,
    /// Does not work.
    Wrong,
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub about: &'static str,
    /// How it is.
    pub grade: Grade,
    /// What was found.
    pub found: String,
    /// What to do, if anything.
    pub cure: String,
}

impl Check {
    fn fine(about: &'static str, found: impl Into<String>) -> Check {
        Check {
            about,
            grade: Grade::Fine,
            found: found.into(),
            cure: String::new(),
        }
    }

    fn bad(
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

/// Looks up a variable of the environment.
type Env = Box<dyn Fn(&str) -> Option<OsString>>;

/// What is examined: this machine, or one that a test has made up.
pub struct Machine {
    root: PathBuf,
    env: Env,
}

impl Machine {
    /// The one that we run on.
    pub fn this() -> Machine {
        Machine {
            root: "/".into(),
            env: Box::new(|name| std::env::var_os(name)),
        }
    }

    fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// A file of one line.
    fn line(&self, absolute: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.path(absolute)).ok()?;
        Some(text.trim().to_owned())
    }

    fn number(&self, absolute: &str) -> Option<u64> {
        self.line(absolute)?.parse().ok()
    }
}

/// Makes all checks and writes them.
///
/// # Errors
/// Something is wrong (already told), or could not be written.
pub fn examine(
    machine: &Machine,
    found: Result<Found, CommandError>,
    json: bool,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let mut checks = Vec::new();
    let xen = machine.line("/sys/hypervisor/type").as_deref() == Some("xen");
    if xen {
        checks.extend(xen::checks(machine));
    } else {
        checks.push(Check::fine(
            "xen",
            "this is no Xen domain: only the local platform",
        ));
    }
    let on_xen = |found: &Found| found.source == "Xen's" || found.socket.is_none();
    if !xen || !found.as_ref().is_ok_and(on_xen) {
        checks.extend(local::checks(machine));
    }
    checks.extend(store::checks(found));
    if json {
        let list: Vec<_> = checks
            .iter()
            .map(|check| {
                json!({
                    "about": check.about, "grade": word(check.grade), "found": check.found,
                    "cure": check.cure,
                })
            })
            .collect();
        writeln!(out, "{}", crate::json::line(&list.into()))?;
    } else {
        for check in &checks {
            writeln!(
                out,
                "{:7}  {:12}  {}",
                word(check.grade),
                check.about,
                check.found
            )?;
            if !check.cure.is_empty() {
                writeln!(out, "{:23}cure: {}", "", check.cure)?;
            }
        }
    }
    out.flush()?;
    match checks
        .iter()
        .filter(|check| check.grade == Grade::Wrong)
        .count()
    {
        0 => Ok(()),
        n => Err(CommandError::failed(format_args!(
            "{n} of {} checks found something wrong",
            checks.len()
        ))),
    }
}

fn word(grade: Grade) -> &'static str {
    match grade {
        Grade::Fine => "ok",
        Grade::Warning => "warning",
        Grade::Wrong => "wrong",
    }
}
