//! A link: two halves and a status. `connect` makes one; `notified` has the calls of its driver.

mod busy_poll;
mod connect;
mod info;
mod notified;

use crate::channel::Channel;
use crate::error::{Fail, LinkError};
use crate::half::{Active, Deferred, Put, Receiver, Sender};
use crate::memory::SharedPages;
use crate::outcome::{Gathered, Received, Sent};
use crate::status::{End, Event, Status};
use crate::vm::{BatchSink, Deliver, MessageSink, Notifier, Vm};
use crossbeam_utils::CachePadded;
use std::sync::{Arc, Mutex, PoisonError};

pub use connect::{Offer, Refs};
pub use info::Info;

/// One end of a tube. Once closed, it is empty, even while handles to it remain.
pub struct Link<V: Vm> {
    // A half whose lock is poisoned counts as closed: do not trust what a panic left behind.
    // Padded, since sender and receiver run on different schedulers, each using its own lock.
    tx: CachePadded<Mutex<Option<Sender<V::Process>>>>,
    rx: CachePadded<Mutex<Option<Receiver<V>>>>,
    status: Status,
    /// Held while events are reported, so that they arrive in their order.
    reporting: Mutex<()>,
}

impl<V: Vm> Link<V> {
    fn new(pages: SharedPages, max_message: u32) -> Link<V> {
        let pages = Arc::new(pages);
        // SAFETY: once for these pages. Each half holds them, and drops them after its ring end.
        let (producer, consumer) = unsafe { pages.ends(max_message) };
        Link {
            tx: Mutex::new(Some(Sender::new(producer, pages.clone()))).into(),
            rx: Mutex::new(Some(Receiver::new(consumer, pages))).into(),
            status: Status::default(),
            reporting: Mutex::new(()),
        }
    }

    /// Sets the owner and starts the reporting of events. Call [`resume`](Self::resume) afterwards:
    /// the peer may have been faster.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn start(&self, owner: V::Process) -> Result<(), LinkError> {
        self.with_rx(&mut Deferred::default(), |rx, _| {
            rx.start(owner);
            Ok(())
        })?;
        self.status.start();
        Ok(())
    }

    /// Hands the receiving half to another process. The old owner's wait ends.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn set_owner(
        &self,
        owner: V::Process,
        notifier: &impl Notifier<V::Process>,
    ) -> Result<(), LinkError> {
        let mut deferred = Deferred::default();
        let done = self.with_rx(&mut deferred, |rx, deferred| {
            rx.set_owner(owner, deferred);
            Ok(())
        });
        self.finish(deferred, notifier);
        done
    }

    /// Sets the active mode, `by` a process or by the connection (`None`). Call
    /// [`resume`](Self::resume) afterwards.
    ///
    /// # Errors
    /// [`LinkError::NotOwner`], [`LinkError::Closed`].
    pub fn set_active(&self, by: Option<V::Process>, active: Active) -> Result<(), LinkError> {
        self.with_rx(&mut Deferred::default(), |rx, _| rx.set_active(by, active))
    }

    /// Announces that a suspension is about to close or cut the link: from here on that is the
    /// reason of its end, even if the peer finishes in response.
    pub fn suspend(&self) {
        self.status.suspend();
    }

    /// Ends the link from this side, for the reason `why`: the peer counts as gone, and everything
    /// shared is released before this returns. Data that had arrived is still delivered, and then
    /// the reason. Call [`resume`](Self::resume) afterwards.
    pub fn cut(&self, why: LinkError) {
        self.status.raise_gone(why);
        self.leave_pages(true);
    }

    /// Takes only messages of up to `most` bytes from here on, if that is below the announced
    /// limit. A longer one ends the link before any memory is allocated for it.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn restrict(&self, most: u32) -> Result<(), LinkError> {
        self.with_rx(&mut Deferred::default(), |rx, _| {
            rx.restrict(most);
            Ok(())
        })
    }

    /// From here on, spins for a shorter time before sleeping mid-stream. Use it where other
    /// callers wait for the link's locks.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn shorten_spin(&self) -> Result<(), LinkError> {
        let deferred = &mut Deferred::default();
        self.with_rx(deferred, |rx, _| {
            rx.shorten_spin();
            Ok(())
        })?;
        self.with_tx(deferred, |tx, _| {
            tx.shorten_spin();
            Ok(())
        })
    }

    /// Whether the peer's end is gone. The descriptor then stays readable, so do not poll it.
    pub fn is_gone(&self) -> bool {
        self.status.now().has(Event::Gone)
    }

    /// The event channel, while the link is open.
    pub fn channel(&self) -> Option<Arc<Channel>> {
        let tx = self.tx.lock().ok()?;
        tx.as_ref().map(|tx| tx.backing().channel().clone())
    }

    /// Releases everything. Messages already in the ring still reach the peer. Wakes waiting
    /// processes, and delivers the end to an active owner if the link broke and it does not know
    /// yet.
    pub fn close(&self, target: &mut impl Deliver<V>) {
        let mut deferred = Deferred::default();
        // Even if poisoned: this only takes things apart.
        let tx = self
            .tx
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let rx = self
            .rx
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut tx) = tx {
            tx.end(&mut deferred);
        }
        if let Some(mut rx) = rx {
            if let Some(fault) = self.status.now().fault() {
                rx.deliver_end(target, Some(fault));
            }
            rx.end();
            rx.wake_owner(&mut deferred);
            rx.wake_poller(&mut deferred);
        }
        // Unmapping the pages has notified the peer.
        self.finish(deferred, target);
    }
}

