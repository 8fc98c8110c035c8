//! Permissions.

use crate::support::*;

#[test]
fn for_a_missing_node_its_nearest_ancestor_counts() {
    let mut host = Host::new(2);
    let (owner, other) = (host.connect(1), host.connect(2));
    assert_eq!(host.ask(owner, READ, "data/a/b/c\0"), "ENOENT");
    assert_eq!(
        host.ask(other, READ, "/local/domain/1/data/a/b/c\0"),
        "EACCES"
    );
    host.ask(owner, SET_PERMS, "data\0n1\0r2\0");
    assert_eq!(
        host.ask(other, READ, "/local/domain/1/data/a/b/c\0"),
        "ENOENT"
    );
    assert_eq!(host.ask(other, RM, "/local/domain/1/data/a\0"), "EACCES");
    assert_eq!(host.ask(other, MKDIR, "/local/domain/1/data/a\0"), "EACCES");
    host.ask(owner, SET_PERMS, "data\0n1\0w2\0");
    assert_eq!(host.ask(other, READ, "/local/domain/1/data/a\0"), "EACCES");
    assert_eq!(host.ask(other, RM, "/local/domain/1/data/a\0"), "OK");
    assert_eq!(host.ask(other, RM, "/local/domain/1/data/a/b\0"), "ENOENT");
}

#[test]
fn only_the_node_itself_counts() {
    let mut host = Host::new(2);
    let (owner, other) = (host.connect(1), host.connect(2));
    host.write(owner, "data/closed/open", "value");
    host.ask(owner, SET_PERMS, "data/closed/open\0r1\0");
    assert_eq!(
        host.ask(other, READ, "/local/domain/1/data/closed/open\0"),
        "value"
    );
    assert_eq!(
        host.ask(other, DIRECTORY, "/local/domain/1/data/closed\0"),
        "EACCES"
    );
}

#[test]
fn the_creator_of_a_node_owns_it() {
    let mut host = Host::new(2);
    let (tool, owner, other) = (host.connect(0), host.connect(1), host.connect(2));
    host.ask(owner, SET_PERMS, "data\0n1\0b2\0");
    assert_eq!(host.write(other, "/local/domain/1/data/x/y", "1"), "OK");
    for path in ["x", "x/y"] {
        assert_eq!(
            host.ask(tool, GET_PERMS, &format!("/local/domain/1/data/{path}\0")),
            "n2\0b2\0"
        );
        assert_eq!(host.ask(owner, READ, &format!("data/{path}\0")), "EACCES");
    }
    // The owner of an ancestor can still remove the whole subtree.
    assert_eq!(host.ask(owner, RM, "data/x\0"), "EACCES");
    assert_eq!(host.ask(owner, RM, "data\0"), "OK");
    assert_eq!(host.ask(tool, READ, "/local/domain/1/data/x\0"), "ENOENT");
    // A node that domain 0 creates has the owner of its parent.
    host.ask(tool, MKDIR, "/local/domain/2/data/from0\0");
    assert_eq!(host.ask(other, GET_PERMS, "data/from0\0"), "n2\0");
}

#[test]
fn only_the_owner_changes_permissions_and_only_domain_0_the_owner() {
    let mut host = Host::new(2);
    let (tool, owner, other) = (host.connect(0), host.connect(1), host.connect(2));
    host.ask(owner, SET_PERMS, "data\0b1\0b2\0");
    assert_eq!(
        host.ask(other, SET_PERMS, "/local/domain/1/data\0b1\0"),
        "EACCES"
    );
    assert_eq!(host.ask(owner, SET_PERMS, "data\0n2\0"), "EPERM");
    assert_eq!(
        host.ask(owner, SET_PERMS, "data\0n1\0r2\0r0\0r2\0r1\0r2\0"),
        "ENOSPC"
    );
    assert_eq!(
        host.ask(tool, SET_PERMS, "/local/domain/1/data\0n2\0"),
        "OK"
    );
    assert_eq!(host.ask(owner, READ, "data\0"), "EACCES");
    assert_eq!(host.ask(other, READ, "/local/domain/1/data\0"), "");
    assert_eq!(
        host.ask(tool, SET_PERMS, "/local/domain/1/data\0n9\0"),
        "ENOENT"
    );
}
