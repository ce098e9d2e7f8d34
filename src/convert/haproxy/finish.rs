//! Frontends and backends, joined: forwards with what their backends say, and pools.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::address;
use super::check::Pace;
use super::proxy::{Proxy, Role};
use super::rules::{Rule, overtakes};
use super::server::Server;
use crate::convert::finding::Findings;
use crate::convert::model::{self, Forward, Keys, Model, Pool, Route, Target};
use crate::convert::time;

/// Writes all sections into the model.
pub(super) fn join(proxies: Vec<Proxy>, model: &mut Model, findings: &mut Findings) {
    let proxies: Vec<Proxy> = proxies.into_iter().filter(|proxy| !proxy.http).collect();
    let backends: HashMap<&str, &Proxy> = proxies
        .iter()
        .filter(|proxy| proxy.role != Role::Frontend)
        .map(|proxy| (proxy.name.as_str(), proxy))
        .collect();
    for proxy in &proxies {
        if proxy.role != Role::Backend {
            Join {
                proxy,
                backends: &backends,
            }
            .forwards(model, findings);
        }
    }
    let ports = ports(&proxies);
    for proxy in &proxies {
        let serves = !proxy.servers.is_empty() || proxy.role == Role::Backend;
        if proxy.role != Role::Frontend && serves {
            // Servers without a port have that of the only listener that leads to them.
            let mut ports = ports.get(proxy.name.as_str()).into_iter().flatten();
            let port = ports.next().filter(|_| ports.next().is_none());
            pool(proxy, port.copied(), model, findings);
        }
    }
}

/// Of each backend the ports of the listeners that lead to it.
fn ports(proxies: &[Proxy]) -> HashMap<&str, BTreeSet<&str>> {
    let mut ports: HashMap<&str, BTreeSet<&str>> = HashMap::new();
    for proxy in proxies {
        let own: BTreeSet<&str> = proxy
            .binds
            .iter()
            .flat_map(|bind| &bind.addresses)
            .filter_map(|address| address.rsplit_once(':').map(|(_, port)| port))
            .collect();
        if own.is_empty() {
            continue;
        }
        let routed = proxy.gate.rules.iter().filter_map(|rule| match rule {
            Rule::Route {
                to: Target::Pool(name),
                ..
            } => Some(name.as_str()),
            _ => None,
        });
        let default = proxy
            .default_backend
            .as_ref()
            .map(|(_, name)| name.as_str());
        let itself = (proxy.role == Role::Listen).then_some(proxy.name.as_str());
        for name in routed.chain(default).chain(itself) {
            ports.entry(name).or_default().extend(&own);
        }
    }
    ports
}

struct Join<'a> {
    proxy: &'a Proxy,
    backends: &'a HashMap<&'a str, &'a Proxy>,
}

