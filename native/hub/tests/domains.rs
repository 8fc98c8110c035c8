//! Domains: their nodes, their sockets, their end, their owners.

mod common;

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use common::*;
use tube_platform::local::proto::{Request, VERSION};

#[test]
fn a_domain_has_a_home_in_the_store() {
    let rig = Rig::with_hub(&[]);
    let five = rig.domain(Some(5));
    let mut store = five.store();
    assert_eq!(store.must(op::READ, b"domid\0"), b"5");
    store.must(op::WRITE, b"data/mine\0value");
    let seven = rig.domain(Some(7));
    let (got, reply) = seven.store().ask(op::READ, b"/local/domain/5/data/mine\0");
    assert_eq!((got, reply.as_slice()), (op::ERROR, &b"EACCES\0"[..]));
}

#[test]
fn the_end_of_a_domain_removes_its_nodes_and_fires_watches() {
    let rig = Rig::with_hub(&[]);
    let five = rig.domain(Some(5));
    let seven = rig.domain(Some(7));
    five.store().must(op::WRITE, b"data/mine\0value");
    five.store().must(op::SET_PERMS, b"data/mine\0n5\0r7\0");
    let mut watcher = seven.store();
    watcher.must(op::WATCH, b"/local/domain/5/data/mine\0t\0");
    watcher.await_event("/local/domain/5/data/mine");
    let mut admin = Store::connect(&rig.path("dom0/xenstored.sock"));
    admin.must(op::WATCH, b"@releaseDomain\0t\0");
    admin.await_event("@releaseDomain");

    let mut grants = five.client("grants.sock");
    let mut left = five.store();
    drop(five);
    watcher.await_event("/local/domain/5/data/mine");
    admin.await_event("@releaseDomain");
    assert!(grants.receive().is_none());
    assert!(left.receive().is_err());
    assert_eq!(
        admin.ask(op::READ, b"/local/domain/5/data/mine\0").1,
        b"ENOENT\0"
    );
    let domains = admin.must(op::DIRECTORY, b"/local/domain\0");
    assert!(!domains.split(|&byte| byte == 0).any(|name| name == b"5"));
    // The directory is removed before the event is sent.
    assert_eq!(rig.names(""), ["dom0", "dom7", "hub.lock", "hub.sock"]);
}

#[test]
fn domain_0_can_be_claimed_and_leaves_no_tubes() {
    let rig = Rig::with_hub(&[]);
    let mut admin = Store::connect(&rig.path("dom0/xenstored.sock"));
    let zero = rig.domain(Some(0));
    assert_eq!(
        rig.names("dom0"),
        [
            "control.sock",
            "evtchn.sock",
            "grants.sock",
            "xenstored.sock"
        ]
    );
    zero.store()
        .must(op::WRITE, b"/local/domain/0/data/tube/version\x001");
    admin.must(op::WATCH, b"/local/domain/0/data\0t\0");
    admin.await_event("/local/domain/0/data");
    drop(zero);
    admin.await_event("/local/domain/0/data");
    assert_eq!(
        admin
            .ask(op::READ, b"/local/domain/0/data/tube/version\0")
            .1,
        b"ENOENT\0"
    );
    // Administrators use its store socket too: the socket and its connections stay.
    assert_eq!(rig.domain(Some(0)).domid, 0);
    admin.must(op::READ, b"/local/domain/0/domid\0");
}

