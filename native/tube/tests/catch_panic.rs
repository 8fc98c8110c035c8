//! Panics do not unwind into the VM.

#[allow(dead_code)]
#[path = "../src/vm.rs"]
mod vm;

#[test]
fn a_panic_becomes_nothing() {
    assert_eq!(vm::catch_panic(|| 7), Some(7));
    let panicked: Option<u32> = vm::catch_panic(|| panic!("on purpose"));
    assert_eq!(panicked, None);
}