impl Join<'_> {
    fn forwards(&self, model: &mut Model, findings: &mut Findings) {
        let proxy = self.proxy;
        let Some(place) = &proxy.place else { return };
        let shown = format!("{} {}", section(proxy.role), proxy.name);
        if proxy.disabled {
            return findings.differs(place, &shown, "it is disabled: nothing is written for it");
        }
        if proxy.gate.withheld {
            let why = "it is not written: it would let in whom HAProxy turns away";
            return findings.left(place, &shown, why);
        }
        if proxy.binds.is_empty() {
            let why = "it has no listener that could be converted";
            return findings.left(place, &shown, why);
        }
        let mut forward = Forward::new(place.clone());
        forward.to = self.default();
        forward.keys = self.keys(findings);
        forward.client_options = proxy.client_options.clone();
        let backend = self.backend();
        forward.upstream_options = backend.upstream_options.clone();
        self.rules(&mut forward, findings);
        if forward.to.is_none() {
            // No backend for who meets no rule: HAProxy ends the session.
            let Some(first) = forward
                .routes
                .iter()
                .find(|route| route.to != Target::Reject)
            else {
                let why = "it leads nowhere that could be converted";
                return findings.left(place, &shown, why);
            };
            forward.to = Some(first.to.clone());
            let keys = Keys::default();
            forward.routes.push(Route {
                origin: place.clone(),
                keys,
                to: Target::Reject,
            });
        }
        let targets = forward
            .routes
            .iter()
            .map(|route| &route.to)
            .chain(&forward.to);
        for target in targets {
            let Target::Pool(name) = target else { continue };
            if !self.backends.contains_key(name.as_str()) {
                findings.left(
                    place,
                    &format!("backend {name}"),
                    "it is not there, or is no `mode tcp`",
                );
                return;
            }
        }
        self.kinds(&forward, model);
    }

    /// A forward for each kind of `bind`.
    fn kinds(&self, forward: &Forward, model: &mut Model) {
        let mut kinds: Vec<(Keys, Keys, Vec<String>)> = Vec::new();
        for bind in &self.proxy.binds {
            let same = kinds
                .iter_mut()
                .find(|(keys, options, _)| *keys == bind.keys && *options == bind.options);
            match same {
                Some((_, _, addresses)) => addresses.extend(bind.addresses.iter().cloned()),
                None => kinds.push((
                    bind.keys.clone(),
                    bind.options.clone(),
                    bind.addresses.clone(),
                )),
            }
        }
        for (index, (keys, options, addresses)) in kinds.into_iter().enumerate() {
            let mut forward = forward.clone();
            forward.name = Some(match index {
                0 => self.proxy.name.clone(),
                more => format!("{}-{}", self.proxy.name, more + 1),
            });
            forward.listen = addresses;
            forward.keys = forward.keys.with(&keys);
            forward.client_options = forward.client_options.with(&options);
            model.forwards.push(forward);
        }
    }

    /// A `listen` is its own backend unless it has another.
    fn default(&self) -> Option<Target> {
        if let Some((_, name)) = &self.proxy.default_backend {
            return Some(Target::Pool(name.clone()));
        }
        let own = self.proxy.role == Role::Listen && !self.proxy.servers.is_empty();
        own.then(|| Target::Pool(self.proxy.name.clone()))
    }

    /// The backend whose times hold for the forward.
    fn backend(&self) -> &Proxy {
        let named = match self.default() {
            Some(Target::Pool(name)) => self.backends.get(name.as_str()).copied(),
            _ => None,
        };
        let routed = || {
            self.proxy.gate.rules.iter().find_map(|rule| match rule {
                Rule::Route {
                    to: Target::Pool(name),
                    ..
                } => self.backends.get(name.as_str()).copied(),
                _ => None,
            })
        };
        named.or_else(routed).unwrap_or(self.proxy)
    }

    fn keys(&self, findings: &mut Findings) -> Keys {
        let (front, back) = (self.proxy, self.backend());
        let of = |proxy: &Proxy, name: &str| {
            proxy
                .timeouts
                .get(name)
                .copied()
                .filter(|time| !time.is_zero())
        };
        let (client, server) = (of(front, "client"), of(back, "server"));
        let mut keys = front.keys.with(&front.gate.keys);
        if let Some(place) = &front.place
            && client != server
            && of(back, "tunnel").is_none()
        {
            let what = format!("timeout client and server of {}", front.name);
            let why = "the shorter one holds for both: here a session is idle or it is not";
            findings.differs(place, &what, why);
        }
        let idle = of(back, "tunnel")
            .or(of(front, "tunnel"))
            .or(shorter(client, server));
        let fin = shorter(of(front, "client-fin"), of(back, "server-fin"));
        let text = |time: Option<Duration>| time.map_or_else(|| "off".to_owned(), time::timeout);
        let mut put = |key, time: Option<Duration>, remark: &'static str| match time {
            Some(_) => keys.set(key, text(time)),
            None => keys.set_because(key, "off", remark),
        };
        put(
            "connect_timeout",
            of(back, "connect"),
            "HAProxy has none unless it is written; ours is 5s",
        );
        put(
            "idle_timeout",
            idle,
            "HAProxy has none unless it is written; ours is 10m",
        );
        put(
            "half_close_timeout",
            fin.or(idle),
            "HAProxy has none unless it is written; ours is 1m",
        );
        put(
            "write_stall_timeout",
            idle,
            "HAProxy has none unless it is written; ours is 10m",
        );
        keys
    }

    fn rules(&self, forward: &mut Forward, findings: &mut Findings) {
        let mut rules: Vec<String> = Vec::new();
        self.order(findings);
        for rule in &self.proxy.gate.rules {
            match rule {
                Rule::Access(rule) if rules.last().is_some_and(|last| last.ends_with(" all")) => {
                    if let Some(place) = &self.proxy.place {
                        let why = "a rule before it is about everybody";
                        findings.needless(place, rule, why);
                    }
                }
                Rule::Access(rule) => rules.push(rule.clone()),
                Rule::Route {
                    place, keys, to, ..
                } => {
                    let (origin, keys, to) = (place.clone(), keys.clone(), to.clone());
                    forward.routes.push(Route { origin, keys, to });
                }
            }
        }
        if !rules.is_empty() {
            forward.keys.set("access", rules);
        }
    }
}

