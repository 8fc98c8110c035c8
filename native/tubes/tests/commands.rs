//! The commands `reap` and `watch`, exit statuses, completions.

mod common;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use common::Store;

#[test]
fn reap_removes_leftovers_and_nothing_else() {
    for store in [Store::hub(), Store::xen()] {
        store.domain(5, "db");
        store.domain(7, "web");
        store.tube(7, 5, 0, ("4", "4"));
        // A pending open request; a half whose peer's domain is gone; one whose peer's VM is gone;
        // the tree of a dead domain.
        store.restore(
            "/local/domain/7/data/nock/5/1/state = \"2\"\n\
             /local/domain/7/data/nock/8/2/state = \"4\"\n\
             /local/domain/5/data/tip/7/3/state = \"4\"\n\
             /local/domain/6/data/tip/5/0/state = \"4\"\n\
             /local/domain/6/data/precious = \"1\"\n",
        );
        let all =
            "/local/domain/6/data/tip /local/domain/7/data/nock/8/2 /local/domain/5/data/tip/7/3";
        let before = store.output(100, &["list"]);
        let dry = store.output(100, &["reap"]);
        for path in all.split(' ') {
            assert!(
                dry.contains(&format!("would remove {path} ")),
                "{path}\n{dry}"
            );
        }
        assert_eq!(dry.lines().count(), 4, "{dry}");
        assert_eq!(store.output(100, &["list"]), before);

        let done = store.output(100, &["reap", "--yes", "--settle", "0"]);
        for path in all.split(' ') {
            assert!(done.contains(&format!("removed {path} ")), "{path}\n{done}");
        }
        assert_eq!(store.output(100, &["reap"]), "nothing is left over\n");
        let after = store.output(100, &["list"]);
        assert_eq!(after.lines().count(), 3, "{after}");
        assert!(
            after.contains("connected") && after.contains("knocking"),
            "{after}"
        );
        let mut tool = Command::new("xenstore-read");
        let kept = tool
            .arg("/local/domain/6/data/precious")
            .env("XENSTORED_PATH", store.socket());
        assert!(kept.output().unwrap().status.success());
    }
}

/// A running `tubes watch`.
struct Watch {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watch {
    fn start(socket: &Path) -> Watch {
        Watch::start_as(socket, false)
    }

