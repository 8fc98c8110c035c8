//! The two halves of a link, each used under its own lock: [`Sender`] and [`Receiver`].

mod busy_poll;
mod deferred;
mod reassembly;
mod receiver;
mod sender;
mod spin;

pub(crate) use deferred::Deferred;
pub(crate) use receiver::Receiver;
pub(crate) use sender::{Put, Sender, SenderInfo};