#[test]
fn kept_domains_are_only_for_their_owner() {
    if !is_root() {
        return;
    }
    let rig = Rig::with_hub(&["--domain", "5:4321:4322", "--domain", "1:0:0"]);
    assert_eq!(
        rig.names(""),
        ["dom0", "dom1", "dom5", "hub.lock", "hub.sock"]
    );
    assert_eq!(rig.names("dom5"), ["control.sock"]);
    let owner = |below: &str| {
        let found = std::fs::metadata(rig.path(below)).expect("there");
        (found.uid(), found.gid(), found.mode() & 0o7777)
    };
    assert_eq!(owner("").2, 0o711);
    assert_eq!(owner("dom5"), (4321, 4322, 0o700));
    assert_eq!(owner("dom5/control.sock"), (4321, 4322, 0o600));
    // A client that requests no domid gets another.
    assert_eq!(rig.domain(None).domid, 2);

    for _ in 0..2 {
        let mut control = rig.client("dom5/control.sock");
        let welcome = control.ask(Request::Hello {
            version: VERSION,
            domid: None,
        });
        assert!(
            !matches!(welcome, tube_platform::local::proto::Reply::Error(_)),
            "{welcome:?}"
        );
        assert_eq!(owner("dom5/grants.sock"), (4321, 4322, 0o600));
        let inode = std::fs::metadata(rig.path("dom5")).expect("there").ino();
        let mut admin = Store::connect(&rig.path("dom0/xenstored.sock"));
        admin.must(op::WATCH, b"@releaseDomain\0t\0");
        admin.await_event("@releaseDomain");
        drop(control);
        admin.await_event("@releaseDomain");
        assert_eq!(rig.names("dom5"), ["control.sock"]);
        assert_eq!(
            std::fs::metadata(rig.path("dom5")).expect("there").ino(),
            inode
        );
    }
}

/// Runs a shell script as another user; whether it succeeded.
fn as_user(uid: u32, script: &str) -> bool {
    let ids = [format!("--reuid={uid}"), format!("--regid={uid}")];
    let mut command = Command::new("setpriv");
    command
        .args(ids)
        .args(["--clear-groups", "sh", "-c", script])
        .stdin(Stdio::null());
    command
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .expect("setpriv runs")
        .success()
}

#[test]
fn an_owner_can_use_its_own_directory_and_no_other() {
    if !is_root() {
        return;
    }
    let rig = Rig::with_hub(&["--domain", "5:4321:4321", "--domain", "7:4777:4777"]);
    // Let other users pass through the temporary directory, as through /run.
    let above = rig
        .run()
        .parent()
        .expect("the temporary directory")
        .to_owned();
    let passable = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(above, passable).expect("chmod");
    let mut five = rig.client("dom5/control.sock");
    five.ask(Request::Hello {
        version: VERSION,
        domid: None,
    });
    let run = rig.run().display().to_string();
    let store = format!("XENSTORED_PATH={run}/dom5/xenstored.sock xenstore-");

    assert!(as_user(4321, &format!("ls {run}/dom5")));
    assert!(as_user(
        4321,
        &format!("{store}write data/mine yes && test $({store}read domid) = 5")
    ));
    assert!(!as_user(
        4321,
        &format!("{store}write /local/domain/0/name x")
    ));
    assert!(!as_user(4321, &format!("ls {run}")));
    assert!(!as_user(4321, &format!("ls {run}/dom7")));
    assert!(!as_user(4321, &format!("ls {run}/dom7/control.sock")));
    assert!(!as_user(
        4321,
        &format!("XENSTORED_PATH={run}/dom0/xenstored.sock xenstore-ls")
    ));
    assert!(!as_user(4777, &format!("ls {run}/dom5")));
    assert!(!as_user(4777, &format!("{store}ls")));
    assert!(!as_user(4321, &format!("rm {run}/hub.sock")));
}

#[test]
fn the_peer_is_checked_even_if_the_sockets_mode_is_wrong() {
    if !is_root() {
        return;
    }
    let rig = Rig::with_hub(&["--domain", "5:4321:4321"]);
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .expect("chmod");
    };
    open(rig.run().parent().expect("the temporary directory"));
    open(&rig.path("dom0"));
    open(&rig.path("dom0/xenstored.sock"));
    let run = rig.run().display().to_string();
    assert!(!as_user(
        4321,
        &format!("XENSTORED_PATH={run}/dom0/xenstored.sock xenstore-ls")
    ));
    assert!(rig.log().contains("user 4321 may not"));
}
