//! `[[forward.route]]`: where sessions go that meet its conditions.

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::accept_proxy::write_networks;
use super::http_connect::{self, HttpConnect, Mode};
use super::kind::{one_or_list, reference, text_schema};
use super::pool::Pool;
use super::raw::{Node, TableReader, Value};
use super::report::{Fault, Report, Span};
use super::row::{Applies, Pairs, Row};
use super::scope::Scope;
use super::text::{inline, list, quote};
use super::upstream;
use super::values;
use super::words::Words;
use super::written_pool::WrittenPool;
use crate::net::address::Address;
use crate::net::network;
use crate::policy::route::{ALL, Conditions, Doubt, ListenAt, Pattern, Protocol, doubts};
use crate::proto::host;

/// Routes of one forward: each is compared with each, once, when they are read.
const ROUTES_MAX: usize = 4096;

/// A route.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// What it is called; by its place where no name is written.
    pub name: String,
    /// When it is taken.
    pub conditions: Conditions,
    /// Where it leads.
    pub to: RouteTo,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteTo {
    /// To these servers.
    Pool(Arc<Pool>),
    /// Nowhere: the client is turned away.
    Reject,
    /// Where the client's CONNECT request says.
    HttpConnect(Arc<HttpConnect>),
}

/// Routes as they are read: servers may be ranges of ports, places are known.
#[derive(Debug, Default)]
pub(super) struct WrittenRoutes {
    routes: Vec<WrittenRoute>,
}

#[derive(Debug)]
struct WrittenRoute {
    name: Option<String>,
    conditions: Conditions,
    to: WrittenTo,
    span: Span,
    /// Nothing of it was wrong: what it takes is known.
    sound: bool,
}

#[derive(Debug)]
enum WrittenTo {
    Pool(Box<WrittenPool>, Span),
    Reject,
    HttpConnect(Arc<HttpConnect>),
    /// It is wrong, which has been reported.
    Nothing,
}

impl Words for Protocol {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("tls", Self::Tls),
        ("http", Self::Http),
        ("ssh", Self::Ssh),
        ("proxy", Self::Proxy),
        ("quic", Self::Quic),
        ("other", Self::Other),
    ];
}

/// Reads `route` of a `[[forward]]`.
pub(super) fn read(
    t: &mut TableReader<'_>,
    scope: &mut Scope,
    report: &mut Report,
) -> WrittenRoutes {
    let Some(node) = t.get("route") else {
        return WrittenRoutes::default();
    };
    let Value::Array(nodes) = &node.value else {
        let fault = Fault::new(format!("`route` must be a list, not {}", node.kind()));
        report.error(
            &node.span,
            fault.remedy("start each with `[[forward.route]]`"),
        );
        return WrittenRoutes::default();
    };
    if nodes.len() > ROUTES_MAX {
        let fault = Fault::new(format!("a forward has at most {ROUTES_MAX} routes"));
        let remedy = "give one route several names, or split the forward";
        report.error(&node.span, fault.remedy(remedy));
        return WrittenRoutes::default();
    }
    let routes = nodes
        .iter()
        .filter_map(|node| read_one(node, scope, report));
    let routes: Vec<WrittenRoute> = routes.collect();
    refuse_doubts(&routes, report);
    WrittenRoutes { routes }
}

fn read_one(node: &Node, scope: &mut Scope, report: &mut Report) -> Option<WrittenRoute> {
    let errors = report.count();
    let mut table = TableReader::open(node, "[[forward.route]]", report)?;
    let t = &mut table;
    let name = t.read("name", report, |node| {
        let name = values::string(node)?;
        values::check_name(name).map(|()| name.to_owned())
    });
    let conditions = Conditions {
        sni: each(t, "sni", report, pattern),
        host: each(t, "host", report, pattern),
        alpn: each(t, "alpn", report, protocol_name),
        protocol: each(t, "protocol", report, |node| {
            values::choice(node, Protocol::WORDS)
        }),
        no_sni: t.read("no_sni", report, values::boolean).unwrap_or(false),
        client: each(t, "client", report, |node| {
            network::parse(values::string(node)?)
                .map_err(|error| Fault::new(error.problem).remedy(error.remedy))
        }),
        listener: each(t, "listener", report, listen_at),
        share: t.read("share", report, share),
    };
    let to = read_to(t, node, scope, report);
    table.close(report, &[]);
    Some(WrittenRoute {
        name,
        conditions,
        to,
        span: node.span.clone(),
        sound: report.count() == errors,
    })
}

