//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::FatalError;
use crate::owner::Owner;
use tube_platform::{DOMID_MAX, Domid};

/// What `--help` prints.
pub const HELP: &str = "\
tube-hub: virtual domains for the processes of one host

usage: tube-hub [--run DIR] [--daemon] [--idle SECONDS] [--domain N:UID:GID]...
       tube-hub --version | --help

  --run DIR           the run directory: owned by this user, mode 0700, created if
                      missing. Default: $XDG_RUNTIME_DIR/tube, else /run/tube
  --daemon            detach, log to DIR/hub.log, return once a hub serves DIR
  --idle SECONDS      exit after this long without a domain (default: never)
  --domain N:UID:GID  keep DIR/domN for that user, for example to mount it into a
                      container; N is 0 to 32751; repeatable

One hub serves a run directory. A second one exits with status 0 once it finds the
first. Status 1: failure; 2: wrong usage.
";

/// What the command line requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Run the hub, or start one in the background.
    Run(Settings),
    /// Print the version.
    Version,
    /// Print [`HELP`].
    Help,
}

/// The settings of [`Command::Run`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The run directory, absolute.
    pub run: PathBuf,
    /// How to run.
    pub mode: Mode,
    /// Exit after this long without a domain.
    pub idle: Option<Duration>,
    /// The domains whose directories are kept for an owner.
    pub domains: Vec<(Domid, Owner)>,
}

/// How to run the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In this process, logging to stderr.
    Foreground,
    /// Start a detached hub and wait until it serves.
    Daemon,
    /// As the detached hub that `Daemon` starts. Not meant for users.
    Detached,
}

/// The option for [`Mode::Detached`].
pub const DETACHED: &str = "--detached";

/// Parses a command line (without the program's name). `env` looks up environment variables.
///
/// # Errors
/// Wrong usage: names the option and the value that it takes.
pub fn parse(
    args: impl IntoIterator<Item = OsString>,
    env: impl Fn(&str) -> Option<OsString>,
) -> Result<Command, FatalError> {
    let mut run = None;
    let mut mode = Mode::Foreground;
    let mut idle = None;
    let mut domains: Vec<(Domid, Owner)> = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        // Only paths may be other than UTF-8.
        let (name, mut inline) = split(&arg)?;
        let mut value = |what: &str| {
            inline
                .take()
                .or_else(|| args.next())
                .filter(|value| !value.is_empty())
                .ok_or_else(|| FatalError::usage(format!("{name} needs {what}")))
        };
        match name.as_str() {
            "--run" => run = Some(PathBuf::from(value("a directory")?)),
            "--idle" => idle = Some(seconds(&value("a number of seconds")?)?),
            "--domain" => {
                let (domid, owner) = domain(&value("N:UID:GID")?)?;
                if domains.iter().any(|(known, _)| *known == domid) {
                    return Err(FatalError::usage(format!(
                        "--domain: {domid} is given twice"
                    )));
                }
                domains.push((domid, owner));
            }
            "--daemon" => mode = Mode::Daemon,
            DETACHED => mode = Mode::Detached,
            "--version" | "-V" => return Ok(Command::Version),
            "--help" | "-h" => return Ok(Command::Help),
            _ => {
                return Err(FatalError::usage(format!(
                    "unknown argument {name:?}; see --help"
                )));
            }
        }
        if inline.is_some() {
            return Err(FatalError::usage(format!("{name} takes no value")));
        }
    }
    let run = run.unwrap_or_else(|| default_run(&env));
    let run = std::path::absolute(&run)
        .map_err(|error| FatalError::usage(format!("--run {}: {error}", run.display())))?;
    Ok(Command::Run(Settings {
        run,
        mode,
        idle,
        domains,
    }))
}

/// The command line for these settings: the inverse of [`parse`], to start a detached hub.
pub fn unparse(settings: &Settings) -> Vec<OsString> {
    let mut args = vec!["--run".into(), settings.run.clone().into_os_string()];
    match settings.mode {
        Mode::Foreground => {}
        Mode::Daemon => args.push("--daemon".into()),
        Mode::Detached => args.push(DETACHED.into()),
    }
    if let Some(idle) = settings.idle {
        args.extend(["--idle".into(), idle.as_secs().to_string().into()]);
    }
    for (domid, owner) in &settings.domains {
        args.extend([
            "--domain".into(),
            format!("{domid}:{}:{}", owner.uid, owner.gid).into(),
        ]);
    }
    args
}

