//! `[[forward]]` and `[defaults]`: the pairing of port ranges, and what must be
//! unique over all forwards.

use std::collections::HashMap;
use std::sync::Arc;

use super::addresses::{Written, listeners};
use super::datagrams::refuse_of_udp;
use super::forward::{Forward, ForwardKeys, InItsTable};
use super::http_connect::{self, Mode};
use super::pool::{self, Pool};
use super::profile;
use super::raw::{Elsewhere, Node, TableReader};
use super::report::{Fault, Report, Span};
use super::route;
use super::scope::Scope;
use super::section::Section;
use super::server::Server;
use super::tap::{TapSettings, Taps};
use super::udp::{Protocol, Udp};
use super::upstream;
use super::values;
use super::written_pool::WrittenPool;
use crate::net::address::{Address, Transport};
use crate::net::listener::Listeners;

/// Listeners, and entries of server lists, in a whole configuration. Each is a few
/// hundred bytes, each listener a descriptor for each reactor.
pub(super) const ADDRESSES_MAX: usize = 65_536;

/// Ports of a range that the listeners of routes are looked for in.
const ROUTED_LISTENERS_MAX: usize = 65_536;

/// The keys that `[defaults]` and each `[[forward]]` share, as written.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    keys: ForwardKeys,
    tap: Option<TapSettings>,
}

impl Settings {
    pub(super) fn read(t: &mut TableReader<'_>, scope: &Scope, report: &mut Report) -> Self {
        let keys = Forward::read(t, report);
        let profiles = [
            ("client_profile", &keys.client_profile),
            ("upstream_profile", &keys.upstream_profile),
        ];
        for (key, name) in profiles {
            let unknown = name.as_ref().and_then(|it| scope.check_profile(it).err());
            if let (Some(fault), Some(node)) = (unknown, t.get(key)) {
                report.consequence(&node.span, fault.of_key(key));
            }
        }
        let tap = TapSettings::read(t, report);
        Self { keys, tap }
    }

    fn says_of_udp(&self) -> bool {
        Udp::fill(self.keys.udp.clone()) != Udp::default()
    }

    /// What is written here, or else in `defaults`.
    fn or(self, defaults: &Self) -> Self {
        Self {
            keys: Forward::merge(self.keys, &defaults.keys),
            tap: match self.tap {
                Some(tap) => Some(tap.or(defaults.tap.as_ref())),
                None => defaults.tap.clone(),
            },
        }
    }
}

/// Every forward so far, and what must be unique among them.
pub(super) struct Forwards {
    defaults: Settings,
    done: Vec<Arc<Forward>>,
    /// How many of them came of each `[[forward]]`.
    made: Vec<usize>,
    /// Where each address is listened on.
    listeners: HashMap<(Transport, Address), Span>,
    /// Those of connections and those of datagrams do not see each other.
    overlaps: [Listeners<Span>; 2],
    names: HashMap<String, Span>,
    /// How often a name was given to a forward without one.
    repeats: HashMap<String, usize>,
    addresses: usize,
    seen: bool,
    taps: Taps,
}

impl Forwards {
    pub(super) fn new(defaults: Settings) -> Self {
        Self {
            defaults,
            done: Vec::new(),
            made: Vec::new(),
            listeners: HashMap::new(),
            overlaps: Default::default(),
            names: HashMap::new(),
            repeats: HashMap::new(),
            addresses: 0,
            seen: false,
            taps: Taps::default(),
        }
    }

    /// Whether no `[[forward]]` was read, right or wrong.
    pub(super) fn none_seen(&self) -> bool {
        !self.seen
    }

    /// All of them, and how many came of each `[[forward]]`.
    pub(super) fn finish(self) -> (Vec<Arc<Forward>>, Vec<usize>) {
        (self.done, self.made)
    }

    /// Reads one `[[forward]]`.
    pub(super) fn read(&mut self, node: &Node, scope: &mut Scope, report: &mut Report) {
        let before = self.done.len();
        self.read_one(node, scope, report);
        self.made.push(self.done.len() - before);
    }