fn read_to(
    t: &mut TableReader<'_>,
    node: &Node,
    scope: &mut Scope,
    report: &mut Report,
) -> WrittenTo {
    let upstream_node = t.get("upstream");
    let reject = t.read("reject", report, values::boolean).unwrap_or(false);
    let mode = http_connect::read(t, report);
    let upstream = upstream_node.map(|node| upstream::read(node, scope, report));
    let given = usize::from(upstream.is_some())
        + usize::from(reject)
        + usize::from(matches!(mode, Mode::HttpConnect(_)));
    if given != 1 {
        let fault = Fault::new(if given == 0 {
            "this route leads nowhere"
        } else {
            "this route leads to several places"
        });
        let remedy = "give it one of upstream = \"POOL\", reject = true, mode = \"http-connect\"";
        report.consequence(&node.span, fault.remedy(remedy));
    }
    match (upstream, upstream_node, mode) {
        (Some(pool), Some(node), _) if !pool.servers.is_empty() => {
            WrittenTo::Pool(Box::new(pool), node.span.clone())
        }
        (Some(_), ..) => WrittenTo::Nothing,
        (None, _, Mode::HttpConnect(connect)) => WrittenTo::HttpConnect(connect),
        (None, ..) if reject => WrittenTo::Reject,
        (None, ..) => WrittenTo::Nothing,
    }
}

/// Routes that are never taken, all of them.
fn refuse_doubts(routes: &[WrittenRoute], report: &mut Report) {
    // What a route takes of which a part is wrong is not known.
    let routes: Vec<&WrittenRoute> = routes.iter().filter(|it| it.sound).collect();
    let conditions: Vec<Conditions> = routes.iter().map(|it| it.conditions.clone()).collect();
    for doubt in doubts(&conditions) {
        match doubt {
            Doubt::Contradiction { route, why } => {
                let fault = Fault::new(format!("this route is never taken: {why}"));
                report.error(&routes[route].span, fault.remedy("remove one of the two"));
            }
            Doubt::Shadowed { route, name, by } => {
                let place = report.describe(&routes[by].span, &routes[route].span);
                let fault = Fault::new(match name {
                    Some(name) => format!(
                        "`{name}` never takes this route: an earlier one takes all of it ({place})"
                    ),
                    None => format!(
                        "this route is never taken: an earlier one takes all of it ({place})"
                    ),
                });
                let remedy = "put the narrower route first, or remove one of the two; a `share` \
                              behind another is larger by as much as it is to take";
                report.error(&routes[route].span, fault.remedy(remedy));
            }
        }
    }
}

impl WrittenRoutes {
    /// Refuses listeners that the forward has not.
    pub(super) fn check_listeners(&self, listen: &[Address], report: &mut Report) {
        for route in &self.routes {
            for at in &route.conditions.listener {
                let is_one = listen.iter().any(|address| may_be(at, address));
                if !is_one {
                    let fault = Fault::new(format!(
                        "`listener`: this forward does not listen at {at}: the route is never taken"
                    ));
                    let listen: Vec<String> =
                        listen.iter().take(4).map(ToString::to_string).collect();
                    let remedy = format!("it listens at {}", listen.join(", "));
                    report.error(&route.span, fault.remedy(remedy));
                }
            }
        }
    }

    /// Those of a forward.
    pub(super) fn finish(&self, scope: &mut Scope, report: &mut Report) -> Vec<Route> {
        let mut routes = Vec::new();
        for (at, route) in self.routes.iter().enumerate() {
            let to = match &route.to {
                WrittenTo::Pool(pool, span) => {
                    if pool.servers.iter().any(|it| it.written.range.len() > 1) {
                        let fault = Fault::new("the servers of a route cannot be ranges of ports");
                        report.error(span, fault.remedy("write the port of each"));
                        continue;
                    }
                    RouteTo::Pool(scope.share(pool.at(0)))
                }
                WrittenTo::Reject => RouteTo::Reject,
                WrittenTo::HttpConnect(connect) => RouteTo::HttpConnect(connect.clone()),
                WrittenTo::Nothing => continue,
            };
            routes.push(Route {
                name: route.name.clone().unwrap_or_else(|| format!("{}", at + 1)),
                conditions: route.conditions.clone(),
                to,
            });
        }
        routes
    }
}

/// Whether a listener of this address may be meant.
fn may_be(at: &ListenAt, address: &Address) -> bool {
    match (at, address) {
        // Which is known once it is passed.
        (_, Address::Name { .. } | Address::Passed(_))
        | (ListenAt::Address(_), Address::Any { port: 0 }) => true,
        (ListenAt::Port(port), _) => matches!(address.port(), Some(it) if it == *port || it == 0),
        (ListenAt::Address(at), Address::Any { port }) => at.port() == *port,
        (ListenAt::Address(at), Address::Inet(it)) => {
            let port = it.port() == at.port() || it.port() == 0;
            port && (it.ip().is_unspecified() || it.ip() == at.ip())
        }
        (ListenAt::Unix(name), Address::Unix(_)) => address.to_string() == *name,
        (ListenAt::Address(_) | ListenAt::Unix(_), _) => false,
    }
}

