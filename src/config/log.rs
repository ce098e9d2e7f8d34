//! `[log]`.

use std::fmt;
use std::path::PathBuf;

use super::kind::{Special, choice, file_mode, text_schema};
use super::raw::Node;
use super::report::{Fault, nearest};
use super::section::section;
use super::tap::{Sample, sample_key};
use super::text::quote;
use super::values;
use super::words::words;

section! {
    /// `[log]`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Log, WrittenLog {
        keys {
            /// The least that is worth a line; session records do not depend on it.
            level: LogLevel = LogLevel::Info, choice(), Live;
            /// `key=value` for people, one object a line for machines.
            format: LogFormat = LogFormat::Text, choice(), Live;
            /// Session records: none, at the end, also at the start.
            sessions: SessionLog = SessionLog::Close, choice(), Live;
            /// Of so many sessions of a reactor so many have their records, evenly; always the
            /// first. Those that failed have theirs in any case.
            sample: Sample = Sample { part: 1, of: 1 }, sample_key(), Live, example "\"1/100\"";
            /// Where lines go; a file is appended to, its path needs a slash.
            to: LogTarget = LogTarget::Stdout, log_target(), Live;
            /// The mode of a file that is made, less the umask.
            mode: u32 = 0o600, file_mode(), Live;
        }
    }
}

words! {
    /// Severity of a log line.
    #[derive(PartialOrd, Ord)]
    pub enum LogLevel {
        /// Something is broken and needs an operator.
        Error = "error",
        /// Something is off; forwarding goes on.
        Warn = "warn",
        /// What a person wants to know.
        Info = "info",
        /// What a developer wants to know.
        Debug = "debug",
    }
}

words! {
    /// How lines look.
    pub enum LogFormat {
        /// `key=value` text.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

words! {
    /// Which session records are written.
    pub enum SessionLog {
        /// None; counters still count.
        Off = "off",
        /// One at the end of each session.
        Close = "close",
        /// One at the start, one at the end.
        All = "all",
    }
}

/// Where the log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogTarget {
    /// Standard output, the default.
    Stdout,
    /// Standard error.
    Stderr,
    /// Appended to a file.
    File(PathBuf),
}

impl fmt::Display for LogTarget {
    /// Control bytes of a path are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.as_os_str().as_encoded_bytes().escape_ascii().fmt(f),
        }
    }
}

fn log_target() -> Special<LogTarget> {
    Special {
        read: read_target,
        write: |to| match to {
            LogTarget::Stdout => quote("stdout"),
            LogTarget::Stderr => quote("stderr"),
            // A path from a configuration is UTF-8.
            LogTarget::File(path) => quote(&path.to_string_lossy()),
        },
        words: "`\"stdout\"`, `\"stderr\"`, a path",
        schema: text_schema,
    }
}

/// A path needs a slash, so that a misspelt word does not become a file.
fn read_target(node: &Node) -> Result<LogTarget, Fault> {
    match values::string(node)? {
        "stdout" => Ok(LogTarget::Stdout),
        "stderr" => Ok(LogTarget::Stderr),
        path if path.contains('\0') => Err(Fault::new("a path cannot contain a NUL byte")),
        path if path.ends_with('/') => Err(Fault::new("this is a directory, not a file")),
        path if path.contains('/') => Ok(LogTarget::File(PathBuf::from(path))),
        word => {
            let fault = Fault::new("this is neither \"stdout\" nor \"stderr\" nor a path");
            Err(match nearest(word, ["stdout", "stderr"]) {
                Some(known) => fault.remedy(format!("did you mean \"{known}\"?")),
                None => fault.remedy(format!("write a file with a slash: \"./{word}\"")),
            })
        }
    }
}