/// Sending, by any process.
impl<V: Vm> Link<V> {
    /// The fast path: puts a short message into the ring, if that is all there is to do. `false`:
    /// nothing was done; [`send`](Self::send) does it or says why not.
    #[inline]
    pub fn put(&self, message: &[u8]) -> bool {
        if !self.status.now().is_undisturbed() {
            return false;
        }
        let Ok(mut half) = self.tx.lock() else {
            return false;
        };
        let Some(tx) = half.as_mut() else {
            return false;
        };
        match tx.put_one(message) {
            Put::No => false,
            Put::Done => true,
            Put::Notify => {
                let channel = tx.backing().channel().clone();
                drop(half);
                channel.notify();
                true
            }
        }
    }

    /// Puts the next part of `message` into the ring; `done` is what the last call for it returned,
    /// at first 0.
    ///
    /// # Errors
    /// Every [`LinkError`] except those of the receiving side.
    pub fn send(
        &self,
        sender: V::Process,
        message: &[u8],
        done: u64,
        notifier: &impl Notifier<V::Process>,
    ) -> Result<Sent, LinkError> {
        self.send_parts(sender, &[message], done, notifier)
    }

    /// [`send`](Self::send) of a message in several parts, the same in each call for it.
    ///
    /// # Errors
    /// As `send`.
    pub fn send_parts<B: AsRef<[u8]>>(
        &self,
        sender: V::Process,
        parts: &[B],
        done: u64,
        notifier: &impl Notifier<V::Process>,
    ) -> Result<Sent, LinkError> {
        let mut deferred = Deferred::default();
        let sent = self.with_tx(&mut deferred, |tx, deferred| {
            self.status.now().may_send()?;
            tx.send(sender, parts, done, deferred)
        });
        self.finish(deferred, notifier);
        sent
    }

    /// Puts messages into the ring, within the limits of one call. Returns how many are whole, and
    /// the outcome of the next one: [`Sent::Whole`] if there is none, and [`Sent::More`] of no
    /// bytes if the limits were reached.
    pub fn send_many<'m>(
        &self,
        sender: V::Process,
        messages: &mut impl Iterator<Item = &'m [u8]>,
        notifier: &impl Notifier<V::Process>,
    ) -> (usize, Result<Sent, LinkError>) {
        let (mut deferred, mut count) = (Deferred::default(), 0);
        let next = self.with_tx(&mut deferred, |tx, deferred| {
            self.status.now().may_send()?;
            let (whole, next) = tx.send_many(sender, messages, deferred);
            count = whole;
            next
        });
        self.finish(deferred, notifier);
        (count, next)
    }

    /// Ends the sender's wait, and aborts its message if part of it is in the ring.
    ///
    /// # Errors
    /// [`LinkError::Closed`], [`LinkError::Protocol`].
    pub fn cancel(
        &self,
        sender: V::Process,
        notifier: &impl Notifier<V::Process>,
    ) -> Result<(), LinkError> {
        let mut deferred = Deferred::default();
        let done = self.with_tx(&mut deferred, |tx, deferred| tx.cancel(sender, deferred));
        self.finish(deferred, notifier);
        done
    }

    /// Declares that nothing more will be sent; a message in progress may still be completed.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn shutdown(&self, notifier: &impl Notifier<V::Process>) -> Result<(), LinkError> {
        let mut deferred = Deferred::default();
        let done = self.with_tx(&mut deferred, |tx, deferred| {
            tx.shutdown(deferred);
            Ok(())
        });
        self.finish(deferred, notifier);
        done
    }
}

/// Receiving, by a passive owner.
impl<V: Vm> Link<V> {
    /// The next message, for a passive owner.
    ///
    /// # Errors
    /// Every [`LinkError`] except those of the sending side. [`LinkError::Invalid`] if active.
    pub fn recv(
        &self,
        owner: V::Process,
        sink: &mut impl MessageSink,
        notifier: &impl Notifier<V::Process>,
    ) -> Result<Received<V::Buffer>, LinkError> {
        self.receive(owner, notifier, |rx, end, deferred| {
            rx.recv(owner, sink, end, deferred)
        })
    }

