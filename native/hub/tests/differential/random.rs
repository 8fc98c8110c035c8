//! Random sequences of requests.

use std::collections::BTreeMap;
use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::system::{Client, Pair};
use crate::wire::*;

/// The connections of every sequence.
const TOOLS: usize = 2;
const GUESTS: [u32; 2] = [1, 2];

/// The longest sequence.
const STEPS: usize = 100;

/// One step. Its indexes select among what exists when the step runs.
#[derive(Clone)]
pub enum Step {
    Request {
        client: usize,
        tx: Tx,
        kind: u32,
        payload: Vec<u8>,
    },
    Reconnect {
        tool: usize,
    },
    Recreate {
        guest: usize,
    },
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Request {
                client,
                tx,
                kind,
                payload,
            } => {
                write!(
                    f,
                    "client {client}, {tx:?}: {kind} {}",
                    payload.escape_ascii()
                )
            }
            Step::Reconnect { tool } => write!(f, "reconnect {tool}"),
            Step::Recreate { guest } => write!(f, "recreate {guest}"),
        }
    }
}

/// The transaction that a request names.
#[derive(Clone, Copy, Debug)]
pub enum Tx {
    None,
    Open(usize),
    Unknown,
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    let often = select(vec![
        "/a",
        "/a/b",
        "/a/b/c",
        "/a/b/d",
        "/a/bc",
        "/local/domain/1/data",
        "/local/domain/1/data/x",
        "/local/domain/1/data/x/y",
        "data",
        "data/x",
        "data/x/z",
    ]);
    let seldom = select(vec![
        "/",
        "/e/f",
        "x",
        "/local/domain",
        "/local/domain/0",
        "/local/domain/1",
        "/tool",
        "",
        "//",
        "/a/",
        "a//b",
        "/a b",
        "/a.b",
        "@a",
        "@releaseDomain",
        "@introduceDomain",
        "/a/b/c/d/e/f/g",
    ]);
    prop_oneof![12 => often, 1 => seldom].prop_map(|path| path.as_bytes().to_vec())
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => vec(any::<u8>(), 0..8),
        1 => (1900..2100usize).prop_map(|len| vec![b'v'; len]),
    ]
}

fn number() -> impl Strategy<Value = Vec<u8>> {
    let texts = [
        "0",
        "1",
        "2",
        "3",
        "0x1",
        "02",
        "-1",
        "",
        "x",
        "32752",
        "99999999999999999999",
        " 1",
        "1 ",
    ];
    select(texts.to_vec()).prop_map(|text| text.as_bytes().to_vec())
}

fn perms() -> impl Strategy<Value = Vec<u8>> {
    let letter = prop_oneof![25 => select(b"nrwb".to_vec()), 1 => Just(b'x')];
    let domid = prop_oneof![25 => select(vec!["0", "1", "2"]).prop_map(|text| text.as_bytes().to_vec()), 1 => number()];
    let entry =
        (letter, domid).prop_map(|(letter, domid)| [&[letter], domid.as_slice(), b"\0"].concat());
    prop_oneof![9 => vec(entry.clone(), 1..4), 1 => vec(entry, 4..8)]
        .prop_map(|entries| entries.concat())
}

fn strings(parts: &[&[u8]]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|part| [part, b"\0".as_slice()].concat())
        .collect()
}

/// Requests on one node.
fn on_node() -> impl Strategy<Value = (u32, Vec<u8>)> {
    let simple = prop_oneof![4 => Just(READ), 3 => Just(DIRECTORY), 3 => Just(GET_PERMS), 3 => Just(MKDIR), 3 => Just(RM)];
    prop_oneof![
        24 => (simple, path()).prop_map(|(kind, path)| (kind, strings(&[&path]))),
        16 => (path(), value()).prop_map(|(path, value)| (WRITE, [path.as_slice(), b"\0", &value].concat())),
        10 => (path(), perms())
            // If a domain owns the root, xenstored removes the root with it. And where xenstored
            // refuses a special node, it replies whatever error was last.
            .prop_filter("not comparable", |(path, _)| path != b"/" && !path.starts_with(b"@"))
            .prop_map(|(path, perms)| (SET_PERMS, [path.as_slice(), b"\0", &perms].concat())),
        1 => (path(), number()).prop_map(|(path, offset)| (DIRECTORY_PART, strings(&[&path, &offset]))),
    ]
}