    fn read_one(&mut self, node: &Node, scope: &mut Scope, report: &mut Report) {
        self.seen = true;
        let Some(mut table) = TableReader::open(node, "[[forward]]", report) else {
            return;
        };
        let name = table.read("name", report, |node| {
            let name = values::string(node)?;
            values::check_name(name).map(|()| (name.to_owned(), node.span.clone()))
        });
        let listen = table.get("listen");
        let listen = listen.map(|node| listeners("listen", node, report));
        if listen.is_none() {
            missing("listen", "listen = \":5000\"", node, report);
        }
        let upstream_node = table.get("upstream");
        let mode = http_connect::read(&mut table, report);
        let pool = upstream_node.map(|node| upstream::read(node, scope, report));
        let proxy = matches!(mode, Mode::HttpConnect(_));
        match upstream_node {
            Some(node) if proxy => {
                let fault = Fault::new("clients of an http-connect forward say where to go");
                report.error(&node.span, fault.remedy("remove `upstream`, or the mode"));
            }
            None if !proxy => {
                missing("upstream", "upstream = \"10.0.0.1:443\"", node, report);
            }
            _ => {}
        }
        let routes = route::read(&mut table, scope, report);
        let own = Settings::read(&mut table, scope, report);
        let says_of_udp = InItsTable(own.says_of_udp());
        let settings = own.or(&self.defaults);
        close(table, report);
        let listened: Vec<Address> = listen
            .iter()
            .flatten()
            .flat_map(|it| it.range.expand().take(ROUTED_LISTENERS_MAX))
            .collect();
        if !listened.is_empty() {
            routes.check_listeners(&listened, report);
        }
        let routes = routes.finish(scope, report);
        let tap = self.taps.finish(settings.tap.as_ref(), report);
        if let (Mode::HttpConnect(_), Some(listen)) = (&mode, &listen) {
            let template = Forward {
                mode,
                routes,
                tap,
                ..template(&settings, scope)
            };
            return self.add_proxy(name.as_ref(), listen, template, report);
        }
        let (Some(listen), Some(pool)) = (listen, pool) else {
            return;
        };
        if listen.is_empty() || pool.servers.is_empty() {
            return;
        }
        let pairs = match self.pair(&listen, &pool) {
            Ok(pairs) => pairs,
            Err((span, fault)) => return report.error(&span, fault),
        };
        let template = Forward {
            routes,
            tap,
            says_of_udp,
            ..template(&settings, scope)
        };
        if let Some(node) = upstream_node {
            refuse_two_sources(&pool, &template, node, report);
        }
        self.check_listeners(&listen, &template, report);
        for (listen_on, pool) in pairs {
            let several = listen_on.len() < listen.iter().map(|l| l.range.len()).sum();
            let named = (name.as_ref(), template.protocol);
            let forward = Forward {
                name: self.name(named, several, &listen[0], &listen_on[0], report),
                listen: listen_on,
                pool: scope.share(pool),
                ..template.clone()
            };
            refuse_loop(&forward, &listen[0].span, report);
            refuse_of_udp(&forward, &listen[0].span, report);
            self.done.push(Arc::new(forward));
        }
    }
}

impl Forwards {
    /// A forward whose clients say where to go: every listener is its own, and no
    /// server.
    fn add_proxy(
        &mut self,
        name: Option<&(String, Span)>,
        listen: &[Written],
        template: Forward,
        report: &mut Report,
    ) {
        let Some(first) = listen.first() else { return };
        self.addresses += listen.iter().map(|l| l.range.len()).sum::<usize>();
        if self.addresses > ADDRESSES_MAX {
            return report.error(&first.span, too_many());
        }
        if template.protocol.has_udp() {
            let fault = Fault::new("an http-connect forward has no datagrams to forward");
            report.error(&first.span, fault.remedy("remove `protocol`, or the mode"));
        }
        self.check_listeners(listen, &template, report);
        let listen_on: Vec<Address> = listen.iter().flat_map(|l| l.range.expand()).collect();
        let forward = Forward {
            name: self.name((name, Protocol::Tcp), false, first, &listen_on[0], report),
            listen: listen_on,
            ..template
        };
        self.done.push(Arc::new(forward));
    }
}

