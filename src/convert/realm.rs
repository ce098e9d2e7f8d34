//! realm: TOML or JSON, endpoints with what `[network]` says of all of them.

use serde_json::Value as Json;

use super::finding::{Findings, Origin};
use super::model::{Forward, Keys, Model, Pool, Server, Target, Value};
use super::source::{Failure, Text};

/// Fills the model from realm's configuration.
pub(super) fn translate(
    text: &Text,
    model: &mut Model,
    findings: &mut Findings,
) -> Result<(), Failure> {
    let root = parse(text)?;
    let place = text.place(1);
    defaults(model);
    let Some(root) = root.as_object() else {
        return Err(Failure::at(&place, "no table"));
    };
    let network = root.get("network").cloned().unwrap_or(Json::Null);
    for (key, value) in root {
        match key.as_str() {
            "log" => log(value, &line_of(text, key, 0), model, findings),
            "dns" => dns(value, &line_of(text, key, 0), model, findings),
            "network" | "endpoints" => {}
            _ => findings.left(&line_of(text, key, 0), key, "not known here"),
        }
    }
    let endpoints = root
        .get("endpoints")
        .and_then(Json::as_array)
        .cloned()
        .unwrap_or_default();
    for (index, endpoint) in endpoints.iter().enumerate() {
        let origin = line_of(text, "listen", index);
        Endpoint {
            text,
            index,
            origin,
            network: &network,
        }
        .take(endpoint, model, findings);
    }
    Ok(())
}

/// What realm does, and we do not.
fn defaults(model: &mut Model) {
    let defaults = &mut model.defaults;
    defaults.set_because("idle_timeout", "off", "realm has none; ours is 10m");
    defaults.set_because("half_close_timeout", "off", "realm has none; ours is 1m");
    defaults.set_because("write_stall_timeout", "off", "realm has none; ours is 10m");
    let pools = &mut model.pool_defaults;
    pools.set_because("retries", 0, "realm tries one server; ours is all");
    pools.set_because("max_fails", 0, "realm marks none; ours is 1");
}

/// JSON if it begins so, else TOML.
fn parse(text: &Text) -> Result<Json, Failure> {
    if text.text.trim_start().starts_with('{') {
        return serde_json::from_str(&text.text)
            .map_err(|error| Failure::at(&text.place(error.line().max(1)), error.to_string()));
    }
    let document = text
        .text
        .parse::<toml_edit::DocumentMut>()
        .map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let before = text.text.get(..at).unwrap_or_default();
            let line = before.matches('\n').count();
            Failure::at(&text.place(line + 1), error.message().to_owned())
        })?;
    Ok(table(document.as_table()))
}

fn table(table: &dyn toml_edit::TableLike) -> Json {
    Json::Object(
        table
            .iter()
            .map(|(key, item)| (key.to_owned(), item_json(item)))
            .collect(),
    )
}

fn item_json(item: &toml_edit::Item) -> Json {
    match item {
        toml_edit::Item::Value(value) => value_json(value),
        toml_edit::Item::Table(inner) => table(inner),
        toml_edit::Item::ArrayOfTables(tables) => {
            Json::Array(tables.iter().map(|inner| table(inner)).collect())
        }
        toml_edit::Item::None => Json::Null,
    }
}

fn value_json(value: &toml_edit::Value) -> Json {
    use toml_edit::Value as Toml;
    match value {
        Toml::String(text) => Json::from(text.value().as_str()),
        Toml::Integer(number) => Json::from(*number.value()),
        Toml::Float(number) => Json::from(*number.value()),
        Toml::Boolean(truth) => Json::from(*truth.value()),
        Toml::Datetime(time) => Json::from(time.value().to_string()),
        Toml::Array(all) => Json::Array(all.iter().map(value_json).collect()),
        Toml::InlineTable(inner) => table(inner),
    }
}

/// The line on which a key is written for the n-th time, as well as a search can tell.
fn line_of(text: &Text, key: &str, nth: usize) -> Origin {
    let is_key = |line: &str| {
        let line = line
            .trim_start()
            .trim_start_matches(['[', '{', '"', '\'', ' ']);
        line.strip_prefix(key)
            .is_some_and(|rest| rest.starts_with(['"', '\'', ' ', '=', ':', ']', '.']))
    };
    let mut lines = text
        .text
        .lines()
        .enumerate()
        .filter(|(_, line)| is_key(line));
    text.place(lines.nth(nth).map_or(1, |(index, _)| index + 1))
}

fn log(value: &Json, place: &Origin, model: &mut Model, findings: &mut Findings) {
    match value.get("level").and_then(Json::as_str) {
        Some("off" | "error") => model.log.set("level", "error"),
        Some(level @ ("warn" | "info" | "debug")) => model.log.set("level", level),
        Some("trace") => model.log.set("level", "debug"),
        _ => {}
    }
    match value.get("output").and_then(Json::as_str) {
        Some(to @ ("stdout" | "stderr")) => model.log.set("to", to),
        Some(path) if path.starts_with('/') => model.log.set("to", path),
        Some(path) => model.log.set("to", format!("./{path}")),
        None => {}
    }
    findings.differs(place, "log", "lines have a form of their own");
}

