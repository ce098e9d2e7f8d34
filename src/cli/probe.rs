//! `thalweg probe`: strings and records through whatever lies in between.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use super::failure::Failure;
use super::output;
use crate::bench::probe::datagrams::{self, DatagramProbe, DatagramReport};
use crate::bench::probe::{ProbeOptions, ProbeReport, probe};
use crate::bench::{socket, units};
use crate::config::units::{format_duration, parse_duration};

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
    /// All exchanges together end after this, however many they are
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    pub total: Duration,
    /// Datagrams (UDP) instead, to an echo of them (`origin --udp`) or a forwarder in front of it
    #[arg(long)]
    pub udp: bool,
    /// Datagrams to send, with --udp
    #[arg(long, value_name = "COUNT", default_value_t = 20, requires = "udp",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    /// Bytes of the datagrams, in turn, with --udp
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "64,512,1200,1472",
          requires = "udp", value_parser = clap::value_parser!(u16).range(..=65507))]
    pub sizes: Vec<u16>,
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
    if args.udp {
        return with_datagrams(&args, address);
    }
    let result = probe(&ProbeOptions {
        address,
        strings: args.strings,
        records: args.records,
        timeout: args.timeout,
        total: args.total,
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

fn with_datagrams(args: &Args, address: SocketAddr) -> ExitCode {
    let result = datagrams::probe(&DatagramProbe {
        address,
        count: args.count,
        sizes: args.sizes.iter().map(|size| usize::from(*size)).collect(),
        timeout: args.timeout,
        total: args.total,
    });
    let report = match result {
        Ok(report) => report,
        Err(error) => return fail(&error.to_string()),
    };
    let text = if args.json {
        match serde_json::to_string_pretty(&report) {
            Ok(text) => text + "\n",
            Err(error) => return fail(&error.to_string()),
        }
    } else {
        datagram_table(&args.address, &report)
    };
    let printed = output::result(text.as_bytes());
    let sent = report.sent();
    if sent < args.count {
        return fail(&format!(
            "after {} only {sent} of {} datagrams were sent (--total)",
            format_duration(args.total),
            args.count
        ));
    }
    match report.lost() {
        0 => printed,
        lost => fail(&format!(
            "{lost} of {} datagrams did not come back",
            args.count
        )),
    }
}

fn datagram_table(address: &str, report: &DatagramReport) -> String {
    let mut text = format!("{address}: {} datagrams came back as they were sent\n", {
        report
            .sizes
            .iter()
            .map(|it| it.round_trip_ns.len())
            .sum::<usize>()
    });
    for size in &report.sizes {
        let what = format!("{} bytes", size.size_bytes);
        text.push_str(&times(&what, &size.round_trip_ns));
        if size.lost > 0 {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  {what}: {} of {} lost", size.lost, size.sent);
        }
    }
    text
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
