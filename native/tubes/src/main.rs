//! The command line program.

use std::io::{BufWriter, IsTerminal, Write, stdout};
use std::process::ExitCode;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use tubes::args::{Args, Command};
use tubes::doctor::{self, Machine};
use tubes::error::CommandError;
use tubes::snapshot::Snapshot;
use tubes::store::Store;
use tubes::{list, reap, show, socket, top, watch};

fn main() -> ExitCode {
    let args = Args::parse();
    let mut out = BufWriter::new(stdout().lock());
    let result = run(args, &mut out).and_then(|()| Ok(out.flush()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            if !fault.text.is_empty() {
                // Standard error may be closed.
                let _ = writeln!(std::io::stderr(), "tubes: {}", fault.text);
            }
            ExitCode::from(fault.status)
        }
    }
}

fn run(args: Args, out: &mut impl Write) -> Result<(), CommandError> {
    match args.command {
        Command::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "tubes", &mut text);
            return Ok(out.write_all(&text)?);
        }
        Command::Man => {
            let mut text = Vec::new();
            clap_mangen::Man::new(Args::command()).render(&mut text)?;
            return Ok(out.write_all(&text)?);
        }
        _ => {}
    }
    let found = socket::find(args.socket.as_deref(), |name| std::env::var_os(name));
    if let Ok(found) = &found {
        // SAFETY: no other thread has been started yet, so nothing reads the environment.
        unsafe { std::env::set_var(socket::VARIABLE, found.variable()) };
    }
    if let Command::Doctor { json } = args.command {
        return doctor::examine(&Machine::this(), found, json, out);
    }
    let found = found?;
    let store = Store::open()
        .map_err(|error| CommandError::failed(format_args!("{}: {error}", found.source)))?;
    match args.command {
        Command::List { json, stats } => {
            let mut snapshot = Snapshot::take(&store)?;
            let mut meters = None;
            if stats {
                meters = Some(list::rates(&store, &snapshot)?);
                snapshot = Snapshot::take(&store)?;
            }
            list::list(&snapshot, meters.as_ref(), json, width(), out)?;
            out.flush()?;
            notes(&snapshot);
            Ok(())
        }
        Command::Show { dom, tid } => {
            let snapshot = Snapshot::take(&store)?;
            let domid = snapshot.find(&dom)?;
            let services = show::services(&store, domid)?;
            writeln!(out, "domain {}: {services}", snapshot.label(domid))?;
            let mut any = false;
            for (id, tube) in &snapshot.tubes {
                let part = id.nock == domid || id.tip == domid;
                if part && tid.is_none_or(|tid| tid == id.tid) {
                    any = true;
                    writeln!(out)?;
                    show::tube(&snapshot, tube, width(), out)?;
                }
            }
            out.flush()?;
            notes(&snapshot);
            let known = snapshot.domains.contains_key(&domid) || !snapshot.whole;
            match tid {
                _ if any => Ok(()),
                Some(tid) => Err(CommandError::failed(format_args!(
                    "domain {domid} has no tube {tid}"
                ))),
                None if known => Ok(()),
                None => Err(CommandError::failed(format_args!(
                    "there is no domain {domid}"
                ))),
            }
        }
        Command::Top => top::top(store),
        Command::Watch { json } => watch::watch(&store, json, out),
        Command::Reap { yes, settle } => match Duration::try_from_secs_f64(settle) {
            Ok(settle) => reap::reap(&store, yes, settle, out),
            Err(error) => Err(CommandError::usage(format_args!(
                "--settle {settle}: {error}"
            ))),
        },
        Command::Doctor { .. } | Command::Completions { .. } | Command::Man => Ok(()),
    }
}

/// Reports what the output omits.
fn notes(snapshot: &Snapshot) {
    for note in &snapshot.notes {
        let _ = writeln!(std::io::stderr(), "tubes: {note}");
    }
    if !snapshot.whole {
        let _ = writeln!(
            std::io::stderr(),
            "tubes: not running as domain 0: showing only the tubes of this domain"
        );
    }
}

/// Width of the output: COLUMNS, or else that of the terminal. Output to a pipe is never cut.
fn width() -> usize {
    let columns = std::env::var("COLUMNS")
        .ok()
        .and_then(|text| text.parse().ok());
    let terminal = || {
        let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
        stdout().is_terminal().then_some(usize::from(size.ws_col))
    };
    columns
        .or_else(terminal)
        .filter(|width| *width > 0)
        .unwrap_or(usize::MAX)
}
