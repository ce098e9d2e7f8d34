//! `thalweg init`: a configuration to begin with, for the case named.

use std::process::ExitCode;

use clap::ValueEnum;

use super::output;

const EXAMPLES: &str = "\
Examples:
  thalweg init edge > thalweg.toml
  thalweg check -c thalweg.toml
  thalweg doctor -c thalweg.toml

Cases:
  edge             a site's ports, to servers that are checked, who the client is passed on
  tls-passthrough  TLS to servers that have the certificates; the handshake is checked
  database         long sessions, bounded for each server, with a standby
  dns              DNS over UDP, TCP and TLS
  forward-proxy    clients say by HTTP CONNECT where to go";

/// Print a configuration to begin with, for a case
///
/// Asks nothing and writes no file: what it prints is valid as it stands, with a comment on
/// each choice. Names and addresses in it are examples, to be replaced.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(after_help = EXAMPLES, max_term_width = 100)]
pub struct Args {
    /// What it is to be for
    #[arg(value_enum, value_name = "CASE")]
    case: Case,
}

/// What somebody begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// A site's ports, to servers that are checked
    Edge,
    /// TLS to servers that have the certificates
    TlsPassthrough,
    /// Long sessions, bounded for each server
    Database,
    /// DNS over UDP, TCP and TLS
    Dns,
    /// Clients say by HTTP CONNECT where to go
    ForwardProxy,
}

impl Case {
    /// Its configuration.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Edge => include_str!("init/edge.toml"),
            Self::TlsPassthrough => include_str!("init/tls_passthrough.toml"),
            Self::Database => include_str!("init/database.toml"),
            Self::Dns => include_str!("init/dns.toml"),
            Self::ForwardProxy => include_str!("init/forward_proxy.toml"),
        }
    }
}

/// Prints it.
pub fn run(args: Args) -> ExitCode {
    output::result(args.case.text().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_case_is_valid_and_says_what_to_replace() {
        for case in Case::value_variants() {
            let text = case.text();
            let config = Config::parse(text);
            assert!(config.is_ok(), "{case:?}: {}", config.unwrap_err());
            let first = text.lines().next().unwrap_or_default();
            assert!(first.starts_with("# "), "{case:?}: {first}");
            assert!(text.contains("# Replace"), "{case:?}");
            assert!(text.lines().all(|line| line.chars().count() <= 100));
            let name = case.to_possible_value().expect("a name");
            assert!(EXAMPLES.contains(name.get_name()), "{case:?}");
        }
    }
}
