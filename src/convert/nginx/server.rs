//! `server`: forwards.

use std::net::IpAddr;

use ipnet::IpNet;

use super::lexer::Directive;
use super::listen::{self, Listen};
use super::{Stream, resolver};
use crate::config::units::format_rate;
use crate::convert::model::{Forward, Keys, Target, Value};
use crate::convert::time;

pub(super) const KEPT_RESOLVED: &str =
    "names are kept resolved here; nginx looks them up once, at its start";

/// Directives of which a server's replace all that are inherited.
const GROUPS: [&[&str]; 3] = [&["allow", "deny"], &["limit_conn"], &["set_real_ip_from"]];

/// A server while it is read.
#[derive(Debug)]
struct Draft {
    forward: Forward,
    listens: Vec<Listen>,
    access: Vec<(bool, String)>,
    /// `set_real_ip_from`, as `accept_proxy` has it.
    trusted: Vec<String>,
    header_timeout: String,
    sniff_timeout: String,
    half_close: bool,
    /// Of datagrams.
    udp_keys: Keys,
    /// Why it must not be written: a part of it that keeps somebody out could not be converted.
    withheld: Option<&'static str>,
}

impl<'a> Stream<'a> {
    /// Adds the forwards of a `server` block: one for each kind of listeners that it has.
    pub(super) fn server(&mut self, server: &'a Directive, inherited: &[&'a Directive]) {
        self.findings.same(&server.place, &server.shown());
        let own = server.block.as_deref().unwrap_or_default();
        let mut draft = Draft {
            forward: Forward::new(server.place.clone()),
            listens: Vec::new(),
            access: Vec::new(),
            trusted: Vec::new(),
            header_timeout: "30s".to_owned(),
            sniff_timeout: "30s".to_owned(),
            half_close: false,
            udp_keys: Keys::default(),
            withheld: None,
        };
        let overridden = |directive: &Directive| {
            let group = GROUPS
                .iter()
                .find(|group| group.contains(&directive.name.as_str()));
            own.iter().any(|other| match group {
                Some(group) => group.contains(&other.name.as_str()),
                None => other.name == directive.name,
            })
        };
        for &directive in inherited {
            if overridden(directive) {
                let why = "overridden by a server";
                self.findings
                    .needless(&directive.place, &directive.shown(), why);
            } else {
                self.setting(directive, &mut draft);
            }
        }
        for directive in own {
            self.setting(directive, &mut draft);
        }
        self.finish(server, draft);
    }

    fn setting(&mut self, directive: &'a Directive, draft: &mut Draft) {
        let (place, shown) = (&directive.place, directive.shown());
        if directive.name == "listen" {
            draft.listens.extend(listen::read(directive, self.findings));
            return;
        }
        let told = match directive.name.as_str() {
            "proxy_pass" => self.pass(directive, draft),
            "proxy_bind" => source(directive, &mut draft.forward.pool_keys),
            "limit_conn" => self.limit(directive, draft),
            "allow" | "deny" => access(directive, draft),
            "set_real_ip_from" => trust(directive, draft),
            "resolver" => {
                resolver(directive, &mut self.model.global, self.findings);
                return;
            }
            "access_log" => access_log(directive, &mut self.model.log),
            "log_format" => Told::Differs("records have a form of their own, `log.format`"),
            "error_log" => {
                super::error_log(directive, self.model, self.findings);
                return;
            }
            "proxy_upload_rate" | "proxy_download_rate" => rate(directive, draft),
            _ => timer(directive, draft)
                .or_else(|| switch(directive, draft))
                .unwrap_or_else(|| not_ours(&directive.name)),
        };
        match told {
            Told::Same => self.findings.same(place, &shown),
            Told::Differs(why) => self.findings.differs(place, &shown, why),
            Told::Needless(why) => self.findings.needless(place, &shown, why),
            Told::Left(why) => {
                self.findings.left(place, &shown, why);
                draft.withheld = draft.withheld.or(withholds(&directive.name));
            }
        }
    }

    fn pass(&mut self, directive: &'a Directive, draft: &mut Draft) -> Told {
        let Some(value) = directive.only() else {
            return Told::Left("takes one address");
        };
        let Some(name) = value.strip_prefix('$') else {
            if value.contains('$') {
                return Told::Left("an address made of variables cannot be known here");
            }
            draft.forward.to = Some(self.target(&directive.place, value));
            return Told::Same;
        };
        let name = name.trim_start_matches('{').trim_end_matches('}');
        let Some(routes) = self.routes(directive, name) else {
            return Told::Left("no `map`, `geo` or `split_clients` that could be converted has it");
        };
        draft.forward.routes = routes.all;
        draft.forward.to = routes.default;
        if routes.sniffs {
            draft.forward.keys.set("sniff_timeout", "");
        }
        Told::Same
    }

    fn limit(&mut self, directive: &Directive, draft: &mut Draft) -> Told {
        let [zone, most] = directive.args.as_slice() else {
            return Told::Left("takes a zone and a number");
        };
        let Ok(most) = most.parse::<u64>() else {
            return Told::Left("takes a zone and a number");
        };
        match self.zones.get(zone).map(String::as_str) {
            Some("$binary_remote_addr" | "$remote_addr") => {
                draft.forward.keys.set("max_per_client", most);
                // nginx counts each address.
                self.model.global.set_because(
                    "client_prefix_v6",
                    128,
                    "nginx counts each IPv6 address by itself; ours is 64",
                );
                Told::Differs("counted for each forward, where nginx counts for all of a zone")
            }
            Some("$server_addr" | "$server_port" | "$server_addr:$server_port") => {
                draft.forward.keys.set("max_connections", most);
                Told::Differs("what is above waits in the listener's queue; nginx ends it")
            }
            Some(_) => Told::Left("limits go by the client's address or by the forward"),
            None => Told::Left("its zone is not there"),
        }
    }

    fn finish(&mut self, server: &'a Directive, mut draft: Draft) {
        let shown = server.shown();
        if draft.listens.is_empty() {
            let why = "it has no listener that could be converted";
            return self.findings.left(&server.place, &shown, why);
        }
        if let Some(why) = draft.withheld {
            return self.findings.left(&server.place, &shown, why);
        }
        let rejecting = draft.forward.to.is_none() || draft.forward.to == Some(Target::Reject);
        if rejecting && draft.forward.routes.is_empty() {
            let why = "it passes nothing on that could be converted";
            return self.findings.left(&server.place, &shown, why);
        }
        if rejecting {
            // A variable without a default is empty, and nginx ends the session.
            let first = draft.forward.routes.iter().map(|route| &route.to);
            let to = first.clone().find(|to| **to != Target::Reject).cloned();
            let Some(to) = to else {
                return self
                    .findings
                    .left(&server.place, &shown, "all of its routes reject");
            };
            draft.forward.to = Some(to);
            draft.forward.routes.push(crate::convert::model::Route {
                origin: server.place.clone(),
                keys: Keys::default(),
                to: Target::Reject,
            });
        }
        draft.keys();
        let mut rest = std::mem::take(&mut draft.listens);
        while let Some(first) = rest.first() {
            let kind = first.kind.clone();
            let (same, other): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|listen| listen.kind == kind);
            rest = other;
            let forward = draft.of(&kind, same);
            self.model.forwards.push(forward);
        }
    }
}

