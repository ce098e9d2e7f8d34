//! What is asked of either program: pure lists from the configuration, and the clients that ask.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use socket2::{Domain, Socket, Type};
use toml_edit::{DocumentMut, Item, Value};

use crate::config::{Config, RouteTo};
use crate::net::address::Address;

const PATIENCE: Duration = Duration::from_secs(5);

/// By then a connection that was closed counts no more.
const SETTLING: Duration = Duration::from_millis(100);

/// Clients and names that are asked for at each listener, and ports of all: more is not asked.
const CLIENTS_MAX: usize = 8;
const NAMES_MAX: usize = 8;
const LISTENERS_MAX: usize = 64;

/// Connections in a row: by then every server of a pool of a usual size has had its turn.
const TURNS: usize = 16;

/// Connections of one client at a time.
const AT_A_TIME: usize = 6;

/// What is asked, of whom.
pub(super) struct Plan {
    /// Each with whether it looks at what clients say first.
    listeners: Vec<(SocketAddr, bool)>,
    /// Of datagrams.
    ports: Vec<SocketAddr>,
    /// Stand-ins.
    pub(super) servers: BTreeSet<SocketAddr>,
    /// Those of datagrams.
    pub(super) udp_servers: BTreeSet<SocketAddr>,
    /// Addresses of servers that have names.
    pub(super) names: BTreeMap<String, Ipv4Addr>,
    clients: Vec<Ipv4Addr>,
    /// What a ClientHello asks for.
    hellos: Vec<String>,
    /// Addresses of the forwarder's side: of listeners and clients.
    pub(super) near: BTreeSet<IpAddr>,
}

/// What clients met, each outcome once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Met(BTreeSet<String>);

impl fmt::Display for Met {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<&str> = self.0.iter().map(String::as_str).collect();
        write!(f, "{}", each.join(" or "))
    }
}

impl Plan {
    /// Of what a file was converted to.
    pub(super) fn of(toml: &str) -> Result<Self, String> {
        let config = Config::parse(toml)
            .map_err(|_| "what the file becomes is no valid configuration yet".to_owned())?;
        let mut plan = Self {
            listeners: Vec::new(),
            ports: Vec::new(),
            servers: BTreeSet::new(),
            udp_servers: BTreeSet::new(),
            names: BTreeMap::new(),
            clients: Vec::new(),
            hellos: Vec::new(),
            near: BTreeSet::new(),
        };
        for forward in &config.forwards {
            let [tcp, udp] = [forward.protocol.has_tcp(), forward.protocol.has_udp()];
            for address in &forward.listen {
                let Some(at) = plan.listen(address) else {
                    continue;
                };
                if tcp && !plan.listeners().any(|it| it == at) {
                    plan.listeners.push((at, !forward.routes.is_empty()));
                }
                if udp && !plan.ports.contains(&at) {
                    plan.ports.push(at);
                }
            }
            let routes = forward.routes.iter().filter_map(|it| match &it.to {
                RouteTo::Pool(pool) => Some(pool),
                RouteTo::HttpConnect(_) | RouteTo::Reject => None,
            });
            for server in routes.chain([&forward.pool]).flat_map(|it| &it.servers) {
                let at = plan.server(&server.address);
                plan.servers.extend(at.filter(|_| tcp));
                plan.udp_servers.extend(at.filter(|_| udp));
            }
        }
        if plan.listeners.is_empty() && plan.ports.is_empty() {
            return Err("nothing in it listens on TCP or UDP".to_owned());
        }
        plan.listeners.truncate(LISTENERS_MAX);
        plan.ports.truncate(LISTENERS_MAX);
        // A forward that leads to another one of the same file.
        let listeners: BTreeSet<SocketAddr> = plan.listeners().collect();
        plan.servers.retain(|it| !listeners.contains(it));
        let ports = &plan.ports;
        plan.udp_servers.retain(|it| !ports.contains(it));
        plan.people(toml)?;
        Ok(plan)
    }

