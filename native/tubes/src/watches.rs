//! What changes in the store, through the tokio interface of xenstore-rs, which alone has watches.
//!
//! It stops answering while a watch's eight places are taken, and its connection is another one
//! than that which reads. So a thread does nothing but take events out and note which tube they
//! are about; however many there are, what is noted is bounded.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use tokio::runtime::{Builder, Runtime};
use xenstore_rs::AsyncWatch;
use xenstore_rs::tokio::XsTokio;

use crate::error::CommandError;
use crate::path::{DOMAINS, Id, Place, place};
use crate::socket;
use crate::store::{PATIENCE, StoreError};

/// More tubes at once than this, and all of them are looked at.
const NOTED_MAX: usize = 256;

/// Between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(10);

/// What has to be looked at.
#[derive(Debug, Default)]
pub struct Dirty {
    /// These tubes.
    pub tubes: BTreeSet<Id>,
    /// All tubes.
    pub all: bool,
    /// There are no events any more, and why.
    lost: Option<String>,
}

/// Events of everything below /local/domain that we may read.
#[derive(Default)]
struct Shared {
    dirty: Mutex<Dirty>,
    changed: Condvar,
}

/// A running watch.
pub struct Watches(Arc<Shared>);

impl Watches {
    /// Starts it. It tells of everything at least once.
    pub fn start() -> Watches {
        let shared = Arc::<Shared>::default();
        let theirs = shared.clone();
        std::thread::spawn(move || {
            // Whatever ends it, it ends with the store or with what we cannot do without.
            let why = match run(&theirs) {
                Ok(()) => "no more events come".to_owned(),
                Err(error) => format!("watching: {error}"),
            };
            note(&theirs, |dirty| dirty.lost = Some(why));
        });
        Watches(shared)
    }

    /// Waits until something has changed, at most that long.
    ///
    /// # Errors
    /// The store is gone.
    pub fn wait(&self, limit: Duration) -> Result<Dirty, CommandError> {
        let dirty = self.0.dirty.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet =
            |dirty: &mut Dirty| !dirty.all && dirty.lost.is_none() && dirty.tubes.is_empty();
        let (mut dirty, _) = self
            .0
            .changed
            .wait_timeout_while(dirty, limit, quiet)
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = &dirty.lost {
            return Err(StoreError::Lost(why.clone()).into());
        }
        Ok(std::mem::take(&mut *dirty))
    }
}

fn note(shared: &Shared, change: impl FnOnce(&mut Dirty)) {
    change(&mut shared.dirty.lock().unwrap_or_else(PoisonError::into_inner));
    shared.changed.notify_one();
}

/// Connects, with the runtime that carries the connection.
///
/// xenstored lets one connection wait until it accepts it, and that of `Store` may be the one. A
/// connect that does not wait is refused then, and xenstore-rs takes the kernel's device instead.
fn connect() -> std::io::Result<(Runtime, XsTokio)> {
    let begin = Instant::now();
    loop {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let error = match runtime.block_on(XsTokio::new()) {
            Ok(store) if !socket::strayed() => return Ok((runtime, store)),
            Ok(_) => std::io::ErrorKind::ConnectionRefused.into(),
            Err(error) => error,
        };
        // A connection ends with its runtime, not before.
        drop(runtime);
        if begin.elapsed() >= PATIENCE {
            return Err(error);
        }
        std::thread::sleep(AGAIN);
    }
}

fn run(shared: &Shared) -> std::io::Result<()> {
    let (runtime, store) = connect()?;
    runtime.block_on(async {
        let mut events = store.watch(DOMAINS).await?;
        while let Some(path) = events.next().await {
            match place(&path) {
                Place::Other => {}
                Place::Above => note(shared, |dirty| dirty.all = true),
                Place::Tube(id) => note(shared, |dirty| {
                    dirty.tubes.insert(id);
                    if dirty.tubes.len() > NOTED_MAX {
                        dirty.tubes.clear();
                        dirty.all = true;
                    }
                }),
            }
        }
        Ok(())
    })
}
