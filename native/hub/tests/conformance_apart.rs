//! The conformance suite with a process per domain: on this host, and for `bin/test-xen` in guests
//! of a real Xen.

mod common;

use std::process::Command;

use common::{LOCAL, Rig};
use tube_platform::Domid;
use tube_platform::conformance::{Remote, Stage, Traits, run};

#[test]
fn the_local_platform_conforms_between_processes() {
    let rig = Rig::with_hub(&[]);
    let actor = |domid: Domid| {
        let mut command = Command::new(common::example("domain"));
        command.args(["actor", "local"]);
        command.arg(rig.run()).arg(domid.to_string());
        Box::new(Remote::start(&mut command))
    };
    run(&mut Stage {
        a: actor(5),
        b: actor(7),
        c: actor(9),
        traits: LOCAL,
        rounds: 50,
    });
}

/// The same in three guests of a real Xen. The program `TUBE_TEST_ENTER` runs a command in domain
/// `TUBE_DOMID`; `TUBE_TEST_DOMAIN` is the path of examples/domain.rs there.
#[test]
#[ignore = "needs the guests of bin/test-xen"]
fn xen_conforms() {
    let actor = |domid: Domid| {
        let mut command = common::in_guest(domid.into());
        Box::new(Remote::start(command.args(["actor", "xen"])))
    };
    run(&mut Stage {
        a: actor(5),
        b: actor(7),
        c: actor(9),
        traits: Traits {
            reports_peer_gone: false,
            keeps_early_notifications: false,
            says_why: false,
            peer_may_be_self: false,
        },
        rounds: 20,
    });
}