fn other() -> impl Strategy<Value = (u32, Vec<u8>)> {
    let token = || select(vec![b"t".to_vec(), b"u".to_vec(), b"".to_vec()]);
    // Only those that xenstored parses itself: for the others it replies whatever error was last.
    let loose = select(vec![
        WRITE,
        WATCH,
        UNWATCH,
        SET_PERMS,
        DIRECTORY_PART,
        TRANSACTION_END,
        GET_DOMAIN_PATH,
    ]);
    prop_oneof![
        8 => (path(), token()).prop_map(|(path, token)| (WATCH, strings(&[&path, &token]))),
        8 => (path(), token()).prop_map(|(path, token)| (UNWATCH, strings(&[&path, &token]))),
        8 => Just((TRANSACTION_START, b"\0".to_vec())),
        8 => prop_oneof![3 => Just(b"T\0".to_vec()), 1 => Just(b"F\0".to_vec())].prop_map(|end| (TRANSACTION_END, end)),
        1 => Just((RESET_WATCHES, b"\0".to_vec())),
        1 => number().prop_map(|domid| (GET_DOMAIN_PATH, strings(&[&domid]))),
        1 => number().prop_map(|domid| (IS_DOMAIN_INTRODUCED, strings(&[&domid]))),
        1 => number().prop_map(|domid| (RESUME, strings(&[&domid]))),
        1 => (loose, vec(select(b"/ab\0\0rT1".to_vec()), 0..8)),
        1 => (select(vec![WATCH_EVENT, ERROR, 20, 23, 77, u32::MAX]), vec(any::<u8>(), 0..4)),
    ]
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tx = prop_oneof![10 => Just(Tx::None), 10 => (0..2usize).prop_map(Tx::Open), 1 => Just(Tx::Unknown)];
    let kind = prop_oneof![2 => on_node(), 1 => other()];
    let request = (0..TOOLS + GUESTS.len(), tx, kind).prop_map(|(client, tx, (kind, payload))| {
        Step::Request {
            client,
            tx,
            kind,
            payload,
        }
    });
    let step = prop_oneof![
        80 => request,
        1 => (0..TOOLS).prop_map(|tool| Step::Reconnect { tool }),
        2 => (0..GUESTS.len()).prop_map(|guest| Step::Recreate { guest }),
    ];
    vec(step, 1..=STEPS)
}

/// Runs a sequence on both stores, and counts the replies.
pub fn run(steps: Vec<Step>, replies: &mut BTreeMap<String, usize>) {
    let mut pair = Pair::new(TOOLS);
    for domid in GUESTS {
        create_guest(&mut pair, domid);
    }
    // A node that every domain may change.
    pair.round(Client::Tool(0), MKDIR, 0, b"/a\0");
    pair.round(Client::Tool(0), SET_PERMS, 0, b"/a\0b0\0");
    let mut open: BTreeMap<Client, Vec<u32>> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Request {
                client,
                tx,
                kind,
                payload,
            } => {
                let client = match client.checked_sub(TOOLS) {
                    None => Client::Tool(client),
                    Some(guest) => Client::Guest(GUESTS[guest]),
                };
                let ids = open.entry(client).or_default();
                let tx_id = match tx {
                    // In a transaction it crashes the xenstored of a Debian 12 without security
                    // updates.
                    _ if kind == RESET_WATCHES => 0,
                    Tx::None => 0,
                    Tx::Open(_) if ids.is_empty() => 0,
                    Tx::Open(at) => ids[at % ids.len()],
                    Tx::Unknown => 4242,
                };
                let reply = pair.round(client, kind, tx_id, &payload);
                let what = match reply.kind {
                    ERROR => String::from_utf8_lossy(&reply.payload)
                        .trim_end_matches('\0')
                        .to_owned(),
                    kind => kind.to_string(),
                };
                *replies.entry(what).or_default() += 1;
                match reply.kind {
                    TRANSACTION_START => {
                        let digits = reply.payload.strip_suffix(b"\0").unwrap();
                        ids.push(std::str::from_utf8(digits).unwrap().parse().unwrap());
                    }
                    RESET_WATCHES => ids.clear(),
                    // The transaction has ended, or stays open unused if the request was malformed.
                    _ if kind == TRANSACTION_END => ids.retain(|id| *id != tx_id),
                    _ => {}
                }
            }
            Step::Reconnect { tool } => {
                pair.disconnect(Client::Tool(tool));
                pair.connect(Client::Tool(tool));
                open.remove(&Client::Tool(tool));
            }
            Step::Recreate { guest } => {
                pair.release(GUESTS[guest]);
                open.remove(&Client::Guest(GUESTS[guest]));
                create_guest(&mut pair, GUESTS[guest]);
            }
        }
    }
}

/// Introduces a domain and creates a node that it owns, as libxl does.
pub fn create_guest(pair: &mut Pair, domid: u32) {
    pair.introduce(domid);
    let data = format!("/local/domain/{domid}/data\0");
    pair.round(Client::Tool(0), MKDIR, 0, data.as_bytes());
    pair.round(
        Client::Tool(0),
        SET_PERMS,
        0,
        format!("{data}n{domid}\0").as_bytes(),
    );
}
