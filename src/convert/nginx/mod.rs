//! nginx.conf: its `stream` block.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `lexer` | words, quotes, blocks |
//! | `include` | files in files |
//! | `upstream` | pools and their servers |
//! | `listen` | addresses, and what stands behind them |
//! | `variables` | `map`, `geo`, `split_clients`: where a session goes |
//! | `server` | what else a `server` says |

mod include;
mod lexer;
mod listen;
mod server;
mod upstream;
mod variables;

use std::collections::{HashMap, HashSet};

use super::finding::Findings;
use super::model::{Keys, Model};
use super::source::{Failure, Sources, Text};
use super::time;
use lexer::Directive;
pub(super) use upstream::is_name;
use variables::Variable;

/// Fills the model from nginx.conf.
pub(super) fn translate(
    text: &Text,
    sources: &mut Sources,
    model: &mut Model,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let main = include::expanded(lexer::read(text)?, sources, findings)?;
    defaults(model);
    let mut streams = Vec::new();
    for directive in &main {
        if directive.name == "stream" && directive.block.is_some() {
            streams.push(directive);
        } else {
            main_directive(directive, model, findings);
        }
    }
    for stream in streams {
        findings.same(&stream.place, "stream");
        Stream::of(stream, model, findings).translate();
    }
    Ok(())
}

/// What nginx does unless it is told otherwise, and we do not.
fn defaults(model: &mut Model) {
    let defaults = &mut model.defaults;
    defaults.set_because(
        "connect_timeout",
        "1m",
        "nginx's proxy_connect_timeout; ours is 5s",
    );
    defaults.set_because(
        "half_close_timeout",
        "1ms",
        "nginx ends both sides with the first (proxy_half_close off); ours is 1m",
    );
    defaults.set_because("on_no_server", "close", "as nginx; ours is a reset");
    let pools = &mut model.pool_defaults;
    pools.set_because(
        "retry_timeout",
        "off",
        "nginx's proxy_next_upstream_timeout; ours is 30s",
    );
    pools.set_because(
        "queue",
        0,
        "nginx turns away where every server is full; ours is 1024",
    );
}

/// A directive beside `stream`.
fn main_directive(directive: &Directive, model: &mut Model, findings: &mut Findings) {
    let (place, shown) = (&directive.place, directive.shown());
    match directive.name.as_str() {
        "worker_processes" => match directive.only().map(|count| (count, count.parse::<u64>())) {
            Some(("auto", _)) => findings.same(place, &shown),
            Some((_, Ok(count))) => {
                model.global.set("reactors", count);
                findings.same(place, &shown);
            }
            _ => findings.left(place, &shown, "no number of workers"),
        },
        "worker_shutdown_timeout" => {
            match directive.only().and_then(|text| time::parse(text, 1000)) {
                Some(duration) => {
                    model.defaults.set("drain_timeout", time::timeout(duration));
                    findings.same(place, &shown);
                }
                None => findings.left(place, &shown, "no time"),
            }
        }
        "error_log" => error_log(directive, model, findings),
        "user" => findings.needless(place, &shown, "whoever starts thalweg says as whom"),
        "http" | "mail" => {
            let why = format!(
                "what is in `{}` is not forwarded at layer 4",
                directive.name
            );
            findings.left(place, &directive.name, why);
        }
        "events"
        | "pid"
        | "daemon"
        | "master_process"
        | "load_module"
        | "pcre_jit"
        | "env"
        | "lock_file"
        | "working_directory"
        | "timer_resolution"
        | "thread_pool"
        | "worker_priority"
        | "worker_cpu_affinity"
        | "worker_rlimit_nofile"
        | "worker_rlimit_core"
        | "worker_aio_requests"
        | "debug_points"
        | "ssl_engine"
        | "google_perftools_profiles" => {
            findings.needless(place, &shown, "about nginx's own processes");
        }
        _ => findings.left(place, &shown, "not known"),
    }
}

/// Where lines go is one place for all of them here; how many is converted.
fn error_log(directive: &Directive, model: &mut Model, findings: &mut Findings) {
    let level = match directive.args.get(1).map(String::as_str) {
        Some("debug") => "debug",
        Some("info" | "notice") => "info",
        Some("warn") => "warn",
        _ => "error",
    };
    if !model.log.has("level") {
        model.log.set("level", level);
    }
    let why =
        "the level is taken over; lines go where `log.to` says, to standard output by default";
    findings.differs(&directive.place, &directive.shown(), why);
}

/// A `stream` block.
struct Stream<'a> {
    block: &'a [Directive],
    model: &'a mut Model,
    findings: &'a mut Findings,
    upstreams: HashSet<&'a str>,
    variables: HashMap<&'a str, Variable<'a>>,
    /// What each zone of `limit_conn` counts by.
    zones: HashMap<String, String>,
}

impl<'a> Stream<'a> {
    fn of(stream: &'a Directive, model: &'a mut Model, findings: &'a mut Findings) -> Self {
        let block = stream.block.as_deref().unwrap_or_default();
        let named = |directive: &'a Directive| {
            (directive.name == "upstream")
                .then(|| directive.only())
                .flatten()
        };
        Self {
            block,
            model,
            findings,
            upstreams: block.iter().filter_map(named).collect(),
            variables: HashMap::new(),
            zones: HashMap::new(),
        }
    }

    fn translate(mut self) {
        // What servers refer to may stand behind them.
        let mut inherited = Vec::new();
        let mut servers = Vec::new();
        for directive in self.block {
            match directive.name.as_str() {
                "upstream" => upstream::pool(directive, self.model, self.findings),
                "server" => servers.push(directive),
                "map" | "geo" | "split_clients" => self.variable(directive),
                "limit_conn_zone" => self.zone(directive),
                _ => inherited.push(directive),
            }
        }
        if servers.is_empty() {
            for directive in inherited {
                let why = "no server is there to inherit it";
                self.findings
                    .needless(&directive.place, &directive.shown(), why);
            }
            return;
        }
        for server in servers {
            self.server(server, &inherited);
        }
    }

    /// `limit_conn_zone KEY zone=NAME:SIZE`.
    fn zone(&mut self, directive: &Directive) {
        let name = directive
            .args
            .iter()
            .find_map(|arg| arg.strip_prefix("zone="));
        match (directive.args.first(), name) {
            (Some(key), Some(name)) => {
                let name = name.split(':').next().unwrap_or(name);
                self.zones.insert(name.to_owned(), key.clone());
                self.findings.same(&directive.place, &directive.shown());
            }
            _ => self
                .findings
                .left(&directive.place, &directive.shown(), "no zone"),
        }
    }
}

/// `dns_servers`, whoever asks for them: here they are those of the process.
fn resolver(directive: &Directive, global: &mut Keys, findings: &mut Findings) {
    let mut differs = None;
    for arg in &directive.args {
        match arg.split_once('=') {
            None => {
                let known = matches!(global.get("dns_servers"),
                    Some(super::model::Value::List(list)) if list.contains(arg));
                if !known {
                    global.push("dns_servers", arg.clone());
                }
            }
            Some(("valid", _)) => {
                differs = Some("`resolve_ttl_max` bounds how long a name is kept");
            }
            Some(_) => {}
        }
    }
    let why = differs.unwrap_or("name servers are those of the whole process here");
    findings.differs(&directive.place, &directive.shown(), why);
}
