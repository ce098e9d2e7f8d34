//! One question, once: what the hosts file or the name servers say of a host or a
//! service now.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use super::error::LookupError;
use super::exchange::NameServer;
use super::host_name::{check_host, literal};
use super::system::{Clients, Manner, System};
use crate::observe::notice::Notice;

/// How long what the hosts file says is good: no name server is asked again, and a
/// change of the file is to be noticed soon.
const HOSTS_TTL: Duration = Duration::from_secs(5);

/// How much longer than the other family one may take. RFC 8305 gives 50 ms, to a
/// person who waits; what comes too late here is asked for again in a second.
const OTHER_FAMILY: Duration = Duration::from_secs(1);

/// Links of a chain of CNAMEs that are followed.
const LINKS_MAX: usize = 8;

/// Name servers that are waited for at the same time: those whose turn is over may still
/// answer.
pub(super) const WAITING_MAX: usize = 3;

/// How long the answer to a question that was given up is waited for, to know whether
/// the name server is slow or silent.
const LATE: Duration = Duration::from_secs(15);

/// Targets of a service that are looked up.
const TARGETS_MAX: usize = 64;

/// What one family has: never no address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) addresses: Vec<IpAddr>,
    pub(super) ttl: Duration,
}

/// What a host has in each family.
#[derive(Debug)]
pub(super) struct Families {
    pub(super) v6: Result<Found, LookupError>,
    pub(super) v4: Result<Found, LookupError>,
}

impl Families {
    fn from_addresses(addresses: &[IpAddr], ttl: Duration) -> Self {
        let family = |v4: bool, kind| {
            let own = addresses.iter().filter(|it| it.is_ipv4() == v4);
            found(own.copied().collect(), ttl, kind)
        };
        Self {
            v6: family(false, "AAAA"),
            v4: family(true, "A"),
        }
    }

    /// No name server answered within so much time.
    pub(super) fn silent(waited: Duration) -> Self {
        Self {
            v6: Err(silence(waited)),
            v4: Err(silence(waited)),
        }
    }

    /// Whether a name server gave no word at all: of failed candidates, one of these
    /// says more than one that is known not to be there.
    fn is_unsure(&self) -> bool {
        let unsure =
            |it: &Result<Found, LookupError>| it.as_ref().is_err_and(|error| !error.is_negative());
        unsure(&self.v6) || unsure(&self.v4)
    }

    /// What is wrong, if anything is: that one of the families is not there is not.
    pub(super) fn error(&self) -> Option<LookupError> {
        match (&self.v6, &self.v4) {
            (Ok(_), Ok(_)) => None,
            (Ok(_), Err(error)) | (Err(error), Ok(_)) => {
                (!error.is_negative()).then(|| error.clone())
            }
            (Err(LookupError::NoRecord(_)), Err(LookupError::NoRecord(_))) => {
                Some(LookupError::NoRecord("A or AAAA"))
            }
            (Err(v6), Err(v4)) => Some(if v4.is_negative() { v6 } else { v4 }.clone()),
        }
    }
}

/// A target of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) priority: u16,
    pub(super) weight: u16,
}

/// How questions are asked: of whom, and how many may be under way.
#[derive(Debug, Clone)]
pub(super) struct Questions {
    clients: Arc<Clients>,
    /// A place for each question: one that gets no answer takes up to [`WAITING_MAX`]
    /// sockets.
    places: Arc<Semaphore>,
    system: Arc<System>,
}

impl Questions {
    /// By the files as they are now.
    pub(super) fn new(system: &Arc<System>, places: &Arc<Semaphore>) -> Self {
        Self {
            clients: system.clients(),
            places: places.clone(),
            system: system.clone(),
        }
    }

