//! `thalweg ctl`: see a running thalweg and steer it.

#![allow(
    clippy::doc_markdown,
    reason = "the comments on arguments are the help text, which is not Markdown"
)]

mod act;
mod candidates;
mod config;
mod diff;
mod ready;
mod reload;
mod servers;
mod show;
mod tap;
mod topology;
mod upgrade;

pub(super) use show::seconds;
pub(crate) mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Subcommand, ValueHint};

use super::{USAGE, output};
use crate::admin::client::{AskError, Client};

const EXAMPLES: &str = "\
Examples:
  thalweg ctl show servers
  thalweg ctl show sessions --sort rate --limit 20
  thalweg ctl server web/10.0.0.2:80 drain --wait 5m
  thalweg ctl kill --client 10.1.2.0/24
  thalweg ctl tap --client 10.1.2.3 --format http
  thalweg ctl tap --forward web --format pcapng | tshark -r -
  thalweg ctl log debug
  thalweg ctl ready --wait 30s
  thalweg ctl diff new.toml
  thalweg ctl reload --dry-run
  thalweg ctl reload --confirm 30s && thalweg ctl confirm
  thalweg ctl upgrade --binary /opt/thalweg/bin/thalweg

The socket is found in the runtime directory; --socket names another.
Exit codes: 0 done, 1 refused or nobody answers, 2 usage.";

/// See a running thalweg and steer it
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    at: AtArgs,
    /// What it answers as JSON, as it comes
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// Where to ask.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Where to ask")]
pub(super) struct AtArgs {
    /// The unix socket of its admin endpoint
    #[arg(long, value_name = "PATH", global = true, value_hint = ValueHint::FilePath)]
    socket: Option<PathBuf>,

    /// The TCP address of its admin endpoint: HOST:PORT
    #[arg(long, value_name = "ADDRESS", global = true, conflicts_with = "socket")]
    address: Option<String>,

    /// The file with the token that TCP needs
    #[arg(long, value_name = "PATH", global = true, value_hint = ValueHint::FilePath)]
    token_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what there is
    Show {
        #[command(subcommand)]
        what: show::What,
    },
    /// Drain a server, take it back, or give it another weight or limit
    Server(act::ServerArgs),
    /// Let nobody in at a forward any more, or clients again
    Forward(act::ForwardArgs),
    /// End sessions with a reset to both sides
    Kill(act::KillArgs),
    /// Look at what sessions say, as it flows
    ///
    /// Those that run are shown from now on, those to come from their first byte. It ends with this
    /// command, or with the session that was asked for. What this command does not take in time is
    /// dropped, and said to be missing.
    Tap(tap::TapArgs),
    /// Set the level of the log
    Log(act::LogArgs),
    /// Forgive servers their failures
    ClearMarks(act::MarksArgs),
    /// Read the configuration again, and apply what differs
    Reload(reload::ReloadArgs),
    /// Start a new process and hand everything over to it
    Upgrade(upgrade::UpgradeArgs),
    /// Say what a file would change of what runs
    ///
    /// The file is read here, with what it includes, and compared with the configuration in force, by
    /// name. What flags say when the process is started is part of what runs, and not of the file.
    Diff(diff::DiffArgs),
    /// Say whether clients are served: exit code 0, or 1 with each reason why not
    Ready(ready::ReadyArgs),
    /// Keep what a reload with --confirm has put in force, or an upgrade with --trial
    Confirm,
    /// Go back to what was in force before a reload with --confirm, or an upgrade with --trial
    GoBack,
}

/// Asks, and says what came of it.
pub fn run(args: Args) -> ExitCode {
    let client = match &args.command {
        Command::Ready(ready) => ready.client(&args.at),
        _ => args.at.client(),
    };
    let client = match client {
        Ok(client) => client,
        Err(error) => return failed(&error),
    };
    let asked = Asked {
        client,
        json: args.json,
    };
    let done = match args.command {
        Command::Show { what } => show::run(&asked, &what),
        Command::Server(args) => act::server(&asked, &args),
        Command::Forward(args) => act::forward(&asked, &args),
        Command::Kill(args) => act::kill(&asked, &args),
        Command::Tap(args) => {
            return tap::tap(&asked, &args).unwrap_or_else(|error| failed(&error));
        }
        Command::Log(args) => act::log(&asked, &args),
        Command::ClearMarks(args) => act::clear_marks(&asked, &args),
        Command::Reload(args) => reload::reload(&asked, &args),
        Command::Upgrade(args) => upgrade::upgrade(&asked, &args),
        Command::Diff(args) => match args.load() {
            Ok(file) => diff::diff(&asked, &file),
            Err(why) => return why.told(),
        },
        Command::Ready(args) => ready::ready(&asked, &args),
        Command::Confirm => reload::settle(&asked, true),
        Command::GoBack => reload::settle(&asked, false),
    };
    match done {
        Ok(text) => output::result(text.as_bytes()),
        Err(error) => failed(&error),
    }
}

fn failed(error: &AskError) -> ExitCode {
    output::complain(&error.to_string());
    match error {
        // A request that makes no sense is wrong usage.
        AskError::Refused { status: 400, .. } => ExitCode::from(USAGE),
        _ => ExitCode::FAILURE,
    }
}

/// Who is asked, and how the answer is told.
struct Asked {
    client: Client,
    json: bool,
}

impl AtArgs {
    /// Whoever is to be asked.
    pub(super) fn client(&self) -> Result<Client, AskError> {
        let token = self.token_file.as_ref().map(std::fs::read_to_string);
        let token = token.transpose().map_err(|error| {
            let path = self.token_file.as_deref().unwrap_or("".as_ref());
            AskError::NotFound(format!("cannot read {}: {error}", path.display()))
        })?;
        match (&self.socket, &self.address) {
            (Some(socket), _) => Client::at_socket(socket),
            (None, Some(address)) => {
                let port = address
                    .rsplit_once(':')
                    .map(|(_, port)| port.parse::<u16>());
                if !matches!(port, Some(Ok(_))) {
                    let what = format!("--address is HOST:PORT, not {address}");
                    return Err(act::usage(what));
                }
                Client::at_address(address, token.map(|it| it.trim().to_owned()))
            }
            (None, None) => Client::find(),
        }
    }
}
