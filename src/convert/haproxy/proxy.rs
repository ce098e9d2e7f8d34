//! What a section says, one line at a time.

use std::collections::HashMap;
use std::time::Duration;

use super::bind::Bind;
use super::check::Asked;
use super::lexer::Line;
use super::rules::{self, Gate};
use super::server::{self, Defaults, Server};
use super::told::Told;
use crate::convert::finding::{Findings, Origin};
use crate::convert::model::{Keys, Value};
use crate::convert::time;

/// What kind of section it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Role {
    #[default]
    Defaults,
    Frontend,
    Backend,
    Listen,
}

/// A section while it is read. One that follows its defaults begins as a copy of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Proxy {
    pub(super) role: Role,
    pub(super) place: Option<Origin>,
    pub(super) name: String,
    pub(super) http: bool,
    pub(super) disabled: bool,
    /// By HAProxy's names: `client`, `server-fin`.
    pub(super) timeouts: HashMap<String, Duration>,
    pub(super) keys: Keys,
    pub(super) pool_keys: Keys,
    pub(super) client_options: Keys,
    pub(super) upstream_options: Keys,
    pub(super) retries: Option<u64>,
    pub(super) redispatch: bool,
    pub(super) binds: Vec<Bind>,
    pub(super) servers: Vec<Server>,
    pub(super) server_defaults: Defaults,
    pub(super) asked: Asked,
    pub(super) gate: Gate,
    pub(super) default_backend: Option<(Origin, String)>,
}

impl Proxy {
    /// A section that begins as this one.
    pub(super) fn begin(mut self, head: &Line, role: Role) -> Self {
        self.role = role;
        self.place = Some(head.place.clone());
        head.word(1).clone_into(&mut self.name);
        self
    }

    /// Takes one line of it.
    pub(super) fn line(&mut self, line: &Line, findings: &mut Findings) {
        let told = self.told(line, findings);
        let (place, shown) = (&line.place, line.shown());
        match told {
            Told::Same => findings.same(place, &shown),
            Told::Differs(why) => findings.differs(place, &shown, why),
            Told::Needless(why) => findings.needless(place, &shown, why),
            Told::Left(why) => findings.left(place, &shown, why),
            Told::Said => {}
        }
    }

    fn told(&mut self, line: &Line, findings: &mut Findings) -> Told {
        match line.word(0) {
            "mode" => match line.word(1) {
                "tcp" => Told::Same,
                "http" => Told::Said,
                _ => Told::Left("only `mode tcp`"),
            },
            "bind" => match super::bind::read(line, findings) {
                Some(bind) => {
                    self.binds.push(bind);
                    Told::Said
                }
                None => Told::Said,
            },
            "server" | "server-template" => {
                let server = server::read(line, &self.server_defaults, findings);
                self.servers.extend(server);
                Told::Said
            }
            "default-server" => {
                self.server_defaults.add(line);
                Told::Same
            }
            "timeout" => self.timeout(line),
            "acl" => match self.gate.acls.add(line) {
                Ok(()) => Told::Same,
                Err(why) => Told::Left(why),
            },
            "tcp-request" | "use_backend" | "use-server" => {
                let backend = self.role == Role::Backend;
                rules::read(line, backend, &mut self.gate, findings);
                Told::Said
            }
            "default_backend" => {
                self.default_backend = Some((line.place.clone(), line.word(1).to_owned()));
                Told::Same
            }
            "balance" => self.balance(line),
            "option" => self.option(line.word(1), line.from(2), true),
            "no" if line.word(1) == "option" => self.option(line.word(2), &[], false),
            "tcp-check" | "http-check" | "external-check" => self.asked.line(line),
            "source" => self.source(line),
            "stick-table" => self.table(line),
            "stick" => self.stick(line),
            _ => self.setting(line),
        }
    }

