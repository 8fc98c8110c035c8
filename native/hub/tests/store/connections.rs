//! Connections: byte streams, limits, and clients that break the rules.

use tube_hub::store::{ConnectionError, Notice, Quota, Xenstored};

use crate::support::*;

#[test]
fn requests_may_be_split_anywhere() {
    let requests = [
        encode(WRITE, 1, 0, b"data/x\0value"),
        encode(WATCH, 2, 0, b"data\0t\0"),
        encode(READ, 3, 0, b"data/x\0"),
        encode(RM, 4, 0, b"data/x\0"),
        encode(99, 5, 6, b""),
    ]
    .concat();
    let mut expected = None;
    for step in 1..=requests.len() {
        let mut host = Host::new(1);
        let conn = host.connect(1);
        for part in requests.chunks(step) {
            host.store.receive(conn, part).unwrap();
        }
        let replies = host.drain(conn);
        assert_eq!(
            *expected.get_or_insert_with(|| replies.clone()),
            replies,
            "{step} bytes at a time"
        );
    }
    let kinds: Vec<[u32; 3]> = decode(&expected.unwrap())
        .into_iter()
        .map(|(head, _)| head)
        .collect();
    assert_eq!(
        kinds,
        [
            [WRITE, 1, 0],
            [WATCH, 2, 0],
            [EVENT, 0, 0],
            [READ, 3, 0],
            [EVENT, 0, 0],
            [RM, 4, 0],
            [ERROR, 5, 6]
        ]
    );
}

#[test]
fn a_payload_that_is_too_long_ends_the_connection() {
    let mut host = Host::new(1);
    let conn = host.connect(1);
    assert_eq!(
        host.store.receive(conn, &encode(READ, 1, 0, &[b'x'; 4096])),
        Ok(())
    );
    let mut header = encode(READ, 1, 0, b"");
    header[12..].copy_from_slice(&4097u32.to_ne_bytes());
    assert_eq!(
        host.store.receive(conn, &header),
        Err(ConnectionError::Oversized { len: 4097 })
    );
    assert!(
        host.store
            .receive(conn, &encode(READ, 1, 0, b"domid\0"))
            .is_err()
    );
    assert!(host.store.output(conn).is_empty());
    assert!(!host.store.wants_input(conn));
}

#[test]
fn a_client_with_unread_replies_is_not_read() {
    let mut host = Host::new(1);
    let (guest, tool) = (host.connect(1), host.connect(0));
    for conn in [guest, tool] {
        for n in 0..20 {
            assert!(host.store.wants_input(conn), "{n}");
            host.store
                .receive(conn, &encode(DOMAIN_PATH, n, 0, b"1\0"))
                .unwrap();
        }
    }
    assert!(!host.store.wants_input(guest));
    assert!(host.store.wants_input(tool), "domain 0 has no such limit");
    let len = host.store.output(guest).len();
    host.store.sent(guest, len - 1);
    assert!(!host.store.wants_input(guest));
    host.store.sent(guest, 1);
    assert!(host.store.wants_input(guest));
}

#[test]
fn a_client_with_too_much_unread_output_is_disconnected() {
    let quota = Quota {
        output: 10_000,
        ..Quota::default()
    };
    let mut host = Host {
        store: Xenstored::new(quota),
    };
    let (reader, writer) = (host.connect(0), host.connect(0));
    host.ask(reader, WATCH, "/\0t\0");
    let mut closed = Vec::new();
    for n in 0..600 {
        host.write(writer, &format!("/n{n}"), "");
        closed.extend(
            host.store
                .notices()
                .into_iter()
                .filter(|notice| matches!(notice, Notice::Close(..))),
        );
    }
    assert_eq!(closed, [Notice::Close(reader, ConnectionError::Unread)]);
    assert_eq!(
        host.store.receive(reader, b""),
        Err(ConnectionError::Unread)
    );
    assert!(host.store.output(reader).is_empty());
    host.store.disconnect(reader);
    assert_eq!(host.write(writer, "/after", "1"), "OK");
    assert_eq!(
        host.store.receive(reader, b""),
        Err(ConnectionError::Unknown)
    );
}