/// One value or a list of them; an empty list would be met by nobody.
fn each<T>(
    t: &mut TableReader<'_>,
    key: &'static str,
    report: &mut Report,
    read: impl Fn(&Node) -> Result<T, Fault>,
) -> Vec<T> {
    let Some(node) = t.get(key) else {
        return Vec::new();
    };
    let nodes = match &node.value {
        Value::Array(nodes) => nodes,
        _ => std::slice::from_ref(node),
    };
    if nodes.is_empty() {
        let fault = Fault::new(format!("`{key}`: the list is empty"));
        report.error(
            &node.span,
            fault.remedy("remove the key, which asks for nothing then"),
        );
    }
    let mut found = Vec::new();
    for node in nodes {
        match read(node) {
            Ok(value) => found.push(value),
            Err(fault) => report.error(&node.span, fault.of_key(key)),
        }
    }
    found
}

fn pattern(node: &Node) -> Result<Pattern, Fault> {
    let text = values::string(node)?;
    let (name, below) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    let name = host::parse(name).map_err(|error| {
        let fault = Fault::new(error.to_string());
        fault.remedy(if text.contains('*') {
            "`*.` stands in front, for every name below: \"*.example\""
        } else {
            error.remedy()
        })
    })?;
    Ok(if below {
        Pattern::Below(name)
    } else {
        Pattern::Exact(name)
    })
}

fn protocol_name(node: &Node) -> Result<String, Fault> {
    let text = values::string(node)?;
    if text.is_empty() || text.len() > 255 {
        let fault = Fault::new("the name of a protocol (ALPN) has 1 to 255 bytes");
        return Err(fault.remedy("such as \"h2\""));
    }
    Ok(text.to_owned())
}

/// An address or a port, as a listener is written.
fn listen_at(node: &Node) -> Result<ListenAt, Fault> {
    const FORM: &str = "such as 5000, \":5000\", \"192.0.2.1:5000\" or \"unix:/run/a.sock\"";
    if let Value::Integer(_) = &node.value {
        return values::integer(node, 1..=65_535).map(ListenAt::Port);
    }
    let text = values::string(node)?;
    match text.parse::<Address>() {
        Ok(Address::Any { port }) => Ok(ListenAt::Port(port)),
        Ok(Address::Inet(address)) => Ok(ListenAt::Address(address)),
        Ok(address @ Address::Unix(_)) => Ok(ListenAt::Unix(address.to_string())),
        Ok(Address::Passed(_)) => {
            let fault = Fault::new("a route goes by where a socket is bound, not by its name");
            Err(fault.remedy(FORM))
        }
        Ok(Address::Name { .. } | Address::Srv(_)) => {
            let fault = Fault::new("a route cannot look the name of a listener up");
            Err(fault.remedy(FORM))
        }
        Err(error) => Err(Fault::new(error.to_string()).remedy(FORM)),
    }
}

/// `"10%"`, `"0.5%"`: of [`ALL`].
fn share(node: &Node) -> Result<u16, Fault> {
    const FORM: &str = "such as \"10%\" or \"0.5%\"";
    let wrong = || Fault::new("a share is a percentage of the clients").remedy(FORM);
    let text = values::string(node)?;
    let number = text.strip_suffix('%').ok_or_else(wrong)?.trim_end();
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(part) || part.len() > 2 {
        return Err(wrong().remedy("two digits behind the point are the most"));
    }
    let hundredths: u32 = format!("{whole}{part:0<2}").parse().map_err(|_| wrong())?;
    if hundredths > u32::from(ALL) {
        return Err(Fault::new("a share of more than all clients").remedy(FORM));
    }
    Ok(hundredths as u16)
}

fn write_share(share: u16) -> String {
    let (whole, part) = (share / 100, share % 100);
    quote(&match part {
        0 => format!("{whole}%"),
        part => format!("{whole}.{part:02}%"),
    })
}

impl Route {
    /// The pool that it leads to, and what people call it: its name, or that of the
    /// forward and of the route that it is written in.
    pub fn pool(&self, forward: &str) -> Option<(String, &Arc<Pool>)> {
        let RouteTo::Pool(pool) = &self.to else {
            return None;
        };
        let name = pool.name.clone();
        let name = name.unwrap_or_else(|| format!("{forward}/{}", self.name));
        Some((name, pool))
    }

    /// As an inline table: what it leads to by its name.
    pub(super) fn write(&self) -> String {
        let mut pairs = self.pairs();
        match &self.to {
            RouteTo::Pool(pool) => {
                let servers = || list(pool.servers.iter().map(|it| it.address.to_string()));
                let name = pool.name.as_deref().map(quote);
                pairs.push(("upstream", name.unwrap_or_else(servers)));
            }
            RouteTo::Reject => {}
            RouteTo::HttpConnect(connect) => pairs.push(("connect", inline(&connect.pairs()))),
        }
        inline(&pairs)
    }

