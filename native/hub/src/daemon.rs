//! From a command line to a hub that serves: in front, or detached.

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
use crate::fault::Fault;
use crate::lock::Lock;
use crate::log::Log;
use crate::probe::{Answer, Changes, ask, wait_readable};
use crate::rundir::RunDir;
use crate::server::{Hub, Patience, Setup};

/// The log of a detached hub, in the run directory.
pub const LOG: &str = "hub.log";

/// How long starting may take, with all that a loaded machine does to it.
const START: Duration = Duration::from_secs(10);

/// How long a hub may take to answer; it has nothing to do but that.
const ANSWER: Duration = Duration::from_secs(5);

/// What a detached hub writes to its stdout when it, or another one, answers.
const READY: &str = "ready";

/// Does what the command line asks for. Returns when the hub has left, or, where that is what
/// was asked for, when there is one.
///
/// # Errors
/// A fault for whoever started it.
pub fn run(settings: Settings) -> Result<(), Fault> {
    let run = RunDir::open(&settings.run, !settings.domains.is_empty())?;
    match settings.mode {
        Mode::Foreground => serve(run, settings, Log::stderr(), notify_systemd),
        Mode::Daemon => start(settings),
        Mode::Detached => detached(run, settings),
    }
}

/// Starts a detached hub unless there is one, and waits until one answers.
fn start(mut settings: Settings) -> Result<(), Fault> {
    match ask(&settings.run, ANSWER) {
        Answer::Ours => return Ok(()),
        Answer::Other(what) => return Err(stranger(&what)),
        Answer::Nothing => {}
    }
    settings.mode = Mode::Detached;
    let deadline = Instant::now() + START;
    let log = settings.run.join(LOG);
    let program = std::env::current_exe()
        .map_err(|error| Fault::new(format!("cannot find myself: {error}")))?;
    let mut child = Command::new(program)
        .args(args::unparse(&settings))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| Fault::new(format!("cannot start the hub: {error}")))?;
    let report = match child.stdout.take() {
        Some(stdout) => read_line(stdout.into(), deadline)?,
        None => None,
    };
    match report.as_deref() {
        Some(READY) => match ask(&settings.run, ANSWER) {
            Answer::Ours => Ok(()),
            Answer::Other(what) => Err(stranger(&what)),
            Answer::Nothing => Err(Fault::new(format!(
                "the hub does not answer, see {}",
                log.display()
            ))),
        },
        Some("") => Err(Fault::new(format!(
            "the hub ended while starting, see {}",
            log.display()
        ))),
        Some(fault) => Err(Fault::new(fault)),
        None => Err(Fault::new(format!(
            "no hub after {START:?}, see {}",
            log.display()
        ))),
    }
}

/// A line, or what there is of it at the end of file; none when the time is over.
fn read_line(from: OwnedFd, deadline: Instant) -> Result<Option<String>, Fault> {
    let bad =
        |error: &dyn std::fmt::Display| Fault::new(format!("cannot hear from the hub: {error}"));
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

/// The process that [`start`] starts: a session of its own, nothing of its starter's but the
/// pipe on which it tells how the start went.
fn detached(run: RunDir, settings: Settings) -> Result<(), Fault> {
    // Fails only for the leader of a group, who was started by hand and wants it so.
    let _ = setsid();
    let path = run.path(LOG);
    let tell = |text: &str| {
        // Whoever started us may be gone.
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
        .map_err(|error| Fault::new(format!("{}: {error}", path.display())))
        .and_then(|log| serve(run, settings, log, || tell(READY)));
    if let Err(fault) = &result {
        // stderr is the log by now, where this fault ends up as well.
        tell(&fault.to_string());
    }
    result
}

/// Becomes the hub, or finds that another process is. `ready` is called once there is one.
fn serve(run: RunDir, settings: Settings, log: Log, ready: impl FnOnce()) -> Result<(), Fault> {
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    let stop = stop_signals()?;
    let deadline = Instant::now() + START;
    let changes = Changes::watch(&run)?;
    let lock = Lock::open(&run)?;
    while !lock.take()? {
        match ask(&settings.run, ANSWER) {
            Answer::Ours => {
                ready();
                return Ok(());
            }
            Answer::Other(what) => return Err(stranger(&what)),
            Answer::Nothing if Instant::now() >= deadline => {
                let place = settings.run.display();
                return Err(Fault::new(format!(
                    "another process holds the lock of {place} and does not answer"
                )));
            }
            Answer::Nothing => changes.wait(deadline)?,
        }
    }
    drop(changes);
    let descriptors = raise_descriptors();
    let Settings { idle, domains, .. } = settings;
    let hub = Hub::open(
        Setup {
            run,
            idle,
            domains,
            descriptors,
            patience: Patience::default(),
            log,
        },
        stop,
    )?;
    ready();
    hub.serve()
    // The lock goes last.
}

/// A descriptor that becomes readable when the process is asked to end.
fn stop_signals() -> Result<OwnedFd, Fault> {
    let bad = |error: std::io::Error| Fault::new(format!("cannot catch signals: {error}"));
    let (stop, caught) = UnixStream::pair().map_err(bad)?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        let caught = caught.try_clone().map_err(bad)?;
        signal_hook::low_level::pipe::register(signal, caught).map_err(bad)?;
    }
    Ok(stop.into())
}

/// As many descriptors as we may have, and how many that is.
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

/// Tells a service manager that waits for it (`Type=notify`, see sd_notify(3)).
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
    // A manager that does not listen will notice by itself that nobody reported.
    let _ = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address));
}

fn stranger(what: &str) -> Fault {
    Fault::new(format!("something else answers on hub.sock: {what}"))
}
