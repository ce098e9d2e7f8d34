//! `thalweg schema`: which keys a configuration has, for programs and for people.

use std::process::ExitCode;

use clap::ValueEnum;

use super::output;
use crate::config;

/// Print every key of a configuration: a JSON Schema, an example, or tables.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  thalweg schema > thalweg.schema.json
  thalweg schema --format toml > thalweg.toml

An editor that knows TOML and JSON Schema completes keys and marks mistakes with a first
line such as  #:schema ./thalweg.schema.json")]
pub struct Args {
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Json, value_name = "FORMAT")]
    pub format: Format,
}

/// How the keys are described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// JSON Schema, draft 2020-12
    Json,
    /// A configuration with every key, each with a comment
    Toml,
    /// The tables of docs/configuration.md
    Markdown,
}

/// Prints it.
#[expect(
    clippy::needless_pass_by_value,
    reason = "every subcommand has this signature"
)]
pub fn run(args: Args) -> ExitCode {
    let text = match args.format {
        Format::Json => format!("{:#}\n", config::schema()),
        Format::Toml => config::example(),
        Format::Markdown => config::tables(),
    };
    output::result(text.as_bytes())
}
