//! How hubs start and stop.

mod common;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::*;
use rustix::process::{Pid, Signal, kill_process};
use tube_hub::probe::{Found, probe};
use tube_platform::local::proto::{Reply, Request, VERSION};

fn error_line(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr).into_owned();
    assert_eq!(text.lines().count(), 1, "{text:?}");
    assert!(
        text.starts_with("tube-hub: ") && text.ends_with('\n'),
        "{text:?}"
    );
    text
}

#[test]
fn fifty_concurrent_starts_give_one_hub() {
    let rig = Rig::new();
    let starters: Vec<_> = (0..50)
        .map(|_| {
            hub_command(&rig.run())
                .arg("--daemon")
                .stderr(Stdio::piped())
                .spawn()
                .expect("started")
        })
        .collect();
    for starter in starters {
        let output = starter.wait_with_output().expect("ended");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stderr.is_empty());
    }
    // Exactly one hub serves, and it is detached.
    let log = std::fs::read_to_string(rig.path("hub.log")).expect("a log");
    assert_eq!(
        log.lines().filter(|line| line.contains("serving")).count(),
        1,
        "{log}"
    );
    let pid = hub_pid(&rig.run());
    assert_eq!(rustix::process::getsid(Some(pid)), Ok(pid));
    for fd in 0..3 {
        let place = format!("/proc/{}/fd/{fd}", pid.as_raw_nonzero());
        let open = std::fs::read_link(place).expect("a descriptor");
        let wanted = if fd == 2 {
            rig.path("hub.log")
        } else {
            "/dev/null".into()
        };
        assert_eq!(open, wanted);
    }
    end_hub(&rig.run());
    assert_eq!(rig.names(""), ["hub.lock", "hub.log"]);
}

#[test]
fn a_second_hub_exits_with_status_0() {
    let rig = Rig::with_hub(&[]);
    for args in [&[][..], &["--daemon"]] {
        let output = hub_command(&rig.run()).args(args).output().expect("ran");
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
    assert_eq!(probe(&rig.run(), TIMEOUT), Found::Hub);
}

#[test]
fn a_new_hub_removes_what_a_killed_one_left() {
    let mut rig = Rig::with_hub(&[]);
    let mut five = rig.domain(Some(5));
    let hub = rig.hub();
    hub.kill().expect("killed");
    hub.wait().expect("ended");
    // The domain sees end of file on its control connection.
    assert!(five.control.receive().is_none());
    assert_eq!(rig.names("dom5").len(), 4);
    assert_eq!(probe(&rig.run(), TIMEOUT), Found::Nothing);

    rig.start(&[]);
    assert_eq!(rig.names(""), ["dom0", "hub.lock", "hub.sock"]);
    assert_eq!(rig.names("dom0"), ["xenstored.sock"]);
    assert_eq!(rig.domain(Some(5)).domid, 5);
}

#[test]
fn a_daemon_takes_over_from_a_killed_one() {
    let rig = Rig::new();
    for _ in 0..3 {
        assert!(
            hub_command(&rig.run())
                .arg("--daemon")
                .status()
                .expect("ran")
                .success()
        );
        let pid = hub_pid(&rig.run());
        kill_process(pid, Signal::KILL).expect("killed");
        wait_for_end(pid);
    }
    assert!(
        hub_command(&rig.run())
            .arg("--daemon")
            .status()
            .expect("ran")
            .success()
    );
    end_hub(&rig.run());
}

#[test]
fn signals_stop_the_hub_cleanly() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut rig = Rig::with_hub(&[&kept(3)]);
        let mut five = rig.domain(Some(5));
        let hub = rig.hub();
        kill_process(Pid::from_child(hub), signal).expect("signalled");
        assert!(hub.wait().expect("ended").success());
        assert!(five.control.receive().is_none());
        // The kept directory stays, without sockets, since a container may have it mounted.
        assert_eq!(rig.names(""), ["dom3", "hub.lock"]);
        assert!(rig.names("dom3").is_empty());
    }
}

