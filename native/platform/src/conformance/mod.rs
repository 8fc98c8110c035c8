//! What every implementation of [`Platform`](crate::Platform) has to do, written once.
//!
//! A case speaks to three [`Actor`]s, each in a domain of its own, in plain
//! data: handles, references, bytes. So the actors may be three memberships in
//! one process ([`Member`]), or stubs ([`Remote`]) for processes in three real
//! domains, which [`serve`] the same calls over a wire.
//!
//! [`run`] plays all cases one after the other and, around each, counts what
//! the actors hold of the system: a case that leaves something behind fails.

mod actor;
mod channels;
mod grants;
mod leaks;
mod store;
mod wire;

use std::time::Duration;

pub use actor::{Actor, Channel, Footprint, Mapped, Member};
pub use wire::{Remote, serve};

use crate::{Access, Errno, Error, ErrorKind, Gref};

/// Where platforms may differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// A closed event channel is noticed at the other end. Xen sends no event.
    pub reports_peer_gone: bool,
    /// A bell rung before the other end was bound is heard after it. On Xen it
    /// can be lost.
    pub keeps_early_notifications: bool,
    /// Errors name their cause. A hypervisor says `EINVAL` to much.
    pub says_why: bool,
    /// A domain may have itself as its peer. On Xen that crashes Linux.
    pub peer_may_be_self: bool,
}

/// Three domains, and what to expect of them.
pub struct Stage {
    /// The sharer, mostly.
    pub a: Box<dyn Actor>,
    /// Its peer.
    pub b: Box<dyn Actor>,
    /// A third domain that has no business with the two.
    pub c: Box<dyn Actor>,
    /// Of the platform that they are on.
    pub traits: Traits,
    /// How often what is done many times is done: some hundred times in one process,
    /// less where each call goes over a wire.
    pub rounds: usize,
}

/// How long an event may take that has to come.
const SOON: Duration = Duration::from_secs(5);

type Case = (&'static str, fn(&mut Stage));

/// Plays all cases.
///
/// # Panics
/// When one fails, after saying which.
pub fn run(stage: &mut Stage) {
    let cases = [grants::CASES, channels::CASES, store::CASES, leaks::CASES].concat();
    // The first use of anything may allocate for good.
    leaks::warm_up(stage);
    for (name, case) in cases {
        println!("conformance: {name}");
        let before = stage.footprints();
        case(stage);
        assert_eq!(stage.footprints(), before, "{name} leaves something behind");
    }
}

impl Stage {
    fn footprints(&mut self) -> [Footprint; 3] {
        for actor in [&mut self.a, &mut self.b, &mut self.c] {
            settle(actor.as_mut());
        }
        [self.a.footprint(), self.b.footprint(), self.c.footprint()]
    }

    /// Checks that something was refused, and for this reason where the
    /// platform says why.
    #[track_caller]
    fn refused<T>(&self, result: Result<T, Error>, why: Errno) {
        match result {
            Ok(_) => panic!("not refused"),
            Err(error) if self.traits.says_why => {
                assert_eq!(error.kind, ErrorKind::Posix(why), "{error}");
            }
            Err(_) => {}
        }
    }
}

/// Returns when the platform has taken in all that this actor has let go of: its
/// requests are taken in order, so these two, which are refused and leave nothing
/// behind, come after it.
fn settle(actor: &mut dyn Actor) {
    let domid = actor.domid();
    let nothing = actor.map(domid ^ 1, &[Gref::MAX], Access::ReadWrite, None);
    assert!(nothing.is_err());
    assert!(actor.bind(domid ^ 1, u32::MAX).is_err());
}
