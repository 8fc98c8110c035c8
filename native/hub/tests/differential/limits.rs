//! Every quota: just within and just beyond it.

use crate::scripts::{NOCK, TIP, TOOL, ask, pair, write};
use crate::wire::*;

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
    // A node that is too large fails the whole transaction.
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
    // `data` is one; with ten directories of 98 nodes there are 991; nine more fit.
    for n in 0..10 * 98 {
        assert_eq!(
            write(p, TIP, 0, &format!("data/d{}/n{n}", n / 98), ""),
            "OK\0"
        );
    }
    assert_eq!(write(p, TIP, 0, "data/a/b/c/d/e/f/g/h/i/j", ""), "ENOSPC");
    assert_eq!(ask(p, TIP, 0, DIRECTORY, "data/a\0"), "ENOENT");
    assert_eq!(write(p, TIP, 0, "data/a/b/c/d/e/f/g/h", ""), "OK\0");
    // A transaction may not reach the limit, and fails only when it commits.
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
    // A node that domain 0 gives to a domain counts for that domain, but is never refused.
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
fn the_number_of_nodes_accessed_in_a_transaction() {
    let mut pair = pair();
    let p = &mut pair;
    let tx = ask(p, TIP, 0, TRANSACTION_START, "\0")
        .trim_end_matches('\0')
        .parse()
        .unwrap();
    // Reading a missing node accesses `data` too.
    for n in 0..1023 {
        assert_eq!(ask(p, TIP, tx, READ, &format!("data/m{n}\0")), "ENOENT");
    }
    assert_eq!(ask(p, TIP, tx, READ, "data/m7\0"), "ENOENT");
    assert_eq!(ask(p, TIP, tx, READ, "data/m1023\0"), "ENOSPC");
    assert_eq!(ask(p, TIP, tx, TRANSACTION_END, "T\0"), "ENOMEM");
}

#[test]
fn long_paths_and_long_replies() {
    let mut pair = pair();
    let p = &mut pair;
    for (path, reply) in [
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
        assert_eq!(ask(p, TOOL, 0, READ, &format!("{path}\0")), reply);
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
