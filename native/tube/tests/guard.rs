//! Panics stay on this side of the VM.

#[path = "../src/guard.rs"]
mod guard;

#[test]
fn a_panic_becomes_nothing() {
    assert_eq!(guard::guarded(|| 7), Some(7));
    let blown: Option<u32> = guard::guarded(|| panic!("on purpose"));
    assert_eq!(blown, None);
}
