//! What sessions say, as it flows.

use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use clap_complete::engine::ArgValueCandidates;
use hyper::Method;
use serde::Serialize;

use super::Asked;
use super::act::usage;
use super::candidates;
use super::show::size;
use crate::admin::client::AskError;
use crate::cli::output;

/// Whom to look at, and how it is to look.
#[derive(Debug, clap::Args, Serialize)]
pub(super) struct TapArgs {
    /// How it looks: hex, text, http (decoded) or pcapng (packets for Wireshark)
    #[arg(long, value_name = "FORMAT", value_parser = ["hex", "text", "http", "pcapng"],
          default_value = "http")]
    format: String,
    /// At sessions of this forward
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(candidates::forwards))]
    #[serde(skip_serializing_if = "Option::is_none")]
    forward: Option<String>,
    /// At sessions of this client: an address or a network
    #[arg(long, value_name = "CLIENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    /// At this live session, as `show sessions` has it; it ends with that
    #[arg(long, value_name = "ID", conflicts_with_all = ["forward", "client"],
          add = ArgValueCandidates::new(candidates::sessions))]
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    /// At every session
    #[arg(long, conflicts_with_all = ["forward", "client", "session"])]
    all: bool,
    /// At what goes this way only: up is to the server
    #[arg(long, value_name = "WAY", value_parser = ["up", "down", "both"])]
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<String>,
    /// At so much of each session
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64KiB")]
    max_bytes: u64,
    /// Mask this header or parameter as well; may be repeated
    #[arg(long, value_name = "NAME")]
    mask: Vec<String>,
    /// Mask nothing
    #[arg(long, conflicts_with = "mask")]
    unmask: bool,
}

/// Until the other end, or whoever reads, has had enough.
pub(super) fn tap(asked: &Asked, args: &TapArgs) -> Result<ExitCode, AskError> {
    if args.session.is_none() && args.forward.is_none() && args.client.is_none() && !args.all {
        return Err(usage(
            "say whom to look at: --forward, --client, --session or --all",
        ));
    }
    if args.format == "pcapng" && io::stdout().is_terminal() {
        return Err(usage(
            "pcapng is no text: send it to a file, or through a pipe to `tshark -r -`",
        ));
    }
    // Plain data always serialises.
    let order = serde_json::to_vec(args).unwrap_or_default();
    let mut code = ExitCode::SUCCESS;
    let take = |bytes: &[u8]| match output::say(bytes) {
        Ok(()) => true,
        Err(ended) => {
            code = ended;
            false
        }
    };
    asked
        .client
        .stream(Method::POST, "/v1/tap", Some(order), take)?;
    Ok(code)
}
