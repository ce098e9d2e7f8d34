//! `thalweg schema`: which keys a configuration or a report has, for programs and for people.

use std::process::ExitCode;

use clap::ValueEnum;

use super::failure::Failure;
use super::output;
use crate::config;

/// Print every key of a configuration: a JSON Schema, an example, or tables; or of a report
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  thalweg schema > thalweg.schema.json
  thalweg schema --format toml > thalweg.toml
  thalweg schema --of bench > bench.schema.json

An editor that knows TOML and JSON Schema completes keys and marks mistakes with a first
line such as  #:schema ./thalweg.schema.json")]
pub struct Args {
    /// Whose keys: a configuration, or what `bench --json` and `tune --json` write
    #[arg(long, value_enum, default_value_t = Of::Config, value_name = "WHAT")]
    pub of: Of,
    /// What to print
    #[arg(long, value_enum, default_value_t = Format::Json, value_name = "FORMAT")]
    pub format: Format,
}

/// Whose keys are described.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Of {
    /// A configuration
    Config,
    /// The report of a benchmark, as JSON Schema
    Bench,
    /// The report of a search, as JSON Schema
    Tune,
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
    if args.of != Of::Config && args.format != Format::Json {
        return Failure::Usage("a report has no other format than json".to_owned()).report();
    }
    match args.of {
        Of::Config => {}
        // Made from the types of the reports; a test keeps them so.
        Of::Bench => return output::result(include_bytes!("../../docs/bench.schema.json")),
        Of::Tune => return output::result(include_bytes!("../../docs/tune.schema.json")),
    }
    let text = match args.format {
        Format::Json => format!("{:#}\n", config::schema()),
        Format::Toml => config::example(),
        Format::Markdown => config::tables(),
    };
    output::result(text.as_bytes())
}