fn too_many() -> Fault {
    let fault = Fault::new("this makes too many listeners and servers");
    fault.remedy(format!("{ADDRESSES_MAX} addresses in all is the most"))
}

/// Refuses the keys that [[forward]] has not, and says where they belong.
fn close(table: TableReader<'_>, report: &mut Report) {
    let in_pools = Elsewhere {
        keys: &pool::names(),
        owner: "of a pool",
        remedy: "such as upstream = { servers = [\"a:443\", \"b:443\"], balance = \"least_conn\" }",
    };
    let in_servers = Elsewhere {
        keys: Server::names(),
        owner: "of a server",
        remedy: "such as upstream = [{ address = \"a:443\", weight = 2 }, \"b:443\"]",
    };
    table.close(report, &[in_pools, in_servers]);
}

fn missing(key: &str, form: &str, node: &Node, report: &mut Report) {
    let fault = Fault::new(format!("this [[forward]] has no `{key}`"));
    report.consequence(&node.span, fault.remedy(format!("such as {form}")));
}

/// A connect has one source: the client's address or the profile's.
fn refuse_two_sources(pool: &WrittenPool, forward: &Forward, node: &Node, report: &mut Report) {
    if pool.keys.transparent == Some(true) && forward.upstream.source.is_some() {
        let fault = Fault::new(format!(
            "`upstream`: its pool is `transparent`, and the profile `{}` has a `source`",
            forward.upstream_profile
        ));
        report.error(&node.span, fault.remedy("remove one of the two"));
    }
}

/// A forward with everything but its name and addresses.
fn template(settings: &Settings, scope: &mut Scope) -> Forward {
    let forward = Forward::fill(settings.keys.clone());
    Forward {
        client: scope.profile(&forward.client_profile),
        upstream: profile::upstream_leg(&scope.profile(&forward.upstream_profile)),
        ..forward
    }
}

/// Where one forward listens, and its servers.
type Pairing = (Vec<Address>, Pool);

