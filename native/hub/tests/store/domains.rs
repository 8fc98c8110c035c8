//! Introducing and releasing domains.

use tube_hub::store::{ConnectionError, Notice};

use crate::support::*;

#[test]
fn a_domain_has_the_nodes_that_libxl_creates() {
    let mut host = Host::new(2);
    let (tool, guest, other) = (host.connect(0), host.connect(1), host.connect(2));
    assert_eq!(host.ask(guest, READ, "domid\0"), "1");
    assert_eq!(host.ask(guest, READ, "name\0"), "dom1");
    assert_eq!(
        host.ask(guest, DIRECTORY, "/local/domain/1\0"),
        "name\0domid\0device\0control\0data\0"
    );
    for (path, perms) in [
        ("/local/domain/1", "n0\0r1\0"),
        ("/local/domain/1/name", "n0\0r1\0"),
        ("/local/domain/1/domid", "n0\0r1\0"),
        ("/local/domain/1/device", "n0\0r1\0"),
        ("/local/domain/1/control", "n0\0r1\0"),
        ("/local/domain/1/control/shutdown", "n1\0"),
        ("/local/domain/1/data", "n1\0"),
        ("/local/domain/0/domid", "n0\0"),
        ("/local/domain", "n0\0"),
        ("/", "n0\0"),
    ] {
        assert_eq!(
            host.ask(tool, GET_PERMS, &format!("{path}\0")),
            perms,
            "{path}"
        );
    }
    assert_eq!(host.write(guest, "data/x", "1"), "OK");
    assert_eq!(host.write(guest, "x", "1"), "EACCES");
    assert_eq!(host.write(guest, "domid", "0"), "EACCES");
    for path in [
        "/local/domain/1",
        "/local/domain/1/name",
        "/local/domain/1/data",
        "/local/domain",
        "/",
    ] {
        assert_eq!(
            host.ask(other, READ, &format!("{path}\0")),
            "EACCES",
            "{path}"
        );
    }
    assert_eq!(host.ask(tool, READ, "domid\0"), "0");
}

#[test]
fn only_introduced_domains_connect() {
    let mut host = Host::new(1);
    assert!(host.store.connect(0).is_some());
    assert!(host.store.connect(2).is_none());
    assert!(!host.store.introduce(0));
    assert!(!host.store.introduce(1));
    assert!(!host.store.introduce(0x7FF0));
    assert!(host.store.introduce(0x7FEF));
    host.store.release(1);
    assert!(host.store.connect(1).is_none());
    host.store.release(0);
    host.store.release(77);
    assert!(host.store.connect(0).is_some());
}

#[test]
fn special_nodes_fire_for_domain_0_and_domains_that_it_allows() {
    let mut host = Host::new(2);
    let (tool, allowed, other) = (host.connect(0), host.connect(1), host.connect(2));
    for conn in [tool, allowed, other] {
        for path in ["@introduceDomain", "@releaseDomain"] {
            assert_eq!(host.ask(conn, WATCH, &format!("{path}\0t\0")), "OK");
        }
    }
    assert_eq!(
        host.ask(allowed, SET_PERMS, "@releaseDomain\0n0\0r1\0"),
        "EACCES"
    );
    assert_eq!(host.ask(tool, SET_PERMS, "@releaseDomain\0n0\0r1\0"), "OK");
    host.drain(allowed);
    host.store.introduce(3);
    host.store.release(3);
    assert_eq!(
        host.events(tool),
        ["@introduceDomain t", "@releaseDomain t"]
    );
    assert_eq!(host.events(allowed), ["@releaseDomain t"]);
    assert!(host.events(other).is_empty());
}

#[test]
fn releasing_a_domain_fires_watches_of_domains_that_could_read_its_nodes() {
    let mut host = Host::new(3);
    let (tool, ending, friend, other) = (
        host.connect(0),
        host.connect(1),
        host.connect(2),
        host.connect(3),
    );
    host.write(ending, "data/open/deep", "1");
    host.ask(ending, SET_PERMS, "data/open\0n1\0r2\0");
    host.ask(friend, SET_PERMS, "data\0n2\0b1\0b2\0");
    host.write(ending, "/local/domain/2/data/left/behind", "1");
    for conn in [tool, friend, other] {
        host.ask(conn, WATCH, "/local/domain\0all\0");
        host.ask(conn, WATCH, "/local/domain/1/data/open\0it\0");
        host.drain(conn);
    }
    host.ask(friend, WATCH, "data/left\0rel\0");
    host.ask(tool, WATCH, "@releaseDomain\0gone\0");
    host.drain(friend);
    host.drain(tool);
    host.store.notices();
    host.store.release(1);

    // Its nodes are removed first, its home last.
    let events = host.events(tool);
    let released = events
        .iter()
        .position(|event| event == "@releaseDomain gone")
        .unwrap();
    assert!(events[..released].contains(&"/local/domain/1/data all".to_owned()));
    assert!(events[..released].contains(&"/local/domain/1/data/open it".to_owned()));
    assert!(events[..released].contains(&"/local/domain/2/data/left all".to_owned()));
    assert_eq!(events[released + 1..], ["/local/domain/1 all"]);
    assert_eq!(
        host.events(friend),
        [
            "/local/domain/1/data/open it",
            "/local/domain/2/data/left all",
            "data/left rel"
        ]
    );
    assert!(host.events(other).is_empty());

    assert_eq!(host.ask(tool, READ, "/local/domain/1\0"), "ENOENT");
    assert_eq!(
        host.ask(friend, READ, "/local/domain/1/data/open\0"),
        "EACCES"
    );
    assert_eq!(host.ask(friend, DIRECTORY, "data\0"), "");
    assert_eq!(
        host.store.receive(ending, b""),
        Err(ConnectionError::Unknown)
    );
    assert!(
        host.store
            .notices()
            .contains(&Notice::Close(ending, ConnectionError::Unknown))
    );
}

