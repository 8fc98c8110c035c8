//! Waits for descriptors and deadlines.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// Identifies a registered descriptor. Tokens are never reused, so a late event of a closed
/// descriptor matches nothing.
pub type Token = u64;

/// What to wait for on a descriptor. End of file and errors are always reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Room to write.
    Write,
    /// Both.
    ReadWrite,
    /// Neither.
    Nothing,
}

/// The readiness of a descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ready {
    /// The descriptor.
    pub token: Token,
    /// A read will not block: data, end of file or an error.
    pub read: bool,
    /// A write will not block.
    pub write: bool,
}

/// Level-triggered epoll, and a set of deadlines, at most one per token.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    last: Token,
    deadlines: BTreeSet<(Instant, Token)>,
    deadline_of: HashMap<Token, Instant>,
}

impl Poller {
    /// Creates one that waits for nothing yet.
    ///
    /// # Errors
    /// Those of `epoll_create`.
    pub fn new() -> Result<Poller, Errno> {
        Ok(Poller {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            last: 0,
            deadlines: BTreeSet::new(),
            deadline_of: HashMap::new(),
        })
    }

    /// Registers a descriptor.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn add(&mut self, fd: impl AsFd, interest: Interest) -> Result<Token, Errno> {
        let token = self.last + 1;
        epoll::add(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(token),
            flags(interest),
        )?;
        self.last = token;
        Ok(token)
    }

    /// Changes what to wait for on a descriptor.
    ///
    /// # Errors
    /// Those of `epoll_ctl`.
    pub fn change(&self, token: Token, fd: impl AsFd, interest: Interest) -> Result<(), Errno> {
        epoll::modify(
            &self.epoll,
            fd,
            epoll::EventData::new_u64(token),
            flags(interest),
        )
    }

    /// Deregisters a descriptor. Call it before closing the descriptor: a duplicate in another
    /// process would keep it registered.
    pub fn remove(&mut self, token: Token, fd: impl AsFd) {
        self.set_deadline(token, None);
        // It is registered; no other error is possible.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Sets or clears the deadline of a token. [`Poller::take_expired`] returns it once it has
    /// passed.
    pub fn set_deadline(&mut self, token: Token, deadline: Option<Instant>) {
        if let Some(old) = self.deadline_of.remove(&token) {
            self.deadlines.remove(&(old, token));
        }
        if let Some(new) = deadline {
            self.deadline_of.insert(token, new);
            self.deadlines.insert((new, token));
        }
    }

    /// Whether a token has a deadline.
    pub fn has_deadline(&self, token: Token) -> bool {
        self.deadline_of.contains_key(&token)
    }

    /// Clears one deadline that has passed and returns its token.
    pub fn take_expired(&mut self, now: Instant) -> Option<Token> {
        let &(deadline, token) = self.deadlines.first()?;
        if deadline > now {
            return None;
        }
        self.set_deadline(token, None);
        Some(token)
    }

    /// Waits until a descriptor is ready or a deadline has passed, `until` being one more. A signal
    /// ends the wait early.
    ///
    /// # Errors
    /// Those of `epoll_wait`.
    pub fn wait(&self, until: Option<Instant>) -> Result<Vec<Ready>, Errno> {
        let first = self.deadlines.first().map(|&(deadline, _)| deadline);
        let until = [first, until].into_iter().flatten().min();
        // Rounded up to whole milliseconds, the unit of epoll_wait: waking early would busy-loop
        // until the deadline.
        let timeout = until.map(|until| {
            let millis = until
                .saturating_duration_since(Instant::now())
                .as_micros()
                .div_ceil(1000);
            let millis = i64::try_from(millis).unwrap_or(i64::MAX).min(3_600_000);
            Timespec {
                tv_sec: millis / 1000,
                tv_nsec: millis % 1000 * 1_000_000,
            }
        });
        let mut events = Vec::with_capacity(128);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        ) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
        Ok(events.iter().map(ready).collect())
    }
}

fn flags(interest: Interest) -> epoll::EventFlags {
    match interest {
        Interest::Read => epoll::EventFlags::IN,
        Interest::Write => epoll::EventFlags::OUT,
        Interest::ReadWrite => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        Interest::Nothing => epoll::EventFlags::empty(),
    }
}

fn ready(event: &epoll::Event) -> Ready {
    let epoll::Event { flags, data } = *event;
    let ended = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
    Ready {
        token: data.u64(),
        read: flags.intersects(epoll::EventFlags::IN | ended),
        write: flags.intersects(epoll::EventFlags::OUT | ended),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn deadlines_expire_once_and_in_order() {
        let mut poller = Poller::new().expect("epoll");
        let start = Instant::now();
        let later = start + Duration::from_millis(2);
        poller.set_deadline(7, Some(later));
        poller.set_deadline(8, Some(start));
        poller.set_deadline(9, Some(start));
        poller.set_deadline(9, None);
        assert_eq!(poller.take_expired(start), Some(8));
        assert_eq!(poller.take_expired(start), None);
        assert!(poller.wait(None).expect("waited").is_empty());
        assert!(Instant::now() >= later);
        assert_eq!(poller.take_expired(Instant::now()), Some(7));
        assert!(!poller.has_deadline(7));
    }

    #[test]
    fn descriptors_are_reported_until_removed() {
        let mut poller = Poller::new().expect("epoll");
        let (here, there) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let token = poller.add(&here, Interest::Read).expect("added");
        drop(there);
        let ready = poller.wait(None).expect("waited");
        assert_eq!(
            ready,
            [Ready {
                token,
                read: true,
                write: true
            }]
        );
        poller.remove(token, &here);
        assert!(
            poller
                .wait(Some(Instant::now()))
                .expect("waited")
                .is_empty()
        );
        assert_ne!(poller.add(&here, Interest::Read).expect("added"), token);
    }
}
