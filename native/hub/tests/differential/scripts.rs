//! Hand-written sequences: the handshake of two domains, events, and operations of domain 0.

use crate::random::create_guest;
use crate::system::{Client, Pair};
use crate::wire::*;

pub const TOOL: Client = Client::Tool(0);
pub const TIP: Client = Client::Guest(1);
pub const NOCK: Client = Client::Guest(2);
pub const OTHER: Client = Client::Guest(3);

pub fn pair() -> Pair {
    let mut pair = Pair::new(1);
    (1..=3).for_each(|domid| create_guest(&mut pair, domid));
    pair
}

/// Sends a request whose payload is text. Returns the reply as text.
pub fn ask(pair: &mut Pair, client: Client, tx: u32, kind: u32, payload: &str) -> String {
    let reply = pair.round(client, kind, tx, payload.as_bytes());
    let text = String::from_utf8_lossy(&reply.payload).into_owned();
    if reply.kind == ERROR {
        text.trim_end_matches('\0').to_owned()
    } else {
        text
    }
}

pub fn write(pair: &mut Pair, client: Client, tx: u32, path: &str, value: &str) -> String {
    ask(pair, client, tx, WRITE, &format!("{path}\0{value}"))
}

#[test]
fn a_handshake_of_two_domains_beside_a_third() {
    let mut pair = pair();
    let p = &mut pair;
    for client in [TOOL, TIP, NOCK, OTHER] {
        ask(p, client, 0, WATCH, "/local/domain\0all\0");
        ask(p, client, 0, WATCH, "@releaseDomain\0gone\0");
    }
    ask(p, TOOL, 0, SET_PERMS, "@releaseDomain\0n0\0r2\0");

    ask(p, TIP, 0, WATCH, "data/tip\0inbox\0");
    ask(p, TIP, 0, MKDIR, "data/tube\0");
    ask(p, TIP, 0, SET_PERMS, "data/tube\0r1\0");
    write(p, TIP, 0, "data/tube/version", "1");
    for client in [NOCK, OTHER] {
        assert_eq!(
            ask(p, client, 0, READ, "/local/domain/1/data/tube/version\0"),
            "1"
        );
        assert_eq!(
            write(p, client, 0, "/local/domain/1/data/tube/version", "2"),
            "EACCES"
        );
        assert_eq!(
            ask(p, client, 0, DIRECTORY, "/local/domain/1/data\0"),
            "EACCES"
        );
    }

    ask(p, NOCK, 0, WATCH, "/local/domain/1/data/tip/2\0inbox\0");
    ask(p, NOCK, 0, MKDIR, "data/nock/1/77\0");
    for path in ["data/nock", "data/nock/1", "data/nock/1/77"] {
        ask(p, NOCK, 0, SET_PERMS, &format!("{path}\0n2\0r1\0"));
    }
    write(p, NOCK, 0, "data/nock/1/77/tip", "/local/domain/1");
    write(p, NOCK, 0, "data/nock/1/77/state", "2");
    assert_eq!(
        write(p, OTHER, 0, "/local/domain/2/data/nock/1/77/state", "6"),
        "EACCES"
    );
    assert_eq!(
        ask(p, OTHER, 0, READ, "/local/domain/2/data/nock/1/77/state\0"),
        "EACCES"
    );

    ask(p, TIP, 0, MKDIR, "data/tip/2\0");
    ask(p, TIP, 0, SET_PERMS, "data/tip/2\0n1\0b1\0b2\0");
    write(
        p,
        NOCK,
        0,
        "/local/domain/1/data/tip/2/77/nock",
        "/local/domain/2/data/nock/1/77",
    );
    assert_eq!(
        ask(p, TIP, 0, GET_PERMS, "data/tip/2/77/nock\0"),
        "n2\0b1\0b2\0"
    );
    assert_eq!(
        ask(p, OTHER, 0, RM, "/local/domain/1/data/tip/2\0"),
        "EACCES"
    );

    let tx = ask(p, TIP, 0, TRANSACTION_START, "\0")
        .trim_end_matches('\0')
        .parse()
        .unwrap();
    for (key, value) in [
        ("tx-ring-ref", "8"),
        ("rx-ring-ref", "9"),
        ("event-channel", "5"),
        ("state", "3"),
    ] {
        write(p, TIP, tx, &format!("data/tip/2/77/{key}"), value);
    }
    assert_eq!(
        ask(p, NOCK, 0, READ, "/local/domain/1/data/tip/2/77/state\0"),
        "ENOENT"
    );
    assert_eq!(ask(p, TIP, tx, TRANSACTION_END, "T\0"), "OK\0");
    assert_eq!(
        ask(p, NOCK, 0, READ, "/local/domain/1/data/tip/2/77/state\0"),
        "3"
    );
    write(p, NOCK, 0, "data/nock/1/77/state", "4");

    // A transaction that has read a node which another client then changes.
    let tx = ask(p, TIP, 0, TRANSACTION_START, "\0")
        .trim_end_matches('\0')
        .parse()
        .unwrap();
    ask(p, TIP, tx, READ, "data/tip/2/77/state\0");
    write(p, TIP, tx, "data/tip/2/77/state", "4");
    write(p, NOCK, 0, "/local/domain/1/data/tip/2/77/state", "5");
    assert_eq!(ask(p, TIP, tx, TRANSACTION_END, "T\0"), "EAGAIN");

    // The tip's domain ends: its nodes are removed, and watches of domains that could read them
    // fire.
    p.release(1);
    assert_eq!(
        ask(p, NOCK, 0, READ, "/local/domain/1/data/tip/2/77/state\0"),
        "EACCES"
    );
    ask(p, TOOL, 0, RM, "/local/domain/1\0");
    ask(p, NOCK, 0, RM, "data/nock\0");
    create_guest(p, 1);
    assert_eq!(ask(p, TIP, 0, READ, "/local/domain/2/data\0"), "EACCES");
}

