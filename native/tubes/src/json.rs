//! JSON output of tubes. It is pure ASCII, because it may end up on a terminal.

use serde_json::{Map, Value, json};

use crate::path::{Id, Role};
use crate::snapshot::Snapshot;
use crate::stats::meters::Meters;
use crate::stats::sample::NAMES;
use crate::tube::Tube;
use crate::tube::half::{Half, NOCK_KEYS, TIP_KEYS};

/// A value as one line of ASCII, without the newline.
pub fn line(value: &Value) -> String {
    value
        .to_string()
        .chars()
        .map(|c| match c {
            ' '..='~' => c.to_string(),
            c => {
                let mut units = [0; 2];
                let units = c.encode_utf16(&mut units);
                units.iter().map(|unit| format!("\\u{unit:04x}")).collect()
            }
        })
        .collect()
}

/// All details of a tube; with `meters`, its counters and rates too.
pub fn tube(snapshot: &Snapshot, tube: &Tube, meters: Option<&Meters>) -> Value {
    let mut value = json!({
        "nock": tube.id.nock,
        "tip": tube.id.tip,
        "tid": tube.id.tid,
        "service": tube.nock.get("service").and_then(crate::path::service)
            .and_then(|bytes| String::from_utf8(bytes).ok()),
        "state": tube.stage().word(),
        "nock_half": half(snapshot, tube, Role::Nock),
        "tip_half": half(snapshot, tube, Role::Tip),
        "findings": tube.findings().iter().map(|f| f.text.clone()).collect::<Vec<_>>(),
    });
    if let Some(meters) = meters {
        value["stats"] = stats(tube.id, meters);
    }
    value
}

fn stats(id: Id, meters: &Meters) -> Value {
    let end = |role| {
        let sample = meters.sample(id, role)?;
        let numbers = NAMES
            .iter()
            .map(|name| (name.replace('-', "_"), json!(sample.get(name))));
        Some(Value::Object(numbers.collect()))
    };
    json!({
        "nock_end": end(Role::Nock),
        "tip_end": end(Role::Tip),
        "per_second": meters.traffic(id).map(|traffic| json!({
            "messages": traffic.messages(), "bytes": traffic.bytes(),
            "nock_to_tip": {"messages": traffic.forth, "bytes": traffic.forth_bytes},
            "tip_to_nock": {"messages": traffic.back, "bytes": traffic.back_bytes},
            "full_waits": traffic.full_waits, "bells": traffic.notifications,
        })),
    })
}

fn half(snapshot: &Snapshot, tube: &Tube, role: Role) -> Value {
    let (domid, path, keys) = match role {
        Role::Nock => (tube.id.nock, tube.id.nock_node(), &NOCK_KEYS[..]),
        Role::Tip => (tube.id.tip, tube.id.tip_node(), &TIP_KEYS[..]),
    };
    let half = tube.half(role);
    let mut map = Map::new();
    let name = snapshot
        .domains
        .get(&domid)
        .and_then(|domain| domain.name.clone());
    map.insert("domain".into(), json!(name));
    map.insert("path".into(), json!(path));
    map.insert(
        "exists".into(),
        match half {
            Half::Missing => json!(false),
            Half::Denied => Value::Null,
            Half::Here(..) => json!(true),
        },
    );
    for key in keys {
        let value = match half.get(key) {
            Some(_) if *key == "state" => json!(half.state()),
            Some(text) => match crate::path::number(text) {
                Some(n) if *key != "nonce" && *key != "service" => json!(n),
                _ => json!(text),
            },
            None => Value::Null,
        };
        map.insert(key.replace('-', "_"), value);
    }
    Value::Object(map)
}
