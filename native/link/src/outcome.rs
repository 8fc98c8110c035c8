//! The outcomes of a link's calls, and what its driver does next.

/// The outcome of a [`Link::send`](crate::Link::send).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The message is wholly in the ring.
    Whole,
    /// So many of its bytes are; call again with that number.
    More(u64),
    /// So many of its bytes are. The sender is registered, and is woken when it should call again.
    Wait(u64),
}

/// The outcome of a [`Link::recv`](crate::Link::recv).
#[derive(Debug, PartialEq, Eq)]
pub enum Received<B> {
    /// A message that was in the ring in one piece; the sink has it.
    Small,
    /// A message that came in several pieces.
    Long(B),
    /// Part of a long message was taken; call again.
    More,
    /// The ring is empty, and the link is busy-polled: yield, and call again.
    Poll,
    /// The ring is empty. The owner is registered, and is woken when there is data.
    Wait,
}

/// The outcome of a [`Link::recv_many`](crate::Link::recv_many).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathered {
    /// The sink has so many messages, at least one.
    Messages(usize),
    /// Part of a long message was taken; call again.
    More,
    /// As [`Received::Poll`].
    Poll,
    /// The ring is empty. The owner is registered, and is woken when there is data.
    Wait,
}

/// The outcome of a [`Link::busy_poll`](crate::Link::busy_poll).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// There is something: call [`Link::deliver_now`](crate::Link::deliver_now).
    Ready,
    /// The ring is empty: yield, and poll again.
    Again,
    /// The ring is empty, or its data is not wanted. The poller is registered, and is woken when it
    /// should poll again.
    Wait,
}

/// Active mode: whether messages are delivered to the owner without a receive call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Active {
    /// Never.
    Passive,
    /// Always.
    Always,
    /// The next message, with no report afterwards.
    Once,
    /// The next so many messages, with a report after the last. Never 0.
    Count(u32),
}

impl Active {
    /// Whether messages are delivered now.
    pub fn is_active(self) -> bool {
        self != Active::Passive
    }

    /// `self` set to `new`: counts add up, so that an owner can extend one in time.
    #[must_use]
    pub(crate) fn set(self, new: Active) -> Active {
        match (self, new) {
            (Active::Count(left), Active::Count(more)) => Active::Count(left.saturating_add(more)),
            (_, Active::Count(0)) => Active::Passive,
            _ => new,
        }
    }
}

/// How a round of deliveries ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Delivered {
    /// The owner is not, or no longer, active.
    Passive,
    /// The ring is empty. If the receiver was armed, the next record notifies.
    Empty,
    /// The ring is empty, and nothing more will come.
    End,
    /// There is more, but this call has done enough.
    Budget,
}

/// What the driver of a link does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Wait for the next notification.
    Idle,
    /// Wait: the notification was left pending, so the descriptor is still readable.
    Ready,
    /// Call [`Link::resume`](crate::Link::resume) soon: there is more to deliver, and no
    /// notification will come for it.
    Later,
}

impl Outcome {
    /// The outcome of a round of deliveries with no notification pending.
    pub(crate) fn after(delivered: Delivered) -> Outcome {
        match delivered {
            Delivered::Budget => Outcome::Later,
            _ => Outcome::Idle,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Active::{Always, Count, Once, Passive};

    #[test]
    fn counts_add_up_and_other_values_replace() {
        assert_eq!(Count(2).set(Count(3)), Count(5));
        assert_eq!(Count(u32::MAX).set(Count(3)), Count(u32::MAX));
        assert_eq!(Passive.set(Count(3)), Count(3));
        assert_eq!(Passive.set(Count(0)), Passive);
        assert_eq!(Always.set(Count(3)), Count(3));
        for active in [Passive, Always, Once, Count(1)] {
            for new in [Passive, Always, Once] {
                assert_eq!(active.set(new), new);
            }
        }
    }
}
