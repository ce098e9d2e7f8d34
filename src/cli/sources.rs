//! The flags that say what to forward, shared by `run` and `check`.

#![allow(
    clippy::doc_markdown,
    reason = "the comments on arguments are the help text, which is not Markdown"
)]

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueHint;

use super::host::{Host, is_standard_input};
use super::{USAGE, output};
use crate::config::{Config, ConfigErrors, Inputs, Override, Pair};
use crate::control::{AccessFileError, errors_of_files};

/// What to forward: pairs, a file, or both.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SourceArgs {
    /// Listen on ADDRESS (:PORT, HOST:PORT, udp::PORT, unix:/PATH)
    ///
    /// :5000 listens on every IPv4 and IPv6 address, 127.0.0.1:5000 or [::1]:5000 on one,
    /// :5000-5009 on ten ports, unix:/path and unix:@name on a unix socket. With `udp:` before
    /// both addresses datagrams are forwarded: -l udp::53 -r udp:10.0.0.1:53. Repeat it in
    /// pairs with -r; each pair is one forward.
    #[arg(short, long, value_name = "ADDRESS", help_heading = "What to forward")]
    listen: Vec<String>,

    /// Forward to SERVER (HOST:PORT, udp:HOST:PORT, unix:/PATH), or to several in turn
    ///
    /// Several servers, with commas between them, take turns; the next one is tried when a
    /// connect fails. A range of ports (host:6000-6009) pairs up with the range of -l.
    #[arg(
        short,
        long,
        value_name = "SERVER[,SERVER...]",
        help_heading = "What to forward"
    )]
    remote: Vec<String>,

    /// Read the configuration from FILE ("-": standard input)
    ///
    /// A TOML file; pairs of -l and -r are added to its forwards. `thalweg check` shows what
    /// it means.
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath,
          help_heading = "Configuration")]
    config: Option<PathBuf>,

    /// Change one value, such as defaults.idle_timeout=5s
    ///
    /// Any key of the configuration, dotted: defaults.idle_timeout=5s, profile.wan.mss=1400,
    /// forward.NAME.data_path=splice, where NAME may be an address such as :5000. It goes before the file and may be repeated.
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Configuration")]
    set: Vec<String>,
}

impl SourceArgs {
    /// A file alone.
    pub(super) fn of_file(file: PathBuf) -> Self {
        Self {
            listen: Vec::new(),
            remote: Vec::new(),
            config: Some(file),
            set: Vec::new(),
        }
    }

    /// Whether nothing was said.
    pub(super) fn is_empty(&self) -> bool {
        self.listen.is_empty()
            && self.remote.is_empty()
            && self.config.is_none()
            && self.set.is_empty()
    }

    /// Whether the file is standard input, which can be read once.
    pub(super) fn is_standard_input(&self) -> bool {
        self.config.as_deref().is_some_and(is_standard_input)
    }

    /// Reads all of it. `host` remembers which files that were.
    pub(super) fn load(self, flags: Vec<Override>, host: &Host) -> Result<Config, NotLoaded> {
        let inputs = self.inputs(flags, host).map_err(NotLoaded::Unreadable)?;
        Config::load_in(&inputs, host).map_err(NotLoaded::Wrong)
    }

    /// Likewise, with a memory of it; with that of `before` what has not changed since is not
    /// read again.
    pub(super) fn load_again(
        self,
        flags: Vec<Override>,
        host: &Host,
        before: Option<&Config>,
    ) -> Result<Config, NotLoaded> {
        let inputs = self.inputs(flags, host).map_err(NotLoaded::Unreadable)?;
        Config::load_again(&inputs, host, before).map_err(NotLoaded::Wrong)
    }

    /// Reads the file and puts all parts together. The error is one line.
    fn inputs(self, flags: Vec<Override>, host: &Host) -> Result<Inputs, String> {
        let file = self.config.as_deref().map(|path| host.read(path));
        let file = file.transpose()?;
        let count = self.listen.len().max(self.remote.len());
        let pairs = (0..count).map(|index| Pair {
            listen: self.listen.get(index).cloned(),
            upstream: self.remote.get(index).cloned(),
        });
        let sets = self.set.iter().map(|text| Override {
            flag: "--set".to_owned(),
            key: None,
            text: text.clone(),
        });
        Ok(Inputs {
            file,
            pairs: pairs.collect(),
            // What is said in full goes before what a flag is short for.
            overrides: flags.into_iter().chain(sets).collect(),
        })
    }
}

/// Why there is no configuration.
#[derive(Debug)]
pub(super) enum NotLoaded {
    /// One line.
    Unreadable(String),
    /// All that is wrong with it.
    Wrong(ConfigErrors),
}

impl NotLoaded {
    /// Says why.
    pub(super) fn told(&self) -> ExitCode {
        match self {
            Self::Unreadable(message) => {
                output::complain(message);
                ExitCode::from(USAGE)
            }
            Self::Wrong(errors) => {
                // Before the errors that are counted at their end.
                for error in wrong_lines(errors) {
                    output::complain(&format!("error: {error}"));
                }
                output::configuration_errors(errors)
            }
        }
    }
}

impl fmt::Display for NotLoaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(message) => f.write_str(message),
            Self::Wrong(errors) => {
                errors.fmt(f)?;
                wrong_lines(errors).try_for_each(|error| write!(f, "\n{error}"))
            }
        }
    }
}

/// Lines that say nothing in files that its lists name, so that nobody learns of them only once the configuration is
/// right. A file that is not there may be where the configuration is to run.
fn wrong_lines(errors: &ConfigErrors) -> impl Iterator<Item = AccessFileError> {
    let found = errors_of_files(errors.lists()).into_iter();
    found.filter(|it| matches!(it, AccessFileError::Lines { .. }))
}
