//! A new process in the place of a running thalweg.

use std::path::PathBuf;

use clap::ValueHint;
use serde_json::json;

use super::Asked;
use crate::admin::client::{self, AskError};
use crate::admin::view::UpgradeView;

/// What an upgrade is to be.
#[derive(Debug, clap::Args)]
pub(super) struct UpgradeArgs {
    /// Another binary than the one that it was started from
    #[arg(long, value_name = "PATH", value_hint = ValueHint::ExecutablePath)]
    binary: Option<PathBuf>,
}

pub(super) fn upgrade(asked: &Asked, args: &UpgradeArgs) -> Result<String, AskError> {
    // The other process may have another working directory.
    let binary = args.binary.as_ref().map(std::path::absolute);
    let binary = binary.transpose().map_err(|error| AskError::Refused {
        status: 400,
        detail: format!("--binary: {error}"),
    })?;
    let order = json!({ "binary": binary });
    let done: UpgradeView = asked.client.post(client::UPGRADE, &order, None)?;
    Ok(asked.shown(&done, text))
}

fn text(done: &UpgradeView) -> String {
    format!(
        "process {} (thalweg {}) serves {} listeners with {} sessions; {} are still opened or run to \
         their end in the former one\n",
        done.process, done.version, done.listeners, done.sessions_moved, done.sessions_left
    )
}
