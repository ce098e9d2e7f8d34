//! A name server that answers as it is told: over UDP and TCP, by a script that a
//! test may change at any time.
//!
//! It does not follow CNAMEs, and what does not fit into a datagram is truncated, as
//! a real one does: 512 bytes, or what the question allows.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use thalweg::balance::Random;

/// How often a thread looks whether it shall end.
const LOOK: Duration = Duration::from_millis(20);

/// The most that a datagram holds unless the question allows more (RFC 1035).
const DATAGRAM: usize = 512;

/// A name server, which ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Dns {
    address: SocketAddr,
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

/// What it says of a name.
#[derive(Debug, Clone)]
pub(crate) enum Says {
    /// These records, those of the type that was asked for and CNAMEs.
    Records(Vec<Entry>),
    /// An error: NXDOMAIN, SERVFAIL.
    Code(ResponseCode),
    /// The name is there, without any record.
    Nothing,
    /// No answer at all.
    Silence,
    /// As the other, but truncated and empty over UDP however short it is.
    Truncated(Box<Says>),
    /// As the other, with bytes changed; each time others.
    Damaged(Box<Says>),
    /// As the other, over UDP as it is however long it is, whatever the question allows.
    Oversized(Box<Says>),
    /// As the other, but over UDP only its first 512 bytes, without a word about it.
    Cut(Box<Says>),
    /// As the other, after so long.
    Late(Duration, Box<Says>),
}

/// One record: seconds to live, and what it says.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Of another name than was asked for.
    owner: Option<Name>,
    ttl: u32,
    data: RData,
}

impl Says {
    /// A and AAAA records.
    pub(crate) fn addresses(ttl: u32, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|text| text.parse().unwrap());
        Self::all(ttl, addresses)
    }

    /// A and AAAA records.
    pub(crate) fn all(ttl: u32, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        let records = addresses.into_iter().map(|ip| Entry {
            owner: None,
            ttl,
            data: RData::from(ip),
        });
        Self::Records(records.collect())
    }

    /// A CNAME.
    pub(crate) fn alias(ttl: u32, target: &str) -> Self {
        Self::Records(vec![Entry {
            owner: None,
            ttl,
            data: RData::CNAME(CNAME(absolute(target))),
        }])
    }

    /// SRV records: priority, weight, port, target.
    pub(crate) fn services(ttl: u32, services: &[(u16, u16, u16, &str)]) -> Self {
        let service = |&(priority, weight, port, target): &(u16, u16, u16, &str)| Entry {
            owner: None,
            ttl,
            data: RData::SRV(SRV::new(priority, weight, port, absolute(target))),
        };
        Self::Records(services.iter().map(service).collect())
    }

    /// That the name is another, together with what this one has.
    pub(crate) fn alias_of(ttl: u32, target: &str, says: Self) -> Self {
        let (Self::Records(mut all), Self::Records(records)) = (Self::alias(ttl, target), says)
        else {
            panic!("only records have an owner");
        };
        all.extend(records.into_iter().map(|it| Entry {
            owner: Some(absolute(target)),
            ..it
        }));
        Self::Records(all)
    }

    pub(crate) const NX_DOMAIN: Self = Self::Code(ResponseCode::NXDomain);
    pub(crate) const SERV_FAIL: Self = Self::Code(ResponseCode::ServFail);
}

/// A question that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// In lower case, without the last dot.
    pub(crate) name: String,
    pub(crate) kind: RecordType,
    pub(crate) over_tcp: bool,
    /// The datagram that EDNS0 allows; `None`: the question has none.
    pub(crate) payload: Option<u16>,
}

/// What it makes of EDNS0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extensions {
    /// It keeps to it.
    Known,
    /// FORMERR, as servers from before 1999.
    Refused,
    /// Such questions get lost, as behind some firewalls.
    Lost,
}

#[derive(Debug, Default)]
struct State {
    /// By name, and for a type if that is given.
    script: Mutex<BTreeMap<(String, Option<RecordType>), Says>>,
    asked: Mutex<Vec<Asked>>,
    extensions: Mutex<Option<Extensions>>,
    damage: AtomicU64,
    ended: AtomicBool,
}