    /// As many messages as are there, for a passive owner: at most `most`, and within the limits of
    /// one call.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and only if there is no message before the error.
    pub fn recv_many(
        &self,
        owner: V::Process,
        most: usize,
        batch: &mut impl BatchSink<V::Buffer>,
        notifier: &impl Notifier<V::Process>,
    ) -> Result<Gathered, LinkError> {
        self.receive(owner, notifier, |rx, end, deferred| {
            rx.recv_many(owner, most, batch, end, deferred)
        })
    }

    fn receive<R>(
        &self,
        owner: V::Process,
        notifier: &impl Notifier<V::Process>,
        take: impl FnOnce(&mut Receiver<V>, End, &mut Deferred<V::Process>) -> Result<R, Fail>,
    ) -> Result<R, LinkError> {
        let mut deferred = Deferred::default();
        let received = self.with_rx(&mut deferred, |rx, deferred| {
            let now = self.status.now();
            let received = match now.has(Event::Violated) && rx.is_owner(owner) {
                true => Err(LinkError::Protocol.into()),
                false => take(rx, now.end(), deferred),
            };
            if received.is_err() || now.ends() {
                self.note_end(rx);
            }
            if let Err(fail) = &received
                && fail.is_the_end()
            {
                self.status.raise(Event::OwnerTold);
            }
            received
        });
        self.finish(deferred, notifier);
        received
    }

    /// Ends the owner's wait.
    pub fn recv_cancel(&self, owner: V::Process) {
        _ = self.with_rx(&mut Deferred::default(), |rx, _| {
            rx.cancel(owner);
            Ok(())
        });
    }
}

/// What the calls have in common.
impl<V: Vm> Link<V> {
    /// Releases the shared pages, of any owner or only the peer's; keeps a copy of unread data. As
    /// long as a page of a dead domain is mapped, the hypervisor cannot free the domain.
    fn leave_pages(&self, all: bool) {
        with_half(&self.rx, |rx| {
            if all || rx.backing().is_foreign() {
                rx.leave_pages();
            }
        });
        with_half(&self.tx, |tx| {
            if all || tx.backing().is_foreign() {
                tx.leave_pages();
            }
        });
    }

    /// Raises the events of the end of the peer's data, and of the owner having taken all of it.
    fn note_end(&self, rx: &mut Receiver<V>) {
        let Ok(finished) = rx.peer_finished() else {
            return self.status.raise(Event::Violated);
        };
        if finished {
            self.status.raise(Event::Fin);
        }
        if self.status.now().ends() && rx.is_drained() {
            self.status.raise(Event::Drained);
        }
    }

    fn with_tx<R>(
        &self,
        deferred: &mut Deferred<V::Process>,
        f: impl FnOnce(&mut Sender<V::Process>, &mut Deferred<V::Process>) -> Result<R, Fail>,
    ) -> Result<R, LinkError> {
        let mut half = self.tx.lock().map_err(|_| LinkError::Closed)?;
        let tx = half.as_mut().ok_or(LinkError::Closed)?;
        let result = f(tx, deferred);
        if deferred.notify {
            deferred.channel = Some(tx.backing().channel().clone());
        }
        result.map_err(|fail| {
            if fail == Fail::Violated {
                tx.wake_all(deferred);
            }
            self.link_error(fail)
        })
    }

    fn with_rx<R>(
        &self,
        deferred: &mut Deferred<V::Process>,
        f: impl FnOnce(&mut Receiver<V>, &mut Deferred<V::Process>) -> Result<R, Fail>,
    ) -> Result<R, LinkError> {
        let mut half = self.rx.lock().map_err(|_| LinkError::Closed)?;
        let rx = half.as_mut().ok_or(LinkError::Closed)?;
        let result = f(rx, deferred);
        if deferred.notify {
            deferred.channel = Some(rx.backing().channel().clone());
        }
        result.map_err(|fail| self.link_error(fail))
    }

    fn link_error(&self, fail: Fail) -> LinkError {
        match fail {
            Fail::Refused(error) => error,
            Fail::Violated => {
                self.status.raise(Event::Violated);
                LinkError::Protocol
            }
        }
    }

    /// Does the deferred work, and reports events. No lock is held.
    fn finish(&self, deferred: Deferred<V::Process>, notifier: &impl Notifier<V::Process>) {
        deferred.notify_peer();
        for sender in deferred.senders {
            notifier.space(sender);
        }
        for waiting in [deferred.owner, deferred.poller].into_iter().flatten() {
            notifier.data(waiting);
        }
        if self.status.has_unreported() {
            let _order = self.reporting.lock();
            for event in self.status.take_unreported() {
                notifier.event(event);
            }
        }
    }
}

/// Calls `leave` with a half that is open. Drops what a panic left of one.
fn with_half<T>(half: &Mutex<Option<T>>, leave: impl FnOnce(&mut T)) {
    match half.lock() {
        Ok(mut half) => _ = half.as_mut().map(leave),
        Err(poisoned) => drop(poisoned.into_inner().take()),
    }
}