    /// The addresses of a host. An `absolute` name is not tried below the search list.
    pub(super) async fn host(&self, host: &str, absolute: bool) -> Families {
        if let Some(address) = literal(host) {
            return Families::from_addresses(&[address], Duration::MAX);
        }
        let name = match check_host(host).and_then(|()| parse(host)) {
            Ok(name) => name,
            Err(error) => {
                return Families {
                    v6: Err(error.clone()),
                    v4: Err(error),
                };
            }
        };
        if let Some(addresses) = self.without_dns(host, &name) {
            return Families::from_addresses(&addresses, HOSTS_TTL);
        }
        let mut last: Option<Families> = None;
        for name in candidates(&self.clients.manner, &name, absolute) {
            let families = self.families(&name).await;
            let errors = [families.v6.as_ref().err(), families.v4.as_ref().err()];
            let [Some(v6), Some(v4)] = errors else {
                return families;
            };
            // As the C library: the next of the list after "no" and SERVFAIL, but not
            // after silence, which the next would most likely meet too.
            let goes_on =
                |it: &LookupError| it.is_negative() || matches!(it, LookupError::ServerFailure(..));
            if !goes_on(v6) || !goes_on(v4) {
                return families;
            }
            last = Some(match last {
                Some(before) if before.is_unsure() => before,
                _ => families,
            });
        }
        last.unwrap_or_else(|| Families::from_addresses(&[], Duration::ZERO))
    }

    /// Both families under exactly this name. Once one has addresses, the other has
    /// [`OTHER_FAMILY`] left: there are name servers that never answer one of the two.
    async fn families(&self, name: &Name) -> Families {
        if self.clients.manner.no_aaaa {
            return Families {
                v6: Err(LookupError::NoRecord("AAAA")),
                v4: self.addresses(name, RecordType::A).await,
            };
        }
        let mut v6 = pin!(self.addresses(name, RecordType::AAAA));
        let mut v4 = pin!(self.addresses(name, RecordType::A));
        tokio::select! {
            v6 = &mut v6 => Families { v4: other_family(&v6, v4).await, v6 },
            v4 = &mut v4 => Families { v6: other_family(&v4, v6).await, v4 },
        }
    }

