//! What `ctl` has done.

use std::time::{Duration, Instant};

use clap::ValueEnum;
use clap_complete::engine::ArgValueCandidates;
use serde::Serialize;
use serde_json::{Value, json};

use super::Asked;
use super::show::{FilterArgs, seconds};
use super::table::printable;
use super::{candidates, servers};
use crate::admin::client::{AskError, segment};
use crate::admin::view::{Forward, Killed, LogView, Server};
use crate::cli::output;

/// Between two words about what is left.
const TELL_AGAIN: Duration = Duration::from_secs(2);

/// Between two looks at what is being drained.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What to do with a server.
#[derive(Debug, clap::Args)]
pub(super) struct ServerArgs {
    /// POOL/ADDRESS, an address that one pool alone has, or the number in `--json`
    #[arg(add = ArgValueCandidates::new(candidates::servers))]
    server: String,
    /// drain: it keeps its sessions and gets no more; maintenance: nor is it checked; ready:
    /// it takes sessions; weight and limit take a value
    #[arg(value_enum)]
    what: ServerVerb,
    /// Of weight: 1 to 1000; of limit: sessions at the most, or none
    value: Option<String>,
    /// Also if no other server of its pool takes sessions
    #[arg(long)]
    force: bool,
    /// Wait until its last session has ended, for so long at the most
    #[arg(long, value_name = "DURATION", value_parser = seconds, num_args = 0..=1,
          default_missing_value = "365d")]
    wait: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ServerVerb {
    Ready,
    Drain,
    Maintenance,
    Weight,
    Limit,
}

/// What to do with a forward.
#[derive(Debug, clap::Args)]
pub(super) struct ForwardArgs {
    /// Its name
    #[arg(add = ArgValueCandidates::new(candidates::forwards))]
    name: String,
    #[arg(value_enum)]
    what: ForwardVerb,
    /// Wait until its last session has ended, for so long at the most
    #[arg(long, value_name = "DURATION", value_parser = seconds, num_args = 0..=1,
          default_missing_value = "365d")]
    wait: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ForwardVerb {
    /// Refuse clients from now on; sessions go on
    Drain,
    /// Let clients in again after a drain
    Ready,
}

/// Which sessions to end.
#[derive(Debug, clap::Args)]
pub(super) struct KillArgs {
    /// Their ids, as `show sessions` has them
    #[arg(conflicts_with_all = ["client", "forward", "server", "min_age", "max_age", "min_bytes"],
          add = ArgValueCandidates::new(candidates::sessions))]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
    /// Every session there is
    #[arg(long, conflicts_with_all = ["ids", "client", "forward", "server", "min_age", "max_age", "min_bytes"])]
    all: bool,
}

/// Which level.
#[derive(Debug, clap::Args)]
pub(super) struct LogArgs {
    /// error, warn, info or debug; without, the level is shown
    #[arg(value_parser = ["error", "warn", "info", "debug"])]
    level: Option<String>,
}

