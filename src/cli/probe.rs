//! `thalweg probe`: strings and records through whatever lies in between.

use std::process::ExitCode;
use std::time::Duration;

use super::failure::Failure;
use super::output;
use crate::bench::probe::{ProbeOptions, ProbeReport, probe};
use crate::bench::{socket, units};
use crate::config::units::parse_duration;

/// Check a path to a `thalweg origin`: do strings and records come back intact?
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The origin's command port, or a forwarder in front of it; 7000 unless given
    #[arg(value_name = "HOST[:PORT]")]
    pub address: String,
    /// Strings to send
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub strings: u32,
    /// Structured records to send
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub records: u32,
    /// Each exchange ends after this, however slowly its bytes come
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Prints what was found; fails when anything came back changed or not at all.
#[expect(
    clippy::needless_pass_by_value,
    reason = "every subcommand has this signature"
)]
pub fn run(args: Args) -> ExitCode {
    let address = match socket::resolve_origin(&args.address) {
        Ok(address) => address,
        Err(error) => return Failure::of_address(error).report(),
    };
    let result = probe(&ProbeOptions {
        address,
        strings: args.strings,
        records: args.records,
        timeout: args.timeout,
    });
    match result {
        Ok(report) if args.json => match serde_json::to_string_pretty(&report) {
            Ok(text) => output::result((text + "\n").as_bytes()),
            Err(error) => fail(&error.to_string()),
        },
        Ok(report) => output::result(table(&args.address, &report).as_bytes()),
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(error: &str) -> ExitCode {
    output::complain(error);
    ExitCode::FAILURE
}

fn table(address: &str, report: &ProbeReport) -> String {
    format!(
        "{address}: everything came back as it was sent\n  \
           connect        {}\n  \
           first answer   {}   (through a forwarder: with its own connect)\n\
         {}{}  \
           record bytes   {}\n  \
           TCP here       {}\n  \
           TCP at origin  {}\n",
        units::latency(report.connect_ns as f64),
        units::latency(report.first_answer_ns as f64),
        times("string", &report.string_ns),
        times("record", &report.record_ns),
        units::size(report.record_bytes as f64),
        report.info_here,
        report.info_origin,
    )
}

/// One line, or none where nothing was sent.
fn times(what: &str, times: &[u64]) -> String {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
        return String::new();
    };
    format!(
        "  {what} × {:<6}min {}, median {}, max {}\n",
        sorted.len(),
        units::latency(*least as f64),
        units::latency(sorted[sorted.len() / 2] as f64),
        units::latency(*most as f64),
    )
}