    /// The targets of a service, and how long they are good.
    pub(super) async fn service(
        &self,
        service: &str,
    ) -> Result<(Vec<Target>, Duration), LookupError> {
        let mut last = LookupError::NoRecord("SRV");
        for name in candidates(&self.clients.manner, &parse(service)?, false) {
            match self.records(&name, RecordType::SRV).await {
                Ok((records, ttl)) => return targets(&records, ttl),
                Err(error) if error.is_negative() => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// The addresses of one family under exactly this name.
    async fn addresses(&self, name: &Name, family: RecordType) -> Result<Found, LookupError> {
        let (records, ttl) = self.records(name, family).await?;
        let addresses = records.iter().filter_map(|it| it.data.ip_addr());
        let addresses = addresses.map(|it| it.to_canonical()).collect();
        found(addresses, ttl, kind_name(family))
    }

    /// The records of this type that the name has, or what its CNAMEs lead to, and the
    /// shortest time to live on the way; never none.
    async fn records(
        &self,
        name: &Name,
        kind: RecordType,
    ) -> Result<(Vec<Record>, Duration), LookupError> {
        let mut owner = name.clone();
        let mut ttl = u32::MAX;
        let mut links = 0;
        loop {
            let answer = self.ask(&owner, kind).await?;
            let chain = follow(&answer.answers, &owner);
            links += chain.links;
            ttl = ttl.min(chain.ttl);
            let records: Vec<Record> = chain.records(kind).cloned().collect();
            if !records.is_empty() && links <= LINKS_MAX {
                let shortest = records.iter().map(|it| it.ttl).min();
                let ttl = ttl.min(shortest.unwrap_or(ttl));
                return Ok((records, Duration::from_secs(ttl.into())));
            }
            if links > LINKS_MAX || (links > 0 && chain.links == 0) {
                return Err(LookupError::Chain);
            }
            if answer.metadata.response_code == ResponseCode::NXDomain {
                return Err(match links {
                    0 => LookupError::NoSuchName,
                    _ => LookupError::Chain,
                });
            }
            if chain.links == 0 {
                return Err(LookupError::NoRecord(kind_name(kind)));
            }
            owner = chain.owner.clone();
        }
    }

    /// Asks the name servers in turn, as often as resolv.conf says: the first that
    /// answers with records or with "no" is believed; one that cannot tell is passed
    /// over, and so is one that does not answer in its time, though its answer still
    /// counts while others are asked.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Message, LookupError> {
        // Never closed; without a place it would ask all the same.
        let _place = self.places.acquire().await;
        let manner = &self.clients.manner;
        let query = Query::query(name.clone(), kind);
        let began = Instant::now();
        let mut under_way = JoinSet::new();
        let mut waiting = BTreeSet::new();
        let mut last = LookupError::Unreachable("there is none".to_owned());
        for _ in 0..manner.rounds {
            for (index, server) in self.clients.servers.iter().enumerate() {
                if !waiting.contains(&index) {
                    if waiting.len() == WAITING_MAX {
                        under_way.abort_all();
                        waiting.clear();
                    }
                    waiting.insert(index);
                    let (server, query) = (server.clone(), query.clone());
                    let over_tcp = manner.over_tcp;
                    under_way.spawn(async move {
                        let began = Instant::now();
                        let outcome = server.exchange(&query, over_tcp).await;
                        (index, began.elapsed(), outcome)
                    });
                }
                let turn = Instant::now() + manner.timeout;
                while waiting.contains(&index)
                    && let Ok(Some(joined)) = timeout_at(turn, under_way.join_next()).await
                {
                    // Given up to make room, or a bug that was reported as it happened.
                    let Ok((index, took, outcome)) = joined else {
                        continue;
                    };
                    waiting.remove(&index);
                    let server = &self.clients.servers[index];
                    match outcome.and_then(|answer| usable(answer, server)) {
                        Ok(answer) => {
                            self.clients.note_time(index, took);
                            return Ok(answer);
                        }
                        Err(error) => last = error,
                    }
                }
            }
        }
        if waiting.is_empty() {
            return Err(last);
        }
        let silent = waiting.iter().map(|it| &self.clients.servers[*it]);
        let silent: Vec<String> = silent.map(|it| it.address.to_string()).collect();
        let waited = began.elapsed().as_secs_f32();
        let why = format!("{} within {waited:.1}s", silent.join(" and "));
        self.clients.clone().listen_on(under_way);
        Err(LookupError::TimedOut(why))
    }

    /// The hosts file, and `localhost`, which is this host whatever DNS says (RFC 6761).
    /// A name with one family in the file has no other: DNS is not asked for it.
    fn without_dns(&self, host: &str, name: &Name) -> Option<Vec<IpAddr>> {
        let mut clients = self.clients.clone();
        let mut addresses = Vec::new();
        // A file that changes without an end is not waited for.
        for _ in 0..3 {
            if let Ok(found) = clients.hosts.addresses(host) {
                addresses = found;
                break;
            }
            clients = self.system.clients();
        }
        if addresses.is_empty() && name.is_localhost() {
            return Some(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
        }
        (!addresses.is_empty()).then_some(addresses)
    }
}

/// Of a name server: its place, how long it took, and what it said.
type Exchanged = (usize, Duration, Result<Message, LookupError>);

impl Clients {
    /// Says so when a name server has become slow.
    fn note_time(&self, server: usize, took: Duration) {
        let server = &self.servers[server];
        if server.is_newly_slow(took > self.manner.timeout) {
            self.log.notice(Notice::NameServerSlow {
                name_server: server.address.to_string(),
                took,
                allowed: self.manner.timeout,
            });
        }
    }

    /// Waits for what comes too late for its question.
    fn listen_on(self: Arc<Self>, mut under_way: JoinSet<Exchanged>) {
        let Ok(place) = self.late.clone().try_acquire_owned() else {
            return;
        };
        let asked = Instant::now();
        tokio::spawn(async move {
            while let Ok(Some(joined)) = timeout_at(asked + LATE, under_way.join_next()).await {
                if let Ok((server, took, Ok(_))) = joined {
                    self.note_time(server, took);
                    break;
                }
            }
            drop(place);
        });
    }
}

/// What can be worked with: records, or a "no".
fn usable(answer: Message, server: &NameServer) -> Result<Message, LookupError> {
    match answer.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => Ok(answer),
        code => Err(LookupError::ServerFailure(
            response_code(code),
            server.address.to_string(),
        )),
    }
}

pub(super) fn silence(waited: Duration) -> LookupError {
    LookupError::TimedOut(format!("within {:.1}s", waited.as_secs_f32()))
}

const fn kind_name(kind: RecordType) -> &'static str {
    match kind {
        RecordType::AAAA => "AAAA",
        RecordType::SRV => "SRV",
        _ => "A",
    }
}

/// The answer of the family that is slower than the one that is there.
async fn other_family(
    first: &Result<Found, LookupError>,
    other: impl Future<Output = Result<Found, LookupError>>,
) -> Result<Found, LookupError> {
    if first.is_err() {
        return other.await;
    }
    let late = timeout(OTHER_FAMILY, other).await;
    late.unwrap_or_else(|_| Err(silence(OTHER_FAMILY)))
}

pub(super) fn targets(
    records: &[Record],
    ttl: Duration,
) -> Result<(Vec<Target>, Duration), LookupError> {
    let services = records.iter().filter_map(|record| match &record.data {
        RData::SRV(srv) => Some(srv),
        _ => None,
    });
    let mut targets = Vec::new();
    let mut not_offered = false;
    for srv in services {
        let host = srv.target.to_ascii().to_ascii_lowercase();
        let host = host.trim_end_matches('.');
        if host.is_empty() {
            not_offered = true;
        } else if srv.port != 0 && check_host(host).is_ok() {
            targets.push(Target {
                host: host.to_owned(),
                port: srv.port,
                priority: srv.priority,
                weight: srv.weight,
            });
        }
    }
    targets.sort_by(|a, b| (a.priority, &a.host, a.port).cmp(&(b.priority, &b.host, b.port)));
    targets.dedup_by(|a, b| (&a.host, a.port) == (&b.host, b.port));
    targets.truncate(TARGETS_MAX);
    match (targets.is_empty(), not_offered) {
        (false, _) => Ok((targets, ttl)),
        (true, true) => Err(LookupError::NotOffered),
        (true, false) => Err(LookupError::NoRecord("SRV")),
    }
}

fn parse(host: &str) -> Result<Name, LookupError> {
    Name::from_ascii(host).map_err(|_| LookupError::NotAName("DNS has no such form".to_owned()))
}

/// The names to ask for, in order: with enough dots the name itself goes first, and
/// otherwise last, behind the search list (resolv.conf(5)).
fn candidates(manner: &Manner, name: &Name, absolute: bool) -> Vec<Name> {
    let mut itself = name.clone();
    itself.set_fqdn(true);
    if absolute || name.is_fqdn() {
        return vec![itself];
    }
    let below = manner.search.iter();
    let mut names: Vec<Name> = below
        .filter_map(|domain| name.clone().append_domain(domain).ok())
        .collect();
    let dots = usize::from(name.num_labels()).saturating_sub(1);
    if dots >= manner.ndots {
        names.insert(0, itself);
    } else {
        names.push(itself);
    }
    names
}

fn found(
    mut addresses: Vec<IpAddr>,
    ttl: Duration,
    kind: &'static str,
) -> Result<Found, LookupError> {
    // Connecting to 0.0.0.0 reaches this very host: what some filters answer for
    // "no" must not become a server.
    addresses.retain(|ip| !ip.is_unspecified() && !ip.is_multicast());
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Err(LookupError::NoRecord(kind));
    }
    Ok(Found { addresses, ttl })
}