    /// Where it is reached.
    fn listen(&mut self, address: &Address) -> Option<SocketAddr> {
        let at = match address {
            Address::Any { port } => SocketAddr::from(([0, 0, 0, 0], *port)),
            Address::Inet(at) => *at,
            Address::Name { .. } | Address::Unix(_) | Address::Srv(_) | Address::Passed(_) => {
                return None;
            }
        };
        if !at.ip().is_unspecified() && !at.ip().is_loopback() {
            self.near.insert(at.ip());
        }
        let reached = match at.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
            // One of both families is asked by IPv4 already.
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
            ip => ip,
        };
        Some(SocketAddr::new(reached, at.port()))
    }

    /// Where its stand-in is.
    fn server(&mut self, address: &Address) -> Option<SocketAddr> {
        match address {
            Address::Inet(at) => Some(*at),
            Address::Name { host, port } => {
                let next = 1 + u32::try_from(self.names.len()).unwrap_or(0);
                let base = u32::from(Ipv4Addr::new(198, 19, 0, 0));
                let ip = self
                    .names
                    .entry(host.clone())
                    .or_insert(Ipv4Addr::from(base + next));
                Some(SocketAddr::from((*ip, *port)))
            }
            Address::Any { .. } | Address::Unix(_) | Address::Srv(_) | Address::Passed(_) => None,
        }
    }

    /// Clients on both sides of each rule, and the names that routes ask for.
    fn people(&mut self, toml: &str) -> Result<(), String> {
        let document: DocumentMut = toml.parse().map_err(|error| format!("{error}"))?;
        let mut words = (Vec::new(), Vec::new());
        gather("", document.as_item(), &mut words);
        let (rules, names) = words;
        // Somebody of whom no rule speaks, and one from here.
        self.clients.push(Ipv4Addr::new(198, 18, 7, 7));
        for rule in rules {
            for word in rule.split_whitespace() {
                let net = word
                    .parse::<IpNet>()
                    .or_else(|_| word.parse::<IpAddr>().map(IpNet::from));
                if let Ok(IpNet::V4(net)) = net
                    && net.prefix_len() > 0
                    && self.clients.len() < CLIENTS_MAX
                {
                    // Of a network the second one: the first may be excepted.
                    let ip = net.hosts().nth(1).unwrap_or(net.addr());
                    if !self.clients.contains(&ip) {
                        self.clients.push(ip);
                    }
                }
            }
        }
        self.near
            .extend(self.clients.iter().map(|it| IpAddr::from(*it)));
        for name in names {
            let name = name.replace("*.", "below.");
            if self.hellos.len() < NAMES_MAX && !self.hellos.contains(&name) {
                self.hellos.push(name);
            }
        }
        self.hellos.push("nobody-knows.invalid".to_owned());
        Ok(())
    }

    /// Where both programs have to listen.
    pub(super) fn listeners(&self) -> impl Iterator<Item = SocketAddr> {
        self.listeners.iter().map(|(at, _)| *at)
    }

    /// Likewise for datagrams.
    pub(super) fn ports(&self) -> impl Iterator<Item = SocketAddr> {
        self.ports.iter().copied()
    }

    /// Asks everything.
    pub(super) fn survey(&self) -> BTreeMap<String, Met> {
        let mut seen: BTreeMap<String, Met> = BTreeMap::new();
        let hellos: Vec<Vec<u8>> = self.hellos.iter().map(|it| hello(it)).collect();
        for (at, looks) in &self.listeners {
            let mut note = |what: String, got: String| {
                let met = seen.entry(what).or_insert_with(|| Met(BTreeSet::new()));
                met.0.insert(got);
            };
            // Who looks for a name waits for one, each as long as it likes.
            let says: &[u8] = if *looks { &hellos[0] } else { b"x" };
            for client in &self.clients {
                let what = format!("{at} from {client}");
                note(what, meet(*at, *client, says, Told::HowItEnds));
            }
            let asked = self.hellos.iter().zip(&hellos).filter(|_| *looks);
            for (name, hello) in asked {
                for _ in 0..TURNS {
                    let what = format!("{at}, TLS for {name}");
                    note(what, meet(*at, self.clients[0], hello, Told::Server));
                }
            }
            for _ in 0..TURNS {
                let met = meet(*at, self.clients[0], says, Told::Server);
                let away = met == AWAY;
                note(format!("{at}, servers"), met);
                if away {
                    break;
                }
            }
            let what = format!("{at}, {AT_A_TIME} of one client at a time");
            let served = at_a_time(*at, self.clients[0], says);
            note(what, format!("{served} served"));
        }
        for at in &self.ports {
            let mut note = |what: String, got: String| {
                let met = seen.entry(what).or_insert_with(|| Met(BTreeSet::new()));
                met.0.insert(got);
            };
            for client in &self.clients {
                let met = datagram(*at, *client, Told::HowItEnds);
                note(format!("{at}/udp from {client}"), met);
            }
            for _ in 0..TURNS {
                let met = datagram(*at, self.clients[0], Told::Server);
                let away = met == SILENCE;
                note(format!("{at}/udp, servers"), met);
                if away {
                    break;
                }
            }
        }
        seen
    }
}

/// Values of the keys that speak of clients, and of names in TLS.
fn gather(key: &str, item: &Item, into: &mut (Vec<String>, Vec<String>)) {
    match item {
        Item::Table(table) => table.iter().for_each(|(key, item)| gather(key, item, into)),
        Item::ArrayOfTables(tables) => tables
            .iter()
            .flat_map(|it| it.iter())
            .for_each(|(key, item)| gather(key, item, into)),
        Item::Value(Value::InlineTable(table)) => {
            for (key, value) in table {
                gather(key, &Item::Value(value.clone()), into);
            }
        }
        Item::Value(Value::Array(array)) => {
            let words = array.iter().filter_map(|it| it.as_str().map(str::to_owned));
            match key {
                "access" | "client" => into.0.extend(words),
                "sni" => into.1.extend(words),
                _ => {}
            }
        }
        Item::Value(_) | Item::None => {}
    }
}

/// What of a meeting is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Which server.
    Server,
    /// The header before what was said, and what comes after its end: not which server.
    HowItEnds,
}