fn dns(value: &Json, place: &Origin, model: &mut Model, findings: &mut Findings) {
    for server in value
        .get("nameservers")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
    {
        if let Some(server) = server.as_str() {
            model.global.push("dns_servers", server);
        }
    }
    let ttls = [
        ("min_ttl", "resolve_ttl_min"),
        ("max_ttl", "resolve_ttl_max"),
    ];
    for (theirs, ours) in ttls {
        if let Some(seconds) = value
            .get(theirs)
            .and_then(Json::as_u64)
            .filter(|ttl| *ttl > 0)
        {
            model.pool_defaults.set(ours, format!("{seconds}s"));
        }
    }
    match value.get("protocol").and_then(Json::as_str) {
        None | Some("udp" | "tcp_and_udp") => {}
        Some(_) => findings.differs(
            place,
            "dns.protocol",
            "UDP is asked first, TCP where it is cut",
        ),
    }
    match value.get("mode").and_then(Json::as_str) {
        None | Some("ipv4_and_ipv6") => {}
        Some(_) => findings.differs(place, "dns.mode", "both families are asked for"),
    }
    findings.same(place, "dns");
}

struct Endpoint<'a> {
    text: &'a Text,
    index: usize,
    origin: Origin,
    network: &'a Json,
}

impl Endpoint<'_> {
    fn take(&self, endpoint: &Json, model: &mut Model, findings: &mut Findings) {
        let place = &self.origin;
        let (Some(listen), Some(remote)) = (
            endpoint.get("listen").and_then(Json::as_str),
            endpoint.get("remote").and_then(Json::as_str),
        ) else {
            return findings.left(place, "endpoint", "it has no `listen` or no `remote`");
        };
        let mut forward = Forward::new(place.clone());
        forward.listen = vec![listen.to_owned()];
        let mut keys = Network::default();
        for (layer, at) in [(self.network, "network"), (endpoint, "endpoint")] {
            self.settings(layer, at, &mut keys, findings);
        }
        if let Some(inner) = endpoint.get("network") {
            self.settings(inner, "endpoint.network", &mut keys, findings);
        }
        if let Some(through) = endpoint.get("through").and_then(Json::as_str) {
            let host = through.rsplit_once(':').map_or(through, |(host, _)| host);
            let host = if through.parse::<std::net::IpAddr>().is_ok() {
                through
            } else {
                host
            };
            forward
                .pool_keys
                .set("source", host.trim_matches(['[', ']']));
        }
        if let Some(interface) = endpoint.get("interface").and_then(Json::as_str) {
            forward.pool_keys.set("interface", interface);
        }
        if let Some(interface) = endpoint.get("listen_interface").and_then(Json::as_str) {
            forward.client_options.set("interface", interface);
        }
        for transport in ["listen_transport", "remote_transport"] {
            if endpoint
                .get(transport)
                .is_some_and(|value| !value.is_null())
            {
                let why = "no transports (ws, tls) are spoken here";
                return findings.left(place, transport, why);
            }
        }
        forward.to = Some(self.servers(endpoint, remote, model, findings));
        findings.same(place, "endpoint");
        keys.forwards(forward, model);
    }

    fn settings(&self, layer: &Json, at: &str, keys: &mut Network, findings: &mut Findings) {
        let Some(table) = layer.as_object() else {
            return;
        };
        for (key, value) in table {
            let known = [
                "listen",
                "remote",
                "extra_remotes",
                "balance",
                "through",
                "interface",
                "listen_interface",
                "listen_transport",
                "remote_transport",
                "network",
            ];
            if at == "endpoint" && known.contains(&key.as_str()) {
                continue;
            }
            let place = line_of(self.text, key, if at == "network" { 0 } else { self.index });
            let what = format!("{at}.{key}");
            match keys.set(key, value) {
                Ok(None) => findings.same(&place, &what),
                Ok(Some(why)) => findings.differs(&place, &what, why),
                Err(why) => findings.left(&place, &what, why),
            }
        }
    }

    fn servers(
        &self,
        endpoint: &Json,
        remote: &str,
        model: &mut Model,
        findings: &mut Findings,
    ) -> Target {
        let extra: Vec<&str> = endpoint
            .get("extra_remotes")
            .and_then(Json::as_array)
            .into_iter()
            .flatten()
            .filter_map(Json::as_str)
            .collect();
        let balance = endpoint
            .get("balance")
            .and_then(Json::as_str)
            .unwrap_or("off");
        let (policy, weights) = balance.split_once(':').unwrap_or((balance, ""));
        let policy = policy.trim();
        if extra.is_empty() {
            return Target::Address(remote.to_owned());
        }
        let mut keys = Keys::default();
        match policy {
            "roundrobin" => keys.set("balance", "round_robin"),
            "iphash" => {
                keys.set("balance", "hash_address");
                let why = "a client's server is found by another hash than realm's";
                findings.differs(&self.origin, "balance", why);
            }
            _ => {
                let why = "without a balance realm uses the first of its remotes only";
                findings.differs(&self.origin, "extra_remotes", why);
                return Target::Address(remote.to_owned());
            }
        }
        let weights: Vec<u64> = weights
            .split(',')
            .filter_map(|weight| weight.trim().parse().ok())
            .collect();
        let servers = std::iter::once(remote)
            .chain(extra)
            .enumerate()
            .map(|(index, address)| {
                let mut keys = Keys::default();
                if let Some(weight) = weights.get(index) {
                    keys.set("weight", *weight);
                }
                Server {
                    address: address.to_owned(),
                    keys,
                }
            });
        let name = format!("endpoint-{}", self.index + 1);
        let origin = self.origin.clone();
        model.pools.push(Pool {
            origin,
            name: name.clone(),
            keys,
            servers: servers.collect(),
        });
        Target::Pool(name)
    }
}