    fn setting(&mut self, line: &Line) -> Told {
        let number = line.word(1).parse::<u64>();
        let value = line.word(1);
        let seconds = || time::parse(value, 1000).map(time::timeout);
        match (line.word(0), number) {
            ("maxconn", Ok(most)) => self.keys.set("max_connections", most),
            ("backlog", Ok(length)) => self.client_options.set("backlog", length),
            ("retries", Ok(count)) => self.retries = Some(count),
            ("disabled", _) => self.disabled = true,
            ("enabled", _) => self.disabled = false,
            ("clitcpka-idle", _) => return keepalive(&mut self.client_options, "idle", seconds()),
            ("clitcpka-intvl", _) => {
                return keepalive(&mut self.client_options, "interval", seconds());
            }
            ("srvtcpka-idle", _) => {
                return keepalive(&mut self.upstream_options, "idle", seconds());
            }
            ("srvtcpka-intvl", _) => {
                return keepalive(&mut self.upstream_options, "interval", seconds());
            }
            ("hash-type", _) => {
                return Told::Differs("hashes are consistent, and other ones than HAProxy's");
            }
            (
                "log"
                | "log-format"
                | "log-tag"
                | "description"
                | "id"
                | "fullconn"
                | "capture"
                | "errorfile"
                | "errorfiles"
                | "errorloc"
                | "errorloc302"
                | "errorloc303"
                | "error-log-format"
                | "log-format-sd"
                | "unique-id-format"
                | "unique-id-header"
                | "load-server-state-from-file"
                | "server-state-file-name"
                | "guid"
                | "grace"
                | "declare"
                | "hash-balance-factor"
                | "max-keep-alive-queue",
                _,
            ) => {
                return Told::Needless("nothing that is forwarded depends on it here");
            }
            ("stats" | "monitor-uri" | "monitor" | "monitor-net", _) => {
                return Told::Differs("see `[admin]` and `[metrics]`");
            }
            (
                "http-request"
                | "http-response"
                | "http-after-response"
                | "cookie"
                | "rspadd"
                | "reqadd"
                | "http-reuse"
                | "compression"
                | "redirect"
                | "http-error",
                _,
            ) => {
                return Told::Needless("of HTTP: without effect in `mode tcp`");
            }
            _ => return Told::Left("not known here"),
        }
        Told::Same
    }

    fn timeout(&mut self, line: &Line) -> Told {
        let Some(time) = time::parse(line.word(2), 1) else {
            return Told::Left("no time");
        };
        let name = line.word(1);
        match name {
            "client" | "server" | "connect" | "tunnel" | "client-fin" | "server-fin" | "queue"
            | "check" => {
                self.timeouts.insert(name.to_owned(), time);
                Told::Same
            }
            "http-request" | "http-keep-alive" | "tarpit" | "client-hs" | "server-hs" => {
                Told::Needless("of HTTP or TLS: without effect in `mode tcp`")
            }
            _ => Told::Left("not known here"),
        }
    }

    fn balance(&mut self, line: &Line) -> Told {
        let differs = match line.word(1) {
            "roundrobin" | "static-rr" => {
                self.pool_keys.set("balance", "round_robin");
                return Told::Same;
            }
            "leastconn" => {
                self.pool_keys.set("balance", "least_conn");
                return Told::Same;
            }
            "first" => {
                self.pool_keys.set("balance", "first");
                return Told::Same;
            }
            "random" | "random(2)" => {
                self.pool_keys.set("balance", "p2c");
                return Told::Same;
            }
            "random(1)" => {
                self.pool_keys.set("balance", "random");
                return Told::Same;
            }
            "source" => OTHER_SERVER,
            "hash" if matches!(line.word(2), "src" | "") => OTHER_SERVER,
            _ => return Told::Left("not known at layer 4"),
        };
        self.pool_keys.set("balance", "hash_address");
        Told::Differs(differs)
    }