/// Splits `--name=value`.
fn split(arg: &OsString) -> Result<(String, Option<OsString>), FatalError> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let bytes = arg.as_bytes();
    let (name, value) = match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) if bytes.starts_with(b"--") => (
            &bytes[..at],
            Some(OsString::from_vec(bytes[at + 1..].to_vec())),
        ),
        _ => (bytes, None),
    };
    match std::str::from_utf8(name) {
        Ok(name) => Ok((name.to_owned(), value)),
        Err(_) => Err(FatalError::usage(format!(
            "unknown argument {arg:?}; see --help"
        ))),
    }
}

fn default_run(env: &impl Fn(&str) -> Option<OsString>) -> PathBuf {
    match env("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("tube"),
        None => PathBuf::from("/run/tube"),
    }
}

fn seconds(value: &OsString) -> Result<Duration, FatalError> {
    match value.to_str().and_then(|text| text.parse::<u32>().ok()) {
        Some(count) if count > 0 => Ok(Duration::from_secs(count.into())),
        _ => Err(FatalError::usage(format!(
            "--idle takes a whole number of seconds, at least 1, not {value:?}"
        ))),
    }
}

fn domain(value: &OsString) -> Result<(Domid, Owner), FatalError> {
    let wrong = || {
        FatalError::usage(format!(
            "--domain takes N:UID:GID as numbers, N at most {DOMID_MAX}, not {value:?}"
        ))
    };
    let text = value.to_str().ok_or_else(wrong)?;
    let fields: Vec<u32> = text
        .split(':')
        .map(|field| field.parse().map_err(|_| wrong()))
        .collect::<Result<_, _>>()?;
    match fields[..] {
        // All ones is no id: chown takes it for "unchanged".
        [domid, uid, gid] if domid <= DOMID_MAX.into() && uid != u32::MAX && gid != u32::MAX => {
            let domid = Domid::try_from(domid).map_err(|_| wrong())?;
            Ok((domid, Owner { uid, gid }))
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<Command, FatalError> {
        parse(args.iter().map(OsString::from), |name| {
            (name == "XDG_RUNTIME_DIR").then(|| "/xdg".into())
        })
    }

    fn settings(args: &[&str]) -> Settings {
        match read(args) {
            Ok(Command::Run(settings)) => settings,
            other => panic!("{args:?} gave {other:?}"),
        }
    }

    #[test]
    fn all_options_parse_together() {
        let got = settings(&[
            "--run",
            "/r",
            "--daemon",
            "--idle=7",
            "--domain",
            "5:10:20",
            "--domain=0:1:2",
        ]);
        let owners = vec![
            (5, Owner { uid: 10, gid: 20 }),
            (0, Owner { uid: 1, gid: 2 }),
        ];
        let want = Settings {
            run: "/r".into(),
            mode: Mode::Daemon,
            idle: Some(Duration::from_secs(7)),
            domains: owners,
        };
        assert_eq!(got, want);
    }

    #[test]
    fn unparse_is_the_inverse_of_parse() {
        let mut given = settings(&["--run", "/r", "--daemon", "--idle=7", "--domain", "5:10:20"]);
        given.mode = Mode::Detached;
        let args = unparse(&given);
        assert_eq!(parse(args, |_| None), Ok(Command::Run(given)));
    }

    #[test]
    fn the_run_directory_has_a_default() {
        assert_eq!(settings(&[]).run, PathBuf::from("/xdg/tube"));
        match parse([], |_| None) {
            Ok(Command::Run(settings)) => assert_eq!(settings.run, PathBuf::from("/run/tube")),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn errors_name_the_wrong_argument() {
        for (args, named) in [
            (&["--what"][..], "--what"),
            (&["run"], "run"),
            (&["--run"], "--run"),
            (&["--run="], "--run"),
            (&["--daemon=yes"], "--daemon"),
            (&["--idle", "0"], "--idle"),
            (&["--idle", "-1"], "--idle"),
            (&["--idle", "soon"], "--idle"),
            (&["--domain", "5"], "--domain"),
            (&["--domain", "32752:0:0"], "32751"),
            (&["--domain", "1:-1:0"], "--domain"),
            (&["--domain", "1:4294967295:0"], "--domain"),
            (&["--domain", "1:0:0:0"], "--domain"),
            (&["--domain=1:0:0", "--domain=1:0:0"], "twice"),
        ] {
            let error = read(args).expect_err(named);
            assert!(error.to_string().contains(named), "{error}");
            assert_eq!(error.status(), FatalError::USAGE);
            assert!(!error.to_string().contains('\n'));
        }
    }
}