fn connect(at: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
    if at.is_ipv4() {
        socket.bind(&SocketAddr::from((from, 0)).into())?;
    }
    socket.connect_timeout(&at.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

const SILENCE: &str = "no answer";

/// What becomes of a datagram: one may get lost, three do not.
fn datagram(at: SocketAddr, from: Ipv4Addr, told: Told) -> String {
    for patience in [500, 1000, 3000] {
        if let Ok(met) = datagram_once(at, from, told, Duration::from_millis(patience)) {
            return met;
        }
    }
    SILENCE.to_owned()
}

fn datagram_once(
    at: SocketAddr,
    from: Ipv4Addr,
    told: Told,
    patience: Duration,
) -> io::Result<String> {
    const SAYS: &[u8] = b"asked";
    let own = match at {
        SocketAddr::V4(_) => SocketAddr::from((from, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(own)?;
    socket.connect(at)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(SAYS)?;
    let mut buffer = [0; 4096];
    let len = socket.recv(&mut buffer)?;
    let answer = &buffer[..len];
    let end = answer.iter().position(|it| *it == b'\n').unwrap_or(len);
    if told == Told::Server {
        return Ok(String::from_utf8_lossy(&answer[..end]).into_owned());
    }
    let got = answer.get(end + 1..).unwrap_or_default();
    let before = got.strip_suffix(SAYS);
    Ok(before.map_or_else(
        || "answered, what was said is changed".to_owned(),
        |before| format!("answered, {}", header(before)),
    ))
}

/// The server's name and what it got; `None`: it is turned away.
fn heard(stream: &mut TcpStream, says: &[u8]) -> Option<Vec<u8>> {
    let _ = stream.write_all(says);
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    while !(got.contains(&b'\n') && got.ends_with(says)) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(len) => got.extend_from_slice(&buffer[..len]),
        }
    }
    Some(got)
}

const AWAY: &str = "turned away";

/// What a client meets for good: the connection before may be on its way out yet, and count against a limit.
fn meet(at: SocketAddr, from: Ipv4Addr, says: &[u8], told: Told) -> String {
    for _ in 0..3 {
        let met = meet_once(at, from, says, told);
        if met != AWAY {
            return met;
        }
        thread::sleep(SETTLING);
    }
    AWAY.to_owned()
}

fn meet_once(at: SocketAddr, from: Ipv4Addr, says: &[u8], told: Told) -> String {
    let Ok(mut stream) = connect(at, from) else {
        return AWAY.to_owned();
    };
    let Some(got) = heard(&mut stream, says) else {
        return AWAY.to_owned();
    };
    let end = got.iter().position(|it| *it == b'\n').unwrap_or(got.len());
    let (server, rest) = got.split_at(end);
    if told == Told::Server {
        return String::from_utf8_lossy(server).into_owned();
    }
    let header = header(&rest[1..rest.len() - says.len()]);
    let _ = stream.shutdown(Shutdown::Write);
    let mut last = Vec::new();
    let _ = stream.read_to_end(&mut last);
    let half = if last == b"end\n" {
        "the answer goes on after its end"
    } else {
        "the answer ends with it"
    };
    format!("served, {header}, {half}")
}

/// How the client is announced: without its port, which is the kernel's choice.
fn header(before: &[u8]) -> String {
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    if before.starts_with(SIGNATURE) {
        let addresses = before.get(16..24).unwrap_or_default();
        return format!("PROXY version 2, {addresses:?}");
    }
    let text = String::from_utf8_lossy(before);
    let words: Vec<&str> = text.split_whitespace().take(4).collect();
    if words.is_empty() {
        return "no header".to_owned();
    }
    words.join(" ")
}

/// How many of some connections that are held together are served.
fn at_a_time(at: SocketAddr, from: Ipv4Addr, says: &[u8]) -> usize {
    // The most of a few tries: those of the one before may be on their way out yet.
    let tries = (0..3).map(|_| {
        thread::sleep(SETTLING);
        hold(at, from, says)
    });
    tries.max().unwrap_or(0)
}

fn hold(at: SocketAddr, from: Ipv4Addr, says: &[u8]) -> usize {
    let mut held = Vec::new();
    for _ in 0..AT_A_TIME {
        let Ok(mut stream) = connect(at, from) else {
            continue;
        };
        if heard(&mut stream, says).is_some() {
            held.push(stream);
        }
    }
    held.len()
}

/// A ClientHello that asks for a name, of TLS 1.2 and no more than it must have.
fn hello(name: &str) -> Vec<u8> {
    let long = |bytes: &[u8]| {
        let mut all = u16::try_from(bytes.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes()
            .to_vec();
        all.extend_from_slice(bytes);
        all
    };
    let mut entry = vec![0];
    entry.extend_from_slice(&long(name.as_bytes()));
    let mut extension = vec![0, 0];
    extension.extend_from_slice(&long(&long(&entry)));
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend_from_slice(&long(&extension));
    let mut message = vec![1, 0];
    message.extend_from_slice(&long(&body));
    let mut record = vec![22, 3, 1];
    record.extend_from_slice(&long(&message));
    record
}
