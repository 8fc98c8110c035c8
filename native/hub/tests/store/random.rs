//! Random input: nothing panics, and the store stays consistent.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::support::*;

/// Small quotas, so that the tests reach all of them.
fn host() -> Host {
    use tube_hub::store::{Quota, Xenstored};
    let quota = Quota {
        nodes: 12,
        node_size: 100,
        perms: 3,
        watches: 3,
        transactions: 2,
        transaction_nodes: 9,
        path: 60,
        outstanding: 4,
        memory: 1800,
        output: 3000,
    };
    let mut host = Host {
        store: Xenstored::new(quota),
    };
    (1..=2).for_each(|domid| assert!(host.store.introduce(domid)));
    host
}

#[derive(Clone, Debug)]
enum Step {
    Connect(u16),
    Disconnect(usize),
    Receive(usize, Vec<u8>),
    Drain(usize),
    Introduce(u16),
    Release(u16),
}

fn payload() -> impl Strategy<Value = Vec<u8>> {
    let word = select(
        [
            "/",
            "/a",
            "/a/b",
            "/a/b/c",
            "/a/b/c/d/e/f/g/h",
            "data",
            "data/x",
            "data/x/y",
            "/local/domain/1",
            "/local/domain/1/data",
            "/local/domain/2/data/x",
            "@releaseDomain",
            "@introduceDomain",
            "n0",
            "n1",
            "b1",
            "r2",
            "b2",
            "n9",
            "0",
            "1",
            "2",
            "T",
            "F",
            "token",
            "",
            "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv",
        ]
        .to_vec(),
    );
    let words = vec(word, 0..4).prop_map(|words| {
        words
            .iter()
            .flat_map(|word| [word.as_bytes(), b"\0"].concat())
            .collect()
    });
    prop_oneof![12 => words, 1 => vec(any::<u8>(), 0..40)]
}

fn request() -> impl Strategy<Value = Vec<u8>> {
    let kind = prop_oneof![20 => 0..24u32, 1 => any::<u32>()];
    let tx = prop_oneof![3 => Just(0), 3 => 1..4u32, 1 => any::<u32>()];
    prop_oneof![
        40 => (kind, tx, payload()).prop_map(|(kind, tx, payload)| encode(kind, 7, tx, &payload)),
        10 => (select(vec![WRITE, MKDIR, RM, SET_PERMS, START, END]), 0..4u32, payload())
            .prop_map(|(kind, tx, payload)| encode(kind, 7, tx, &payload)),
        1 => vec(any::<u8>(), 0..60),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (0..4u16).prop_map(Step::Connect),
        1 => any::<usize>().prop_map(Step::Disconnect),
        40 => (any::<usize>(), request()).prop_map(|(conn, bytes)| Step::Receive(conn, bytes)),
        8 => any::<usize>().prop_map(Step::Drain),
        1 => (0..4u16).prop_map(Step::Introduce),
        1 => (0..4u16).prop_map(Step::Release),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_the_store_stays_consistent(steps in vec(step(), 1..250)) {
        let mut host = host();
        let mut conns = [0, 0, 1, 2].map(|domid| host.connect(domid)).to_vec();
        for step in steps {
            match step {
                Step::Connect(domid) => conns.extend(host.store.connect(domid)),
                Step::Disconnect(at) => host.store.disconnect(conns[at % conns.len()]),
                Step::Receive(at, bytes) => {
                    let conn = conns[at % conns.len()];
                    if host.store.receive(conn, &bytes).is_err() {
                        host.store.disconnect(conn);
                    }
                }
                Step::Drain(at) => _ = host.drain(conns[at % conns.len()]),
                Step::Introduce(domid) => _ = host.store.introduce(domid),
                Step::Release(domid) => host.store.release(domid),
            }
            if let Err(inconsistency) = host.store.audit() {
                prop_assert!(false, "{}", inconsistency);
            }
        }
    }

    #[test]
    fn the_replies_do_not_depend_on_how_the_bytes_are_split(
        requests in vec(request(), 1..40),
        cuts in vec(1..50usize, 1..40),
    ) {
        let bytes = requests.concat();
        let run = |cuts: &[usize]| {
            let mut host = host();
            let conn = host.connect(1);
            let mut rest = bytes.as_slice();
            let mut result = Ok(());
            for cut in cuts.iter().cycle() {
                let (part, left) = rest.split_at((*cut).min(rest.len()));
                result = result.and(host.store.receive(conn, part));
                rest = left;
                if rest.is_empty() {
                    break;
                }
            }
            (result.is_err(), host.drain(conn))
        };
        prop_assert_eq!(run(&cuts), run(&[bytes.len().max(1)]));
    }
}
