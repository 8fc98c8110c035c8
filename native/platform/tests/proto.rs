//! The hub protocol: what is encoded decodes to the same, and nothing else decodes.

use proptest::prelude::*;
use tube_platform::local::proto::{
    FDS_MAX, MAP_REFS_MAX, MESSAGE_MAX, Malformed, Reply, Request, Run, SHARE_PAGES_MAX, TEXT_MAX,
    VERSION, gref, page_of, share_of,
};
use tube_platform::{Access, DOMID_MAX, Errno, Error, ErrorKind};

fn access() -> impl Strategy<Value = Access> {
    prop_oneof![Just(Access::ReadOnly), Just(Access::ReadWrite)]
}

fn request() -> impl Strategy<Value = Request> {
    let domid = 0..=DOMID_MAX;
    let version = VERSION;
    prop_oneof![
        proptest::option::of(domid.clone())
            .prop_map(move |domid| Request::Hello { version, domid }),
        (domid.clone(), 1..=SHARE_PAGES_MAX, access()).prop_map(|(peer, pages, access)| {
            Request::Share {
                peer,
                pages,
                access,
            }
        }),
        any::<u32>().prop_map(|first_ref| Request::Unshare { first_ref }),
        (
            domid.clone(),
            prop::collection::vec(any::<u32>(), 1..=MAP_REFS_MAX)
        )
            .prop_map(|(granter, refs)| Request::Map { granter, refs }),
        domid.clone().prop_map(|peer| Request::Alloc { peer }),
        (domid, any::<u32>()).prop_map(|(remote, remote_port)| Request::Bind {
            remote,
            remote_port
        }),
        any::<u32>().prop_map(|port| Request::Close { port }),
    ]
}

fn run() -> impl Strategy<Value = Run> {
    (
        0..FDS_MAX as u32,
        0..SHARE_PAGES_MAX,
        1..=SHARE_PAGES_MAX,
        access(),
    )
        .prop_map(|(fd_index, first_page, pages, access)| Run {
            fd_index,
            first_page,
            pages: pages.min(SHARE_PAGES_MAX - first_page),
            access,
        })
}

fn kind() -> impl Strategy<Value = ErrorKind> {
    prop_oneof![
        (1..4096i32).prop_map(|n| ErrorKind::Posix(Errno::from_raw_os_error(n))),
        Just(ErrorKind::HubVersion),
        Just(ErrorKind::DomidTaken),
        Just(ErrorKind::BadRunDir),
    ]
}

fn reply() -> impl Strategy<Value = Reply> {
    prop_oneof![
        (0..=DOMID_MAX).prop_map(|domid| Reply::Welcome {
            version: VERSION,
            domid
        }),
        any::<u32>().prop_map(|first_ref| Reply::Share { first_ref }),
        prop::collection::vec(run(), 1..=MAP_REFS_MAX).prop_map(|runs| Reply::Map { runs }),
        any::<u32>().prop_map(|port| Reply::Alloc { port }),
        any::<u32>().prop_map(|port| Reply::Bind { port }),
        (kind(), ".{0,100}").prop_map(|(kind, what)| Reply::Error(Error { kind, what })),
    ]
}

