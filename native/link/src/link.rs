//! A link: two halves, and what has become of it.

use crate::after::{Deferred, Fail};
use crate::channel::Channel;
use crate::flow::{Active, Gathered, LinkError, Received};
use crate::info::Info;
use crate::memory::SharedPages;
use crate::rx::Receiver;
use crate::status::{End, Event, Status};
use crate::tx::Sender;
use crate::vm::{BatchSink, Deliver, MessageSink, Notifier, Vm};
use crossbeam_utils::CachePadded;
use std::sync::{Arc, Mutex, PoisonError};

/// One end of a tube. When closed it is an empty shell, whoever may still hold it.
pub struct Link<V: Vm> {
    // A half whose lock is poisoned is taken for closed: what a panic left is not to be trusted.
    // Apart, since sender and receiver run on different schedulers, each at its own lock all the time.
    pub(crate) tx: CachePadded<Mutex<Option<Sender<V::Process>>>>,
    rx: CachePadded<Mutex<Option<Receiver<V>>>>,
    pub(crate) status: Status,
    /// Held while events are reported, so that they arrive in their order.
    reporting: Mutex<()>,
}

impl<V: Vm> Link<V> {
    pub(crate) fn new(memory: SharedPages, max_message: u32) -> Link<V> {
        let memory = Arc::new(memory);
        // SAFETY: once per memory. Each half holds it, and drops it after its ring end.
        let (producer, consumer) = unsafe { memory.ends(max_message) };
        Link {
            tx: Mutex::new(Some(Sender::new(producer, memory.clone()))).into(),
            rx: Mutex::new(Some(Receiver::new(consumer, memory))).into(),
            status: Status::default(),
            reporting: Mutex::new(()),
        }
    }