    fn start_as(socket: &Path, json: bool) -> Watch {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tubes"))
            .arg("--socket")
            .arg(socket)
            .arg("watch")
            .args(json.then_some("--json"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Watch { child, lines }
    }

    fn next(&mut self) -> String {
        self.lines.next().expect("a line").unwrap()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn watch_prints_events() {
    for store in [Store::hub(), Store::xen()] {
        store.domain(5, "db");
        store.domain(7, "web");
        store.tube(7, 5, 0, ("4", "4"));
        let mut watch = Watch::start(&store.socket());
        let line = watch.next();
        assert!(
            line.contains("Z  present    7:web -> 5:db tube 0  echo  connected"),
            "{line}"
        );
        store.tube(7, 5, 3, ("2", "3"));
        let line = watch.next();
        assert!(line.contains("opened     7:web -> 5:db tube 3"), "{line}");
        store.tube(7, 5, 3, ("4", "4"));
        assert!(watch.next().contains("connected  7:web -> 5:db tube 3"));
        store.tube(7, 5, 3, ("5", "4"));
        assert!(watch.next().contains("closing    7:web -> 5:db tube 3"));
        store.remove("/local/domain/7");
        let (a, b) = (watch.next(), watch.next());
        assert!(a.contains("stale") && b.contains("stale"), "{a}\n{b}");
        store.remove("/local/domain/5");
        for line in [watch.next(), watch.next()] {
            assert!(line.contains("closed"), "{line}");
            assert!(line.ends_with(" is gone"), "{line}");
        }
        // It fails when the store is gone.
        drop(store);
        assert_eq!(watch.child.wait().unwrap().code(), Some(1));
    }
}

#[test]
fn watch_escapes_untrusted_values() {
    for store in [Store::hub(), Store::xen()] {
        store.domain(5, "db");
        store.domain(9, &format!("5 -> 7\x1b[2J\u{202e}{}", "x".repeat(3000)));
        for json in [false, true] {
            let mut watch = Watch::start_as(&store.socket(), json);
            // The first event shows that it is watching.
            let tid = u32::from(json);
            store.tube(5, 9, tid, ("4", "4"));
            while !watch.next().contains("connected") {}
            let path = |key| format!("/local/domain/9/data/nock/5/{tid}/{key}");
            let long = format!("\x1b]0;owned\x07\n{}", "e".repeat(3900));
            let (service, state) = (path("service"), path("state"));
            store.write(&[
                (&service, OsStr::new(&long)),
                (&path("nonce"), OsStr::new("\x1b[31m")),
                (&path("name".repeat(400).as_str()), OsStr::new("")),
                (&state, OsStr::new("2")),
            ]);
            let line = loop {
                let line = watch.next();
                if line.contains("  9:5") || line.contains(r#""nock":9,"tip":5,"tid":1"#) {
                    break line;
                }
            };
            assert!(
                line.bytes().all(|byte| matches!(byte, b' '..=b'~')),
                "{line}"
            );
            assert!(line.len() < 600, "{line}");
            assert!(line.contains("\\x1b]0;owned"), "{line}");
            // The identity of the tube comes from its path.
            assert!(line.contains("  9:5\\x20->\\x207") || json, "{line}");
            assert!(
                line.contains(r#""nock":9,"tip":5,"tid":1"#) || !json,
                "{line}"
            );
        }
    }
}

#[test]
fn watch_waits_for_a_store_that_is_slow_to_accept() {
    let store = Store::hub();
    store.domain(5, "db");
    store.domain(7, "web");
    store.tube(7, 5, 0, ("4", "4"));
    let (_dir, socket) = common::slow_to_accept(store.socket());
    let line = Watch::start(&socket).next();
    assert!(line.contains("present    7:web -> 5:db tube 0"), "{line}");
}

fn tubes(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_tubes"))
        .args(args)
        .env("TUBE_RUN_DIR", "/nonexistent/run")
        .env_remove("XENSTORED_PATH")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn exit_statuses() {
    assert_eq!(tubes(&["--help"]).0, Some(0));
    assert!(tubes(&["--version"]).1.contains("handshake version 1"));
    for wrong in [
        &["lists"][..],
        &[],
        &["show"],
        &["list", "--yes"],
        &["show", "5", "x"],
    ] {
        assert_eq!(tubes(wrong).0, Some(2), "{wrong:?}");
    }
    let (status, _, error) = tubes(&["--socket", "/nonexistent/socket", "list"]);
    assert_eq!(status, Some(1));
    assert_eq!(error.lines().count(), 1);
    assert!(
        error.contains("no store answers at /nonexistent/socket"),
        "{error}"
    );
    let (status, text, _) = tubes(&["doctor"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("cure: set TUBE_RUN_DIR"), "{text}");

    let store = Store::hub();
    assert_eq!(store.run(80, &["show", "nobody"]).status.code(), Some(1));
    assert_eq!(store.run(80, &["show", "5"]).status.code(), Some(1));
    assert_eq!(
        store.run(80, &["reap", "--settle=-1"]).status.code(),
        Some(2)
    );
}

#[test]
fn a_store_that_does_not_reply_times_out() {
    let (_dir, socket, _listener) = common::silent();
    let (status, out, err) = tubes(&["--socket", socket.to_str().unwrap(), "list"]);
    assert_eq!((status, out.as_str()), (Some(1), ""), "{err}");
    assert!(err.contains("it does not reply"), "{err}");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let store = Store::hub();
    let script = r#""$0" --socket "$1" list --json | true; exit "${PIPESTATUS[0]}""#;
    let status = Command::new("bash")
        .args(["-c", script, env!("CARGO_BIN_EXE_tubes")])
        .arg(store.socket())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn completions_and_manual() {
    for shell in ["bash", "zsh", "fish"] {
        let (status, text, _) = tubes(&["completions", shell]);
        assert!(status == Some(0) && text.contains("reap"), "{shell}");
    }
    let (status, page, _) = tubes(&["man"]);
    assert!(status == Some(0) && page.contains(".TH tubes 1"), "{page}");
}