#[test]
fn unread_replies_count_as_output_too() {
    let quota = Quota {
        output: 10_000,
        ..Quota::default()
    };
    let mut host = Host {
        store: Xenstored::new(quota),
    };
    let tool = host.connect(0);
    host.write(tool, "/big", &"v".repeat(4000));
    for n in 0..2 {
        assert_eq!(
            host.store.receive(tool, &encode(READ, n, 0, b"/big\0")),
            Ok(())
        );
    }
    let third = encode(READ, 2, 0, b"/big\0");
    assert_eq!(
        host.store.receive(tool, &third),
        Err(ConnectionError::Unread)
    );
}

#[test]
fn an_event_still_unread_is_not_repeated() {
    let mut host = Host::new(0);
    let (watcher, writer) = (host.connect(0), host.connect(0));
    host.ask(watcher, WATCH, "/a\0t\0");
    for path in ["/a", "/a", "/a/b", "/a"] {
        host.write(writer, path, "");
    }
    assert_eq!(host.events(watcher), ["/a t", "/a/b t"]);
    host.write(writer, "/a", "");
    assert_eq!(host.events(watcher), ["/a t"]);
}

#[test]
fn output_is_announced_once_until_all_of_it_is_sent() {
    let mut host = Host::new(0);
    let (watcher, writer) = (host.connect(0), host.connect(0));
    host.ask(watcher, WATCH, "/a\0t\0");
    host.announced();
    host.write(writer, "/a/b", "");
    assert_eq!(host.announced(), [watcher, writer]);
    host.write(writer, "/a/c", "");
    assert_eq!(
        host.announced(),
        [writer],
        "the first event is still queued"
    );
    host.drain(watcher);
    host.write(writer, "/a/d", "");
    assert_eq!(host.announced(), [watcher, writer]);
}

#[test]
fn disconnecting_removes_watches_and_transactions() {
    let mut host = Host::new(1);
    let (first, second) = (host.connect(1), host.connect(1));
    host.ask(first, WATCH, "data\0t\0");
    host.ask(second, WATCH, "data\0t\0");
    let tx = host.start(first);
    assert_eq!(host.ask_in(tx, first, WRITE, "data/x\0lost"), "OK");
    assert_eq!(
        host.ask_in(tx, second, READ, "data/x\0"),
        "ENOENT",
        "transactions belong to a connection"
    );
    host.store.disconnect(first);
    host.store.audit().unwrap();
    assert_eq!(host.ask(second, READ, "data/x\0"), "ENOENT");
    assert_eq!(host.write(second, "data", ""), "OK");
    // Quotas are per domain, and the first connection's usage has been refunded.
    for n in 0..128 {
        assert_eq!(host.ask(second, WATCH, &format!("data\0{n}\0")), "OK");
    }
    assert_eq!(host.ask(second, WATCH, "data\0more\0"), "E2BIG");
    let third = host.connect(1);
    assert_eq!(host.ask(third, WATCH, "data\0more\0"), "E2BIG");
    (0..11).for_each(|_| _ = host.start(third));
    assert_eq!(host.ask(second, START, "\0"), "ENOSPC");
}

#[test]
fn malformed_requests_are_invalid() {
    let mut host = Host::new(1);
    let conn = host.connect(1);
    for kind in [READ, DIRECTORY, MKDIR, RM, GET_PERMS] {
        for payload in [
            "",
            "data",
            "data\0\0",
            "data\0x",
            "data/\0",
            "/no//such\0",
            "@releaseDomain\0",
        ] {
            assert_eq!(
                host.ask(conn, kind, payload),
                "EINVAL",
                "{kind} {payload:?}"
            );
        }
    }
    for (kind, payload) in [
        (WRITE, ""),
        (WRITE, "data"),
        (WATCH, "data\0"),
        (WATCH, "data\0t\x002\0"),
        (WATCH, "data/\0t\0"),
        (UNWATCH, "data\0"),
        (SET_PERMS, "data\0"),
        (SET_PERMS, "data\0n1"),
        (SET_PERMS, "data\0x1\0"),
        (SET_PERMS, "@noSuchThing\0n1\0"),
        (END, "X\0"),
        (DOMAIN_PATH, "1"),
    ] {
        assert_eq!(
            host.ask(conn, kind, payload),
            "EINVAL",
            "{kind} {payload:?}"
        );
    }
}
