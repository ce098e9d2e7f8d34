//! haproxy.cfg: what is in `mode tcp`.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `lexer` | words, quotes, variables, `.if` |
//! | `address` | forms of addresses |
//! | `condition` | ACLs, `if` and `unless` |
//! | `proxy` | what a section says, one line at a time; a section begins as its `defaults` |
//! | `bind`, `server` | `bind` and `server` with all that stands behind them |
//! | `check` | how servers are asked |
//! | `rules` | `tcp-request`, `use_backend`: who may come in, and where he goes |
//! | `finish` | frontends and backends, joined to forwards and pools |

mod address;
mod bind;
mod check;
mod condition;
mod finish;
mod lexer;
mod proxy;
mod rules;
mod server;
mod told;

use std::collections::{BTreeMap, HashMap};

use super::finding::Findings;
use super::model::{Keys, Model};
use super::source::{Failure, Text};
use super::time;
use lexer::Line;
use proxy::{Proxy, Role};

/// Fills the model from haproxy.cfg.
pub(super) fn translate(
    text: &Text,
    model: &mut Model,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let mut environment: BTreeMap<String, String> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    let lines = lexer::read(text, &mut environment, findings)?;
    defaults(model);
    let mut sections = Sections::default();
    let mut lines = lines.iter().peekable();
    while let Some(head) = lines.next() {
        let mut body = Vec::new();
        while let Some(line) = lines.next_if(|line| !is_head(line)) {
            body.push(line);
        }
        sections.take(head, &body, model, findings)?;
    }
    finish::join(sections.proxies, model, findings);
    Ok(())
}

const SECTIONS: [&str; 18] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "resolvers",
    "peers",
    "mailers",
    "userlist",
    "cache",
    "program",
    "ring",
    "http-errors",
    "log-forward",
    "fcgi-app",
    "crt-store",
    "log-profile",
    "traces",
];

fn is_head(line: &Line) -> bool {
    SECTIONS.contains(&line.word(0))
}

/// What HAProxy does unless it is told otherwise, and we do not.
fn defaults(model: &mut Model) {
    let defaults = &mut model.defaults;
    defaults.set_because("on_no_server", "close", "as HAProxy; ours is a reset");
    let pools = &mut model.pool_defaults;
    pools.set_because(
        "max_fails",
        0,
        "HAProxy marks servers by checks alone; ours is 1",
    );
    pools.set_because("retry_timeout", "off", "HAProxy has none; ours is 30s");
}

#[derive(Default)]
struct Sections {
    /// The last `defaults`, which holds for what follows, and those with names.
    last: Proxy,
    named: HashMap<String, Proxy>,
    proxies: Vec<Proxy>,
}

impl Sections {
    fn take(
        &mut self,
        head: &Line,
        body: &[&Line],
        model: &mut Model,
        findings: &mut Findings,
    ) -> Result<(), Failure> {
        let (place, shown) = (&head.place, head.shown());
        match head.word(0) {
            "global" => {
                findings.same(place, &shown);
                for line in body {
                    global(line, model, findings);
                }
            }
            "resolvers" => {
                findings.same(place, &shown);
                for line in body {
                    resolvers(line, &mut model.global, findings);
                }
            }
            "defaults" => {
                let defaults = self.proxy(head, Role::Defaults, body, findings)?;
                if let Some(name) = head.words.get(1).filter(|name| *name != "from") {
                    self.named.insert(name.clone(), defaults.clone());
                }
                self.last = defaults;
            }
            "frontend" | "backend" | "listen" => {
                let role = match head.word(0) {
                    "frontend" => Role::Frontend,
                    "backend" => Role::Backend,
                    _ => Role::Listen,
                };
                let proxy = self.proxy(head, role, body, findings)?;
                self.proxies.push(proxy);
            }
            "userlist" | "cache" | "mailers" | "http-errors" | "fcgi-app" | "log-profile"
            | "traces" => {
                findings.needless(place, &shown, "nothing at layer 4 uses it");
            }
            "peers" => findings.left(place, &shown, "counts are not shared with other forwarders"),
            "crt-store" => findings.left(place, &shown, "TLS is not terminated here"),
            word if SECTIONS.contains(&word) => findings.left(place, &shown, "no such thing here"),
            word => {
                let what = format!("\"{word}\" before any section");
                return Err(Failure::at(place, what));
            }
        }
        Ok(())
    }