/// `[network]`, of all endpoints or of one.
#[derive(Debug, Clone)]
struct Network {
    tcp: bool,
    udp: bool,
    send_proxy: bool,
    version: u64,
    accept_proxy: bool,
    accept_timeout: u64,
    tcp_timeout: u64,
    udp_timeout: u64,
    keepalive: u64,
    probes: u64,
    mptcp: [bool; 2],
}

impl Default for Network {
    /// As realm's documentation has them.
    fn default() -> Self {
        Self {
            tcp: true,
            udp: false,
            send_proxy: false,
            version: 2,
            accept_proxy: false,
            accept_timeout: 5,
            tcp_timeout: 5,
            udp_timeout: 30,
            keepalive: 15,
            probes: 3,
            mptcp: [false; 2],
        }
    }
}

impl Network {
    fn set(&mut self, key: &str, value: &Json) -> Result<Option<&'static str>, &'static str> {
        const KIND: &str = "a value of another kind";
        let truth = || value.as_bool().ok_or(KIND);
        let number = || value.as_u64().ok_or(KIND);
        match key {
            "no_tcp" => self.tcp = !truth()?,
            "use_udp" | "udp" => self.udp = truth()?,
            "send_proxy" => self.send_proxy = truth()?,
            "send_proxy_version" => self.version = number()?,
            "accept_proxy" => {
                self.accept_proxy = truth()?;
                if self.accept_proxy {
                    return Ok(Some("everybody's header is believed; name whom to believe"));
                }
            }
            "accept_proxy_timeout" => self.accept_timeout = number()?,
            "tcp_timeout" => self.tcp_timeout = number()?,
            "udp_timeout" => self.udp_timeout = number()?,
            "tcp_keepalive" => self.keepalive = number()?,
            "tcp_keepalive_probe" => self.probes = number()?,
            "accept_mptcp" => self.mptcp[0] = truth()?,
            "send_mptcp" => self.mptcp[1] = truth()?,
            "ipv6_only" => {
                return Ok(Some(
                    "write the family into `listen`: `[::]:PORT` is IPv6 only",
                ));
            }
            "zero_copy" | "fast_open" | "tcp_fast_open" => {
                return Ok(Some("found out at run time, or an option of a profile"));
            }
            _ => return Err("not known here"),
        }
        Ok(None)
    }

    /// One forward for streams, one for datagrams.
    fn forwards(&self, forward: Forward, model: &mut Model) {
        let seconds = |seconds: u64| match seconds {
            0 => "off".to_owned(),
            seconds => format!("{seconds}s"),
        };
        if self.tcp {
            let mut tcp = forward.clone();
            if self.tcp_timeout != 5 {
                tcp.keys.set("connect_timeout", seconds(self.tcp_timeout));
            }
            if self.accept_proxy {
                let from = vec!["0.0.0.0/0".to_owned(), "::/0".to_owned()];
                let timeout = Value::Text(seconds(self.accept_timeout.max(1)));
                let table = vec![("from", Value::List(from)), ("timeout", timeout)];
                tcp.keys.set("accept_proxy", Value::Table(table));
            }
            if self.send_proxy {
                tcp.pool_keys
                    .set("send_proxy", if self.version == 1 { "v1" } else { "v2" });
            }
            let legs = [(&mut tcp.client_options, 0), (&mut tcp.upstream_options, 1)];
            for (options, side) in legs {
                if self.keepalive > 0 {
                    let idle = Value::Text(seconds(self.keepalive));
                    let table = vec![("idle", idle), ("probes", self.probes.into())];
                    options.set("keepalive", Value::Table(table));
                }
                if self.mptcp[side] {
                    options.set("mptcp", true);
                }
            }
            model.forwards.push(tcp);
        }
        if self.udp {
            let mut udp = forward;
            let mut keys = Keys::default();
            keys.set("protocol", "udp");
            keys.set("udp_idle_timeout", seconds(self.udp_timeout));
            keys.set("udp_unanswered_timeout", seconds(self.udp_timeout));
            udp.keys = keys;
            udp.name = udp.listen.first().map(|listen| format!("udp:{listen}"));
            model.forwards.push(udp);
        }
    }
}
