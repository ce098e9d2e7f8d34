//! What a file would change of what runs.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::ValueHint;

use super::Asked;
use crate::admin::client::AskError;
use crate::cli::host::Host;
use crate::cli::sources::{NotLoaded, SourceArgs};
use crate::config::{Config, Difference};

/// What is compared.
#[derive(Debug, clap::Args)]
pub(super) struct DiffArgs {
    /// The configuration to compare with the one in force ("-": standard input)
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    file: PathBuf,
}

impl DiffArgs {
    /// The file, read here: what it includes and which variables it has are this host's.
    pub(super) fn load(self) -> Result<Config, NotLoaded> {
        SourceArgs::of_file(self.file).load(Vec::new(), &Host::default())
    }
}

pub(super) fn diff(asked: &Asked, file: &Config) -> Result<String, AskError> {
    let reply = asked.client.raw("/v1/config")?;
    let running = Config::parse(&String::from_utf8_lossy(&reply.body)).map_err(|errors| {
        AskError::NotFound(format!(
            "what runs cannot be understood, maybe because it is another version: {errors}"
        ))
    })?;
    let lines: Vec<String> = running
        .diff(file)
        .iter()
        .map(Difference::to_string)
        .collect();
    Ok(asked.shown(&lines, |lines| text(lines)))
}

fn text(lines: &[String]) -> String {
    if lines.is_empty() {
        return "nothing differs\n".to_owned();
    }
    let mut text = String::new();
    for line in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{line}");
    }
    text
}
