//! Starts the hub, in the foreground or detached.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, setsid, umask};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::args::{self, Mode, Settings};
use crate::error::FatalError;
use crate::lock::Lock;
use crate::log::Log;
use crate::probe::{Found, HubChanges, probe, wait_readable};
use crate::rundir::RunDir;
use crate::server::{Hub, Setup, Timeouts};

/// The log of a detached hub, in the run directory.
pub const LOG_FILE: &str = "hub.log";

/// How long a hub may take to start, on a loaded machine too.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a hub may take to reply to a probe.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// What a detached hub writes to its stdout once it, or another hub, serves.
const READY: &str = "ready";

/// Runs the hub until it stops, or with [`Mode::Daemon`] returns once a detached hub serves.
///
/// # Errors
/// Why the hub could not start, or stopped.
pub fn run(settings: Settings) -> Result<(), FatalError> {
    let run = RunDir::open(&settings.run, !settings.domains.is_empty())?;
    match settings.mode {
        Mode::Foreground => serve(run, settings, Log::stderr(), notify_systemd),
        Mode::Daemon => start_detached(settings),
        Mode::Detached => run_detached(run, settings),
    }
}

/// Starts a detached hub unless one serves already, and waits until it serves.
fn start_detached(mut settings: Settings) -> Result<(), FatalError> {
    match probe(&settings.run, PROBE_TIMEOUT) {
        Found::Hub => return Ok(()),
        Found::Other(what) => return Err(not_a_hub(&what)),
        Found::Nothing => {}
    }
    settings.mode = Mode::Detached;
    let deadline = Instant::now() + START_TIMEOUT;
    let log = settings.run.join(LOG_FILE);
    let program = std::env::current_exe()
        .map_err(|error| FatalError::new(format!("cannot find the hub's own program: {error}")))?;
    let mut child = Command::new(program)
        .args(args::unparse(&settings))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| FatalError::new(format!("cannot start the hub: {error}")))?;
    let report = match child.stdout.take() {
        Some(stdout) => read_line(stdout.into(), deadline)?,
        None => None,
    };
    match report.as_deref() {
        Some(READY) => match probe(&settings.run, PROBE_TIMEOUT) {
            Found::Hub => Ok(()),
            Found::Other(what) => Err(not_a_hub(&what)),
            Found::Nothing => Err(FatalError::new(format!(
                "the hub does not reply, see {}",
                log.display()
            ))),
        },
        Some("") => Err(FatalError::new(format!(
            "the hub ended while starting, see {}",
            log.display()
        ))),
        Some(error) => Err(FatalError::new(error)),
        None => Err(FatalError::new(format!(
            "no hub after {START_TIMEOUT:?}, see {}",
            log.display()
        ))),
    }
}

/// Reads a line, or less at end of file. None if the deadline passes.
fn read_line(from: OwnedFd, deadline: Instant) -> Result<Option<String>, FatalError> {
    let bad = |error: &dyn std::fmt::Display| {
        FatalError::new(format!("cannot read from the hub: {error}"))
    };
    let mut from = std::fs::File::from(from);
    let mut line = Vec::new();
    loop {
        if !wait_readable(&from, deadline).map_err(|errno| bad(&errno))? {
            return Ok(None);
        }
        let mut buffer = [0; 512];
        let length = from.read(&mut buffer).map_err(|error| bad(&error))?;
        line.extend_from_slice(&buffer[..length]);
        if length == 0 || line.ends_with(b"\n") {
            return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
        }
    }
}

/// The process that [`start_detached`] starts. It has a session of its own, and only a pipe to its
/// parent, on which it reports the result of the start.
fn run_detached(run: RunDir, settings: Settings) -> Result<(), FatalError> {
    // Fails only for a process group leader, as when a user starts it by hand.
    let _ = setsid();
    let path = run.path(LOG_FILE);
    let report = |text: &str| {
        // The parent may have exited.
        let _ = std::io::stdout().write_all(format!("{text}\n").as_bytes());
        if let Ok(null) = rustix::fs::open(
            "/dev/null",
            OFlags::RDWR | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        ) {
            let _ = rustix::stdio::dup2_stdout(null);
        }
    };
    let result = std::env::set_current_dir("/")
        .and_then(|()| Log::file(&path, true))
        .map_err(|error| FatalError::new(format!("{}: {error}", path.display())))
        .and_then(|log| serve(run, settings, log, || report(READY)));
    if let Err(error) = &result {
        // stderr is the log by now, so the log gets this error too.
        report(&error.to_string());
    }
    result
}

/// Becomes the hub, or returns if another process is the hub. Calls `ready` once a hub serves.
fn serve(
    run: RunDir,
    settings: Settings,
    log: Log,
    ready: impl FnOnce(),
) -> Result<(), FatalError> {
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    let stop = stop_signals()?;
    let deadline = Instant::now() + START_TIMEOUT;
    let changes = HubChanges::watch(&run)?;
    let lock = Lock::open(&run)?;
    while !lock.try_acquire()? {
        match probe(&settings.run, PROBE_TIMEOUT) {
            Found::Hub => {
                ready();
                return Ok(());
            }
            Found::Other(what) => return Err(not_a_hub(&what)),
            Found::Nothing if Instant::now() >= deadline => {
                let place = settings.run.display();
                return Err(FatalError::new(format!(
                    "another process holds the lock of {place} and does not reply"
                )));
            }
            Found::Nothing => changes.wait(deadline)?,
        }
    }
    drop(changes);
    let descriptors = raise_descriptors();
    let Settings { idle, domains, .. } = settings;
    let hub = Hub::open(
        Setup {
            run,
            idle_timeout: idle,
            domains,
            descriptors,
            timeouts: Timeouts::default(),
            log,
        },
        stop,
    )?;
    ready();
    hub.serve()
    // `lock` is dropped last.
}

/// A descriptor that becomes readable when the process receives a signal to stop.
fn stop_signals() -> Result<OwnedFd, FatalError> {
    let bad = |error: std::io::Error| FatalError::new(format!("cannot catch signals: {error}"));
    let (stop, caught) = UnixStream::pair().map_err(bad)?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        let caught = caught.try_clone().map_err(bad)?;
        signal_hook::low_level::pipe::register(signal, caught).map_err(bad)?;
    }
    Ok(stop.into())
}

/// Raises the limit of open descriptors as far as allowed, and returns it.
fn raise_descriptors() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let limit = setrlimit(Resource::Nofile, raised).map_or(limit, |()| raised);
    limit
        .current
        .and_then(|count| usize::try_from(count).ok())
        .unwrap_or(usize::MAX)
}

/// Notifies a service manager that waits for the start (`Type=notify`, see sd_notify(3)).
fn notify_systemd() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(place) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let address = match place.as_encoded_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(Path::new(&place)),
    };
    // A service manager that misses it times out.
    let _ = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address));
}

fn not_a_hub(reply: &str) -> FatalError {
    FatalError::new(format!("something else listens on hub.sock: {reply}"))
}
