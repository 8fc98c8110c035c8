//! Reads the store once a second for `tubes top`, in a thread of its own so that keys take effect
//! at once even if the store is slow.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant, SystemTime};

use crate::error::CommandError;
use crate::snapshot::Snapshot;
use crate::stats::lease::StatsLease;
use crate::stats::meters::Meters;
use crate::store::{Store, StoreError};

const INTERVAL: Duration = Duration::from_secs(1);

/// How long to wait at the end for the thread to withdraw its lease.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// The state of all tubes at one moment.
#[derive(Debug)]
pub struct Update {
    /// The tubes.
    pub snapshot: Snapshot,
    /// Their counters.
    pub meters: Meters,
    /// The moment.
    pub time: SystemTime,
}

/// The running thread.
pub struct Feed {
    updates: Receiver<Result<Update, StoreError>>,
    quit: Option<Sender<()>>,
}

impl Feed {
    /// Starts the thread.
    pub fn start(store: Store) -> Feed {
        let (send, updates) = channel();
        let (quit, quitting) = channel::<()>();
        std::thread::spawn(move || {
            let mut lease = StatsLease::default();
            let mut meters = Meters::default();
            loop {
                let began = Instant::now();
                let update = read(&store, &mut lease, &mut meters);
                let lost = update.is_err();
                if send.send(update).is_err() || lost {
                    break;
                }
                match quitting.recv_timeout(INTERVAL.saturating_sub(began.elapsed())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => break,
                }
            }
            // This fails if the store is gone, and then does not matter.
            let _ = lease.withdraw(&store);
        });
        Feed {
            updates,
            quit: Some(quit),
        }
    }

    /// The latest update, if there is a new one.
    ///
    /// # Errors
    /// The connection to the store is lost.
    pub fn latest(&self) -> Result<Option<Update>, CommandError> {
        let mut latest = None;
        loop {
            match self.updates.try_recv() {
                Ok(update) => latest = Some(update?),
                Err(TryRecvError::Empty) => return Ok(latest),
                Err(TryRecvError::Disconnected) => {
                    return Err(CommandError::failed("its thread has ended"));
                }
            }
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        drop(self.quit.take());
        let end = Instant::now() + END_TIMEOUT;
        // The thread drops its sender when it ends.
        while let Ok(_late) = self
            .updates
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {}
    }
}

fn read(store: &Store, lease: &mut StatsLease, meters: &mut Meters) -> Result<Update, StoreError> {
    let snapshot = Snapshot::take(store)?;
    lease.renew(store, &snapshot, Instant::now())?;
    meters.read(store, &snapshot, Instant::now())?;
    Ok(Update {
        snapshot,
        meters: meters.clone(),
        time: SystemTime::now(),
    })
}
