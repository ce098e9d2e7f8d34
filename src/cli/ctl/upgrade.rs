//! A new process in the place of a running thalweg.

use std::path::PathBuf;

use clap::ValueHint;
use serde_json::json;

use super::Asked;
use super::show::seconds;
use crate::admin::client::{self, AskError};
use crate::admin::view::UpgradeView;

/// What an upgrade is to be.
#[derive(Debug, clap::Args)]
pub(super) struct UpgradeArgs {
    /// Another binary than the one that it was started from
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    binary: Option<PathBuf>,
    /// Go back to the former process by itself, unless `thalweg ctl confirm` comes within this time
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    trial: Option<f64>,
}

pub(super) fn upgrade(asked: &Asked, args: &UpgradeArgs) -> Result<String, AskError> {
    // The other process may have another working directory.
    let binary = args.binary.as_ref().map(std::path::absolute);
    let binary = binary.transpose().map_err(|error| AskError::Refused {
        status: 400,
        detail: format!("--binary: {error}"),
    })?;
    let order = json!({ "binary": binary, "trial_seconds": args.trial });
    let done: UpgradeView = asked.client.post(client::UPGRADE, &order, None)?;
    Ok(asked.shown(&done, text))
}

fn text(done: &UpgradeView) -> String {
    let flows = match done.flows_moved {
        0 => String::new(),
        flows => format!(" and {flows} flows of datagrams"),
    };
    format!(
        "process {} (thalweg {}) serves {} listeners with {} sessions{flows}; {} are still opened or \
         run to their end in the former one\n",
        done.process, done.version, done.listeners, done.sessions_moved, done.sessions_left
    )
}