proptest! {
    #[test]
    fn requests_round_trip(seq: u32, request in request()) {
        let bytes = request.encode(seq);
        prop_assert!(bytes.len() <= MESSAGE_MAX);
        prop_assert_eq!(Request::decode(&bytes), Ok((seq, request)));
    }

    #[test]
    fn replies_round_trip(seq: u32, reply in reply()) {
        let bytes = reply.encode(seq);
        prop_assert!(bytes.len() <= MESSAGE_MAX);
        prop_assert_eq!(Reply::decode(&bytes), Ok((seq, reply)));
    }

    #[test]
    fn a_truncated_or_extended_request_is_malformed(
        request in request(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = request.encode(1);
        prop_assert_eq!(Request::decode(&bytes[..cut.index(bytes.len())]), Err(Malformed::Short));
        bytes.push(0);
        prop_assert_eq!(Request::decode(&bytes), Err(Malformed::Long));
    }

    #[test]
    fn a_truncated_or_extended_reply_is_malformed(
        reply in reply(),
        cut in any::<prop::sample::Index>(),
    ) {
        // The text of an error may have any length.
        prop_assume!(!matches!(reply, Reply::Error(_)));
        let mut bytes = reply.encode(1);
        prop_assert_eq!(Reply::decode(&bytes[..cut.index(bytes.len())]), Err(Malformed::Short));
        bytes.push(0);
        prop_assert_eq!(Reply::decode(&bytes), Err(Malformed::Long));
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        op in 0u32..9,
    ) {
        // Whatever decodes, encodes and decodes to the same again.
        for op in [op, op | 0x8000_0000] {
            let bytes = [&op.to_le_bytes()[..], &bytes].concat();
            if let Ok((seq, request)) = Request::decode(&bytes) {
                prop_assert_eq!(Request::decode(&request.encode(seq)), Ok((seq, request)));
            }
            if let Ok((seq, reply)) = Reply::decode(&bytes) {
                prop_assert_eq!(Reply::decode(&reply.encode(seq)), Ok((seq, reply)));
            }
        }
    }
}

fn message(op: u32, fields: &[&[u8]]) -> Vec<u8> {
    [&op.to_le_bytes()[..], &7u32.to_le_bytes(), &fields.concat()].concat()
}

/// The bytes that any other implementation must produce.
#[test]
fn the_layout_matches_the_documentation() {
    let share = Request::Share {
        peer: 0x0102,
        pages: 3,
        access: Access::ReadWrite,
    };
    assert_eq!(
        share.encode(0x0a0b_0c0d),
        [
            2, 0, 0, 0, 0x0d, 0x0c, 0x0b, 0x0a, 2, 1, 3, 0, 0, 0, 1, 0, 0, 0
        ]
    );
    let lowest_free = Request::Hello {
        version: 1,
        domid: None,
    };
    assert_eq!(
        lowest_free.encode(1),
        [1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255]
    );
    let welcome = Reply::Welcome {
        version: 1,
        domid: 5,
    };
    assert_eq!(
        welcome.encode(1),
        [1, 0, 0, 0x80, 1, 0, 0, 0, 1, 0, 0, 0, 5, 0]
    );
    let taken = Reply::Error(Error::new(ErrorKind::DomidTaken, "5"));
    assert_eq!(
        taken.encode(1),
        [0, 0, 0, 0x80, 1, 0, 0, 0, 3, 0, 1, 0, b'5']
    );
}

#[test]
fn invalid_fields_are_refused() {
    let one = &1u32.to_le_bytes()[..];
    let zero = &0u32.to_le_bytes()[..];
    let all = &u32::MAX.to_le_bytes()[..];
    let peer = &5u16.to_le_bytes()[..];
    let reserved = &(DOMID_MAX + 1).to_le_bytes()[..];
    let beyond = &(SHARE_PAGES_MAX + 1).to_le_bytes()[..];
    let version = &VERSION.to_le_bytes()[..];
    let field = |bytes: Vec<u8>| match Request::decode(&bytes) {
        Err(Malformed::Field(name)) => name,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        field(message(1, &[version, &0x7ff0u32.to_le_bytes()])),
        "domid"
    );
    assert_eq!(
        field(message(1, &[version, &0x1_0005u32.to_le_bytes()])),
        "domid"
    );
    assert_eq!(field(message(2, &[reserved, one, one])), "domid");
    assert_eq!(field(message(2, &[peer, zero, one])), "pages");
    assert_eq!(field(message(2, &[peer, beyond, one])), "pages");
    assert_eq!(field(message(2, &[peer, one, all])), "access");
    assert_eq!(field(message(4, &[peer, zero])), "count");
    assert_eq!(field(message(4, &[peer, all])), "count");
    assert_eq!(
        Request::decode(&message(4, &[peer, one])),
        Err(Malformed::Short)
    );
    assert_eq!(Request::decode(&message(0, &[])), Err(Malformed::Op(0)));
    assert_eq!(Request::decode(&message(8, &[])), Err(Malformed::Op(8)));
    // A reply is not a request, nor the reverse.
    assert_eq!(
        Request::decode(&message(0x8000_0005, &[one])),
        Err(Malformed::Op(0x8000_0005))
    );
    assert_eq!(Reply::decode(&message(5, &[one])), Err(Malformed::Op(5)));
    // Notices have no reply.
    for notice in [0x8000_0003, 0x8000_0007] {
        assert_eq!(
            Reply::decode(&message(notice, &[one])),
            Err(Malformed::Op(notice))
        );
    }
    assert_eq!(
        Request::decode(&vec![0; MESSAGE_MAX + 1]),
        Err(Malformed::Long)
    );
}

#[test]
fn runs_outside_a_share_are_refused() {
    let reply = |run: [u32; 4]| {
        let run: Vec<u8> = run.iter().flat_map(|n| n.to_le_bytes()).collect();
        Reply::decode(&message(0x8000_0004, &[&1u32.to_le_bytes(), &run]))
    };
    assert!(reply([252, 1023, 1, 1]).is_ok());
    for wrong in [
        [253, 0, 1, 1],
        [0, 0, 0, 1],
        [0, 1024, 1, 1],
        [0, 1, 1024, 1],
        [0, u32::MAX, 2, 1],
        [0, 0, u32::MAX, 1],
    ] {
        assert_eq!(reply(wrong), Err(Malformed::Field("run")), "{wrong:?}");
    }
    assert_eq!(reply([0, 0, 1, 2]), Err(Malformed::Field("access")));
}

/// Two versions that do not match must still be able to report it.
#[test]
fn another_version_is_recognised_whatever_follows() {
    let other = (VERSION + 1).to_le_bytes();
    for rest in [&[][..], &[9; 100]] {
        assert_eq!(
            Request::decode(&message(1, &[&other, rest])),
            Ok((
                7,
                Request::Hello {
                    version: VERSION + 1,
                    domid: None
                }
            ))
        );
        assert_eq!(
            Reply::decode(&message(0x8000_0001, &[&other, rest])),
            Ok((
                7,
                Reply::Welcome {
                    version: VERSION + 1,
                    domid: 0
                }
            ))
        );
    }
}

#[test]
fn a_long_text_is_truncated_between_characters() {
    let what = "é".repeat(TEXT_MAX);
    let bytes = Reply::Error(Error::new(ErrorKind::BadRunDir, format!("x{what}"))).encode(1);
    let (_, Reply::Error(error)) = Reply::decode(&bytes).unwrap() else {
        panic!("not an error");
    };
    assert_eq!(error.what.len(), TEXT_MAX - 1);
    assert!(error.what.ends_with('é'));
    // Any bytes are accepted as text.
    let broken = message(0x8000_0000, &[&2u32.to_le_bytes(), &[0xff; 4 * TEXT_MAX]]);
    assert!(matches!(Reply::decode(&broken), Ok((7, Reply::Error(_)))));
}

#[test]
fn references_combine_share_and_page() {
    let last = gref((1 << 22) - 1, SHARE_PAGES_MAX - 1);
    assert_eq!(last, u32::MAX);
    assert_eq!((share_of(last), page_of(last)), ((1 << 22) - 1, 1023));
    assert_eq!((share_of(gref(3, 0)), page_of(gref(3, 0))), (3, 0));
}

#[test]
fn only_notices_have_no_reply() {
    assert!(!Request::Unshare { first_ref: 0 }.has_reply());
    assert!(!Request::Close { port: 0 }.has_reply());
    assert!(Request::Alloc { peer: 0 }.has_reply());
}
