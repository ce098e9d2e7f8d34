//! `thalweg check --route`: where a client would go, and why, without a connection.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::config::{Config, Forward, Mode, RouteTo};
use crate::control::denied_client;
use crate::net::address::Address;
use crate::policy::route::{Chosen, Conditions, Known, Protocol, Routes, place_of};
use crate::proto::host;

/// A client as it is asked about: `sni=a.example,alpn=h2,client=192.0.2.1`.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    forward: Option<String>,
    protocol: Option<Protocol>,
    sni: Option<String>,
    host: Option<String>,
    alpn: Vec<Vec<u8>>,
    client: Option<IpAddr>,
    listener: Option<SocketAddr>,
    port: Option<u16>,
    unix: Option<String>,
}

impl FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut asked = Self::default();
        for part in text.split(',').map(str::trim).filter(|it| !it.is_empty()) {
            let (key, value) = part
                .split_once('=')
                .ok_or_else(|| format!("`{part}` is no KEY=VALUE, such as sni=a.example"))?;
            asked.take(key.trim(), value.trim())?;
        }
        asked.settle()
    }
}

impl Asked {
    fn take(&mut self, key: &str, value: &str) -> Result<(), String> {
        let name = || {
            let wrong = |error| format!("{key}={value}: {error}");
            host::parse(value).map_err(wrong)
        };
        match key {
            "forward" => self.forward = Some(value.to_owned()),
            "sni" => self.sni = Some(name()?),
            "host" => self.host = Some(name()?),
            // Several stand side by side: alpn=h2,alpn=http/1.1.
            "alpn" => self.alpn.push(value.as_bytes().to_vec()),
            "client" => {
                let client = value
                    .parse()
                    .map_err(|_| format!("client={value}: no address"))?;
                self.client = Some(client);
            }
            "protocol" => {
                let mut all = Protocol::ALL.into_iter();
                let found = all.find(|it| it.name() == value);
                let known = || format!("protocol={value}: tls, http, ssh, proxy, quic or other");
                self.protocol = Some(found.ok_or_else(known)?);
            }
            "listener" => match value.parse::<Address>() {
                Ok(Address::Inet(address)) => self.listener = Some(address),
                Ok(Address::Any { port }) => self.port = Some(port),
                Ok(address @ Address::Unix(_)) => self.unix = Some(address.to_string()),
                _ => return Err(format!("listener={value}: neither an address nor a port")),
            },
            _ => {
                return Err(format!(
                    "`{key}` is none of forward, sni, host, alpn, protocol, client, listener"
                ));
            }
        }
        Ok(())
    }

    /// What is said of TLS makes it TLS, and a host HTTP.
    fn settle(mut self) -> Result<Self, String> {
        let implied = match (self.sni.is_some() || !self.alpn.is_empty(), &self.host) {
            (true, Some(_)) => return Err("sni and alpn are of TLS, host is of HTTP".to_owned()),
            (true, None) => Some(Protocol::Tls),
            (false, Some(_)) => Some(Protocol::Http),
            (false, None) => None,
        };
        match (self.protocol, implied) {
            (Some(Protocol::Quic), Some(Protocol::Tls)) => {}
            (Some(said), Some(implied)) if said != implied => {
                return Err(format!(
                    "protocol={said}, and what else is said is of {implied}"
                ));
            }
            (None, implied) => self.protocol = implied.or(Some(Protocol::Other)),
            (Some(_), _) => {}
        }
        Ok(self)
    }

    fn known(&self, at: Option<SocketAddr>) -> Known<'_> {
        Known {
            protocol: self.protocol,
            sni: self.sni.as_deref(),
            host: self.host.as_deref(),
            alpn: &self.alpn,
            client: self.client,
            listener: self.listener.or(at),
            unix: self.unix.as_deref(),
        }
    }
}

/// Where a client goes that is asked about by this text, as `check --route` says it.
///
/// # Errors
/// What is wrong with the text, or that it means no forward.
pub fn explained(config: &Config, asked: &str) -> Result<String, String> {
    explain(config, &asked.parse()?)
}