#[test]
fn a_hub_stops_when_idle_but_not_while_a_domain_is_alive() {
    let mut rig = Rig::with_hub(&["--idle", "1"]);
    let domain = rig.domain(None);
    let started = Instant::now();
    // Nothing must happen, so there is nothing to wait for.
    let exited = ends_within(Pid::from_child(rig.hub()), Duration::from_millis(1500));
    assert!(!exited, "it stopped although there was a domain");
    drop(domain);
    assert!(
        ends_within(Pid::from_child(rig.hub()), TIMEOUT),
        "it does not stop"
    );
    assert!(
        started.elapsed() >= Duration::from_millis(2400),
        "it stopped too early"
    );
    assert!(rig.hub().wait().expect("ended").success());
    assert_eq!(rig.names(""), ["hub.lock"]);
}

/// Whether a process ends within a time limit.
fn ends_within(pid: Pid, limit: Duration) -> bool {
    let process =
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("a child");
    tube_hub::probe::wait_readable(process, Instant::now() + limit).expect("poll")
}

#[test]
fn a_domid_has_one_holder_at_a_time() {
    let rig = Rig::with_hub(&[]);
    let hello = |domid| Request::Hello {
        version: VERSION,
        domid,
    };
    let one = rig.domain(None);
    let five = rig.domain(Some(5));
    assert_eq!((one.domid, five.domid), (1, 5));
    assert_eq!(
        error_atom(&rig.client("hub.sock").ask(hello(Some(5)))),
        "domid_taken"
    );
    assert_eq!(
        error_atom(&rig.client("dom5/control.sock").ask(hello(None))),
        "domid_taken"
    );
    assert_eq!(
        error_atom(&rig.client("dom5/control.sock").ask(hello(Some(6)))),
        "eperm"
    );
    assert_eq!(rig.domain(Some(0)).domid, 0);
    assert_eq!(rig.domain(Some(0x7FEF)).domid, 0x7FEF);
    for domid in [0x7FF0, 0xFFFF] {
        let mut client = rig.client("hub.sock");
        assert_eq!(error_atom(&client.ask(hello(Some(domid)))), "einval");
        client.expect_end();
    }
    // The lowest free one, also after a domain has ended.
    let two = rig.domain(None);
    assert_eq!(two.domid, 2);
    let mut watch = Store::connect(&rig.path("dom0/xenstored.sock"));
    watch.must(op::WATCH, b"@releaseDomain\0t\0");
    watch.await_event("@releaseDomain");
    drop(one);
    watch.await_event("@releaseDomain");
    assert_eq!(rig.domain(None).domid, 1);
}

#[test]
fn a_version_mismatch_names_both_versions() {
    let rig = Rig::with_hub(&[]);
    let mut client = rig.client("hub.sock");
    let reply = client.ask(Request::Hello {
        version: VERSION + 41,
        domid: None,
    });
    assert_eq!(error_atom(&reply), "hub_version");
    let Reply::Error(error) = reply else {
        unreachable!()
    };
    let (ours, theirs) = (VERSION.to_string(), (VERSION + 41).to_string());
    assert!(
        error.what.contains(&ours) && error.what.contains(&theirs),
        "{}",
        error.what
    );
    client.expect_end();
}

#[test]
fn unfit_run_directories_are_refused() {
    let rig = Rig::new();
    let run = rig.run();
    std::fs::create_dir(&run).expect("made");
    for mode in [0o770, 0o777, 0o702] {
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(mode)).expect("chmod");
        for args in [&[][..], &["--daemon"]] {
            let output = hub_command(&run).args(args).output().expect("ran");
            assert_eq!(output.status.code(), Some(1));
            assert!(error_line(&output.stderr).contains("writable by its group or by others"));
        }
    }
    std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o700)).expect("chmod");
    if is_root() {
        std::os::unix::fs::chown(&run, Some(12345), None).expect("chown");
        let output = hub_command(&run).arg("--daemon").output().expect("ran");
        assert_eq!(output.status.code(), Some(1));
        assert!(error_line(&output.stderr).contains("belongs to user 12345"));
    }
    let output = hub_command("/proc/nowhere".as_ref()).output().expect("ran");
    assert_eq!(output.status.code(), Some(1));
    assert!(error_line(&output.stderr).contains("/proc/nowhere"));
    // None of them left a file.
    assert!(rig.names("").is_empty());
}

