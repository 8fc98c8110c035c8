//! The store of the hub against Xen's own xenstored 4.17: the same requests to both, every answer
//! and every watch event compared, from connections of domain 0 and of guests. And a recorded conversation
//! that is replayed on both and in the lab (`replay`).

#[path = "../common/mod.rs"]
mod common;
mod limits;
mod random;
mod reference;
mod replay;
mod ring;
mod scripts;
mod system;
mod wire;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use wire::{READ, RM, SET_PERMS, TRANSACTION_END, WATCH, WRITE};

/// Random sequences per test, of up to 100 requests each; `TUBE_STORE_SEQUENCES` asks for more.
const SEQUENCES: u32 = 100;
const LONG_SEQUENCES: u32 = 3_000;

/// A number from the environment.
fn given(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number: {text}")),
    )
}

/// Runs random sequences; how often which answer came.
fn sequences(seed: u64, usual: u32) -> BTreeMap<String, usize> {
    println!("TUBE_STORE_SEED={seed} repeats this");
    let cases = given("TUBE_STORE_SEQUENCES").map_or(usual, |count| count as u32);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let answers = RefCell::default();
    let result = runner.run(&random::steps(), |steps| {
        random::run(steps, &mut answers.borrow_mut());
        Ok(())
    });
    if let Err(error) = result {
        panic!("with TUBE_STORE_SEED={seed}: {error}");
    }
    answers.into_inner()
}

#[test]
fn the_same_random_sequences_as_always() {
    let answers = sequences(417, SEQUENCES);
    // Sequences that never met these would compare nothing of interest.
    for what in [
        "EACCES", "EAGAIN", "EBUSY", "EEXIST", "EINVAL", "ENOENT", "ENOSPC", "ENOSYS", "EPERM",
    ] {
        assert!(answers.contains_key(what), "{what} never came: {answers:?}");
    }
    for kind in [READ, WRITE, RM, SET_PERMS, WATCH, TRANSACTION_END] {
        assert!(
            answers
                .get(&kind.to_string())
                .is_some_and(|count| *count > 20),
            "{kind} seldom succeeds: {answers:?}"
        );
    }
}

/// Other sequences each time; `TUBE_STORE_SEED` repeats those of an earlier run.
#[test]
fn new_random_sequences() {
    sequences(new_seed(), SEQUENCES);
}

#[test]
#[ignore = "long: thousands of sequences"]
fn long_new_random_sequences() {
    sequences(new_seed(), LONG_SEQUENCES);
}

fn new_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    given("TUBE_STORE_SEED").unwrap_or(now.as_nanos() as u64)
}
