//! `thalweg origin`: the far end of a measurement, until it is told to stop.

#![allow(
    rustdoc::broken_intra_doc_links,
    reason = "the comments on arguments are the help text, which is not Markdown"
)]

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use super::failure::Failure;
use super::output;
use crate::bench::interrupt::Interrupt;
use crate::bench::origin::{DatagramOptions, Handlers, Origin, OriginOptions, Role};
use crate::bench::socket::{self, ResolveError};
use crate::config::units::{parse_duration, parse_size};
use crate::net::limits;

/// Serve the far end of measurements: commands, echo, discard, source
///
/// For test networks only: it serves whoever reaches it, without encryption, and sends as
/// much as it is asked for. It listens on loopback unless told otherwise.
///
/// On the command port the first line says what a connection is for: ECHO,
/// SINK [seed], SOURCE [bytes|-] [seed], STRING, RECORD bytes, or INFO.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The command port: HOST[:PORT], or :PORT for every address of this host
    #[arg(short, long, value_name = "ADDRESS", default_value = "127.0.0.1:7000")]
    pub listen: String,
    /// Also an echo port (RFC 862)
    #[arg(long, value_name = "ADDRESS")]
    pub echo: Option<String>,
    /// Also a discard port (RFC 863)
    #[arg(long, value_name = "ADDRESS")]
    pub discard: Option<String>,
    /// Also a port that sends without end, in the manner of RFC 864
    #[arg(long, value_name = "ADDRESS")]
    pub source: Option<String>,
    /// Also echo of datagrams (UDP, RFC 862); those of forged senders are answered, too
    #[arg(long, value_name = "ADDRESS")]
    pub udp: Option<String>,
    /// Threads that serve
    #[arg(long, value_name = "COUNT", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,
    /// Congestion control of every connection, such as cubic [default: the system's]
    #[arg(long, value_name = "NAME")]
    pub congestion: Option<String>,
    /// Connections at the most
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    pub max_connections: usize,
    /// Bytes that all connections together may hold
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    pub max_memory: u64,
    /// A connection without a byte for so long is closed
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub idle_timeout: Duration,
}

/// Runs until SIGINT or SIGTERM.
#[expect(
    clippy::needless_pass_by_value,
    reason = "every subcommand has this signature"
)]
pub fn run(args: Args) -> ExitCode {
    let interrupt = Interrupt::install();
    match serve(&args, &interrupt) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Ended::Failed(failure)) => failure.report(),
        Err(Ended::Unheard(code)) => code,
    }
}

/// Why it ended without being told to.
enum Ended {
    Failed(Failure),
    /// Where it serves could not be said; with the exit code for that.
    Unheard(ExitCode),
}

impl From<String> for Ended {
    fn from(error: String) -> Self {
        Self::Failed(Failure::Running(error))
    }
}

impl From<ResolveError> for Ended {
    fn from(error: ResolveError) -> Self {
        Self::Failed(Failure::of_address(error))
    }
}

fn serve(args: &Args, interrupt: &Interrupt) -> Result<(), Ended> {
    limits::raise_descriptor_limit().map_err(|error| error.to_string())?;
    if let Some(name) = &args.congestion {
        socket::check_congestion(name)
            .map_err(|error| Ended::Failed(Failure::Usage(format!("--congestion: {error}"))))?;
    }
    let optional = |text: &Option<String>| text.as_deref().map(socket::resolve).transpose();
    let options = OriginOptions {
        command: Some(socket::resolve_origin(&args.listen)?),
        echo: optional(&args.echo)?,
        discard: optional(&args.discard)?,
        source: optional(&args.source)?,
        datagrams: optional(&args.udp)?.map(|address| DatagramOptions {
            address: Some(address),
            streams: false,
            in_trains: false,
        }),
        threads: usize::from(args.threads),
        prompt: None,
        congestion: args.congestion.clone(),
        options: None,
        watch: None,
        connections_max: args.max_connections,
        memory_max: args.max_memory,
        idle_timeout: args.idle_timeout,
    };
    let origin = Origin::start(&options, Handlers::default()).map_err(|error| error.to_string())?;
    let mut text = String::new();
    for (role, address) in origin.addresses() {
        let name = match role {
            Role::Command => "commands",
            Role::Echo => "echo",
            Role::Discard => "discard",
            Role::Source => "source",
            Role::Datagrams => "datagrams",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name} on {address}");
    }
    output::say(text.as_bytes()).map_err(Ended::Unheard)?;
    interrupt.wait();
    Ok(())
}
