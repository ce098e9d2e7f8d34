//! `ctl show`: what there is, as tables.

use std::fmt::Write as _;

use clap::Subcommand;
use clap_complete::engine::ArgValueCandidates;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Asked;
use super::table::{Table, bytes, maybe, printable, time};
use super::{candidates, config, servers, topology};
use crate::admin::client::{AskError, query, segment};
use crate::admin::view::{
    About, Forward, Listener, Name, Pool, Reactor, Refusal, Server, Session, SessionPage,
};
use crate::config::units::{parse_rate, parse_size};

/// Over how long loads and rates are measured.
const INTERVAL_MS: u32 = 300;

/// Sessions of a page, where all are asked for.
const PAGE: u32 = 1000;

/// What to show.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// The process, and the configuration in force
    Info,
    /// The configuration in force, as TOML
    Config,
    /// Forwards, with their sessions and bytes
    Forwards,
    /// What was refused: by rules about clients, by limits, by full queues
    Refused,
    /// How the sessions of a forward ended
    Endings {
        /// Its name; all forwards without
        #[arg(add = ArgValueCandidates::new(candidates::forwards))]
        forward: Option<String>,
    },
    /// Routes of forwards, with how many sessions took each
    Routes {
        /// Name of the forward; all without
        #[arg(add = ArgValueCandidates::new(candidates::forwards))]
        forward: Option<String>,
    },
    /// Rules about clients, with how many each turned away, and rates
    Access {
        /// Name of the forward; all without
        #[arg(add = ArgValueCandidates::new(candidates::forwards))]
        forward: Option<String>,
    },
    /// Pools, with how many of their servers are up
    Pools,
    /// Servers, with their state and why
    Servers {
        /// Those of this pool
        #[arg(long, add = ArgValueCandidates::new(candidates::pools))]
        pool: Option<String>,
        /// Those in this state
        #[arg(long, value_parser = ["up", "marked", "down", "drain", "maintenance"])]
        state: Option<String>,
    },
    /// Names of servers, and their addresses
    Names,
    /// Listeners, with their accept queues
    Listeners,
    /// Threads that forward, with their load
    Reactors,
    /// Live sessions, with what holds each of them back
    Sessions(SessionsArgs),
}

/// Which sessions.
#[derive(Debug, Default, clap::Args)]
pub(super) struct SessionsArgs {
    #[command(flatten)]
    pub(super) filter: FilterArgs,
    /// Those that move so much at least: 1MB/s, 10Mbit, or bytes a second
    #[arg(long, value_name = "RATE", value_parser = rate)]
    min_rate: Option<f64>,
    /// The first by age, bytes, rate, or bytes held here for a receiver that is slow
    #[arg(long, value_name = "ORDER", value_parser = ["age", "bytes", "rate", "held"])]
    sort: Option<String>,
    /// So many at the most, 1 to 1000; --all shows every one
    #[arg(long, value_name = "COUNT", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// All of them
    #[arg(long, conflicts_with_all = ["limit", "sort"])]
    all: bool,
}

/// Criteria that sessions meet, all of them together.
#[derive(Debug, Default, clap::Args, Serialize)]
pub(super) struct FilterArgs {
    /// Those of this client: an address, a network, or an address with a port
    #[arg(long, value_name = "CLIENT")]
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    /// Those of this forward
    #[arg(long, value_name = "NAME", add = ArgValueCandidates::new(candidates::forwards))]
    #[serde(skip_serializing_if = "Option::is_none")]
    forward: Option<String>,
    /// Those on this server: its address, or POOL/ADDRESS
    #[arg(long, value_name = "SERVER", add = ArgValueCandidates::new(candidates::servers))]
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<String>,
    /// Those that are so old at least
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    min_age: Option<f64>,
    /// Those that are younger
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    #[serde(skip_serializing_if = "Option::is_none")]
    max_age: Option<f64>,
    /// Those that moved so much at least: 10MiB, or bytes
    #[arg(long, value_name = "SIZE", value_parser = size)]
    #[serde(skip_serializing_if = "Option::is_none")]
    min_bytes: Option<u64>,
}

/// A duration as in a configuration, as seconds.
pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    crate::config::units::parse_duration(text)
        .map(|it| it.as_secs_f64())
        .map_err(|error| format!("{error}; such as 30s, 5m or 1h30m"))
}

/// A size as in a configuration, in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    parse_size(text).map_err(|error| format!("{error}; such as 64KiB or 1MiB"))
}

/// A rate as in a configuration, or a number of bytes a second.
fn rate(text: &str) -> Result<f64, String> {
    if let Ok(plain) = text.parse::<u64>() {
        return Ok(plain as f64);
    }
    let rate = parse_rate(text).map_err(|error| format!("{error}; such as 1MB/s or 10Mbit"))?;
    Ok(rate as f64)
}

impl FilterArgs {
    pub(super) const fn is_empty(&self) -> bool {
        self.client.is_none()
            && self.forward.is_none()
            && self.server.is_none()
            && self.min_age.is_none()
            && self.max_age.is_none()
            && self.min_bytes.is_none()
    }

