//! What the driver knows of the distribution protocol's fragments.

#[path = "../src/driver/fragments.rs"]
mod fragments;

use fragments::{first_of_two, last_of, make_whole};

fn packet(kind: u8, sequence: u64, number: u64, bytes: &[u8]) -> Vec<u8> {
    let mut packet = vec![131, kind];
    packet.extend(sequence.to_be_bytes());
    packet.extend(number.to_be_bytes());
    packet.extend(bytes);
    packet
}

#[test]
fn two_fragments_make_what_would_have_come_in_one() {
    let first = packet(69, 7, 2, b"\x01\x00\xffatoms and more");
    let last = packet(70, 7, 1, b", and the end");
    let sequence = first_of_two(&first).unwrap();
    let mut both = first.clone();
    both.extend(last_of(sequence, &last).unwrap());
    let begin = make_whole(&mut both);
    assert_eq!(
        &both[begin..],
        b"\x83\x44\x01\x00\xffatoms and more, and the end"
    );
}

#[test]
fn only_the_first_of_two_is_held() {
    for (kind, number) in [(69, 1), (69, 3), (69, 0), (68, 2), (70, 2), (112, 2)] {
        assert_eq!(first_of_two(&packet(kind, 7, number, b"bytes")), None);
    }
    let first = packet(69, 7, 2, b"");
    assert!(first_of_two(&first).is_some());
    for short in 0..first.len() {
        assert_eq!(first_of_two(&first[..short]), None);
    }
}

#[test]
fn only_the_last_of_the_same_message_follows_it() {
    let sequence = first_of_two(&packet(69, 7, 2, b"")).unwrap();
    assert_eq!(
        last_of(sequence, &packet(70, 7, 1, b"end")),
        Some(&b"end"[..])
    );
    for other in [
        packet(70, 8, 1, b"end"),
        packet(70, 7, 2, b"end"),
        packet(69, 7, 1, b"end"),
        packet(68, 7, 1, b"end"),
        packet(70, 7, 1, b"")[..17].to_vec(),
        vec![],
    ] {
        assert_eq!(last_of(sequence, &other), None);
    }
}
