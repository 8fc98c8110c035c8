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