    fn option(&mut self, name: &str, args: &[String], on: bool) -> Told {
        if self.asked.option(name, args, on) {
            return Told::Same;
        }
        match name {
            "redispatch" => self.redispatch = on,
            "clitcpka" => switch(&mut self.client_options, "keepalive", on),
            "srvtcpka" => switch(&mut self.upstream_options, "keepalive", on),
            "tcpka" => {
                switch(&mut self.client_options, "keepalive", on);
                switch(&mut self.upstream_options, "keepalive", on);
            }
            "tcp-smart-connect" => {}
            "nolinger" if on => return Told::Left("sides are ended as their peers end them"),
            "transparent" if on => {
                return Told::Left("the client's destination is not dialled here");
            }
            "tcplog"
            | "httplog"
            | "dontlognull"
            | "dontlog-normal"
            | "logasap"
            | "httpslog"
            | "log-separate-errors"
            | "log-health-checks" => {
                return Told::Needless("records have a form of their own, `[log]`");
            }
            "splice-auto"
            | "splice-request"
            | "splice-response"
            | "tcp-smart-accept"
            | "contstats"
            | "persist"
            | "abortonclose"
            | "allbackups"
            | "socket-stats"
            | "prefer-last-server"
            | "nolinger"
            | "transparent"
            | "independent-streams" => {
                return Told::Needless("as it is here anyway, or without effect");
            }
            _ if name.starts_with("http") || name == "forwardfor" || name == "originalto" => {
                return Told::Needless("of HTTP: without effect in `mode tcp`");
            }
            _ => return Told::Left("not known here"),
        }
        Told::Same
    }

    fn source(&mut self, line: &Line) -> Told {
        let words: Vec<&str> = line.from(1).iter().map(String::as_str).collect();
        match words.as_slice() {
            [_, "usesrc", "clientip" | "client"] => self.pool_keys.set("transparent", true),
            [address] | [address, "interface", _] => {
                let host = address.rsplit_once(':').map_or(*address, |(host, _)| host);
                let host = if address.parse::<std::net::IpAddr>().is_ok() {
                    address
                } else {
                    host
                };
                match host.parse::<std::net::IpAddr>() {
                    Ok(host) if host.is_unspecified() => {}
                    Ok(host) => self.pool_keys.set("source", host.to_string()),
                    Err(_) => return Told::Left("no address"),
                }
                if let [_, "interface", name] = words.as_slice() {
                    self.pool_keys.set("interface", *name);
                }
            }
            _ => return Told::Left("connects come from a fixed address, or from the client's"),
        }
        Told::Same
    }

    fn table(&mut self, line: &Line) -> Told {
        let words = line.from(1);
        let after = |word: &str| {
            words
                .iter()
                .position(|w| w == word)
                .and_then(|at| words.get(at + 1))
                .map(String::as_str)
        };
        if !matches!(after("type"), Some("ip" | "ipv6")) {
            return Told::Left("a table can be by the client's address only");
        }
        for item in after("store").unwrap_or_default().split(',') {
            let (kind, over) = item.split_once('(').unwrap_or((item, ""));
            match kind {
                "conn_rate" | "sess_rate" => {
                    self.gate.rate_over = time::parse(over.trim_end_matches(')'), 1);
                }
                "" | "conn_cur" | "conn_cnt" | "server_id" => {}
                _ => return Told::Left("connections and their rate can be limited, nothing else"),
            }
        }
        Told::Differs("`client_table` says how many clients are remembered, of all forwards")
    }

    fn stick(&mut self, line: &Line) -> Told {
        match (line.word(1), line.word(2)) {
            ("on" | "match" | "store-request", "src") => {
                self.pool_keys.set("balance", "hash_address");
                Told::Differs("a client keeps its server by a consistent hash, not by a table")
            }
            _ => Told::Left("a client's server can be found by its address only"),
        }
    }
}

pub(super) const OTHER_SERVER: &str =
    "a client's server is found by another hash than HAProxy's, so it may be another one";

fn switch(options: &mut Keys, name: &'static str, on: bool) {
    match on {
        true if !options.has(name) => options.set(name, true),
        true => {}
        false => options.remove(name),
    }
}

fn keepalive(options: &mut Keys, part: &'static str, time: Option<String>) -> Told {
    let Some(time) = time else {
        return Told::Left("no time");
    };
    let mut table = match options.get("keepalive") {
        Some(Value::Table(table)) => table.clone(),
        _ => Vec::new(),
    };
    table.retain(|(name, _)| *name != part);
    table.push((part, Value::Text(time)));
    options.set("keepalive", Value::Table(table));
    Told::Same
}
