//! Output for trees in real stores: valid, broken and hostile ones.

mod common;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use common::{Counters, Store};

/// Runs a test on both stores.
fn on_both(test: impl Fn(&Store)) {
    test(&Store::hub());
    test(&Store::xen());
}

#[test]
fn golden_list_and_show() {
    on_both(|store| {
        store.domain(5, "db");
        store.domain(7, "web");
        store.tube(7, 5, 0, ("4", "4"));
        store.tube(7, 5, 1, ("5", "4"));
        store.restore("/local/domain/7/data/nock/5/1/service = \"a_20rather_20long_20name_20of_20a_20service\"\n\
                       /local/domain/5/data/tube/version = \"1\"\n/local/domain/5/data/tube/echo = \"00ff\"\n");
        assert_eq!(
            store.output(120, &["list"]),
            include_str!("golden/list-120")
        );
        assert_eq!(store.output(80, &["list"]), include_str!("golden/list-80"));
        assert_eq!(store.output(40, &["list"]), include_str!("golden/list-40"));
        assert_eq!(
            store.output(100, &["show", "db", "0"]),
            include_str!("golden/show-100")
        );
        assert_eq!(
            store.output(60, &["show", "5", "0"]),
            include_str!("golden/show-60")
        );
        let json = store.output(80, &["list", "-l"]);
        assert!(json.starts_with(r#"[{"nock":7,"tip":5,"tid":0,"service":"echo","state":"connected","nock_half":{"domain":"web","path":"/local/domain/7/data/nock/5/0","exists":true,"state":4,"version":1,"nonce":"0123456789abcdef""#), "{json}");
    });
}

#[test]
fn ring_sizes_and_age_come_from_the_tip() {
    on_both(|store| {
        store.domain(5, "db");
        store.domain(7, "web");
        store.tube(7, 5, 0, ("4", "4"));
        store.tube(7, 5, 1, ("4", "4"));
        let ago = common::ago(3630);
        let tip_node = |key: &str| format!("/local/domain/5/data/tip/7/0/{key}");
        store.write(&[
            (&tip_node("tx-ring-bytes"), OsStr::new("1048576")),
            (&tip_node("opened"), OsStr::new(&ago)),
            // The clock of this tip is ahead of ours.
            (
                "/local/domain/5/data/tip/7/1/opened",
                OsStr::new("4294967295"),
            ),
        ]);
        let list = store.output(100, &["list"]);
        let column = |line: usize, from_end: usize| {
            let words = list.lines().nth(line).unwrap().split_whitespace();
            words.rev().nth(from_end).unwrap().to_owned()
        };
        assert_eq!(
            (column(1, 4), column(1, 0)),
            ("1M/64K".into(), "1h00m".into())
        );
        assert_eq!((column(2, 4), column(2, 0)), ("64K".into(), "0s".into()));
        store.write(&[(&tip_node("opened"), OsStr::new("1764000000"))]);
        let shown = store.output(100, &["show", "5", "0"]);
        assert!(shown.contains("1764000000 2025-11-24T16:00:00Z"), "{shown}");
    });
}

#[test]
fn rates_of_domains_that_publish_their_counters() {
    for (store, json) in [(Store::hub(), true), (Store::xen(), false)] {
        store.domain(5, "db");
        store.domain(7, "web");
        store.domain(9, "mute");
        store.tube(7, 5, 0, ("4", "4"));
        store.tube(9, 5, 0, ("4", "4"));
        let _publisher = store.publish(vec![
            Counters("/local/domain/7/data/stats/nock/5/0", 12_000, 45_600_000),
            Counters("/local/domain/5/data/stats/tip/7/0", 345, 400_000),
        ]);
        if json {
            let text = store.output(80, &["list", "--stats", "--json"]);
            for part in [
                r#""per_second":{"messages":12345.0,"bytes":46000000.0,"nock_to_tip":{"messages":12000.0,"#,
                r#""per_second":null"#,
            ] {
                assert!(text.contains(part), "{text}");
            }
        } else {
            let text = store.output(80, &["list", "--stats"]);
            assert_eq!(text, include_str!("golden/list-stats-80"));
        }
        // The lease is withdrawn.
        assert!(!store.tree().contains("stats/watch"));
    }
}

#[test]
fn disagreement_is_marked() {
    on_both(|store| {
        store.domain(5, "db");
        store.domain(7, "web");
        store.tube(7, 5, 0, ("4", "4"));
        store.restore(
            "/local/domain/5/data/tip/7/0/nonce = \"ffffffffffffffff\"\n\
             /local/domain/5/data/tip/7/0/version = \"2\"\n\
             /local/domain/5/data/tip/7/0/nock = \"/local/domain/9/data/nock/5/0\"\n\
             /local/domain/5/data/tip/7/0/event-channel = \"017\"\n\
             /local/domain/5/data/tip/7/0/what-is-this = \"\"\n",
        );
        assert!(store.output(100, &["list"]).contains(" broken!"));
        let shown = store.output(200, &["show", "5"]);
        for line in [
            "! state          4 Connected",
            "! nonce          0123456789abcdef",
            "! these states do not go together",
            "! they mean different attempts",
            "! they speak different versions",
            "! `nock` names another place than /local/domain/7/data/nock/5/0",
            "! `event-channel` is no number",
            "! 1 foreign nodes in the tip's half",
        ] {
            assert!(shown.contains(line), "{line}\n{shown}");
        }
    });
}

#[test]
fn half_written_and_unrelated_trees() {
    on_both(|store| {
        store.domain(5, "db");
        store.domain(7, "web");
        store.restore(
            "/local/domain/7/data/nock/5/0/state = \"2\"\n\
             /local/domain/7/data/nock/5/1 = \"\"\n\
             /local/domain/7/data/nock/5/2/state = \"four\"\n\
             /local/domain/7/data/nock/05/0/state = \"4\"\n\
             /local/domain/7/data/nock/5/x = \"4\"\n\
             /local/domain/7/data/nock/99999/1 = \"4\"\n\
             /local/domain/7/data/other/thing = \"4\"\n\
             /local/domain/7/device/vif/0/state = \"4\"\n\
             /local/domain/not-a-domain/data/nock/5/0/state = \"4\"\n\
             /local/domain/5/data/tip/7/0/nock = \"/local/domain/7/data/nock/5/0\"\n",
        );
        let list = store.output(100, &["list"]);
        assert_eq!(list.lines().count(), 4, "{list}");
        let line = |n: usize| {
            list.lines()
                .nth(n)
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
        };
        assert_eq!(line(1)[3..5], ["0", "knocking"]);
        assert_eq!(line(2)[3..5], ["1", "one-sided!"]);
        assert_eq!(line(3)[3..5], ["2", "one-sided!"]);
        assert!(
            store
                .output(100, &["show", "7", "2"])
                .contains("state          four")
        );
    });
}

#[test]
fn hostile_values_are_harmless_and_cannot_imitate_another_domain() {
    on_both(|store| {
        store.domain(5, "db");
        store.domain(7, "web");
        // Domain 9 has a hostile name, and writes hostile values into its own tree.
        store.domain(9, "db 5\x1b[2J\u{202e}");
        let path = |key: &str| format!("/local/domain/9/data/nock/5/0/{key}");
        let long = "x".repeat(3900);
        let (service, state, tip, nonce) =
            (path("service"), path("state"), path("tip"), path("nonce"));
        store.write(&[
            (
                &service,
                OsStr::new("\x1b]0;owned\x07\n7  5  echo  0  connected"),
            ),
            (&state, OsStr::new("4")),
            (&tip, OsStr::new(&long)),
            (&nonce, OsStr::from_bytes(b"\xff\xfe")),
            ("/local/domain/9/data/nock/5/1/service", OsStr::new(&long)),
            (&path(&"name".repeat(450)), OsStr::new("\x1b[H")),
            (
                "/local/domain/9/data/tip/7/0/opened",
                OsStr::new("\x1b[31m1"),
            ),
            (
                "/local/domain/9/data/tip/7/0/tx-ring-bytes",
                OsStr::new("4096\x1b[2J"),
            ),
            (
                "/local/domain/9/data/stats/tip/7/0",
                OsStr::new("time=1 sent=\x1b[2J"),
            ),
            (
                "/local/domain/9/data/stats/nock/5/0",
                OsStr::from_bytes(b"\xff"),
            ),
            ("/local/domain/9/data/tip/7/0/state", OsStr::new("4")),
            (
                "/local/domain/9/data/tip/7/0/nock",
                OsStr::new("/local/domain/7/data/nock/9/0"),
            ),
        ]);
        for width in [40, 80, 400] {
            let list = store.output(width, &["list"]);
            assert_eq!(list.lines().count(), 4, "{list}");
            // A line starts with the number of the nock.
            assert!(
                list.lines()
                    .nth(3)
                    .unwrap()
                    .starts_with("9:db\\x205\\x1b[2J.."),
                "{list}"
            );
            assert!(list.lines().all(|line| line.len() <= width), "{list}");
            assert!(
                width < 80 || list.matches("one-sided!").count() == 3,
                "{list}"
            );
            assert!(!list.contains(" connected"), "{list}");
            for dom in ["5", "7", "9"] {
                store.output(width, &["show", dom]);
            }
        }
        assert!(
            store
                .output(400, &["show", "5"])
                .contains(".. (3900 bytes)")
        );
        assert!(store.output(400, &["show", "5"]).contains("(not text)"));
        assert!(store.output(80, &["list", "--json"]).contains("\\u202e"));
        store.run(80, &["doctor"]);
        store.output(80, &["reap"]);
    });
}

#[test]
fn more_nodes_than_any_vm_writes_are_left_out_with_a_note() {
    let store = Store::hub();
    store.domain(5, "db");
    store.domain(7, "web");
    store.tube(7, 5, 0, ("4", "4"));
    let names: Vec<String> = (0..500)
        .map(|n| format!("/local/domain/9/data/nock/5/{}", 4_000_000_000_u32 + n))
        .collect();
    store.domain(9, "greedy");
    let nodes: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), OsStr::new("")))
        .collect();
    store.write(&nodes);
    let output = store.run(80, &["list"]);
    assert!(output.status.success());
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(
        notes.contains("/local/domain/9/data/nock/5 has too many names"),
        "{notes}"
    );
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("connected")
    );
}
