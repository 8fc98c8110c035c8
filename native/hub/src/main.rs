//! The `tube-hub` program. The library `tube_hub` documents it.

use std::io::Write;
use std::process::ExitCode;

use tube_hub::args::{self, Command};
use tube_hub::{daemon, error::FatalError};
use tube_platform::local::proto::VERSION;

fn main() -> ExitCode {
    let command = args::parse(std::env::args_os().skip(1), |name| std::env::var_os(name));
    let done = command.and_then(|command| match command {
        Command::Run(settings) => daemon::run(settings),
        Command::Version => print(&format!(
            "tube-hub {} (protocol {VERSION})\n",
            env!("CARGO_PKG_VERSION")
        )),
        Command::Help => print(args::HELP),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not eprintln!, which panics if stderr is closed.
            let _ = std::io::stderr().write_all(format!("tube-hub: {error}\n").as_bytes());
            ExitCode::from(error.status())
        }
    }
}

fn print(text: &str) -> Result<(), FatalError> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| FatalError::new(format!("stdout: {error}")))
}
