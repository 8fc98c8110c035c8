//! Compares the hub's store with Xen's own xenstored 4.17: both get the same requests, from
//! connections of domain 0 and of guests, and every reply and every watch event must be the same.
//! `replay` plays a recorded conversation on both and in the Xen lab.

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

/// Random sequences per test, of up to 100 requests each. `TUBE_STORE_SEQUENCES` overrides it.
const SEQUENCES: u32 = 100;
const LONG_SEQUENCES: u32 = 3_000;

/// A number from the environment.
fn env_number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} must be a number: {text}")),
    )
}

/// Runs random sequences. Returns how often each reply was seen.
fn sequences(seed: u64, usual: u32) -> BTreeMap<String, usize> {
    println!("TUBE_STORE_SEED={seed} repeats this run");
    let cases = env_number("TUBE_STORE_SEQUENCES").map_or(usual, |count| count as u32);
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let replies = RefCell::default();
    let result = runner.run(&random::steps(), |steps| {
        random::run(steps, &mut replies.borrow_mut());
        Ok(())
    });
    if let Err(error) = result {
        panic!("with TUBE_STORE_SEED={seed}: {error}");
    }
    replies.into_inner()
}

#[test]
fn fixed_random_sequences() {
    let replies = sequences(417, SEQUENCES);
    // Sequences without these replies would compare nothing of interest.
    for what in [
        "EACCES", "EAGAIN", "EBUSY", "EEXIST", "EINVAL", "ENOENT", "ENOSPC", "ENOSYS", "EPERM",
    ] {
        assert!(
            replies.contains_key(what),
            "{what} was never seen: {replies:?}"
        );
    }
    for kind in [READ, WRITE, RM, SET_PERMS, WATCH, TRANSACTION_END] {
        assert!(
            replies
                .get(&kind.to_string())
                .is_some_and(|count| *count > 20),
            "{kind} rarely succeeds: {replies:?}"
        );
    }
}

/// New sequences each time. `TUBE_STORE_SEED` repeats those of an earlier run.
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
    env_number("TUBE_STORE_SEED").unwrap_or(now.as_nanos() as u64)
}