/// Where such a client goes at each forward that it may mean, a few lines each.
pub(super) fn explain(config: &Config, asked: &Asked) -> Result<String, String> {
    let mut forwards = config.forwards.iter();
    let is_meant = |forward: &&std::sync::Arc<Forward>| match &asked.forward {
        Some(name) => forward.name == *name,
        None => asked.port.is_none_or(|port| {
            let mut ports = forward.listen.iter().map(Address::port);
            ports.any(|it| it == Some(port))
        }),
    };
    let meant: Vec<_> = forwards.by_ref().filter(is_meant).collect();
    if meant.is_empty() {
        let names = config.forwards.iter().map(|it| it.name.as_str());
        let names = names.take(8).collect::<Vec<_>>().join(", ");
        return Err(format!("no forward is meant by this; there is {names}"));
    }
    let mut text = String::new();
    for forward in meant {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "forward {}: {}",
            forward.name,
            explain_one(forward, asked)
        );
    }
    Ok(text)
}

fn explain_one(forward: &Forward, asked: &Asked) -> String {
    let clients = &forward.clients;
    let denied = asked.client.map(|it| denied_client(clients, it));
    match denied {
        Some(Ok(Some(rule))) if clients.dry_run => {
            let text = routed(forward, asked);
            format!("{text}; `{rule}` would turn it away, but for dry_run")
        }
        Some(Ok(Some(rule))) => format!("access -> turned away; by `{rule}`, before any route"),
        Some(Err(error)) => {
            let text = routed(forward, asked);
            format!("{text}; if it may come in: {error}")
        }
        Some(Ok(None)) | None => routed(forward, asked),
    }
}

fn routed(forward: &Forward, asked: &Asked) -> String {
    let conditions: Vec<Conditions> = forward
        .routes
        .iter()
        .map(|it| it.conditions.clone())
        .collect();
    let table = Routes::new(conditions);
    let at = asked.port.and_then(|port| {
        let mut listen = forward.listen.iter();
        listen.find_map(|it| match it {
            Address::Inet(address) if address.port() == port => Some(*address),
            Address::Any { port: it } if *it == port => Some(SocketAddr::from(([0; 4], port))),
            _ => None,
        })
    });
    let chosen = table.decide(&asked.known(at));
    let why = match chosen {
        Chosen::Exact(_) => "it has the very name",
        Chosen::Suffix(_) => {
            "it has a suffix of the name, and no route that fits has the very name"
        }
        Chosen::Unnamed(_) => "its conditions hold, and no route that fits has the name",
        Chosen::Default if forward.routes.is_empty() => "the forward has no routes",
        Chosen::Default => "no route fits",
    };
    let mut text = match chosen.route().and_then(|at| forward.routes.get(at)) {
        Some(route) => {
            let place = chosen.route().unwrap_or_default() + 1;
            format!(
                "route {} ({place} of {}) -> {}; {why}",
                route.name,
                forward.routes.len(),
                leads(forward, &route.to, &route.name)
            )
        }
        None => format!("its own -> {}; {why}", own(forward)),
    };
    let by_share = forward
        .routes
        .iter()
        .any(|it| it.conditions.share.is_some());
    if let (true, Some(client)) = (by_share, asked.client) {
        let place = f64::from(place_of(client)) / 100.0;
        let _ = write!(text, "; {client} stands at {place:.2}% of the clients");
    } else if by_share {
        text.push_str("; routes with a `share` need client=ADDRESS");
    }
    text
}

fn leads(forward: &Forward, to: &RouteTo, route: &str) -> String {
    match to {
        RouteTo::Pool(pool) => {
            let name = pool.name.clone();
            let name = name.unwrap_or_else(|| format!("{}/{route}", forward.name));
            servers(&name, pool)
        }
        RouteTo::Reject => "turned away".to_owned(),
        RouteTo::HttpConnect(_) => "where its CONNECT request says".to_owned(),
    }
}

fn own(forward: &Forward) -> String {
    match &forward.mode {
        Mode::Tcp => servers(
            forward.pool.name.as_deref().unwrap_or(&forward.name),
            &forward.pool,
        ),
        Mode::HttpConnect(_) => "where its CONNECT request says".to_owned(),
    }
}

fn servers(name: &str, pool: &crate::config::Pool) -> String {
    let servers = pool.servers.iter().take(4).map(|it| it.address.to_string());
    let shown = servers.collect::<Vec<_>>().join(", ");
    match pool.servers.len() {
        0..=4 => format!("pool {name} ({shown})"),
        count => format!("pool {name} ({shown} and {} more)", count - 4),
    }
}
