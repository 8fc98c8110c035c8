//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

/// What the program was asked to do.
#[derive(Debug, Parser)]
#[command(
    name = "tubes",
    version = concat!(env!("CARGO_PKG_VERSION"), " (handshake version 1)"),
    about = "Shows the tubes between Erlang VMs, from outside: what xenstore says of them.",
    after_help = "\
A domain is a number or a name. The store is, in this order: --socket, XENSTORED_PATH, Xen's own,
the local platform's <run>/dom0/xenstored.sock (<run>: TUBE_RUN_DIR, else $XDG_RUNTIME_DIR/tube,
else /run/tube), /dev/xen/xenbus. Only domain 0's store connection shows all domains.
Exit status: 0 done, 1 failed or (doctor) something is wrong, 2 wrong usage."
)]
pub struct Args {
    /// Socket of the store
    #[arg(long, global = true, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// A line for each tube
    List {
        /// As JSON, with everything that is known
        #[arg(short = 'l', long = "json", visible_alias = "long")]
        json: bool,
        /// With messages and bytes per second, for which the VMs are asked: takes two seconds
        #[arg(long)]
        stats: bool,
    },
    /// All about the tubes of a domain, both sides beside each other, disagreement marked !
    Show {
        /// Domain, by number or name
        dom: String,
        /// Only the tubes of this number
        tid: Option<u32>,
    },
    /// What happens, as it happens: opened, connected, closing, closed, stale
    Watch {
        /// A line of JSON for each
        #[arg(long)]
        json: bool,
    },
    /// A table that stays: rates, waits, wake-ups, with sorting and a filter
    Top,
    /// What dead domains and VMs left behind; removes it with --yes, and nothing else ever
    Reap {
        /// Really remove
        #[arg(long)]
        yes: bool,
        /// How long it must have stayed the same
        #[arg(long, value_name = "SECONDS", default_value_t = 20.0)]
        settle: f64,
    },
    /// Checks this machine, and says the cure of each finding
    Doctor {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Completions for a shell, on standard output
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// The manual page, on standard output
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
