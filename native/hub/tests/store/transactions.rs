//! Transactions: isolation, conflicts and quotas.

use crate::support::*;

#[test]
fn a_transaction_sees_its_own_changes_and_one_state_of_the_rest() {
    let mut host = Host::new(0);
    let (inside, outside) = (host.connect(0), host.connect(0));
    host.write(outside, "/a", "1");
    let tx = host.start(inside);
    assert_eq!(host.ask_in(tx, inside, READ, "/a\0"), "1");
    host.write(outside, "/a", "2");
    assert_eq!(host.ask_in(tx, inside, READ, "/a\0"), "1");
    assert_eq!(host.ask_in(tx, inside, WRITE, "/a\x003"), "OK");
    assert_eq!(host.ask_in(tx, inside, READ, "/a\0"), "3");
    assert_eq!(host.ask(outside, READ, "/a\0"), "2");
    assert_eq!(host.ask_in(tx, inside, END, "T\0"), "EAGAIN");
    assert_eq!(host.ask(inside, READ, "/a\0"), "2");
    assert_eq!(
        host.ask_in(tx, inside, END, "T\0"),
        "ENOENT",
        "a failed commit ends the transaction too"
    );
}

/// Whether a transaction that has sent a request can still commit after another client has sent
/// the request `outside`.
fn commits(kind: u32, payload: &str, outside: (u32, &str)) -> bool {
    let mut host = Host::new(0);
    let (one, two) = (host.connect(0), host.connect(0));
    for path in ["/a/x/y", "/a/z", "/b"] {
        host.write(two, path, "");
    }
    let tx = host.start(one);
    host.ask_in(tx, one, kind, payload);
    assert_eq!(host.ask(two, outside.0, outside.1), "OK");
    match host.ask_in(tx, one, END, "T\0").as_str() {
        "OK" => true,
        "EAGAIN" => false,
        other => panic!("{other}"),
    }
}

#[test]
fn changes_conflict_only_on_accessed_nodes() {
    assert!(commits(READ, "/a/x\0", (WRITE, "/a/x/y\0")));
    assert!(commits(READ, "/a/x\0", (WRITE, "/a/new\0")));
    assert!(commits(READ, "/a/x\0", (RM, "/b\0")));
    assert!(!commits(READ, "/a/x\0", (WRITE, "/a/x\0same")));
    assert!(
        !commits(READ, "/a/x\0", (WRITE, "/a/x/new\0")),
        "its children have changed"
    );
    assert!(!commits(READ, "/a/x\0", (RM, "/a\0")));
    assert!(!commits(READ, "/a/x\0", (SET_PERMS, "/a/x\0n0\0")));
    assert!(
        !commits(WRITE, "/a/x\0", (WRITE, "/a/x\0")),
        "writing a node accesses it"
    );
    assert!(
        !commits(READ, "/a/none\0", (WRITE, "/a/none\0")),
        "a missing node is accessed too"
    );
    assert!(
        !commits(READ, "/a/none\0", (WRITE, "/a/other\0")),
        "and so is its parent"
    );
    assert!(!commits(WRITE, "/a/new\0", (WRITE, "/a/other\0")));
    assert!(!commits(RM, "/a/x\0", (WRITE, "/a/x/y\0")));
    assert!(commits(DIRECTORY, "/b\0", (WRITE, "/c\0")));
}

#[test]
fn a_failed_transaction_changes_nothing() {
    let mut host = Host::new(1);
    let conn = host.connect(1);
    let tx = host.start(conn);
    assert_eq!(host.ask_in(tx, conn, WRITE, "data/x\0fine"), "OK");
    assert_eq!(
        host.ask_in(tx, conn, WRITE, &format!("data/y\0{}", "v".repeat(2048))),
        "ENOSPC"
    );
    assert_eq!(host.ask_in(tx, conn, END, "T\0"), "ENOMEM");
    assert_eq!(host.ask(conn, DIRECTORY, "data\0"), "");
    assert_eq!(host.ask_in(77, conn, READ, "data\0"), "ENOENT");
    let tx = host.start(conn);
    assert_eq!(host.ask_in(tx, conn, START, "\0"), "EBUSY");
}

#[test]
fn a_node_created_and_removed_in_one_transaction_leaves_nothing() {
    let mut host = Host::new(1);
    let conn = host.connect(1);
    let tx = host.start(conn);
    host.ask_in(tx, conn, WRITE, "data/a/b/c\0");
    assert_eq!(host.ask_in(tx, conn, RM, "data/a\0"), "OK");
    host.ask_in(tx, conn, WRITE, "data/d\0");
    assert_eq!(host.ask_in(tx, conn, DIRECTORY, "data\0"), "d\0");
    assert_eq!(host.ask_in(tx, conn, END, "T\0"), "OK");
    assert_eq!(host.ask(conn, DIRECTORY, "data\0"), "d\0");
}

#[test]
fn the_memory_of_a_domain_is_limited() {
    let mut host = Host::new(2);
    let (limited, other) = (host.connect(1), host.connect(2));
    // The nodes fit; copies of them in many transactions do not.
    for n in 0..900 {
        host.write(
            limited,
            &format!("data/d{}/n{n}", n / 100),
            &"v".repeat(1500),
        );
    }
    let mut failed = 0;
    for _ in 0..11 {
        let tx = host.start(limited);
        for n in 0..900 {
            failed += usize::from(
                host.ask_in(tx, limited, READ, &format!("data/d{}/n{n}\0", n / 100)) == "ENOMEM",
            );
        }
        host.store.audit().unwrap();
    }
    assert!(failed > 5000);
    assert_eq!(
        host.write(limited, "data/more", &"v".repeat(1500)),
        "ENOMEM"
    );
    assert_eq!(host.write(other, "data/more", &"v".repeat(1500)), "OK");
    assert_eq!(host.ask(limited, RESET_WATCHES, "\0"), "OK");
    assert_eq!(host.write(limited, "data/more", &"v".repeat(1500)), "OK");
}