impl Draft {
    /// What only the whole of the server tells.
    fn keys(&mut self) {
        let keys = &mut self.forward.keys;
        if keys.has("sniff_timeout") {
            keys.set_because(
                "sniff_timeout",
                self.sniff_timeout.clone(),
                "preread_timeout",
            );
        }
        if self.half_close {
            let idle = keys
                .get("idle_timeout")
                .cloned()
                .unwrap_or_else(|| "10m".into());
            keys.set_because("half_close_timeout", idle, "proxy_half_close on");
        }
        if !self.access.is_empty() {
            let everybody = self.access.iter().position(|(_, whom)| whom == "all");
            let rules = &self.access[..everybody.map_or(self.access.len(), |at| at + 1)];
            let rules: Vec<String> = rules
                .iter()
                .map(|(denies, whom)| format!("{} {whom}", if *denies { "deny" } else { "allow" }))
                .collect();
            keys.set("access", rules);
        }
        if keys.has("access") || keys.has("max_per_client") {
            keys.set("on_deny", "close");
        }
    }

    /// The forward of listeners of one kind.
    fn of(&self, kind: &listen::Kind, listens: Vec<Listen>) -> Forward {
        let mut forward = self.forward.clone();
        forward.listen = listens.into_iter().map(|listen| listen.address).collect();
        forward.client_options = forward.client_options.with(&kind.options);
        if kind.proxy_protocol {
            let accept = if self.trusted.is_empty() {
                Value::Bool(true)
            } else {
                Value::Table(vec![
                    ("from", Value::List(self.trusted.clone())),
                    ("timeout", Value::Text(self.header_timeout.clone())),
                ])
            };
            forward.keys.set("accept_proxy", accept);
        }
        if kind.udp {
            for key in ["half_close_timeout", "sniff_timeout"] {
                forward.keys.remove(key);
            }
            let mut keys = Keys::default();
            keys.set("protocol", "udp");
            // nginx has one time for both; ours of datagrams has a name of its own.
            let idle = forward.keys.get("idle_timeout").cloned();
            forward.keys.remove("idle_timeout");
            forward.keys.remove("write_stall_timeout");
            let idle = idle.unwrap_or_else(|| "10m".into());
            keys.set_because("udp_idle_timeout", idle.clone(), "proxy_timeout");
            keys.set_because(
                "udp_unanswered_timeout",
                idle,
                "likewise: nginx has one for both",
            );
            forward.keys = keys.with(&self.udp_keys).with(&forward.keys);
        }
        forward
    }
}