    fn parameters(&self) -> Vec<(&'static str, Option<String>)> {
        vec![
            ("client", self.client.clone()),
            ("forward", self.forward.clone()),
            ("server", self.server.clone()),
            ("min_age", self.min_age.map(|it| it.to_string())),
            ("max_age", self.max_age.map(|it| it.to_string())),
            ("min_bytes", self.min_bytes.map(|it| it.to_string())),
        ]
    }
}

/// What there is, as text.
pub(super) fn run(asked: &Asked, what: &What) -> Result<String, AskError> {
    match what {
        What::Info => asked.told("/v1", info),
        What::Config => {
            let reply = asked.client.raw("/v1/config")?;
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            if !asked.json {
                return Ok(text);
            }
            Ok(asked.shown(&config::as_json(&text)?, |_| String::new()))
        }
        What::Forwards => {
            asked.with_rates("/v1/forwards", |it: Vec<Forward>| topology::forwards(&it))
        }
        What::Refused => asked.told("/v1/refused", |it: Vec<Refusal>| topology::refused(&it)),
        What::Endings { forward } => of_forwards(asked, forward.as_deref(), endings),
        What::Routes { forward } => of_forwards(asked, forward.as_deref(), routes),
        What::Access { forward } => of_forwards(asked, forward.as_deref(), access),
        What::Pools => asked.with_rates("/v1/pools", |it: Vec<Pool>| topology::pools(&it)),
        What::Servers { pool, state } => {
            let query = query(&[
                ("pool", pool.clone()),
                ("state", state.clone()),
                ("interval_ms", Some(INTERVAL_MS.to_string())),
            ]);
            asked.told(&format!("/v1/servers{query}"), |it: Vec<Server>| {
                servers::table(&it)
            })
        }
        What::Names => asked.told("/v1/names", |it: Vec<Name>| topology::names(&it)),
        What::Listeners => asked.told("/v1/listeners", |it: Vec<Listener>| {
            topology::listeners(&it)
        }),
        What::Reactors => {
            let path = format!("/v1/reactors?interval_ms={INTERVAL_MS}");
            asked.told(&path, |it: Vec<Reactor>| reactors(&it))
        }
        What::Sessions(args) if args.all => all_sessions(asked, args),
        What::Sessions(args) => some_sessions(asked, args),
    }
}

impl Asked {
    /// What is at a path: as it came, or as `text` has it.
    pub(super) fn told<T: DeserializeOwned>(
        &self,
        path: &str,
        text: impl FnOnce(T) -> String,
    ) -> Result<String, AskError> {
        if self.json {
            let reply = self.client.raw(path)?;
            return Ok(String::from_utf8_lossy(&reply.body).into_owned() + "\n");
        }
        Ok(text(self.client.get(path)?))
    }
}

impl Asked {
    /// Likewise with rates, as far as it knows of such: the process may be of an older build than
    /// this program, as when it is to be upgraded.
    fn with_rates<T: DeserializeOwned>(
        &self,
        path: &str,
        text: impl FnOnce(T) -> String + Copy,
    ) -> Result<String, AskError> {
        let with = self.told(&format!("{path}?interval_ms={INTERVAL_MS}"), text);
        match with {
            Err(AskError::Refused { status: 400, .. }) => self.told(path, text),
            told => told,
        }
    }
}

fn info(about: About) -> String {
    let mut text = String::new();
    let ready = if about.unready.is_empty() {
        "yes".to_owned()
    } else {
        format!("no: {}", about.unready.join("; "))
    };
    let lines = [
        ("version", about.version),
        ("engine", about.engine),
        ("pid", about.pid.to_string()),
        (
            "started",
            format!("{} ({} ago)", about.started, time(about.uptime_seconds)),
        ),
        ("phase", about.phase),
        ("ready", ready),
        (
            "configuration",
            format!(
                "{} (generation {}, since {})",
                about.config_hash, about.generation, about.config_applied
            ),
        ),
        (
            "sessions",
            format!("{} of at most {}", about.sessions, about.sessions_max),
        ),
        ("reactors", about.reactors.to_string()),
        (
            "log",
            format!("{}, {} lost", about.log_level, about.log_dropped),
        ),
    ];
    for (key, value) in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{key:<14} {}", printable(&value));
    }
    text
}

/// Of one forward, or of all.
fn of_forwards(
    asked: &Asked,
    name: Option<&str>,
    text: impl FnOnce(&[Forward]) -> String,
) -> Result<String, AskError> {
    let Some(name) = name else {
        return asked.told("/v1/forwards", |it: Vec<Forward>| text(&it));
    };
    let path = format!("/v1/forwards/{}", segment(name));
    asked.told(&path, |it| text(&[it]))
}

fn routes(forwards: &[Forward]) -> String {
    let mut table = Table::new(&["forward", "route", "leads to", ">taken"]);
    for forward in forwards {
        for route in &forward.routes {
            table.row([
                forward.name.clone(),
                route.name.clone(),
                route.leads_to.clone(),
                route.taken.to_string(),
            ]);
        }
    }
    table.text()
}

