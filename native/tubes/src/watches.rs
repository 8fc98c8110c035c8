//! Watches the store for changes, through the tokio interface of xenstore-rs, the only one with
//! watches.
//!
//! xenstore-rs buffers eight events of a watch and then stalls the whole connection. So this thread
//! only takes events out and records which tubes changed; the size of that record is bounded.

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
use crate::store::{StoreError, TIMEOUT};

/// With more changed tubes than this, all tubes count as changed.
const DIRTY_MAX: usize = 256;

/// Interval between two attempts to connect.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// What has changed and must be reread.
#[derive(Debug, Default)]
pub struct Dirty {
    /// These tubes.
    pub tubes: BTreeSet<Id>,
    /// All tubes, and the domains.
    pub all: bool,
    /// Why no more events will come.
    lost: Option<String>,
}

#[derive(Default)]
struct Shared {
    dirty: Mutex<Dirty>,
    changed: Condvar,
}

/// A watch on everything below /local/domain that we may read.
pub struct Watches(Arc<Shared>);

impl Watches {
    /// Starts the watch. At first, everything counts as changed.
    pub fn start() -> Watches {
        let shared = Arc::<Shared>::default();
        let thread_shared = shared.clone();
        std::thread::spawn(move || {
            // Whether the store or something else ends the watch, the caller cannot continue.
            let why = match run(&thread_shared) {
                Ok(()) => "the watch has ended".to_owned(),
                Err(error) => format!("cannot watch: {error}"),
            };
            note(&thread_shared, |dirty| dirty.lost = Some(why));
        });
        Watches(shared)
    }

    /// Waits until something has changed, up to a time limit.
    ///
    /// # Errors
    /// The connection to the store is lost.
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

/// Connects. The connection ends when its runtime is dropped.
///
/// xenstored has a backlog of one connection, which that of `Store` may occupy. A non-blocking
/// connect is then refused, and xenstore-rs falls back to the kernel's device.
fn connect() -> std::io::Result<(Runtime, XsTokio)> {
    let begin = Instant::now();
    loop {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        let error = match runtime.block_on(XsTokio::new()) {
            Ok(store) if !socket::fell_back_to_device() => return Ok((runtime, store)),
            Ok(_) => std::io::ErrorKind::ConnectionRefused.into(),
            Err(error) => error,
        };
        drop(runtime);
        if begin.elapsed() >= TIMEOUT {
            return Err(error);
        }
        std::thread::sleep(RETRY_INTERVAL);
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
                    if dirty.tubes.len() > DIRTY_MAX {
                        dirty.tubes.clear();
                        dirty.all = true;
                    }
                }),
            }
        }
        Ok(())
    })
}