#[test]
fn the_starter_reports_an_error_of_the_detached_hub() {
    let rig = Rig::new();
    std::fs::create_dir_all(rig.path("hub.lock")).expect("made");
    let output = hub_command(&rig.run())
        .arg("--daemon")
        .output()
        .expect("ran");
    assert_eq!(output.status.code(), Some(1));
    assert!(error_line(&output.stderr).contains("hub.lock"));
}

#[test]
fn too_few_descriptors_are_reported() {
    let rig = Rig::new();
    let output = std::process::Command::new("prlimit")
        .args(["--nofile=500", env!("CARGO_BIN_EXE_tube-hub"), "--run"])
        .arg(rig.run())
        .output()
        .expect("ran");
    assert_eq!(output.status.code(), Some(1));
    assert!(error_line(&output.stderr).contains("RLIMIT_NOFILE"));
}

#[test]
fn a_listener_that_is_no_hub_is_reported() {
    let other = Rig::new();
    std::fs::create_dir(other.run()).expect("made");
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::SEQPACKET,
        None,
    )
    .expect("a socket");
    let address = rustix::net::SocketAddrUnix::new(other.path("hub.sock")).expect("an address");
    rustix::net::bind(&socket, &address).expect("bound");
    rustix::net::listen(&socket, 8).expect("listening");
    let listener = std::thread::spawn(move || {
        let client = rustix::net::accept(&socket).expect("a client");
        // Read first: closing a socket with unread data resets the connection.
        rustix::net::recv(&client, &mut [0; 64], rustix::net::RecvFlags::empty()).expect("a hello");
        let error =
            tube_platform::Error::new(tube_platform::ErrorKind::HubVersion, "version 2 here");
        let reply = Reply::Error(error).encode(0);
        tube_platform::local::fdpass::send(&client, &reply, &[]).expect("sent");
    });
    let output = hub_command(&other.run())
        .arg("--daemon")
        .output()
        .expect("ran");
    assert_eq!(output.status.code(), Some(1));
    assert!(error_line(&output.stderr).contains("version 2 here"));
    listener.join().expect("replied");
}

#[test]
fn new_directories_and_sockets_are_private() {
    let rig = Rig::with_hub(&[]);
    let _five = rig.domain(Some(5));
    let mode = |below: &str| std::fs::metadata(rig.path(below)).expect("there").mode() & 0o7777;
    for below in ["", "dom0", "dom5"] {
        assert_eq!(mode(below), 0o700, "{below}");
    }
    for below in [
        "hub.sock",
        "hub.lock",
        "dom0/xenstored.sock",
        "dom5/control.sock",
        "dom5/grants.sock",
    ] {
        assert_eq!(mode(below), 0o600, "{below}");
    }
    assert_eq!(
        rig.names("dom5"),
        [
            "control.sock",
            "evtchn.sock",
            "grants.sock",
            "xenstored.sock"
        ]
    );
}

#[test]
fn version_help_and_usage_errors() {
    let run = |args: &[&str]| {
        std::process::Command::new(env!("CARGO_BIN_EXE_tube-hub"))
            .args(args)
            .output()
            .expect("ran")
    };
    let version = run(&["--version"]);
    let wanted = format!(
        "tube-hub {} (protocol {VERSION})\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(String::from_utf8_lossy(&version.stdout), wanted);
    let help = run(&["--help"]);
    assert!(
        help.status.success()
            && String::from_utf8_lossy(&help.stdout).contains("--domain N:UID:GID")
    );
    let wrong = run(&["--domain", "99999:0:0"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(error_line(&wrong.stderr).contains("32751"));
}