#[test]
fn privileged_operations() {
    let mut pair = pair();
    let p = &mut pair;
    for kind in [
        0,
        INTRODUCE,
        RELEASE,
        IS_DOMAIN_INTRODUCED,
        RESUME,
        SET_TARGET,
    ] {
        for (tx, payload) in [(0, "1\x001\x001\0"), (99, ""), (0, "garbage")] {
            assert_eq!(ask(p, TIP, tx, kind, payload), "EACCES");
        }
    }
    for (kind, payload) in [
        (0, "nonsense\0"),
        (0, ""),
        (INTRODUCE, "4\x001\0"),
        (INTRODUCE, "4\x001\x000\0"),
        (RELEASE, "0\0"),
        (RELEASE, "x\0"),
        (RELEASE, "1"),
        (RELEASE, "9\0"),
        (RESUME, "1\0"),
        (RESUME, "9\0"),
        (RESUME, "0\0"),
        (IS_DOMAIN_INTRODUCED, "1\0"),
        (IS_DOMAIN_INTRODUCED, "9\0"),
        (IS_DOMAIN_INTRODUCED, "32752\0"),
        (IS_DOMAIN_INTRODUCED, "1"),
        (SET_TARGET, "1\0"),
        (SET_TARGET, "9\x001\0"),
        (SET_TARGET, "1\x009\0"),
    ] {
        ask(p, TOOL, 0, kind, payload);
    }
    // A device model has the rights of its target.
    assert_eq!(ask(p, NOCK, 0, READ, "/local/domain/1/data\0"), "EACCES");
    assert_eq!(ask(p, TOOL, 0, SET_TARGET, "2\x001\0"), "OK\0");
    assert_eq!(ask(p, NOCK, 0, READ, "/local/domain/1/data\0"), "");
    assert_eq!(write(p, NOCK, 0, "/local/domain/1/data/model", "1"), "OK\0");
    assert_eq!(ask(p, TIP, 0, READ, "data/model\0"), "EACCES");
}

#[test]
fn events_only_for_clients_that_may_read_the_node() {
    let mut pair = pair();
    let p = &mut pair;
    for client in [TOOL, TIP, NOCK, OTHER] {
        for path in [
            "/local/domain/1/data",
            "/local/domain/1/data/x/y",
            "/",
            "@introduceDomain",
            "@releaseDomain",
        ] {
            ask(p, client, 0, WATCH, &format!("{path}\0t\0"));
        }
    }
    ask(p, TIP, 0, WATCH, "data/x\0relative\0");
    write(p, TIP, 0, "data/x/y/z", "1");
    ask(p, TIP, 0, SET_PERMS, "data/x\0n1\0r2\0");
    // The parent is readable but the node is not: there is an event all the same.
    write(p, TIP, 0, "data/x/y", "2");
    ask(p, TIP, 0, SET_PERMS, "data/x/y/z\0r1\0");
    // A client that loses the right to read gets an event.
    ask(p, TIP, 0, SET_PERMS, "data/x\0n1\0");
    ask(p, TIP, 0, RM, "data/x\0");
    let tx = ask(p, TIP, 0, TRANSACTION_START, "\0")
        .trim_end_matches('\0')
        .parse()
        .unwrap();
    write(p, TIP, tx, "data/x/y", "3");
    ask(p, TIP, tx, SET_PERMS, "data/x/y\0r1\0");
    ask(p, TIP, tx, RM, "data/x/y\0");
    write(p, TIP, tx, "data/x/y", "4");
    write(p, TIP, tx, "data/gone", "5");
    ask(p, TIP, tx, RM, "data/gone\0");
    ask(p, TIP, tx, TRANSACTION_END, "T\0");
    ask(p, TOOL, 0, SET_PERMS, "@releaseDomain\0r0\0");
    ask(p, TOOL, 0, SET_PERMS, "@introduceDomain\0n0\0r2\0");
    p.release(3);
    create_guest(p, 3);
    // Domain 2 ends, and its permission with it: the next domain 2 gets no event.
    p.release(2);
    create_guest(p, 2);
    ask(p, NOCK, 0, WATCH, "@introduceDomain\0t\0");
    p.release(3);
    create_guest(p, 3);
    // Nodes are removed with their owner, including descendants of other owners.
    ask(p, TIP, 0, SET_PERMS, "data\0n1\0b1\0b2\0");
    write(p, NOCK, 0, "/local/domain/1/data/guest/of", "1");
    ask(p, NOCK, 0, SET_PERMS, "/local/domain/1/data/guest/of\0b2\0");
    write(p, TIP, 0, "data/guest/of/host", "1");
    p.release(2);
    ask(p, TIP, 0, DIRECTORY, "data\0");
    assert_eq!(ask(p, TIP, 0, GET_PERMS, "data\0"), "n1\0b1\0b2\0");
    create_guest(p, 2);
    assert_eq!(ask(p, NOCK, 0, READ, "/local/domain/1/data\0"), "EACCES");
}
