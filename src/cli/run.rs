//! `thalweg run`, and `thalweg` without a command: forward until a signal ends it.

#![allow(
    clippy::doc_markdown,
    reason = "the comments on arguments are the help text, which is not Markdown"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clap::ValueHint;

use super::flags::{FlagArgs, QuietArgs};
use super::host::{Asked, Host};
use super::output;
use super::sources::SourceArgs;
use crate::config::{Config, Override};
use crate::control::{self, ConfigFiles, Given, Manager, StartError, TakeOver};
use crate::net::inherited::Inherited;

const EXAMPLES: &str = "\
Examples:
  thalweg run -l :5000 -r 10.0.0.1:443
  thalweg run -c thalweg.toml --reactors 2
  thalweg run -l :5000 -r 10.0.0.1:80 --tap http
  thalweg run -c thalweg.toml --log-format json --log-to /var/log/thalweg.log

SIGTERM or SIGINT stops accepting and lets transfers finish, for at most
drain_timeout; a second one ends at once. SIGQUIT does the same, however often.
SIGHUP reads the configuration again and opens the log anew; SIGUSR1 logs the
counters; SIGUSR2 hands over to a new process, as `thalweg ctl upgrade` does.";

/// Forward until SIGTERM or SIGINT
///
/// Forward until SIGTERM or SIGINT, which let running transfers finish.
///
/// What to forward comes from pairs of -l and -r, from a file, or from both. All errors of
/// the configuration are reported before anything starts.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    #[command(flatten)]
    sources: SourceArgs,
    #[command(flatten)]
    flags: FlagArgs,
    #[command(flatten)]
    quiet: QuietArgs,
    /// Take the place of a running thalweg of this user, with its listening sockets
    ///
    /// It is found by its socket, upgrade.sock in the runtime directory, or at
    /// --take-over=SOCKET; it ends once its last session has. If anything fails here it goes
    /// on with everything. `thalweg ctl upgrade` does the same from the other side.
    #[arg(long, value_name = "SOCKET", num_args = 0..=1, require_equals = true,
          default_missing_value = "auto", value_hint = ValueHint::FilePath)]
    take_over: Option<TakeOver>,
}

/// Forwards until a signal ends it.
pub fn run(args: Args) -> ExitCode {
    // Before anything is opened: they are known by their numbers.
    let inherited = match Inherited::passed() {
        Ok(inherited) => inherited,
        Err(error) => {
            output::complain(&StartError::Inherited(error.to_string()).to_string());
            return ExitCode::FAILURE;
        }
    };
    let flags = args.flags.overrides(args.quiet.quiet);
    let sources = args.sources;
    let take_over = TakeOver::asked(args.take_over);
    // The process that has everything learns why this one does not begin.
    let refuse = |reason: &str| {
        if let Some(from) = &take_over {
            from.refuse(reason);
        }
    };
    if take_over == Some(TakeOver::Parent) && sources.is_standard_input() {
        let why = "standard input cannot be read again; name a file";
        refuse(why);
        output::complain(why);
        return ExitCode::FAILURE;
    }
    let host = Host::default();
    let config = match sources.clone().load_again(flags.clone(), &host, None) {
        Ok(config) => config,
        Err(why) => {
            refuse(&why.to_string());
            return why.told();
        }
    };
    let source = Arc::new(Again {
        sources,
        flags,
        asked: Mutex::new(host.asked()),
    });
    let given = Given {
        source: Some(source),
        inherited,
        take_over,
        manager: Manager::from_environment(),
        pilot: None,
    };
    match control::run_with(&config, given) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

/// The configuration as the command line says it, read again.
#[derive(Debug)]
struct Again {
    sources: SourceArgs,
    flags: Vec<Override>,
    /// What it was read from the last time.
    asked: Mutex<Asked>,
}

impl Again {
    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Again {
    /// With what was read before, if that is known.
    fn load(&self, config: Option<&Config>) -> Result<Config, String> {
        if self.sources.is_standard_input() {
            return Err("standard input cannot be read again; name a file".to_owned());
        }
        let host = Host::default();
        let read = self
            .sources
            .clone()
            .load_again(self.flags.clone(), &host, config);
        let mut asked = self.asked();
        let before = std::mem::take(&mut *asked);
        *asked = match &read {
            Ok(_) => host.asked(),
            Err(_) => host.asked().and(before),
        };
        read.map_err(|why| why.to_string())
    }
}

impl control::ConfigSource for Again {
    fn read(&self) -> Result<Config, String> {
        self.load(None)
    }

    fn read_again(&self, before: &Config) -> Result<Config, String> {
        self.load(Some(before))
    }

    fn was_read(&self) -> ConfigFiles {
        self.asked().was_read()
    }

    fn files(&self) -> ConfigFiles {
        // Not under the lock: a file system may not answer.
        let asked = self.asked().clone();
        asked.files()
    }

    fn folders(&self) -> Vec<PathBuf> {
        self.asked().folders()
    }
}