/// Which servers.
#[derive(Debug, clap::Args)]
pub(super) struct MarksArgs {
    /// POOL/ADDRESS; all servers without
    #[arg(add = ArgValueCandidates::new(candidates::servers))]
    server: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct ServerOrder {
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_connections: Option<Value>,
    force: bool,
}

/// Usage that clap cannot see is wrong.
pub(super) fn usage(detail: impl Into<String>) -> AskError {
    AskError::Refused {
        status: 400,
        detail: detail.into(),
    }
}

pub(super) fn server(asked: &Asked, args: &ServerArgs) -> Result<String, AskError> {
    let found = find(asked, &args.server)?;
    let mut order = ServerOrder {
        force: args.force,
        ..ServerOrder::default()
    };
    match (args.what, args.value.as_deref()) {
        (ServerVerb::Ready, None) => order.state = Some("active"),
        (ServerVerb::Drain, None) => order.state = Some("drain"),
        (ServerVerb::Maintenance, None) => order.state = Some("maintenance"),
        (ServerVerb::Weight, Some(value)) => {
            let weight = value.parse();
            order.weight = Some(weight.map_err(|_| usage("a weight is 1 to 1000"))?);
        }
        (ServerVerb::Limit, Some("none")) => order.max_connections = Some(Value::Null),
        (ServerVerb::Limit, Some(value)) => {
            let limit: u32 = value
                .parse()
                .map_err(|_| usage("a limit is a number of sessions, or none"))?;
            order.max_connections = Some(json!(limit));
        }
        (ServerVerb::Weight | ServerVerb::Limit, None) => {
            return Err(usage("weight and limit take a value"));
        }
        (_, Some(value)) => return Err(usage(format!("{value:?} is one word too many"))),
    }
    let path = format!("/v1/servers/{}", found.id);
    let mut changed: Server = asked.client.post(&path, &order, None)?;
    if let Some(patience) = args.wait {
        let name = format!("{}/{}", changed.pool, changed.address);
        changed = wait_for(patience, &name, || {
            let server: Server = asked.client.get(&path)?;
            Ok((u64::from(server.sessions), server))
        })?;
    }
    Ok(asked.shown(&changed, |it| servers::table(std::slice::from_ref(it))))
}

pub(super) fn forward(asked: &Asked, args: &ForwardArgs) -> Result<String, AskError> {
    let path = format!("/v1/forwards/{}", segment(&args.name));
    let verb = match args.what {
        ForwardVerb::Drain => "drain",
        ForwardVerb::Ready if args.wait.is_some() => {
            return Err(usage("--wait is for `drain`: its sessions are waited for"));
        }
        ForwardVerb::Ready => "ready",
    };
    let mut drained: Forward = asked.client.post(&format!("{path}/{verb}"), &(), None)?;
    if let Some(patience) = args.wait {
        drained = wait_for(patience, &args.name, || {
            let forward: Forward = asked.client.get(&path)?;
            Ok((forward.sessions, forward))
        })?;
    }
    Ok(asked.shown(&drained, |it| {
        let left = match args.what {
            ForwardVerb::Drain => " left",
            ForwardVerb::Ready => "",
        };
        let name = printable(&it.name);
        format!("{name}: {}, {} sessions{left}\n", it.state, it.sessions)
    }))
}

pub(super) fn kill(asked: &Asked, args: &KillArgs) -> Result<String, AskError> {
    let order = if args.all {
        json!({ "all": true })
    } else if !args.ids.is_empty() {
        json!({ "ids": args.ids })
    } else if args.filter.is_empty() {
        return Err(usage("say which: ids, a filter, or --all"));
    } else {
        json!({ "filter": args.filter })
    };
    let killed: Killed = asked.client.post("/v1/sessions/kill", &order, None)?;
    if !killed.missing.is_empty() {
        return Err(AskError::NotFound(format!(
            "{} sessions ended; not there: {}",
            killed.killed,
            killed.missing.join(", ")
        )));
    }
    Ok(asked.shown(&killed, |it| format!("{} sessions ended\n", it.killed)))
}

pub(super) fn log(asked: &Asked, args: &LogArgs) -> Result<String, AskError> {
    let view: LogView = match &args.level {
        Some(level) => asked
            .client
            .post("/v1/log", &json!({ "level": level }), None)?,
        None => asked.client.get("/v1/log")?,
    };
    Ok(asked.shown(&view, |it| {
        format!("level {}, {} entries lost\n", it.level, it.dropped)
    }))
}

pub(super) fn clear_marks(asked: &Asked, args: &MarksArgs) -> Result<String, AskError> {
    let Some(server) = &args.server else {
        let () = asked.client.post("/v1/clear-marks", &(), None)?;
        return Ok(String::new());
    };
    let path = format!("/v1/servers/{}/clear-marks", find(asked, server)?.id);
    let server: Server = asked.client.post(&path, &(), None)?;
    Ok(asked.shown(&server, |it| servers::table(std::slice::from_ref(it))))
}

/// The server that is meant.
fn find(asked: &Asked, text: &str) -> Result<Server, AskError> {
    if text.bytes().all(|it| it.is_ascii_digit()) {
        return asked.client.get(&format!("/v1/servers/{}", segment(text)));
    }
    let servers: Vec<Server> = asked.client.get("/v1/servers")?;
    let means = |it: &&Server| it.address == text || format!("{}/{}", it.pool, it.address) == text;
    let found: Vec<&Server> = servers.iter().filter(means).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(AskError::NotFound(format!(
            "there is no server {text}; `thalweg ctl show servers` has them all"
        ))),
        several => {
            let names: Vec<String> = several
                .iter()
                .map(|it| format!("{}/{} (number {})", it.pool, it.address, it.id))
                .collect();
            Err(AskError::NotFound(format!(
                "{text} is several servers: {}",
                names.join(", ")
            )))
        }
    }
}

/// Until `look` counts no session any more.
fn wait_for<T>(
    patience: f64,
    name: &str,
    look: impl Fn() -> Result<(u64, T), AskError>,
) -> Result<T, AskError> {
    let since = Instant::now();
    let mut told = since;
    loop {
        let (left, seen) = look()?;
        if left == 0 {
            return Ok(seen);
        }
        if since.elapsed().as_secs_f64() >= patience {
            let detail = format!("{name} still has {left} sessions");
            return Err(AskError::NotFound(detail));
        }
        if told.elapsed() >= TELL_AGAIN {
            told = Instant::now();
            output::note(&format!("{name}: {left} sessions left"));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

impl Asked {
    /// As JSON, or as `text` has it.
    pub(super) fn shown<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> String {
        if self.json {
            // Plain data always serialises.
            return serde_json::to_string(value).unwrap_or_default() + "\n";
        }
        text(value)
    }
}
