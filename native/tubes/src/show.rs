//! `tubes show`: all details of the tubes of one domain, with both sides next to each other.

use std::io::Write;

use crate::error::CommandError;
use crate::path::{self, Domid, Role};
use crate::snapshot::Snapshot;
use crate::store::{Store, StoreError};
use crate::text::{self, cut};
use crate::tube::Tube;
use crate::tube::half::{NOCK_KEYS, TIP_KEYS};

const LABEL: usize = 15;

/// Below this width the sides are stacked.
const STACKED: usize = 76;

/// Describes the services that a domain offers.
///
/// # Errors
/// The connection to the store is lost.
pub fn services(store: &Store, domid: Domid) -> Result<String, CommandError> {
    let directory = path::service_directory(domid);
    let names = match store.names(&directory) {
        Err(error @ StoreError::Lost(_)) => return Err(error.into()),
        Err(StoreError::Denied) => return Ok("its service directory cannot be read".into()),
        Err(_) => return Ok("takes no tubes (it has no service directory)".into()),
        Ok(names) => names,
    };
    let version = store
        .read(&(directory + "/version"))
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
/// Writing fails.
pub fn tube(
    snapshot: &Snapshot,
    tube: &Tube,
    width: usize,
    out: &mut impl Write,
) -> Result<(), CommandError> {
    let id = tube.id;
    let (nock, tip) = (snapshot.label(id.nock), snapshot.label(id.tip));
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
        ("at", id.nock_node(), id.tip_node()),
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
