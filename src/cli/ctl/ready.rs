//! Whether clients are served: for who announces this host, or waits for it.

use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::show::seconds;
use super::{Asked, AtArgs};
use crate::admin::client::{AskError, Client};

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How it is asked.
#[derive(Debug, clap::Args)]
pub(super) struct ReadyArgs {
    /// Wait until it is, also for its start, for so long at the most
    #[arg(long, value_name = "DURATION", value_parser = seconds, num_args = 0..=1,
          default_missing_value = "365d")]
    wait: Option<f64>,
}

impl ReadyArgs {
    /// Whom to ask; who has not started yet is waited for.
    pub(super) fn client(&self, at: &AtArgs) -> Result<Client, AskError> {
        self.until(|| at.client())
    }

    /// What `look` finds, at once or while there is patience.
    fn until<T>(&self, look: impl Fn() -> Result<T, AskError>) -> Result<T, AskError> {
        let since = Instant::now();
        let patience = self.wait.unwrap_or(0.0);
        loop {
            match look() {
                Err(_) if since.elapsed().as_secs_f64() < patience => thread::sleep(LOOK_AGAIN),
                found => return found,
            }
        }
    }
}

/// Fine if it is ready; the error says why it is not, a line for each reason.
pub(super) fn ready(asked: &Asked, args: &ReadyArgs) -> Result<String, AskError> {
    args.until(|| asked.client.raw("/readyz"))?;
    Ok(asked.shown(&json!({ "ready": true }), |_| "ready\n".to_owned()))
}
