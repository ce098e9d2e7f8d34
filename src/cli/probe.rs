//! `thalweg probe`: strings and records through whatever lies in between.

use std::process::ExitCode;
use std::time::Duration;

use crate::bench::probe::{ProbeOptions, ProbeReport, probe};
use crate::bench::{socket, units};
use crate::config::units::parse_duration;

/// Check a path to a `thalweg origin`: do strings and records come back intact?
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The origin's command port, or a forwarder in front of it
    #[arg(value_name = "HOST:PORT")]
    pub address: String,
    /// Strings to send
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub strings: u32,
    /// Structured records to send
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    pub records: u32,
    /// Each wait ends after this
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
    let result = socket::resolve(&args.address).and_then(|address| {
        probe(&ProbeOptions {
            address,
            strings: args.strings,
            records: args.records,
            timeout: args.timeout,
        })
        .map_err(|error| error.to_string())
    });
    match result {
        Ok(report) if args.json => match serde_json::to_string_pretty(&report) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error.to_string()),
        },
        Ok(report) => {
            print(&args.address, &report);
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("thalweg probe: {error}");
    ExitCode::FAILURE
}

fn print(address: &str, report: &ProbeReport) {
    println!("{address}: everything came back as it was sent");
    println!(
        "  connect        {}",
        units::latency(report.connect_ns as f64)
    );
    println!(
        "  first answer   {}   (through a forwarder: with its own connect)",
        units::latency(report.first_answer_ns as f64)
    );
    print_times("string", &report.string_ns);
    print_times("record", &report.record_ns);
    println!(
        "  record bytes   {}",
        units::size(report.record_bytes as f64)
    );
    println!("  TCP here       {}", report.info_here);
    println!("  TCP at origin  {}", report.info_origin);
}

fn print_times(what: &str, times: &[u64]) {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let (Some(least), Some(most)) = (sorted.first(), sorted.last()) else {
        return;
    };
    println!(
        "  {what} × {:<6}min {}, median {}, max {}",
        sorted.len(),
        units::latency(*least as f64),
        units::latency(sorted[sorted.len() / 2] as f64),
        units::latency(*most as f64),
    );
}
