//! How domains come and go.

use tube_hub::store::{ConnectionError, Notice};

use crate::support::*;

#[test]
fn a_domain_finds_what_libxl_makes() {
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
fn only_domains_that_are_there_connect() {
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
fn coming_and_going_is_told_to_domain_0_and_whom_it_allows() {
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
fn the_end_of_a_domain_is_seen_by_those_who_could_read_it() {
    let mut host = Host::new(3);
    let (tool, dying, friend, stranger) = (
        host.connect(0),
        host.connect(1),
        host.connect(2),
        host.connect(3),
    );
    host.write(dying, "data/open/deep", "1");
    host.ask(dying, SET_PERMS, "data/open\0n1\0r2\0");
    host.ask(friend, SET_PERMS, "data\0n2\0b1\0b2\0");
    host.write(dying, "/local/domain/2/data/left/behind", "1");
    for conn in [tool, friend, stranger] {
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

    // What it owned goes first, the toolstack's removal of its home comes last.
    let told = host.events(tool);
    let gone = told
        .iter()
        .position(|event| event == "@releaseDomain gone")
        .unwrap();
    assert!(told[..gone].contains(&"/local/domain/1/data all".to_owned()));
    assert!(told[..gone].contains(&"/local/domain/1/data/open it".to_owned()));
    assert!(told[..gone].contains(&"/local/domain/2/data/left all".to_owned()));
    assert_eq!(told[gone + 1..], ["/local/domain/1 all"]);
    assert_eq!(
        host.events(friend),
        [
            "/local/domain/1/data/open it",
            "/local/domain/2/data/left all",
            "data/left rel"
        ]
    );
    assert!(host.events(stranger).is_empty());

    assert_eq!(host.ask(tool, READ, "/local/domain/1\0"), "ENOENT");
    assert_eq!(
        host.ask(friend, READ, "/local/domain/1/data/open\0"),
        "EACCES"
    );
    assert_eq!(host.ask(friend, DIRECTORY, "data\0"), "");
    assert_eq!(
        host.store.receive(dying, b""),
        Err(ConnectionError::Unknown)
    );
    assert!(
        host.store
            .notices()
            .contains(&Notice::Close(dying, ConnectionError::Unknown))
    );
}

#[test]
fn the_next_domain_of_that_number_inherits_nothing() {
    let mut host = Host::new(2);
    let (first, keeper) = (host.connect(1), host.connect(2));
    host.write(keeper, "data/x", "secret");
    host.ask(keeper, SET_PERMS, "data/x\0n2\0r1\0");
    assert_eq!(host.ask(first, READ, "/local/domain/2/data/x\0"), "secret");
    host.store.release(1);
    host.store.introduce(1);
    let second = host.connect(1);
    assert_eq!(host.ask(second, READ, "/local/domain/2/data/x\0"), "EACCES");
    // Changing the node, or making one below it, does not wake the old entry up.
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
fn not_even_if_nothing_happens_in_between() {
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
fn an_entry_does_not_work_before_its_domain() {
    let mut host = Host::new(1);
    let conn = host.connect(1);
    assert_eq!(host.ask(conn, SET_PERMS, "data\0n1\0b5\0"), "OK");
    host.store.introduce(5);
    let late = host.connect(5);
    assert_eq!(host.ask(late, READ, "/local/domain/1/data\0"), "EACCES");
}

#[test]
fn a_hosted_domain_is_not_made_or_ended_by_request() {
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
fn a_domain_that_owns_the_root_does_not_take_it_along() {
    let mut host = Host::new(1);
    let tool = host.connect(0);
    assert_eq!(host.ask(tool, SET_PERMS, "/\0r1\0"), "OK");
    // Domain 0 leaves the owner as it is above.
    host.write(tool, "/made/later", "1");
    host.store.release(1);
    assert_eq!(host.ask(tool, GET_PERMS, "/\0"), "r0\0");
    assert_eq!(host.ask(tool, DIRECTORY, "/\0"), "tool\0local\0");
}
