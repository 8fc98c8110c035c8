//! `tubes doctor`: checks whether this machine can have tubes, and names a cure for each problem.

mod check;
mod local;
mod machine;
mod store;
mod xen;

use std::io::Write;

use serde_json::json;

use crate::error::CommandError;
use crate::socket::Found;
use check::{Check, Grade};
pub use machine::Machine;

/// Runs all checks and writes their outcomes.
///
/// # Errors
/// A check found something wrong, or writing fails.
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
            "this machine is not a Xen domain; it uses the local platform",
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
                    "about": check.about, "grade": check.grade.word(), "found": check.found,
                    "cure": check.cure,
                })
            })
            .collect();
        writeln!(out, "{}", crate::json::line(&list.into()))?;
    } else {
        for check in &checks {
            let (grade, about) = (check.grade.word(), check.about);
            writeln!(out, "{grade:7}  {about:12}  {}", check.found)?;
            if !check.cure.is_empty() {
                writeln!(out, "{:23}cure: {}", "", check.cure)?;
            }
        }
    }
    out.flush()?;
    let wrong = checks.iter().filter(|check| check.grade == Grade::Wrong);
    match wrong.count() {
        0 => Ok(()),
        n => Err(CommandError::failed(format_args!(
            "{n} of {} checks found something wrong",
            checks.len()
        ))),
    }
}