/// What became of a directive.
enum Told {
    Same,
    Differs(&'static str),
    Needless(&'static str),
    Left(&'static str),
}

/// Why a server is not written when such a directive of it could not be converted.
fn withholds(name: &str) -> Option<&'static str> {
    match name {
        "allow"
        | "deny"
        | "limit_conn"
        | "proxy_upload_rate"
        | "proxy_download_rate"
        | "js_access"
        | "js_preread" => Some("it is not written: it would let in whom nginx turns away"),
        _ if name.contains("_by_lua") => {
            Some("it is not written: it would let in whom nginx turns away")
        }
        "proxy_ssl" => Some("it is not written: servers would be sent plain text"),
        _ => None,
    }
}

fn on(directive: &Directive) -> bool {
    directive.only() == Some("on")
}

/// Directives that are a time.
fn timer(directive: &Directive, draft: &mut Draft) -> Option<Told> {
    let keys = &mut draft.forward.keys;
    let name = directive.name.as_str();
    if !matches!(
        name,
        "proxy_timeout"
            | "proxy_connect_timeout"
            | "proxy_next_upstream_timeout"
            | "preread_timeout"
            | "proxy_protocol_timeout"
    ) {
        return None;
    }
    let Some(duration) = directive.only().and_then(|text| time::parse(text, 1000)) else {
        return Some(Told::Left("no time"));
    };
    let timeout = time::timeout(duration);
    match name {
        "proxy_timeout" => {
            keys.set("idle_timeout", timeout.clone());
            keys.set("write_stall_timeout", timeout);
        }
        "proxy_connect_timeout" => keys.set("connect_timeout", timeout),
        "proxy_next_upstream_timeout" => draft.forward.pool_keys.set("retry_timeout", timeout),
        "preread_timeout" => draft.sniff_timeout = timeout,
        _ => draft.header_timeout = timeout,
    }
    Some(Told::Same)
}

/// Directives that are on or off, or a number.
fn switch(directive: &Directive, draft: &mut Draft) -> Option<Told> {
    let forward = &mut draft.forward;
    match directive.name.as_str() {
        "proxy_half_close" => draft.half_close = on(directive),
        "proxy_protocol" if on(directive) => forward.pool_keys.set("send_proxy", "v1"),
        "proxy_protocol" => {}
        "proxy_next_upstream" if on(directive) => {}
        "proxy_next_upstream" => forward.pool_keys.set("retries", 0),
        "proxy_next_upstream_tries" => {
            match directive.only().and_then(|tries| tries.parse::<u64>().ok()) {
                Some(0) => {}
                Some(tries) => forward.pool_keys.set("retries", tries - 1),
                None => return Some(Told::Left("no number")),
            }
        }
        "proxy_socket_keepalive" if on(directive) => {
            forward.upstream_options.set("keepalive", true);
        }
        "proxy_socket_keepalive" => {}
        "tcp_nodelay" if on(directive) => {}
        "tcp_nodelay" => {
            forward.client_options.set("nodelay", false);
            forward.upstream_options.set("nodelay", false);
        }
        "proxy_requests" | "proxy_responses" => {
            let key = if directive.name == "proxy_requests" {
                "requests"
            } else {
                "responses"
            };
            match directive.only().and_then(|count| count.parse::<u64>().ok()) {
                Some(count) => draft.udp_keys.set(key, count),
                None => return Some(Told::Left("no number")),
            }
        }
        "ssl_preread" => {}
        "proxy_ssl" | "proxy_ssl_verify" if !on(directive) => {}
        _ => return None,
    }
    Some(Told::Same)
}

/// Bytes a second of each session; 0 is no limit.
fn rate(directive: &Directive, draft: &mut Draft) -> Told {
    let Some(bytes) = directive.only().and_then(time::size) else {
        return Told::Left("a rate has to be a number of bytes here");
    };
    if bytes == 0 {
        return Told::Same;
    }
    let way = match directive.name.as_str() {
        "proxy_upload_rate" => "up",
        _ => "down",
    };
    let keys = &mut draft.forward.keys;
    let mut rates = match keys.get("rate_per_session") {
        Some(Value::Table(rates)) => rates.clone(),
        _ => Vec::new(),
    };
    rates.retain(|(name, _)| *name != way);
    rates.push((way, Value::Text(format_rate(bytes))));
    keys.set("rate_per_session", Value::Table(rates));
    Told::Same
}

fn source(directive: &Directive, keys: &mut Keys) -> Told {
    match directive
        .args
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["off"] => Told::Same,
        ["$remote_addr" | "$remote_addr:$remote_port", "transparent"] => {
            keys.set("transparent", true);
            Told::Same
        }
        [address] | [address, "transparent"] if address.parse::<IpAddr>().is_ok() => {
            keys.set("source", *address);
            Told::Same
        }
        _ => Told::Left("connects come from a fixed address, or from the client's (`transparent`)"),
    }
}

/// The network of a rule, without the bits behind its prefix, which nginx only warns of.
fn network(text: &str) -> Option<(String, bool)> {
    if let Ok(network) = text.parse::<IpNet>() {
        let trunc = network.trunc();
        return Some((trunc.to_string(), trunc != network));
    }
    text.parse::<IpAddr>()
        .ok()
        .map(|address| (address.to_string(), false))
}

fn access(directive: &Directive, draft: &mut Draft) -> Told {
    let denies = directive.name == "deny";
    match directive.only() {
        Some("all") => {
            draft.access.push((denies, "all".to_owned()));
            Told::Same
        }
        Some("unix:") => Told::Left("unix sockets have no rule of their own, only `all`"),
        Some(text) => match network(text) {
            Some((network, cut)) => {
                draft.access.push((denies, network));
                if cut {
                    return Told::Differs("bits behind the prefix are cleared, as nginx does");
                }
                Told::Same
            }
            None => Told::Left("no network"),
        },
        None => Told::Left("takes one network"),
    }
}

fn trust(directive: &Directive, draft: &mut Draft) -> Told {
    const STRICT: &str = "who is not named may send no PROXY header here and is refused; \
                          nginx reads it and does not believe it";
    match directive.only() {
        Some("unix:") => draft.trusted.push("unix".to_owned()),
        Some(text) => match network(text) {
            Some((network, _)) => draft.trusted.push(network),
            None => return Told::Left("no network"),
        },
        None => return Told::Left("takes one network"),
    }
    Told::Differs(STRICT)
}

fn access_log(directive: &Directive, log: &mut Keys) -> Told {
    if directive.only() == Some("off") {
        log.set("sessions", "off");
        return Told::Differs("records are on or off for all forwards together");
    }
    match directive.args.first() {
        Some(path) if path.starts_with("syslog:") => {
            Told::Left("lines go to standard output or a file; the service manager takes them on")
        }
        Some(path) if path.starts_with('/') => {
            log.set("to", path.clone());
            Told::Differs("one file for all lines, in a form of its own")
        }
        _ => Told::Left("no absolute path"),
    }
}

/// What there is no key for.
fn not_ours(name: &str) -> Told {
    match name {
        "proxy_buffer_size"
        | "preread_buffer_size"
        | "proxy_download_buffer"
        | "proxy_upload_buffer"
        | "variables_hash_bucket_size"
        | "variables_hash_max_size"
        | "map_hash_bucket_size"
        | "map_hash_max_size"
        | "open_log_file_cache"
        | "resolver_timeout"
        | "limit_conn_log_level"
        | "status_zone"
        | "server_names_hash_bucket_size" => Told::Needless("sizes itself"),
        _ if name.starts_with("ssl_") || name.starts_with("proxy_ssl") => {
            Told::Left("TLS is neither ended nor begun here; what is encrypted passes as it is")
        }
        _ if name.starts_with("js_") || name.contains("_by_lua") => {
            Told::Left("no scripts run here")
        }
        "return" => Told::Left("nothing is answered here"),
        "health_check" | "match" => Told::Left("write `check` at the pool"),
        _ => Told::Left("not known here"),
    }
}
