//! `tubes show`: everything about the tubes of one domain, both sides side by side.

use std::io::Write;

use crate::error::CommandError;
use crate::path::{self, Domid, Role};
use crate::snapshot::Snapshot;
use crate::store::{Store, StoreError};
use crate::text::{self, cut};
use crate::tube::{NOCK_KEYS, TIP_KEYS, Tube};

const LABEL: usize = 15;

/// Below this width the sides stand one above the other.
const STACKED: usize = 76;

/// What a domain says of itself: its door and the services behind it.
///
/// # Errors
/// The store is lost.
pub fn door(store: &Store, domid: Domid) -> Result<String, CommandError> {
    let door = path::door(domid);
    let names = match store.names(&door) {
        Err(error @ StoreError::Lost(_)) => return Err(error.into()),
        Err(StoreError::Denied) => return Ok("its door cannot be read".into()),
        Err(_) => return Ok("takes no tubes (it has no door)".into()),
        Ok(names) => names,
    };
    let version = store
        .read(&(door + "/version"))
        .unwrap_or_else(|_| "?".into());
    let services: Vec<String> = names
        .iter()
        .filter(|name| !["version", "watch", "stats"].contains(&name.as_str()))
        .map(|name| match path::service(name) {
            Some(bytes) => text::escape_bytes(&bytes),
            None => text::value(name),
        })
        .collect();
    Ok(format!(
        "takes tubes (version {}): {}",
        text::value(&version),
        services.join(", ")
    ))
}

/// Writes one tube.
///
/// # Errors
/// Those of writing.
pub fn tube(
    snapshot: &Snapshot,
    tube: &Tube,
    width: usize,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let id = tube.id;
    let (nock, tip) = (snapshot.called(id.nock), snapshot.called(id.tip));
    let head = format!(
        "{nock} -> {tip} tube {}, service {}: {}",
        id.tid,
        tube.service(),
        tube.stage().word()
    );
    writeln!(out, "{}", cut(&head, width))?;

    let findings = tube.findings();
    let mut keys: Vec<&str> = NOCK_KEYS.into();
    keys.extend(TIP_KEYS.iter().filter(|key| !NOCK_KEYS.contains(key)));
    let rows: Vec<(&str, String, String)> = [
        ("", format!("nock {nock}"), format!("tip {tip}")),
        ("at", id.knock(), id.entry()),
    ]
    .into_iter()
    .chain(keys.iter().map(|key| {
        let of = |half: Role, keys: &[&str]| {
            if keys.contains(key) {
                tube.half(half).shown(key)
            } else {
                String::new()
            }
        };
        (*key, of(Role::Nock, &NOCK_KEYS), of(Role::Tip, &TIP_KEYS))
    }))
    .collect();
    let mark = |key: &str| {
        let wrong = !key.is_empty() && findings.iter().any(|finding| finding.key == key);
        if wrong { '!' } else { ' ' }
    };

    if width < STACKED {
        for side in [0, 1] {
            for (key, nock, tip) in &rows {
                let value = if side == 0 { nock } else { tip };
                if !value.is_empty() {
                    let line = format!("{} {key:LABEL$}{value}", mark(key));
                    writeln!(out, "{}", cut(&line, width))?;
                }
            }
        }
    } else {
        let longest = rows
            .iter()
            .map(|(_, nock, _)| nock.len())
            .max()
            .unwrap_or(0);
        let column = longest.min((width - LABEL - 4) / 2);
        for (key, nock, tip) in &rows {
            let line = format!(
                "{} {key:LABEL$}{:column$}  {tip}",
                mark(key),
                cut(nock, column)
            );
            writeln!(out, "{}", cut(line.trim_end(), width))?;
        }
    }
    for finding in findings {
        writeln!(out, "! {}", cut(&finding.text, width.saturating_sub(2)))?;
    }
    Ok(())
}
