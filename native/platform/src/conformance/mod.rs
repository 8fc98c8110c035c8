//! The conformance suite for every implementation of [`Platform`](crate::Platform).
//!
//! A case controls three [`Actor`]s, each in its own domain, through plain data: handles,
//! references, bytes. The actors may be three memberships in one process ([`Member`]), or stubs
//! ([`Remote`]) for processes in three real domains, which [`serve`] the same calls over a pipe.
//!
//! [`run`] runs all cases in order. Before and after each it counts the resources of the actors: a
//! case that leaks any fails.

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

/// The differences between platforms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traits {
    /// The other end notices when an event channel is closed. Xen sends no event.
    pub reports_peer_gone: bool,
    /// A notification sent before the other end is bound arrives after it. Xen can lose it.
    pub keeps_early_notifications: bool,
    /// Errors name their cause. A hypervisor reports `EINVAL` for many.
    pub says_why: bool,
    /// A domain may be its own peer. On Xen that crashes Linux.
    pub peer_may_be_self: bool,
}

/// Three domains, and the traits of their platform.
pub struct Stage {
    /// The sharer in most cases.
    pub a: Box<dyn Actor>,
    /// Its peer.
    pub b: Box<dyn Actor>,
    /// A third domain, which has no rights to what the other two share.
    pub c: Box<dyn Actor>,
    /// The traits of their platform.
    pub traits: Traits,
    /// How often to repeat: a few hundred times in one process, fewer if each call crosses a pipe.
    pub rounds: usize,
}

/// Time limit for an expected event.
const SOON: Duration = Duration::from_secs(5);

type Case = (&'static str, fn(&mut Stage));

/// Runs all cases.
///
/// # Panics
/// If a case fails. Its name is printed first.
pub fn run(stage: &mut Stage) {
    let cases = [grants::CASES, channels::CASES, store::CASES, leaks::CASES].concat();
    // The first use of anything may allocate permanently.
    leaks::warm_up(stage);
    for (name, case) in cases {
        println!("conformance: {name}");
        let before = stage.footprints();
        case(stage);
        assert_eq!(stage.footprints(), before, "{name}: resources leaked");
    }
}

impl Stage {
    fn footprints(&mut self) -> [Footprint; 3] {
        for actor in [&mut self.a, &mut self.b, &mut self.c] {
            settle(actor.as_mut());
        }
        [self.a.footprint(), self.b.footprint(), self.c.footprint()]
    }

    /// Checks that a call was refused, and with this error if the platform names causes.
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

/// Returns once the platform has processed all that this actor released. It processes requests in
/// order, so make two that fail without any other effect.
fn settle(actor: &mut dyn Actor) {
    let domid = actor.domid();
    let nothing = actor.map(domid ^ 1, &[Gref::MAX], Access::ReadWrite, None);
    assert!(nothing.is_err());
    assert!(actor.bind(domid ^ 1, u32::MAX).is_err());
}
