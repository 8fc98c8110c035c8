//! Sequences written by hand: the handshake of two domains, and every limit from both sides.

use crate::random::furnish;
use crate::system::{Client, Pair};
use crate::wire::*;

const TOOL: Client = Client::Tool(0);
const TIP: Client = Client::Guest(1);
const NOCK: Client = Client::Guest(2);
const STRANGER: Client = Client::Guest(3);

fn pair() -> Pair {
    let mut pair = Pair::new(1);
    (1..=3).for_each(|domid| furnish(&mut pair, domid));
    pair
}

/// A request whose payload is text; what was answered.
fn ask(pair: &mut Pair, client: Client, tx: u32, kind: u32, payload: &str) -> String {
    let answer = pair.round(client, kind, tx, payload.as_bytes());
    let text = String::from_utf8_lossy(&answer.payload).into_owned();
    if answer.kind == ERROR {
        text.trim_end_matches('\0').to_owned()
    } else {
        text
    }
}

fn write(pair: &mut Pair, client: Client, tx: u32, path: &str, value: &str) -> String {
    ask(pair, client, tx, WRITE, &format!("{path}\0{value}"))
}

#[test]
fn a_handshake_and_a_stranger() {
    let mut pair = pair();
    let p = &mut pair;
    for client in [TOOL, TIP, NOCK, STRANGER] {
        ask(p, client, 0, WATCH, "/local/domain\0all\0");
        ask(p, client, 0, WATCH, "@releaseDomain\0gone\0");
    }
    ask(p, TOOL, 0, SET_PERMS, "@releaseDomain\0n0\0r2\0");

    ask(p, TIP, 0, WATCH, "data/tip\0inbox\0");
    ask(p, TIP, 0, MKDIR, "data/tube\0");
    ask(p, TIP, 0, SET_PERMS, "data/tube\0r1\0");
    write(p, TIP, 0, "data/tube/version", "1");
    for client in [NOCK, STRANGER] {
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
        write(p, STRANGER, 0, "/local/domain/2/data/nock/1/77/state", "6"),
        "EACCES"
    );
    assert_eq!(
        ask(
            p,
            STRANGER,
            0,
            READ,
            "/local/domain/2/data/nock/1/77/state\0"
        ),
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
        ask(p, STRANGER, 0, RM, "/local/domain/1/data/tip/2\0"),
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

    // A transaction that looked at what somebody else then changes.
    let tx = ask(p, TIP, 0, TRANSACTION_START, "\0")
        .trim_end_matches('\0')
        .parse()
        .unwrap();
    ask(p, TIP, tx, READ, "data/tip/2/77/state\0");
    write(p, TIP, tx, "data/tip/2/77/state", "4");
    write(p, NOCK, 0, "/local/domain/1/data/tip/2/77/state", "5");
    assert_eq!(ask(p, TIP, tx, TRANSACTION_END, "T\0"), "EAGAIN");

    // The tip's domain ends: its nodes go, and whoever could read them is told.
    p.release(1);
    assert_eq!(
        ask(p, NOCK, 0, READ, "/local/domain/1/data/tip/2/77/state\0"),
        "EACCES"
    );
    ask(p, TOOL, 0, RM, "/local/domain/1\0");
    ask(p, NOCK, 0, RM, "data/nock\0");
    furnish(p, 1);
    assert_eq!(ask(p, TIP, 0, READ, "/local/domain/2/data\0"), "EACCES");
}

#[test]
fn the_size_of_a_node() {
    let mut pair = pair();
    let p = &mut pair;
    for (perms, room) in [("n1", 2015), ("n1\0b1\0b2", 1999)] {
        ask(p, TIP, 0, MKDIR, "data/x\0");
        ask(p, TIP, 0, SET_PERMS, &format!("data/x\0{perms}\0"));
        assert_eq!(write(p, TIP, 0, "data/x", &"v".repeat(room)), "OK\0");
        assert_eq!(write(p, TIP, 0, "data/x", &"v".repeat(room + 1)), "ENOSPC");
        assert_eq!(
            write(p, TOOL, 0, "/local/domain/1/data/x", &"v".repeat(4000)),
            "OK\0"
        );
        ask(p, TIP, 0, RM, "data/x\0");
    }
    assert_eq!(write(p, TIP, 0, "data/new", &"v".repeat(2016)), "ENOSPC");
    assert_eq!(ask(p, TIP, 0, READ, "data/new\0"), "ENOENT");
    let names = (0..)
        .take_while(|n| write(p, TIP, 0, &format!("data/n{n}"), "") == "OK\0")
        .count();
    assert_eq!(names, 425);
    // One too large in a transaction spoils all of it.
    let tx = ask(p, TIP, 0, TRANSACTION_START, "\0")
        .trim_end_matches('\0')
        .parse()
        .unwrap();
    assert_eq!(write(p, TIP, tx, "data/n1", &"v".repeat(2016)), "ENOSPC");
    assert_eq!(ask(p, TIP, tx, TRANSACTION_END, "T\0"), "ENOMEM");
}

#[test]
fn the_number_of_nodes() {
    let mut pair = pair();
    let p = &mut pair;
    // `data` is the first; ten directories of 98 make 991; nine more fit.
    for n in 0..10 * 98 {
        assert_eq!(
            write(p, TIP, 0, &format!("data/d{}/n{n}", n / 98), ""),
            "OK\0"
        );
    }
    assert_eq!(write(p, TIP, 0, "data/a/b/c/d/e/f/g/h/i/j", ""), "ENOSPC");
    assert_eq!(ask(p, TIP, 0, DIRECTORY, "data/a\0"), "ENOENT");
    assert_eq!(write(p, TIP, 0, "data/a/b/c/d/e/f/g/h", ""), "OK\0");
    // A transaction may not reach the limit itself, and is told only at its end.
    let tx = ask(p, TIP, 0, TRANSACTION_START, "\0")
        .trim_end_matches('\0')
        .parse()
        .unwrap();
    assert_eq!(write(p, TIP, tx, "data/t/u/v/w", ""), "OK\0");
    assert_eq!(ask(p, TIP, tx, TRANSACTION_END, "T\0"), "ENOSPC");
    assert_eq!(write(p, TIP, 0, "data/last", ""), "OK\0");
    assert_eq!(write(p, TIP, 0, "data/more", ""), "ENOSPC");
    let tx = ask(p, TIP, 0, TRANSACTION_START, "\0")
        .trim_end_matches('\0')
        .parse()
        .unwrap();
    assert_eq!(write(p, TIP, tx, "data/more", ""), "ENOSPC");
    assert_eq!(ask(p, TIP, tx, TRANSACTION_END, "T\0"), "OK\0");
    // What domain 0 gives away counts for the new owner, and is not refused.
    write(p, TOOL, 0, "/gift", "");
    assert_eq!(ask(p, TOOL, 0, SET_PERMS, "/gift\0n1\0"), "OK\0");
    assert_eq!(ask(p, TIP, 0, RM, "data/last\0"), "OK\0");
    assert_eq!(write(p, TIP, 0, "data/more", ""), "ENOSPC");
    assert_eq!(ask(p, TIP, 0, RM, "data/d0\0"), "OK\0");
    assert_eq!(write(p, TIP, 0, "data/more", ""), "OK\0");
}

#[test]
fn the_numbers_of_watches_transactions_and_permissions() {
    let mut pair = pair();
    let p = &mut pair;
    for n in 0..129 {
        assert_eq!(ask(p, TIP, 0, WATCH, &format!("data\0{n}\0")), "OK\0");
    }
    assert_eq!(ask(p, TIP, 0, WATCH, "data\0no\0"), "E2BIG");
    assert_eq!(ask(p, TIP, 0, WATCH, "data\x005\0"), "EEXIST");
    assert_eq!(
        ask(p, TIP, 0, UNWATCH, "/local/domain/1/data\x005\0"),
        "OK\0"
    );
    assert_eq!(ask(p, TIP, 0, WATCH, "data\0no\0"), "OK\0");
    write(p, TIP, 0, "data/x", "every watch but one fires");
    for n in 1..=11 {
        assert_eq!(ask(p, TIP, 0, TRANSACTION_START, "\0"), format!("{n}\0"));
    }
    assert_eq!(ask(p, TIP, 0, TRANSACTION_START, "\0"), "ENOSPC");
    assert_eq!(ask(p, TIP, 7, TRANSACTION_END, "F\0"), "OK\0");
    assert_eq!(ask(p, TIP, 0, TRANSACTION_START, "\0"), "12\0");
    assert_eq!(ask(p, TIP, 0, RESET_WATCHES, "\0"), "OK\0");
    assert_eq!(ask(p, TIP, 0, TRANSACTION_START, "\0"), "13\0");
    assert_eq!(
        ask(p, TIP, 0, SET_PERMS, "data\0n1\0r2\0r3\0r0\0r1\0"),
        "OK\0"
    );
    assert_eq!(
        ask(p, TIP, 0, SET_PERMS, "data\0n1\0r2\0r3\0r0\0r1\0r1\0"),
        "ENOSPC"
    );
    assert_eq!(ask(p, TIP, 0, SET_PERMS, "data\0n2\0"), "EPERM");
    assert_eq!(
        ask(p, NOCK, 0, SET_PERMS, "/local/domain/1/data\0n2\0"),
        "EACCES"
    );
    assert_eq!(
        ask(p, TOOL, 0, SET_PERMS, "/local/domain/1/data\0n9\0"),
        "ENOENT"
    );
    assert_eq!(
        ask(p, TOOL, 0, SET_PERMS, "/local/domain/1/data\0n1\0b9\0"),
        "OK\0"
    );
}

#[test]
fn the_nodes_that_a_transaction_touches() {
    let mut pair = pair();
    let p = &mut pair;
    let tx = ask(p, TIP, 0, TRANSACTION_START, "\0")
        .trim_end_matches('\0')
        .parse()
        .unwrap();
    // Looking for a missing node looks at `data` as well.
    for n in 0..1023 {
        assert_eq!(ask(p, TIP, tx, READ, &format!("data/m{n}\0")), "ENOENT");
    }
    assert_eq!(ask(p, TIP, tx, READ, "data/m7\0"), "ENOENT");
    assert_eq!(ask(p, TIP, tx, READ, "data/m1023\0"), "ENOSPC");
    assert_eq!(ask(p, TIP, tx, TRANSACTION_END, "T\0"), "ENOMEM");
}

#[test]
fn long_names_and_long_answers() {
    let mut pair = pair();
    let p = &mut pair;
    for (path, answer) in [
        ("x".repeat(2048), "ENOENT"),
        ("x".repeat(2049), "EINVAL"),
        (format!("/{}", "x".repeat(2047)), "ENOENT"),
        (format!("/{}", "x".repeat(2048)), "EINVAL"),
        (
            format!("/local/domain/12345/{}", "x".repeat(2048)),
            "ENOENT",
        ),
        (
            format!("/local/domain/123456/{}", "x".repeat(2030)),
            "EINVAL",
        ),
        (format!("/local/domain/-1/{}", "x".repeat(2048)), "ENOENT"),
    ] {
        assert_eq!(ask(p, TOOL, 0, READ, &format!("{path}\0")), answer);
    }
    for n in 0..900 {
        write(p, TOOL, 0, &format!("/wide/n{n}"), "");
    }
    assert_eq!(ask(p, TOOL, 0, DIRECTORY, "/wide\0"), "E2BIG");
    for offset in ["0", "4087", "4088", "3", "5000", "-1", "x"] {
        ask(p, TOOL, 0, DIRECTORY_PART, &format!("/wide\0{offset}\0"));
    }
    ask(p, TOOL, 0, DIRECTORY_PART, "/wide/n1\x000\0");
    write(
        p,
        TOOL,
        0,
        &format!("/{}", "deep/".repeat(200) + "end"),
        "1",
    );
    ask(p, TOOL, 0, RM, "/deep\0");
    // An event of more than 4096 bytes is not sent.
    let path = format!("/{}", "x".repeat(2047));
    assert_eq!(
        ask(
            p,
            TOOL,
            0,
            WATCH,
            &format!("{path}\0{}\0", "t".repeat(2046))
        ),
        "OK\0"
    );
    assert_eq!(
        ask(p, TOOL, 0, WATCH, &format!("/\0{}\0", "t".repeat(2047))),
        "OK\0"
    );
    write(p, TOOL, 0, &path, "1");
    assert_eq!(
        ask(p, TOOL, 0, WATCH, &format!("@{}\0t\0", "x".repeat(2047))),
        "OK\0"
    );
    assert_eq!(
        ask(p, TOOL, 0, WATCH, &format!("@{}\0t\0", "x".repeat(2048))),
        "EINVAL"
    );
}

#[test]
fn what_only_domain_0_may_do() {
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
    // A device model has what its target has.
    assert_eq!(ask(p, NOCK, 0, READ, "/local/domain/1/data\0"), "EACCES");
    assert_eq!(ask(p, TOOL, 0, SET_TARGET, "2\x001\0"), "OK\0");
    assert_eq!(ask(p, NOCK, 0, READ, "/local/domain/1/data\0"), "");
    assert_eq!(write(p, NOCK, 0, "/local/domain/1/data/model", "1"), "OK\0");
    assert_eq!(ask(p, TIP, 0, READ, "data/model\0"), "EACCES");
}

#[test]
fn events_for_those_who_may_know() {
    let mut pair = pair();
    let p = &mut pair;
    for client in [TOOL, TIP, NOCK, STRANGER] {
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
    // The parent may be read, the node may not: told all the same.
    write(p, TIP, 0, "data/x/y", "2");
    ask(p, TIP, 0, SET_PERMS, "data/x/y/z\0r1\0");
    // Whoever loses the right to read is told of that.
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
    furnish(p, 3);
    // Domain 2 ends, and with it its entry; the next domain 2 is not told.
    p.release(2);
    furnish(p, 2);
    ask(p, NOCK, 0, WATCH, "@introduceDomain\0t\0");
    p.release(3);
    furnish(p, 3);
    // Nodes go with their owner, also those of others below them.
    ask(p, TIP, 0, SET_PERMS, "data\0n1\0b1\0b2\0");
    write(p, NOCK, 0, "/local/domain/1/data/guest/of", "1");
    ask(p, NOCK, 0, SET_PERMS, "/local/domain/1/data/guest/of\0b2\0");
    write(p, TIP, 0, "data/guest/of/host", "1");
    p.release(2);
    ask(p, TIP, 0, DIRECTORY, "data\0");
    assert_eq!(ask(p, TIP, 0, GET_PERMS, "data\0"), "n1\0b1\0b2\0");
    furnish(p, 2);
    assert_eq!(ask(p, NOCK, 0, READ, "/local/domain/1/data\0"), "EACCES");
}