/// Where the CNAMEs of an answer lead.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    answers: &'a [Record],
    /// The name at its end.
    owner: &'a Name,
    /// The shortest time to live on the way.
    ttl: u32,
    links: usize,
}

impl Chain<'_> {
    pub(super) const fn links(&self) -> usize {
        self.links
    }

    /// What the name at its end has of this type. Records of other names are not ours.
    pub(super) fn records(&self, kind: RecordType) -> impl Iterator<Item = &Record> {
        let own = move |it: &&Record| it.name == *self.owner && it.record_type() == kind;
        self.answers.iter().filter(own)
    }
}

pub(super) fn follow<'a>(answers: &'a [Record], name: &'a Name) -> Chain<'a> {
    let mut chain = Chain {
        answers,
        owner: name,
        ttl: u32::MAX,
        links: 0,
    };
    let cname = |owner: &Name| {
        answers.iter().find_map(|record| match &record.data {
            RData::CNAME(to) if record.name == *owner => Some((&to.0, record.ttl)),
            _ => None,
        })
    };
    // A loop ends where it is too long.
    while chain.links <= LINKS_MAX
        && let Some((next, seconds)) = cname(chain.owner)
    {
        chain.ttl = chain.ttl.min(seconds);
        chain.owner = next;
        chain.links += 1;
    }
    chain
}

/// The name that administrators know it by.
fn response_code(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