    /// Names the owner and lets events be reported. To be followed by a [`resume`](Self::resume):
    /// the peer may have been quicker.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn start(&self, owner: V::Process) -> Result<(), LinkError> {
        self.with_rx(&mut Deferred::default(), |rx, _| {
            rx.owner = Some(owner);
            Ok(())
        })?;
        self.status.listen();
        Ok(())
    }

    /// The next message, for a passive owner.
    ///
    /// # Errors
    /// Every [`LinkError`] but those of the sending side. [`LinkError::Invalid`] when active.
    pub fn recv(
        &self,
        owner: V::Process,
        small: &mut impl MessageSink,
        herald: &impl Notifier<V::Process>,
    ) -> Result<Received<V::Buffer>, LinkError> {
        self.receive(owner, herald, |rx, end, after| {
            rx.recv(owner, small, end, after)
        })
    }

    /// As many messages as are there, for a passive owner: at most `most`, and of a bounded number of
    /// bytes.
    ///
    /// # Errors
    /// As [`recv`](Self::recv), and only when there was no message before.
    pub fn recv_many(
        &self,
        owner: V::Process,
        most: usize,
        heap: &mut impl BatchSink<V::Buffer>,
        herald: &impl Notifier<V::Process>,
    ) -> Result<Gathered, LinkError> {
        self.receive(owner, herald, |rx, end, after| {
            rx.recv_many(owner, most, heap, end, after)
        })
    }

    fn receive<R>(
        &self,
        owner: V::Process,
        herald: &impl Notifier<V::Process>,
        take: impl FnOnce(&mut Receiver<V>, End, &mut Deferred<V::Process>) -> Result<R, Fail>,
    ) -> Result<R, LinkError> {
        let mut after = Deferred::default();
        let received = self.with_rx(&mut after, |rx, after| {
            let now = self.status.now();
            let received = match now.has(Event::Violated) && rx.owner == Some(owner) {
                true => Err(LinkError::Protocol.into()),
                false => take(rx, now.end(), after),
            };
            if received.is_err() || now.ends() {
                self.note_end(rx);
            }
            if let Err(stop) = &received
                && stop.is_the_end()
            {
                self.status.raise(Event::OwnerTold);
            }
            received
        });
        self.finish(after, herald);
        received
    }

    /// The owner waits no longer.
    pub fn recv_cancel(&self, owner: V::Process) {
        _ = self.with_rx(&mut Deferred::default(), |rx, _| {
            if rx.owner == Some(owner) {
                rx.waiting = false;
                rx.poll.forget();
            }
            Ok(())
        });
    }

    /// Hands the receiving side to another process. The old owner's wait ends.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn set_owner(
        &self,
        owner: V::Process,
        herald: &impl Notifier<V::Process>,
    ) -> Result<(), LinkError> {
        let mut after = Deferred::default();
        let done = self.with_rx(&mut after, |rx, after| {
            rx.wake(after);
            rx.poll.forget();
            rx.owner = Some(owner);
            Ok(())
        });
        self.finish(after, herald);
        done
    }

    /// Says how messages are to be delivered; to be followed by a [`resume`](Self::resume). Asked `by` a
    /// process, or by the connection itself.
    ///
    /// # Errors
    /// [`LinkError::NotOwner`], [`LinkError::Closed`].
    pub fn set_active(&self, by: Option<V::Process>, active: Active) -> Result<(), LinkError> {
        self.with_rx(&mut Deferred::default(), |rx, _| {
            if by.is_some() && by != rx.owner {
                return Err(LinkError::NotOwner.into());
            }
            rx.active = rx.active.turn(active);
            rx.waiting &= !rx.active.is_active();
            Ok(())
        })
    }

    /// The link is about to be closed or cut for a suspension: from here on that is the reason of its end,
    /// also if the peer finishes in answer.
    pub fn suspend(&self) {
        self.status.suspend();
    }

    /// Ends it from our side, for `why`: the peer counts as gone, and all that was shared is let go of
    /// before this returns. What had arrived is still delivered, and then the owner learns the reason.
    /// To be followed by a [`resume`](Self::resume).
    pub fn cut(&self, why: LinkError) {
        self.status.raise_gone(why);
        self.leave_pages(true);
    }

    /// Takes messages of up to `most` bytes from here on, if that is less than the peer was told; a longer one
    /// ends the link. Its memory is not even asked for.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn restrict(&self, most: u32) -> Result<(), LinkError> {
        self.with_rx(&mut Deferred::default(), |rx, _| {
            rx.consumer.restrict(most);
            Ok(())
        })
    }

    /// In the middle of a stream an end waits a moment for more, before it sleeps. Shorter from here on, because
    /// others wait for who has the link.
    ///
    /// # Errors
    /// [`LinkError::Closed`].
    pub fn be_brief(&self) -> Result<(), LinkError> {
        let after = &mut Deferred::default();
        self.with_rx(after, |rx, _| {
            rx.linger.be_brief();
            Ok(())
        })?;
        self.with_tx(after, |tx, _| {
            tx.linger.be_brief();
            Ok(())
        })
    }

    /// Has the peer's end gone? Its descriptor then stays readable, and must not be watched.
    pub fn is_gone(&self) -> bool {
        self.status.now().has(Event::Gone)
    }

    /// The event channel, while the link is open.
    pub fn channel(&self) -> Option<Arc<Channel>> {
        let tx = self.tx.lock().ok()?;
        tx.as_ref().map(|tx| tx.ground.channel().clone())
    }

    /// What the link has done. `None` when it is closed.
    pub fn info(&self) -> Option<Info> {
        let tx = self.tx.lock().ok()?.as_ref()?.info();
        let rx = self.rx.lock().ok()?;
        Some(Info::new(tx, rx.as_ref()?, self.status.now()))
    }

    /// Gives everything back. Messages that are in the ring reach the peer all the same. Those who wait are
    /// told; so is an active owner, if the link broke and nobody has said so yet.
    pub fn close(&self, outlet: &mut impl Deliver<V>) {
        let mut after = Deferred::default();
        // Poisoned or not: this only takes things apart.
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
            tx.end(&mut after);
        }
        if let Some(mut rx) = rx {
            if let Some(fault) = self.status.now().fault() {
                rx.tell_end(outlet, Some(fault));
            }
            rx.end();
            rx.wake(&mut after);
            rx.wake_poller(&mut after);
        }
        // The pages are gone by now, and with them the peer was rung.
        self.finish(after, outlet);
    }

    /// Lets go of the shared pages, of all or only if they are the peer's; what is unread stays, in a
    /// copy. A peer's page that is mapped keeps its dead domain from being forgotten by the hypervisor.
    pub(crate) fn leave_pages(&self, all: bool) {
        of_half(&self.rx, |rx| {
            if all || rx.ground.is_foreign() {
                rx.leave_pages();
            }
        });
        of_half(&self.tx, |tx| {
            if all || tx.ground.is_foreign() {
                tx.leave_pages();
            }
        });
    }

    /// Notes the end of the peer's data, and whether all of it is taken.
    pub(crate) fn note_end(&self, rx: &mut Receiver<V>) {
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

    pub(crate) fn with_tx<R>(
        &self,
        after: &mut Deferred<V::Process>,
        f: impl FnOnce(&mut Sender<V::Process>, &mut Deferred<V::Process>) -> Result<R, Fail>,
    ) -> Result<R, LinkError> {
        let mut half = self.tx.lock().map_err(|_| LinkError::Closed)?;
        let tx = half.as_mut().ok_or(LinkError::Closed)?;
        let result = f(tx, after);
        if after.ring {
            after.channel = Some(tx.ground.channel().clone());
        }
        result.map_err(|stop| {
            if stop == Fail::Violated {
                tx.wake_all(after);
            }
            self.stopped(stop)
        })
    }

    pub(crate) fn with_rx<R>(
        &self,
        after: &mut Deferred<V::Process>,
        f: impl FnOnce(&mut Receiver<V>, &mut Deferred<V::Process>) -> Result<R, Fail>,
    ) -> Result<R, LinkError> {
        let mut half = self.rx.lock().map_err(|_| LinkError::Closed)?;
        let rx = half.as_mut().ok_or(LinkError::Closed)?;
        let result = f(rx, after);
        if after.ring {
            after.channel = Some(rx.ground.channel().clone());
        }
        result.map_err(|stop| self.stopped(stop))
    }

    fn stopped(&self, stop: Fail) -> LinkError {
        match stop {
            Fail::Refused(refusal) => refusal,
            Fail::Violated => {
                self.status.raise(Event::Violated);
                LinkError::Protocol
            }
        }
    }

    /// What is left to do when no lock is held any more.
    pub(crate) fn finish(&self, after: Deferred<V::Process>, herald: &impl Notifier<V::Process>) {
        ring(&after);
        for sender in after.senders {
            herald.space(sender);
        }
        for waiting in [after.owner, after.poller].into_iter().flatten() {
            herald.data(waiting);
        }
        if self.status.is_untold() {
            let _order = self.reporting.lock();
            for event in self.status.take() {
                herald.event(event);
            }
        }
    }
}

/// What is left of a half after a panic is used by nobody any more, so it goes.
fn of_half<T>(half: &Mutex<Option<T>>, leave: impl FnOnce(&mut T)) {
    match half.lock() {
        Ok(mut half) => _ = half.as_mut().map(leave),
        Err(poisoned) => drop(poisoned.into_inner().take()),
    }
}

pub(crate) fn ring<P>(after: &Deferred<P>) {
    if let Some(channel) = &after.channel {
        channel.ring();
    }
}
