//! Panics do not unwind into the VM.

#[path = "../src/catch_panic.rs"]
mod catch_panic;

#[test]
fn a_panic_becomes_nothing() {
    assert_eq!(catch_panic::catch_panic(|| 7), Some(7));
    let panicked: Option<u32> = catch_panic::catch_panic(|| panic!("on purpose"));
    assert_eq!(panicked, None);
}
