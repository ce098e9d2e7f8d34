//! The flags that say what to forward, shared by `run` and `check`.

#![allow(
    clippy::doc_markdown,
    reason = "the comments on arguments are the help text, which is not Markdown"
)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::ValueHint;

use crate::config::{FileText, Inputs, Override, Pair};

/// A configuration larger than this is a mistake, such as a device or a log. What
/// `check` prints of the longest ranges of ports, 32,768 forwards with a pool each,
/// has 28 MB.
const FILE_MAX: u64 = 64 << 20;

/// What to forward: pairs, a file, or both.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct SourceArgs {
    /// Listen on ADDRESS (:PORT, HOST:PORT, unix:/PATH)
    ///
    /// :5000 listens on every IPv4 and IPv6 address, 127.0.0.1:5000 or [::1]:5000 on one,
    /// :5000-5009 on ten ports, unix:/path and unix:@name on a unix socket. Repeat it in
    /// pairs with -r; each pair is one forward.
    #[arg(short, long, value_name = "ADDRESS", help_heading = "What to forward")]
    listen: Vec<String>,

    /// Forward to SERVER (HOST:PORT, unix:/PATH), or to several in turn
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

    /// The files that it reads.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let file = self.config.iter().filter(|path| !is_standard_input(path));
        file.cloned().collect()
    }

    /// Reads the file and puts all parts together. The error is one line.
    pub(super) fn inputs(self, flags: Vec<Override>) -> Result<Inputs, String> {
        let file = self.config.as_deref().map(read_file).transpose()?;
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

fn is_standard_input(path: &Path) -> bool {
    path.as_os_str() == OsStr::new("-")
}

fn read_file(path: &Path) -> Result<FileText, String> {
    let (name, bytes) = if is_standard_input(path) {
        ("standard input".to_owned(), read_all(io::stdin().lock()))
    } else {
        let bytes = File::open(path).and_then(read_all);
        (path.display().to_string(), bytes)
    };
    match bytes {
        Ok(bytes) if bytes.len() as u64 > FILE_MAX => Err(format!(
            "{name} is larger than {} MiB: is it a configuration?",
            FILE_MAX >> 20
        )),
        Ok(bytes) => Ok(FileText { name, bytes }),
        Err(error) => Err(format!("cannot read {name}: {error}")),
    }
}

fn read_all(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
