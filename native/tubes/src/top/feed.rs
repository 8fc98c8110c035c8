//! What `tubes top` shows, looked up once a second in a thread of its own: however long the store
//! takes, a key is answered at once.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::time::{Duration, Instant, SystemTime};

use crate::error::CommandError;
use crate::snapshot::Snapshot;
use crate::stats::lease::StatsLease;
use crate::stats::meters::Meters;
use crate::store::{Store, StoreError};

const INTERVAL: Duration = Duration::from_secs(1);

/// How long the store may take to hear that we look no more.
const FAREWELL: Duration = Duration::from_secs(1);

/// Everything at one moment.
#[derive(Debug)]
pub struct Look {
    /// What there is.
    pub snapshot: Snapshot,
    /// What it does.
    pub meters: Meters,
    /// When this was.
    pub time: SystemTime,
}

/// The running thread.
pub struct Feed {
    looks: Receiver<Result<Look, StoreError>>,
    quit: Option<Sender<()>>,
}

impl Feed {
    /// Starts it.
    pub fn start(store: Store) -> Feed {
        let (send, looks) = channel();
        let (quit, told) = channel::<()>();
        std::thread::spawn(move || {
            let mut lease = StatsLease::default();
            let mut meters = Meters::default();
            loop {
                let began = Instant::now();
                let look = look(&store, &mut lease, &mut meters);
                let lost = look.is_err();
                if send.send(look).is_err() || lost {
                    break;
                }
                match told.recv_timeout(INTERVAL.saturating_sub(began.elapsed())) {
                    Err(RecvTimeoutError::Timeout) => {}
                    _ => break,
                }
            }
            // Without a store nobody can be told, and nobody asks.
            let _ = lease.withdraw(&store);
        });
        Feed {
            looks,
            quit: Some(quit),
        }
    }

    /// The latest look, if there is a new one.
    ///
    /// # Errors
    /// The store is lost.
    pub fn latest(&self) -> Result<Option<Look>, CommandError> {
        let mut latest = None;
        loop {
            match self.looks.try_recv() {
                Ok(look) => latest = Some(look?),
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
        let end = Instant::now() + FAREWELL;
        // It ends by dropping its side.
        while let Ok(_late) = self
            .looks
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {}
    }
}

fn look(store: &Store, lease: &mut StatsLease, meters: &mut Meters) -> Result<Look, StoreError> {
    let snapshot = Snapshot::take(store)?;
    lease.renew(store, &snapshot, Instant::now())?;
    meters.read(store, &snapshot, Instant::now())?;
    Ok(Look {
        snapshot,
        meters: meters.clone(),
        time: SystemTime::now(),
    })
}