impl Forwards {
    /// Expands ranges. Where servers have one port each, all listeners share them;
    /// where they have ranges, the n-th port belongs to the n-th port.
    fn pair<'a>(
        &mut self,
        listen: &'a [Written],
        pool: &'a WrittenPool,
    ) -> Result<impl Iterator<Item = Pairing> + use<'a>, (Span, Fault)> {
        let servers = || pool.servers.iter().map(|server| &server.written);
        let width = servers().map(|server| server.range.len()).max();
        let width = width.unwrap_or(1);
        let mismatch = |span: &Span, ports: usize| {
            let fault = Fault::new(format!(
                "{ports} port{} cannot pair up with the {width} ports of the servers",
                if ports == 1 { "" } else { "s" }
            ));
            let remedy = "make the ranges equally long, or give the servers one port for all";
            Err((span.clone(), fault.remedy(remedy)))
        };
        if width > 1 {
            if let Some(other) = listen.iter().find(|l| l.range.len() != width) {
                return mismatch(&other.span, other.range.len());
            }
            let other = |s: &&Written| s.range.len() != 1 && s.range.len() != width;
            if let Some(other) = servers().find(other) {
                return mismatch(&other.span, other.range.len());
            }
        }
        let listeners: usize = listen.iter().map(|l| l.range.len()).sum();
        self.addresses += listeners + width * pool.servers.len();
        if self.addresses > ADDRESSES_MAX {
            return Err((listen[0].span.clone(), too_many()));
        }
        Ok((0..width).map(move |index| {
            let listen_on = match width {
                1 => listen.iter().flat_map(|l| l.range.expand()).collect(),
                _ => listen.iter().filter_map(|l| l.range.nth(index)).collect(),
            };
            (listen_on, pool.at(index))
        }))
    }

    /// The name of a forward: its own, with the port where ranges make several of
    /// it, or the address it listens on.
    fn name(
        &mut self,
        (given, protocol): (Option<&(String, Span)>, Protocol),
        several: bool,
        written: &Written,
        first: &Address,
        report: &mut Report,
    ) -> String {
        let Some((given, span)) = given else {
            let base = match protocol {
                Protocol::Udp => format!("udp:{first}"),
                Protocol::Tcp | Protocol::Both => first.to_string(),
            };
            let repeat = self.repeats.entry(base.clone()).or_default();
            // Listeners on port 0 look alike.
            let mut name = base.clone();
            while self.names.contains_key(&name) {
                *repeat += 1;
                name = format!("{base}#{}", *repeat + 1);
            }
            self.names.insert(name.clone(), written.span.clone());
            return name;
        };
        let name = match first.port() {
            Some(port) if several => format!("{given}:{port}"),
            _ => given.clone(),
        };
        if let Some(earlier) = self.names.insert(name.clone(), span.clone()) {
            let place = report.describe(&earlier, span);
            let fault = Fault::new(format!("a forward named `{name}` exists already ({place})"));
            report.error(span, fault.remedy("give this one another name"));
        }
        name
    }

    /// Refuses an address that is listened on twice, and one that the kernel would not
    /// give beside another: the start would fail.
    fn check_listeners(&mut self, listen: &[Written], forward: &Forward, report: &mut Report) {
        let interface = forward.client.interface.as_deref();
        for transport in forward.transports() {
            for written in listen {
                for address in written.range.expand() {
                    let at = (transport, address);
                    if !self.check_listener(at, interface, &written.span, report) {
                        break;
                    }
                }
            }
        }
    }

    /// Refuses where the process itself listens, `[admin]` and `[metrics]`, if that is
    /// where clients are.
    pub(super) fn check_own(&mut self, own: &[Address], span: &Span, report: &mut Report) {
        for address in own {
            let at = (Transport::Tcp, address.clone());
            if !self.check_listener(at, None, span, report) {
                break;
            }
        }
    }

    /// Says whether this one can stand beside those before it; if not, it is reported.
    fn check_listener(
        &mut self,
        (transport, address): (Transport, Address),
        interface: Option<&str>,
        span: &Span,
        report: &mut Report,
    ) -> bool {
        // Port 0 is a different port each time.
        if address.port() == Some(0) {
            return true;
        }
        let mut refuse = |earlier: &Span, problem: String, remedy: &str| {
            let place = report.describe(earlier, span);
            let fault = Fault::new(format!("{problem} ({place})"));
            report.error(span, fault.remedy(remedy));
            false
        };
        if let Some(earlier) = self.listeners.get(&(transport, address.clone())) {
            let problem = format!("`{address}` is listened on twice");
            return refuse(earlier, problem, "remove one of the two");
        }
        if let Err((other, earlier)) =
            self.overlaps[transport as usize].add(&address, interface, span.clone())
        {
            let problem = format!(
                "`{address}` and `{other}` are the same port: the kernel gives it to one of them"
            );
            let remedy = "remove one of the two, or name every address that is to be listened on";
            return refuse(&earlier, problem, remedy);
        }
        self.listeners.insert((transport, address), span.clone());
        true
    }
}

/// A forward that dials itself would fill the machine with one connection.
fn refuse_loop(forward: &Forward, span: &Span, report: &mut Report) {
    for listen in &forward.listen {
        let itself = |server: &&Server| match (&server.address, listen) {
            (Address::Inet(server), Address::Any { port }) => {
                server.port() == *port && server.ip().is_loopback()
            }
            (Address::Inet(server), Address::Inet(every)) if every.ip().is_unspecified() => {
                let same = server.is_ipv4() == every.is_ipv4() && server.port() == every.port();
                same && server.ip().is_loopback()
            }
            (server, listen) => server == listen,
        };
        let mut servers = forward.pools().flat_map(|it| &it.servers);
        if let Some(server) = servers.find(itself) {
            let fault = Fault::new(format!("this forward dials itself: {}", server.address));
            report.error(span, fault.remedy("change the port of one side"));
            return;
        }
    }
}