    /// Its keys and their values, but for the pool or `connect` that it leads to.
    pub(super) fn pairs(&self) -> Pairs {
        let conditions = &self.conditions;
        let names = |patterns: &[Pattern]| list(patterns.iter().map(ToString::to_string));
        let mut pairs = vec![("name", quote(&self.name))];
        let mut add = |key, given: bool, value: String| {
            if given {
                pairs.push((key, value));
            }
        };
        add("sni", !conditions.sni.is_empty(), names(&conditions.sni));
        add("host", !conditions.host.is_empty(), names(&conditions.host));
        let alpn = list(conditions.alpn.iter().cloned());
        add("alpn", !conditions.alpn.is_empty(), alpn);
        let protocols = conditions.protocol.iter().map(|it| it.name().to_owned());
        let protocols = list(protocols);
        add("protocol", !conditions.protocol.is_empty(), protocols);
        add("no_sni", conditions.no_sni, "true".to_owned());
        let networks = write_networks(&conditions.client);
        add("client", !conditions.client.is_empty(), networks);
        let listeners = list(conditions.listener.iter().map(ToString::to_string));
        add("listener", !conditions.listener.is_empty(), listeners);
        if let Some(share) = conditions.share {
            add("share", true, write_share(share));
        }
        match &self.to {
            RouteTo::Pool(_) => {}
            RouteTo::Reject => add("reject", true, "true".to_owned()),
            RouteTo::HttpConnect(connect) => {
                add("mode", true, Mode::HttpConnect(connect.clone()).write());
            }
        }
        pairs
    }
}

/// The rows of a route.
pub(super) fn rows() -> Vec<Row> {
    let text = one_or_list(&text_schema());
    let row = |key, words, default: &str, doc, schema: Json, example| {
        Row::by_hand(key, words, default, Applies::Live, doc, schema).example(example)
    };
    let protocols: Vec<_> = Protocol::ALL.iter().map(|it| it.name()).collect();
    let [mode, connect] = http_connect::rows();
    let server = json!({ "anyOf": [text_schema(), reference("server")] });
    let upstream = json!({ "anyOf": [one_or_list(&server), reference("pool_of_forward")] });
    vec![
        row(
            "name",
            "text",
            "its place, from 1",
            "Appears in records, reports and messages.",
            text_schema(),
            "\"api\"",
        ),
        row(
            "sni",
            "name, `*.suffix`, or list",
            "any",
            "The server that TLS asks for; goes before suffixes, and these before routes without \
             names.",
            text.clone(),
            "[\"a.example\", \"*.b.example\"]",
        ),
        row(
            "host",
            "name, `*.suffix`, or list",
            "any",
            "The host that HTTP/1 in plain asks for; as `sni`.",
            text.clone(),
            "# \"c.example\"",
        ),
        row(
            "alpn",
            "protocol or list",
            "any",
            "TLS offers one of these.",
            text.clone(),
            "[\"h2\", \"http/1.1\"]",
        ),
        row(
            "protocol",
            "`\"tls\"`, `\"http\"`, `\"ssh\"`, `\"proxy\"`, `\"other\"`, or list",
            "any",
            "What the stream is, by its first bytes.",
            one_or_list(&json!({ "enum": protocols })),
            "\"tls\"",
        ),
        row(
            "no_sni",
            "true, false",
            "false",
            "TLS that asks for no server.",
            json!({ "type": "boolean" }),
            "# true",
        ),
        row(
            "client",
            "network or list",
            "any",
            "Who comes; behind `accept_proxy` the client that was announced.",
            text,
            "[\"10.0.0.0/8\", \"2001:db8::/32\"]",
        ),
        row(
            "listener",
            "address, port, or list",
            "any",
            "Where: one of the forward's own, or the address that a PROXY header says.",
            one_or_list(&json!({ "anyOf": [text_schema(), { "type": "integer" }] })),
            "# 443",
        ),
        row(
            "share",
            "percentage",
            "all",
            "A fixed part of the clients, by a hash of their address: a canary. Shares of routes \
             behind one another are bands of the same scale.",
            text_schema(),
            "\"10%\"",
        ),
        row(
            "upstream",
            "as that of a forward",
            "",
            "Its servers. One of `upstream`, `reject` and `mode` is required.",
            upstream,
            "\"web\"",
        ),
        row(
            "reject",
            "true, false",
            "false",
            "Turns the client away.",
            json!({ "type": "boolean" }),
            "# true",
        ),
        mode,
        connect,
    ]
}
