//! No resources leak, in whatever order things end.

use super::{Case, Stage};
use crate::{Access, Notify};

pub(super) const CASES: &[Case] = &[
    ("rounds leak nothing", rounds),
    ("refused calls leak nothing", refusals),
];

/// Triggers all one-time allocations.
pub(super) fn warm_up(s: &mut Stage) {
    round(s, 0);
    s.footprints();
}

/// The pages and channels of one tube. `number` selects the order in which they end.
fn round(s: &mut Stage, number: usize) {
    let (a, b) = (s.a.domid(), s.b.domid());
    let (our_channel, port) = s.a.unbound(b).unwrap();
    let notify = Some(Notify { offset: 8, port });
    let (control, control_refs) = s.a.share(b, 1, Access::ReadWrite, notify).unwrap();
    let (data, data_refs) = s.a.share(b, 16, Access::ReadOnly, None).unwrap();
    if number.is_multiple_of(5) {
        // The peer never binds.
        s.a.unmap(control);
        s.a.unmap(data);
        s.a.close(our_channel);
        return;
    }
    let (their_channel, port) = s.b.bind(a, port).unwrap();
    let notify = Some(Notify { offset: 9, port });
    let their_control =
        s.b.map(a, &control_refs, Access::ReadWrite, notify)
            .unwrap();
    let their_data = s.b.map(a, &data_refs, Access::ReadOnly, None).unwrap();
    s.a.notify(our_channel).unwrap();
    if number.is_multiple_of(2) {
        s.a.close(our_channel);
        s.a.unmap(control);
        s.a.unmap(data);
        s.b.unmap(their_data);
        s.b.unmap(their_control);
        s.b.close(their_channel);
    } else {
        s.b.unmap(their_control);
        s.b.unmap(their_data);
        s.b.close(their_channel);
        s.a.unmap(data);
        s.a.unmap(control);
        s.a.close(our_channel);
    }
}

fn rounds(s: &mut Stage) {
    for number in 0..s.rounds {
        round(s, number);
    }
}

fn refusals(s: &mut Stage) {
    let (a, b) = (s.a.domid(), s.b.domid());
    let (ours, refs) = s.a.share(b, 2, Access::ReadOnly, None).unwrap();
    let (our_channel, port) = s.a.unbound(b).unwrap();
    for _ in 0..s.rounds {
        assert!(s.b.map(a, &refs, Access::ReadWrite, None).is_err());
        assert!(s.c.map(a, &refs, Access::ReadOnly, None).is_err());
        assert!(s.c.bind(a, port).is_err());
        assert!(s.a.share(b, 0, Access::ReadOnly, None).is_err());
    }
    s.a.unmap(ours);
    s.a.close(our_channel);
}