#[test]
fn a_new_domain_with_an_old_number_inherits_nothing() {
    let mut host = Host::new(2);
    let (first, keeper) = (host.connect(1), host.connect(2));
    host.write(keeper, "data/x", "secret");
    host.ask(keeper, SET_PERMS, "data/x\0n2\0r1\0");
    assert_eq!(host.ask(first, READ, "/local/domain/2/data/x\0"), "secret");
    host.store.release(1);
    host.store.introduce(1);
    let second = host.connect(1);
    assert_eq!(host.ask(second, READ, "/local/domain/2/data/x\0"), "EACCES");
    // Changing the node, or creating one below it, does not revive the old permission.
    host.write(keeper, "data/x", "still secret");
    host.write(keeper, "data/x/below", "too");
    let tx = host.start(keeper);
    host.ask_in(tx, keeper, WRITE, "data/x\0and now");
    assert_eq!(host.ask_in(tx, keeper, END, "T\0"), "OK");
    for path in ["data/x", "data/x/below"] {
        assert_eq!(
            host.ask(second, READ, &format!("/local/domain/2/{path}\0")),
            "EACCES"
        );
        assert_eq!(
            host.ask(keeper, GET_PERMS, &format!("{path}\0")),
            "n2\0r1\0"
        );
    }
    host.ask(keeper, SET_PERMS, "data/x\0n2\0r1\0");
    assert_eq!(
        host.ask(second, READ, "/local/domain/2/data/x\0"),
        "and now"
    );
}

#[test]
fn a_new_domain_inherits_nothing_even_if_nothing_changed_in_between() {
    let mut host = Host::new(1);
    let (tool, keeper) = (host.connect(0), host.connect(1));
    assert_eq!(host.ask(tool, INTRODUCE, "5\x001\x001\0"), "OK");
    assert_eq!(host.ask(keeper, SET_PERMS, "data\0n1\0r5\0"), "OK");
    assert_eq!(host.ask(tool, RELEASE, "5\0"), "OK");
    assert_eq!(host.ask(tool, INTRODUCE, "5\x001\x001\0"), "OK");
    let next = host.connect(5);
    assert_eq!(host.ask(next, READ, "/local/domain/1/data\0"), "EACCES");
}

#[test]
fn a_permission_written_before_its_domain_grants_nothing() {
    let mut host = Host::new(1);
    let conn = host.connect(1);
    assert_eq!(host.ask(conn, SET_PERMS, "data\0n1\0b5\0"), "OK");
    host.store.introduce(5);
    let late = host.connect(5);
    assert_eq!(host.ask(late, READ, "/local/domain/1/data\0"), "EACCES");
}

#[test]
fn requests_cannot_introduce_or_release_a_hosted_domain() {
    let mut host = Host::new(1);
    let (tool, guest) = (host.connect(0), host.connect(1));
    assert_eq!(host.ask(tool, INTRODUCE, "1\x001\x001\0"), "EISCONN");
    assert_eq!(host.ask(tool, INTRODUCE, "32752\x001\x001\0"), "EINVAL");
    assert_eq!(host.ask(tool, RELEASE, "1\0"), "EBUSY");
    assert_eq!(host.ask(tool, RELEASE, "2\0"), "ENOENT");
    assert_eq!(host.ask(guest, RELEASE, "1\0"), "EACCES");
    assert_eq!(host.ask(guest, READ, "domid\0"), "1");
}

#[test]
fn the_root_survives_its_owner() {
    let mut host = Host::new(1);
    let tool = host.connect(0);
    assert_eq!(host.ask(tool, SET_PERMS, "/\0r1\0"), "OK");
    // A node that domain 0 creates has the owner of its parent.
    host.write(tool, "/made/later", "1");
    host.store.release(1);
    assert_eq!(host.ask(tool, GET_PERMS, "/\0"), "r0\0");
    assert_eq!(host.ask(tool, DIRECTORY, "/\0"), "tool\0local\0");
}