fn access(forwards: &[Forward]) -> String {
    let mut table = Table::new(&["forward", "rule", ">denied", ">up", ">down"]);
    for forward in forwards {
        for rule in &forward.access {
            let (rule, denied) = (rule.rule.clone(), rule.denied.to_string());
            table.row([
                forward.name.clone(),
                rule,
                denied,
                String::new(),
                String::new(),
            ]);
        }
        for rate in &forward.rates {
            let way = |rate: u64| match rate {
                0 => "-".to_owned(),
                rate => format!("{}/s", bytes(rate as f64)),
            };
            let whose = format!("rate of a {}", rate.of);
            let (up, down) = (way(rate.up), way(rate.down));
            table.row([forward.name.clone(), whose, String::new(), up, down]);
        }
    }
    table.text()
}

fn endings(forwards: &[Forward]) -> String {
    let mut table = Table::new(&["forward", "code", "cause", ">sessions"]);
    for forward in forwards {
        for ending in &forward.endings {
            table.row([
                forward.name.clone(),
                ending.code.clone(),
                ending.cause.clone(),
                ending.count.to_string(),
            ]);
        }
    }
    table.text()
}

fn reactors(reactors: &[Reactor]) -> String {
    let mut table = Table::new(&[
        ">reactor",
        "turns",
        ">load",
        ">turn",
        ">sessions",
        ">accepted",
        ">spread",
        ">held",
        ">cpu",
    ]);
    for it in reactors {
        table.row([
            it.number.to_string(),
            if it.turns { "yes" } else { "no" }.to_owned(),
            maybe(it.load, |load| format!("{:.0}%", load * 100.0)),
            maybe(it.turn_seconds, time),
            it.sessions.to_string(),
            it.accepted.to_string(),
            format!("{:.2}", it.spread),
            bytes(it.held_bytes as f64),
            time(it.cpu_seconds),
        ]);
    }
    table.text()
}

/// Sessions, a line for each.
pub(super) fn sessions(sessions: &[Session]) -> String {
    let mut table = Table::new(&[
        "id",
        "forward",
        "client",
        "server",
        "phase",
        ">age",
        ">up",
        ">down",
        ">up/s",
        ">down/s",
        ">rtt client",
        ">rtt server",
        ">resent",
        ">generation",
        "held back by",
    ]);
    for it in sessions {
        let rtt = |leg: &Option<crate::admin::view::Leg>| {
            maybe(leg.as_ref(), |leg| time(leg.rtt_seconds))
        };
        let legs = [&it.client_tcp, &it.upstream_tcp].into_iter().flatten();
        let resent: u32 = legs.map(|leg| leg.retransmits).sum();
        let server = it.server.as_ref().or(it.target.as_ref());
        table.row([
            it.id.clone(),
            it.forward.clone(),
            it.client.clone(),
            maybe(server, Clone::clone),
            it.phase.clone(),
            time(it.age_seconds),
            bytes(it.up.bytes as f64),
            bytes(it.down.bytes as f64),
            bytes(it.up.rate),
            bytes(it.down.rate),
            rtt(&it.client_tcp),
            rtt(&it.upstream_tcp),
            resent.to_string(),
            it.generation.to_string(),
            it.verdict.replace('_', " "),
        ]);
    }
    table.text()
}

fn some_sessions(asked: &Asked, args: &SessionsArgs) -> Result<String, AskError> {
    if args.min_rate.is_some() && args.sort.is_none() {
        // Of the first page none may be fast enough, and many of the others.
        return all_sessions(asked, args);
    }
    let mut parameters = args.filter.parameters();
    parameters.extend([
        ("min_rate", args.min_rate.map(|it| it.to_string())),
        ("sort", args.sort.clone()),
        ("limit", Some(args.limit.to_string())),
        ("interval_ms", Some(INTERVAL_MS.to_string())),
    ]);
    let path = format!("/v1/sessions{}", query(&parameters));
    asked.told(&path, |page: SessionPage| {
        let mut text = sessions(&page.sessions);
        if page.next.is_some() {
            text.push_str("(there are more: --all, or --limit)\n");
        }
        text
    })
}

/// Page by page, however many there are.
fn all_sessions(asked: &Asked, args: &SessionsArgs) -> Result<String, AskError> {
    let mut all = Vec::new();
    let mut cursor = None;
    loop {
        let mut parameters = args.filter.parameters();
        parameters.extend([
            ("min_rate", args.min_rate.map(|it| it.to_string())),
            ("limit", Some(PAGE.to_string())),
            ("cursor", cursor),
            ("interval_ms", Some(INTERVAL_MS.to_string())),
        ]);
        let path = format!("/v1/sessions{}", query(&parameters));
        let page: SessionPage = asked.client.get(&path)?;
        all.extend(page.sessions);
        cursor = page.next;
        if !args.all && all.len() >= args.limit as usize {
            all.truncate(args.limit as usize);
            break;
        }
        if cursor.is_none() {
            break;
        }
    }
    if asked.json {
        let page = SessionPage {
            sessions: all,
            next: None,
        };
        // Plain data always serialises.
        return Ok(serde_json::to_string(&page).unwrap_or_default() + "\n");
    }
    Ok(sessions(&all))
}
