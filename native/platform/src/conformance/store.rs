//! The xenstore connection, and the lifetime of a domain.

use super::{Case, Stage};

pub(super) const CASES: &[Case] = &[
    ("xenstore replies about any domain", store_replies),
    ("a domain stays alive until it is ended", stays_alive),
];

fn store_replies(s: &mut Stage) {
    for actor in [&s.a, &s.b, &s.c] {
        for domid in [actor.domid(), s.a.domid(), 0] {
            let home = actor.home(domid).unwrap();
            assert_eq!(home, format!("/local/domain/{domid}"));
        }
    }
}

fn stays_alive(s: &mut Stage) {
    for actor in [&s.a, &s.b, &s.c] {
        assert_eq!(actor.alive(), Ok(true));
    }
}