impl Dns {
    /// On a free port of 127.0.0.1.
    pub(crate) fn start() -> Self {
        // The port that UDP has may be taken for TCP.
        for _ in 0..100 {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            let address = udp.local_addr().unwrap();
            match TcpListener::bind(address) {
                Ok(tcp) => return Self::serve(address, udp, tcp),
                Err(error) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => panic!("{address}: {error}"),
            }
        }
        panic!("no port is free for both UDP and TCP");
    }

    /// On this address, such as port 53 in a namespace of the test's own.
    pub(crate) fn start_at(address: SocketAddr) -> Self {
        let udp = UdpSocket::bind(address).unwrap();
        let tcp = TcpListener::bind(address).unwrap();
        Self::serve(address, udp, tcp)
    }

    fn serve(address: SocketAddr, udp: UdpSocket, tcp: TcpListener) -> Self {
        let state = Arc::new(State::default());
        udp.set_read_timeout(Some(LOOK)).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (for_udp, for_tcp) = (state.clone(), state.clone());
        let threads = vec![
            std::thread::spawn(move || for_udp.serve_udp(&udp)),
            std::thread::spawn(move || for_tcp.serve_tcp(&tcp)),
        ];
        Self {
            address,
            state,
            threads,
        }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it says this of `name`, whatever type is asked for. Names it was
    /// told nothing of do not exist.
    pub(crate) fn set(&self, name: &str, says: Says) {
        let mut script = lock(&self.state.script);
        script.retain(|(known, _), _| known != name);
        script.insert((name.to_owned(), None), says);
    }

    /// From now on it says this to questions for `kind`.
    pub(crate) fn set_for(&self, name: &str, kind: RecordType, says: Says) {
        let key = (name.to_owned(), Some(kind));
        lock(&self.state.script).insert(key, says);
    }

    /// From now on it treats EDNS0 so.
    pub(crate) fn set_extensions(&self, extensions: Extensions) {
        *lock(&self.state.extensions) = Some(extensions);
    }

    /// Every question so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        lock(&self.state.asked).clone()
    }