    /// A section that begins as the defaults before it, or as those it names.
    fn proxy(
        &self,
        head: &Line,
        role: Role,
        body: &[&Line],
        findings: &mut Findings,
    ) -> Result<Proxy, Failure> {
        let from = head.words.iter().position(|word| word == "from");
        let from = from.and_then(|at| head.words.get(at + 1));
        let base = match (from, role) {
            (Some(name), _) => match self.named.get(name) {
                Some(base) => base.clone(),
                None => return Err(Failure::at(&head.place, format!("no defaults \"{name}\""))),
            },
            (None, Role::Defaults) => Proxy::default(),
            (None, _) => self.last.clone(),
        };
        let mut proxy = base.begin(head, role);
        if let Some(mode) = body.iter().rev().find(|line| line.word(0) == "mode") {
            proxy.http = mode.word(1) == "http";
        }
        if proxy.http && role != Role::Defaults {
            let why = "`mode http` is not forwarded at layer 4";
            findings.left(&head.place, &head.shown(), why);
            return Ok(proxy);
        }
        findings.same(&head.place, &head.shown());
        for line in body {
            proxy.line(line, findings);
        }
        Ok(proxy)
    }
}

fn global(line: &Line, model: &mut Model, findings: &mut Findings) {
    let (place, shown) = (&line.place, line.shown());
    let number = || line.word(1).parse::<u64>();
    match (line.word(0), number()) {
        ("maxconn", Ok(most)) => {
            model.global.set("max_connections", most);
            findings.same(place, &shown);
        }
        ("nbthread", Ok(count)) => {
            model.global.set("reactors", count);
            findings.same(place, &shown);
        }
        ("hard-stop-after", _) => match time::parse(line.word(1), 1) {
            Some(time) => {
                model.defaults.set("drain_timeout", time::timeout(time));
                findings.same(place, &shown);
            }
            None => findings.left(place, &shown, "no time"),
        },
        ("stats", _) => {
            let why = "see `[admin]`: a socket of its own, on by default, and `thalweg ctl`";
            findings.differs(place, &shown, why);
        }
        ("lua-load" | "lua-load-per-thread", _) => {
            findings.left(place, &shown, "no scripts run here");
        }
        (word, _) => {
            let ours = [
                "daemon",
                "master-worker",
                "chroot",
                "user",
                "group",
                "uid",
                "gid",
                "pidfile",
                "log",
                "log-tag",
                "log-send-hostname",
                "nbproc",
                "cpu-map",
                "ulimit-n",
                "node",
                "description",
                "ca-base",
                "crt-base",
                "external-check",
                "insecure-fork-wanted",
                "spread-checks",
                "maxpipes",
                "nosplice",
                "quiet",
                "zero-warning",
                "default-path",
                "server-state-base",
                "server-state-file",
                "localpeer",
                "expose-experimental-directives",
                "no",
                "busy-polling",
                "maxsslconn",
                "numa-cpu-mapping",
                "set-dumpable",
                "grace",
            ];
            if ours.contains(&word) || word.starts_with("tune.") || word.starts_with("ssl-") {
                findings.needless(place, &shown, "about HAProxy's own process");
            } else {
                findings.left(place, &shown, "not known here");
            }
        }
    }
}

fn resolvers(line: &Line, global: &mut Keys, findings: &mut Findings) {
    let (place, shown) = (&line.place, line.shown());
    match line.word(0) {
        "nameserver" => match address::server(line.word(2), Some("53")) {
            Ok(address) => {
                global.push("dns_servers", address);
                let why = "name servers are those of the whole process here";
                findings.differs(place, &shown, why);
            }
            Err(why) => findings.left(place, &shown, why),
        },
        "parse-resolv-conf" => findings.same(place, &shown),
        _ => findings.needless(
            place,
            &shown,
            "resolv.conf's options bound lookups; see resolve_ttl_max",
        ),
    }
}
