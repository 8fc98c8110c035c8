//! The words in which a link answers.

use crate::rx::Delivered;

/// What became of a [`Link::send`](crate::Link::send).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The message is wholly in the ring.
    Whole,
    /// So many of its bytes are; call again with that number.
    More(u64),
    /// So many of its bytes are. The sender is registered and will be told when to call again.
    Wait(u64),
}

/// What became of a [`Link::recv`](crate::Link::recv).
#[derive(Debug, PartialEq, Eq)]
pub enum Received<B> {
    /// A message that was in the ring in one piece; it is where the caller wanted it.
    Small,
    /// A message that came in several pieces.
    Long(B),
    /// Part of a long message was taken; call again.
    More,
    /// Nothing there, and the link is polled: let others run, and call again.
    Poll,
    /// Nothing there. The owner is registered and will be told when there is.
    Wait,
}

/// What became of a [`Link::recv_many`](crate::Link::recv_many).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gathered {
    /// So many messages, at least one, are where the caller wanted them.
    Messages(usize),
    /// Part of a long message was taken; call again.
    More,
    /// As of [`Received::Poll`].
    Poll,
    /// Nothing there. The owner is registered and will be told when there is.
    Wait,
}

/// What a look at a polled link says: see [`Link::poll`](crate::Link::poll).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Polled {
    /// There is something: [`Link::deliver_now`](crate::Link::deliver_now).
    Ready,
    /// Nothing there: let others run, and look again.
    Again,
    /// Nothing there, or nobody wants it. The poller is registered and will be told when to look again.
    Wait,
}

/// Why a call did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkError {
    /// Our end is closed or has finished, or the peer has finished and all is taken.
    Closed,
    /// The peer's end has gone without having finished.
    PeerDown,
    /// So has its whole domain, as whoever called [`Link::cut`](crate::Link::cut) says.
    DomainGone,
    /// Our side had to let go of it, because the machine is to be suspended.
    Suspended,
    /// The peer wrote something impossible.
    Protocol,
    /// The message is longer than the peer takes.
    TooLong,
    /// The call does not fit what was called before.
    Invalid,
    /// Only the owner may.
    NotOwner,
    /// No memory for the message, which stays where it is.
    NoMemory,
}

/// When messages are delivered without being asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Active {
    /// Never.
    Passive,
    /// Always.
    Always,
    /// The next message, and no word when it was the last.
    Once,
    /// The next so many messages, and word when they are used up. Never 0.
    Count(u32),
}

impl Active {
    /// Whether messages are to be delivered now.
    pub fn is_active(self) -> bool {
        self != Active::Passive
    }

    /// `self` after `asked` was asked for: counts add up, so that an owner can top up in time.
    #[must_use]
    pub fn turn(self, asked: Active) -> Active {
        match (self, asked) {
            (Active::Count(left), Active::Count(more)) => Active::Count(left.saturating_add(more)),
            (_, Active::Count(0)) => Active::Passive,
            _ => asked,
        }
    }
}

/// What the driver of a link must do for the work to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing: the next bell says when.
    Idle,
    /// Nothing: the bell was left pending, so the descriptor is still readable.
    Ready,
    /// Call [`Link::resume`](crate::Link::resume) soon: there is more to deliver, and no bell to say so.
    Later,
}

impl Outcome {
    /// What follows from a round of deliveries that was not owed to the bell.
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
        assert_eq!(Count(2).turn(Count(3)), Count(5));
        assert_eq!(Count(u32::MAX).turn(Count(3)), Count(u32::MAX));
        assert_eq!(Passive.turn(Count(3)), Count(3));
        assert_eq!(Passive.turn(Count(0)), Passive);
        assert_eq!(Always.turn(Count(3)), Count(3));
        for active in [Passive, Always, Once, Count(1)] {
            for asked in [Passive, Always, Once] {
                assert_eq!(active.turn(asked), asked);
            }
        }
    }
}
