//! Watches: which connections get which events, and in which order.

use crate::support::*;

#[test]
fn a_watch_fires_at_once_with_relative_paths_if_it_is_relative() {
    let mut host = Host::new(1);
    let conn = host.connect(1);
    host.store
        .receive(conn, &encode(WATCH, 1, 0, b"data\0rel\0"))
        .unwrap();
    host.store
        .receive(conn, &encode(WATCH, 2, 0, b"/local/domain/1/data\0abs\0"))
        .unwrap();
    host.store
        .receive(conn, &encode(WATCH, 3, 0, b"no/such/node\0none\0"))
        .unwrap();
    let replies: Vec<(u32, String)> = decode(&host.drain(conn))
        .into_iter()
        .map(|([kind, ..], text)| (kind, String::from_utf8(text).unwrap()))
        .collect();
    let expected = [
        "data\0rel\0",
        "/local/domain/1/data\0abs\0",
        "no/such/node\0none\0",
    ];
    let expected = expected.map(|event| [(WATCH, "OK\0".to_owned()), (EVENT, event.to_owned())]);
    assert_eq!(replies, expected.as_flattened());

    assert_eq!(host.ask(conn, WATCH, "data\0rel\0"), "EEXIST");
    assert_eq!(
        host.ask(conn, WATCH, "/local/domain/1/data\0rel\0"),
        "EEXIST"
    );
    host.store
        .receive(conn, &encode(WRITE, 4, 0, b"data/x\0"))
        .unwrap();
    let replies = decode(&host.drain(conn));
    let kinds: Vec<u32> = replies.iter().map(|([kind, ..], _)| *kind).collect();
    assert_eq!(
        kinds,
        [EVENT, EVENT, WRITE],
        "events come before the reply to what caused them"
    );
    assert_eq!(host.ask(conn, UNWATCH, "data\0rel\0"), "OK");
    assert_eq!(host.ask(conn, UNWATCH, "data\0rel\0"), "ENOENT");
}

#[test]
fn a_guest_that_watches_all_homes_gets_events_for_nodes_that_it_may_read() {
    let mut host = Host::new(3);
    let (writer, reader, other) = (host.connect(1), host.connect(2), host.connect(3));
    for conn in [reader, other] {
        host.ask(conn, WATCH, "/local/domain\0all\0");
    }
    host.write(writer, "data/nock/2/77/state", "1");
    assert!(host.events(reader).is_empty());
    host.ask(writer, SET_PERMS, "data/nock/2/77/state\0n1\0r2\0");
    host.write(writer, "data/nock/2/77/state", "2");
    assert_eq!(
        host.events(reader),
        ["/local/domain/1/data/nock/2/77/state all"]
    );
    host.ask(writer, SET_PERMS, "data/nock/2/77\0n1\0r2\0");
    // An unreadable node below a readable one.
    host.write(writer, "data/nock/2/77/key", "1");
    host.ask(writer, SET_PERMS, "data/nock/2/77/key\0n1\0");
    assert_eq!(
        host.events(reader),
        [
            "/local/domain/1/data/nock/2/77 all",
            "/local/domain/1/data/nock/2/77/key all"
        ]
    );
    // Losing the right to read causes the last event.
    host.ask(writer, SET_PERMS, "data/nock/2/77\0n1\0");
    host.write(writer, "data/nock/2/77", "unheard");
    assert_eq!(host.events(reader), ["/local/domain/1/data/nock/2/77 all"]);
    assert!(host.events(other).is_empty());
}

#[test]
fn a_removal_fires_once_on_ancestors_and_once_for_each_descendant() {
    let mut host = Host::new(0);
    let (watcher, tool) = (host.connect(0), host.connect(0));
    host.write(tool, "/a/b/c/d", "");
    host.write(tool, "/a/b/e", "");
    for path in ["/", "/a/b", "/a/b/c/d", "/a/b/e", "/a/b/c/d/none"] {
        host.ask(watcher, WATCH, &format!("{path}\0{path}\0"));
    }
    host.ask(tool, RM, "/a/b\0");
    assert_eq!(
        host.events(watcher),
        ["/a/b/c/d /a/b/c/d", "/a/b/e /a/b/e", "/a/b /", "/a/b /a/b"]
    );
    host.ask(tool, RM, "/a/b\0");
    host.ask(tool, MKDIR, "/a\0");
    assert!(host.events(watcher).is_empty(), "nothing has changed");
}

#[test]
fn a_transaction_fires_watches_when_it_commits() {
    let mut host = Host::new(0);
    let (watcher, tool) = (host.connect(0), host.connect(0));
    host.ask(watcher, WATCH, "/a\0t\0");
    let tx = host.start(tool);
    for path in ["/a/1", "/a/2", "/a/1"] {
        host.ask_in(tx, tool, WRITE, &format!("{path}\0"));
    }
    assert!(host.events(watcher).is_empty());
    assert_eq!(host.ask_in(tx, tool, END, "T\0"), "OK");
    assert_eq!(host.events(watcher), ["/a/1 t", "/a/2 t"]);
    let tx = host.start(tool);
    host.ask_in(tx, tool, RM, "/a\0");
    assert_eq!(host.ask_in(tx, tool, END, "F\0"), "OK");
    assert!(host.events(watcher).is_empty());
}

#[test]
fn reset_ends_watches_and_transactions_of_one_connection() {
    let mut host = Host::new(1);
    let (first, second) = (host.connect(1), host.connect(1));
    for conn in [first, second] {
        host.ask(conn, WATCH, "data\0t\0");
    }
    let (tx, kept) = (host.start(first), host.start(second));
    assert_eq!(host.ask_in(tx, first, RESET_WATCHES, "\0"), "OK");
    assert_eq!(host.ask_in(tx, first, END, "T\0"), "ENOENT");
    host.write(second, "data/x", "");
    assert!(host.events(first).is_empty());
    assert_eq!(host.ask_in(kept, second, END, "T\0"), "OK");
}