    /// How often this name was asked for, of either type.
    pub(crate) fn asked_for(&self, name: &str) -> usize {
        let asked = lock(&self.state.asked);
        asked.iter().filter(|it| it.name == name).count()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl State {
    fn ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    fn serve_udp(self: Arc<Self>, socket: &UdpSocket) {
        let mut buffer = [0; 4096];
        while !self.ended() {
            // An error is a time-out, or what ICMP says of a client that has gone.
            let Ok((len, client)) = socket.recv_from(&mut buffer) else {
                continue;
            };
            let Some((answer, delay)) = self.answer(&buffer[..len], false) else {
                continue;
            };
            if delay.is_zero() {
                let _ = socket.send_to(&answer, client);
                continue;
            }
            let (socket, state) = (socket.try_clone().unwrap(), self.clone());
            std::thread::spawn(move || {
                std::thread::sleep(delay);
                if !state.ended() {
                    let _ = socket.send_to(&answer, client);
                }
            });
        }
    }

    fn serve_tcp(self: Arc<Self>, listener: &TcpListener) {
        while !self.ended() {
            match listener.accept() {
                Ok((stream, _)) => {
                    let state = self.clone();
                    // Ends with its client, or with the server.
                    std::thread::spawn(move || state.serve_client(stream));
                }
                Err(_) => std::thread::sleep(LOOK),
            }
        }
    }

    fn serve_client(&self, mut stream: TcpStream) {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(LOOK)).unwrap();
        let mut held = Vec::new();
        let mut buffer = [0; 4096];
        while !self.ended() {
            match stream.read(&mut buffer) {
                Ok(0) => return,
                Ok(len) => held.extend_from_slice(&buffer[..len]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(_) => return,
            }
            while let Some(question) = cut_message(&mut held) {
                let Some((answer, delay)) = self.answer(&question, true) else {
                    continue;
                };
                std::thread::sleep(delay);
                let len = u16::try_from(answer.len()).unwrap();
                let framed = [&len.to_be_bytes()[..], &answer[..]].concat();
                if stream.write_all(&framed).is_err() {
                    return;
                }
            }
        }
    }

    /// Changes a few bytes behind the number of the question, or cuts the answer
    /// short.
    fn damage(&self, answer: &mut Vec<u8>) {
        let seed = self.damage.fetch_add(1, Ordering::Relaxed) + 1;
        let mut drawn = Random::new(seed);
        let mut random = |below: usize| drawn.below(below as u64) as usize;
        for _ in 0..=random(4) {
            let at = 2 + random(answer.len() - 2);
            answer[at] = random(256) as u8;
        }
        if random(4) == 0 {
            answer.truncate(2 + random(answer.len() - 2));
        }
    }

    /// The answer, and after how long it is given; `None`: it says nothing.
    fn answer(&self, question: &[u8], over_tcp: bool) -> Option<(Vec<u8>, Duration)> {
        let question = Message::from_vec(question).ok()?;
        let query = question.queries.first()?.clone();
        let name = query.name().to_ascii().to_ascii_lowercase();
        let name = name.trim_end_matches('.').to_owned();
        let kind = query.query_type();
        lock(&self.asked).push(Asked {
            name: name.clone(),
            kind,
            over_tcp,
            payload: question.edns.as_ref().map(Edns::max_payload),
        });
        let extensions = lock(&self.extensions).unwrap_or(Extensions::Known);
        let says = {
            let script = lock(&self.script);
            let says = script.get(&(name.clone(), Some(kind)));
            let says = says.or_else(|| script.get(&(name, None)));
            says.cloned().unwrap_or(Says::NX_DOMAIN)
        };

        let mut answer = Message::response(question.metadata.id, question.metadata.op_code);
        answer.metadata.recursion_desired = question.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(query.clone());
        if question.edns.is_some() {
            match extensions {
                Extensions::Known => {
                    let mut edns = Edns::new();
                    edns.set_max_payload(1232);
                    answer.set_edns(edns);
                }
                Extensions::Refused => {
                    answer.metadata.response_code = ResponseCode::FormErr;
                    return Some((answer.to_vec().unwrap(), Duration::ZERO));
                }
                Extensions::Lost => return None,
            }
        }
        let delay = match &says {
            Says::Late(delay, _) => *delay,
            _ => Duration::ZERO,
        };
        if !says.write(&mut answer, query.name(), kind, over_tcp) {
            return None;
        }
        let mut bytes = answer.to_vec().unwrap();
        if matches!(says, Says::Damaged(_)) {
            self.damage(&mut bytes);
        }
        if matches!(says, Says::Cut(_)) && !over_tcp {
            bytes.truncate(DATAGRAM);
        }
        let limit = match &question.edns {
            Some(edns) => usize::from(edns.max_payload()),
            None => DATAGRAM,
        };
        if over_tcp || bytes.len() <= limit || matches!(says, Says::Oversized(_)) {
            return Some((bytes, delay));
        }
        answer.answers.clear();
        answer.metadata.truncation = true;
        Some((answer.to_vec().unwrap(), delay))
    }
}

impl Says {
    /// Puts into the answer what it says; whether it says anything.
    fn write(&self, answer: &mut Message, name: &Name, kind: RecordType, over_tcp: bool) -> bool {
        match self {
            Self::Records(records) => {
                for Entry { owner, ttl, data } in records {
                    if [kind, RecordType::CNAME].contains(&data.record_type()) {
                        let owner = owner.as_ref().unwrap_or(name).clone();
                        answer.add_answer(Record::from_rdata(owner, *ttl, data.clone()));
                    }
                }
            }
            Self::Code(code) => answer.metadata.response_code = *code,
            Self::Nothing => {}
            Self::Silence => return false,
            Self::Truncated(_) if !over_tcp => answer.metadata.truncation = true,
            Self::Truncated(says)
            | Self::Damaged(says)
            | Self::Oversized(says)
            | Self::Cut(says)
            | Self::Late(_, says) => {
                return says.write(answer, name, kind, over_tcp);
            }
        }
        true
    }
}

/// A whole message of those that came over TCP, without its length.
fn cut_message(held: &mut Vec<u8>) -> Option<Vec<u8>> {
    let len = usize::from(u16::from_be_bytes(*held.first_chunk()?));
    if held.len() < 2 + len {
        return None;
    }
    let rest = held.split_off(2 + len);
    let message = std::mem::replace(held, rest);
    Some(message[2..].to_vec())
}

fn absolute(name: &str) -> Name {
    let mut name = Name::from_str(name).unwrap();
    name.set_fqdn(true);
    name
}

/// A test that failed elsewhere is reported there.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
