//! Names for whoever completes a command line: the running process is asked for them. Nobody
//! who answers, or an error, is no name.

use std::ffi::OsString;
use std::path::PathBuf;

use clap_complete::engine::CompletionCandidate;
use serde::de::DeserializeOwned;

use super::AtArgs;
use crate::admin::view::{Forward, Pool, Server, SessionPage};

/// Sessions that are offered at the most.
const SESSIONS_MAX: u32 = 200;

pub(super) fn servers() -> Vec<CompletionCandidate> {
    let servers: Vec<Server> = asked("/v1/servers").unwrap_or_default();
    let offered = servers.iter().map(|it| {
        let name = format!("{}/{}", it.pool, it.address);
        offer(name, &format!("{}, {} sessions", it.state, it.sessions))
    });
    offered.collect()
}

pub(super) fn forwards() -> Vec<CompletionCandidate> {
    let forwards: Vec<Forward> = asked("/v1/forwards").unwrap_or_default();
    let offered = forwards.into_iter().map(|it| {
        let about = format!("{}, {} sessions", it.listen.join(","), it.sessions);
        offer(it.name, &about)
    });
    offered.collect()
}

pub(super) fn pools() -> Vec<CompletionCandidate> {
    let pools: Vec<Pool> = asked("/v1/pools").unwrap_or_default();
    let offered = pools.into_iter().map(|it| {
        let about = format!("{} of {} servers up", it.up, it.servers);
        offer(it.name, &about)
    });
    offered.collect()
}

pub(super) fn sessions() -> Vec<CompletionCandidate> {
    let page: Option<SessionPage> = asked(&format!("/v1/sessions?limit={SESSIONS_MAX}"));
    let sessions = page.map(|it| it.sessions).unwrap_or_default();
    let offered = sessions.into_iter().map(|it| {
        let about = format!("{} at {}", it.client, it.forward);
        offer(it.id, &about)
    });
    offered.collect()
}

/// A name and what it is about, which a terminal is shown: names may come from peers.
fn offer(name: String, about: &str) -> CompletionCandidate {
    let help = super::table::printable(about);
    CompletionCandidate::new(name).help(Some(help.into()))
}

fn asked<T: DeserializeOwned>(path: &str) -> Option<T> {
    let line: Vec<OsString> = std::env::args_os().collect();
    let client = place(&line).client().ok()?;
    client.get(path).ok()
}

/// Where the line that is being completed says to ask.
fn place(line: &[OsString]) -> AtArgs {
    let mut at = AtArgs {
        socket: None,
        address: None,
        token_file: None,
    };
    for pair in line.windows(2) {
        let value = pair[1].clone();
        match pair[0].to_str() {
            Some("--socket") => at.socket = Some(PathBuf::from(value)),
            Some("--address") => at.address = value.into_string().ok(),
            Some("--token-file") => at.token_file = Some(PathBuf::from(value)),
            _ => {}
        }
    }
    at
}
