//! Another configuration for a running thalweg.

use std::fmt::Write as _;

use serde_json::json;

use super::Asked;
use super::show::seconds;
use crate::admin::client::AskError;
use crate::admin::view::{ReloadView, SettledView};

/// What a reload is to be.
#[derive(Debug, clap::Args)]
pub(super) struct ReloadArgs {
    /// Say what would happen, and change nothing
    #[arg(long, conflicts_with = "confirm")]
    dry_run: bool,
    /// Go back by itself, unless `thalweg ctl confirm` comes within this time
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    confirm: Option<f64>,
    /// Every difference, a line each
    #[arg(long, short)]
    verbose: bool,
}

pub(super) fn reload(asked: &Asked, args: &ReloadArgs) -> Result<String, AskError> {
    let order = json!({ "dry_run": args.dry_run, "confirm_seconds": args.confirm });
    let done: ReloadView = asked.client.post("/v1/reload", &order, None)?;
    Ok(asked.shown(&done, |it| text(it, args.verbose || args.dry_run)))
}

/// Keeps what waits to be confirmed, or goes back to what was before.
pub(super) fn settle(asked: &Asked, keep: bool) -> Result<String, AskError> {
    let path = if keep {
        "/v1/reload/confirm"
    } else {
        "/v1/reload/back"
    };
    let settled: SettledView = asked.client.post(path, &(), None)?;
    if !settled.waited {
        return Err(AskError::NotFound(
            "no reload and no upgrade waits to be confirmed".to_owned(),
        ));
    }
    Ok(asked.shown(&settled, |_| String::new()))
}

fn text(done: &ReloadView, verbose: bool) -> String {
    let mut text = if done.dry_run {
        format!("would be: {}\n", done.summary)
    } else {
        format!("{}\n", done.summary)
    };
    if verbose {
        let lists = [
            ("", &done.changes),
            ("opens ", &done.listeners_opened),
            ("closes ", &done.listeners_closed),
        ];
        for (what, lines) in lists {
            for line in lines {
                let _ = writeln!(text, "  {what}{line}");
            }
        }
        if done.sessions_left > 0 {
            let _ = writeln!(text, "  {} sessions run to their end", done.sessions_left);
        }
        if !done.dry_run {
            let took = [done.read_seconds, done.compare_seconds, done.apply_seconds];
            let [read, compare, apply] = took.map(|seconds| seconds * 1e3);
            let _ = writeln!(
                text,
                "  {read:.1} ms to read, {compare:.1} ms to compare, {apply:.1} ms to apply"
            );
        }
    }
    if let Some(seconds) = done.confirm_seconds {
        let _ = writeln!(
            text,
            "goes back in {seconds:.0} s, unless `thalweg ctl confirm` comes before"
        );
    }
    text
}