impl Join<'_> {
    /// Routes that go before earlier ones here, and not for HAProxy.
    fn order(&self, findings: &mut Findings) {
        // So many are compared with one another; more have hardly been written by hand.
        const COMPARED_MAX: usize = 1000;
        let routes = self.proxy.gate.rules.iter().filter_map(|rule| match rule {
            Rule::Route {
                place, shown, keys, ..
            } => Some((place, shown, keys)),
            Rule::Access(_) => None,
        });
        let routes: Vec<_> = routes.take(COMPARED_MAX).collect();
        for (index, (_, _, earlier)) in routes.iter().enumerate() {
            let later = routes[index + 1..]
                .iter()
                .find(|(_, _, later)| overtakes(earlier, later));
            if let Some((place, shown, _)) = later {
                let why = "it goes before earlier ones here: exact names, suffixes, then all else";
                findings.differs(place, shown, why);
            }
        }
    }
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn section(role: Role) -> &'static str {
    match role {
        Role::Listen => "listen",
        Role::Backend => "backend",
        Role::Frontend | Role::Defaults => "frontend",
    }
}

fn pool(proxy: &Proxy, port: Option<&str>, model: &mut Model, findings: &mut Findings) {
    let Some(place) = &proxy.place else { return };
    let shown = format!("{} {}", section(proxy.role), proxy.name);
    let mut pool = Pool {
        origin: place.clone(),
        name: proxy.name.clone(),
        keys: proxy.pool_keys.clone(),
        servers: Vec::new(),
    };
    retries(proxy, place, &mut pool.keys, findings);
    let sends = |server: &Server| server.pool.get("send_proxy").cloned();
    let first = proxy.servers.first().and_then(sends);
    let alike = proxy.servers.iter().all(|it| sends(it) == first);
    for server in &proxy.servers {
        let (mut keys, mut of_pool) = (server.keys.clone(), server.pool.clone());
        if let (false, Some(header)) = (alike, sends(server)) {
            keys.set("send_proxy", header);
            of_pool.remove("send_proxy");
        }
        match address::server(&server.address, port) {
            Ok(address) => {
                pool.servers.push(model::Server { address, keys });
            }
            Err(why) => findings.left(&server.place, &server.shown, why),
        }
        pool.keys = pool.keys.with(&of_pool);
    }
    if pool.servers.is_empty() {
        return findings.left(place, &shown, "it has no server that could be converted");
    }
    if proxy
        .servers
        .iter()
        .any(|server| server.keys.has("max_connections"))
    {
        let wait = ["queue", "connect"]
            .into_iter()
            .find_map(|name| proxy.timeouts.get(name));
        if let Some(wait) = wait {
            pool.keys.set(
                "queue_timeout",
                time::at_least(*wait, Duration::from_millis(1)),
            );
        }
        pool.keys
            .set_because("queue", 1_000_000, "HAProxy's has no end; ours is 1024");
    }
    check(proxy, &mut pool.keys, findings);
    if proxy
        .servers
        .iter()
        .filter(|server| server.keys.has("backup"))
        .count()
        > 1
    {
        let why = "all backups are used at once, as by `option allbackups`";
        findings.differs(place, &format!("backups of {}", proxy.name), why);
    }
    model.pools.push(pool);
}

fn retries(
    proxy: &Proxy,
    place: &crate::convert::finding::Origin,
    keys: &mut Keys,
    findings: &mut Findings,
) {
    let retries = proxy.retries.unwrap_or(3);
    let what = format!("retries of {}", proxy.name);
    if proxy.redispatch {
        keys.set_because("retries", retries.min(255), "each at another server");
        findings.differs(
            place,
            &what,
            "each goes to another server, not only the last one",
        );
    } else if proxy.servers.len() > 1 {
        keys.set_because("retries", 0, "no redispatch: no other server is tried");
        findings.differs(
            place,
            &what,
            "the same server is not tried again; others, by `retries`",
        );
    }
}

fn check(proxy: &Proxy, keys: &mut Keys, findings: &mut Findings) {
    let mut checked = proxy.servers.iter().filter(|server| server.checked);
    let Some(first) = checked.next() else { return };
    let pace: &Pace = &first.pace;
    for server in &proxy.servers {
        if !server.checked {
            findings.differs(
                &server.place,
                &server.shown,
                "it is checked with the others",
            );
        } else if server.pace != *pace {
            let why = "it is checked as the first of its pool";
            findings.differs(&server.place, &server.shown, why);
        }
    }
    let timeout = proxy.timeouts.get("check").copied();
    keys.set("check", proxy.asked.table(pace, timeout));
}
