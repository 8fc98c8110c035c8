//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

/// The arguments of the program.
#[derive(Debug, Parser)]
#[command(
    name = "tubes",
    version = concat!(env!("CARGO_PKG_VERSION"), " (handshake version 1)"),
    about = "Inspects the tubes between Erlang VMs from outside, through xenstore.",
    after_help = "\
Give a domain by number or name. The store is the first of these: --socket, XENSTORED_PATH, the
socket of Xen's xenstored, the local platform's <run>/dom0/xenstored.sock (<run> is TUBE_RUN_DIR,
$XDG_RUNTIME_DIR/tube or /run/tube), /dev/xen/xenbus. Only domain 0 can see all domains.
Exit status: 0 success, 1 failure or (doctor) a problem was found, 2 wrong usage."
)]
pub struct Args {
    /// Unix socket of the store
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// The command
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists all tubes, one per line
    List {
        /// Print JSON, with all details
        #[arg(short = 'l', long = "json", visible_alias = "long")]
        json: bool,
        /// Add messages and bytes per second, measured for about two seconds
        #[arg(long)]
        stats: bool,
    },
    /// Shows both sides of the tubes of a domain, and marks disagreement with !
    Show {
        /// Number or name of the domain
        dom: String,
        /// Show only tubes with this number
        tid: Option<u32>,
    },
    /// Prints events as they happen: opened, connected, closing, closed, stale
    Watch {
        /// Print a JSON object per line
        #[arg(long)]
        json: bool,
    },
    /// Shows a live table of rates, waits and notifications, with sorting and a filter
    Top,
    /// Finds nodes that dead domains and VMs left behind, and removes them with --yes
    Reap {
        /// Remove them
        #[arg(long)]
        yes: bool,
        /// Remove only nodes that stay unchanged for this long
        #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
        settle: f64,
    },
    /// Checks this machine, and prints a cure for each problem
    Doctor {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Prints completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Prints the manual page
    Man,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn help_fits_a_screen() {
        Args::command().debug_assert();
        let help = Args::command().render_help().to_string();
        assert!(help.lines().count() <= 24, "{help}");
        assert!(help.lines().all(|line| line.len() <= 100), "{help}");
    }
}
