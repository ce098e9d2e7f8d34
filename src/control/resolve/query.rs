//! One question, once: what the hosts file or the name servers say of a host or a
//! service now.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::error::LookupError;
use super::host_name::{check_host, literal};
use super::system::Clients;

/// How long what the hosts file says is good: no name server is asked again, and a
/// change of the file is to be noticed soon.
const HOSTS_TTL: Duration = Duration::from_secs(5);

/// How much longer than the other family one may take. RFC 8305 gives 50 ms, to a
/// person who waits; what comes too late here is asked for again in a second.
const OTHER_FAMILY: Duration = Duration::from_secs(1);

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

    /// No name server answered in time.
    pub(super) fn silent() -> Self {
        Self {
            v6: Err(LookupError::TimedOut),
            v4: Err(LookupError::TimedOut),
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
    pub(super) clients: Arc<Clients>,
    /// A place for each question: a question that gets no answer takes up to three
    /// sockets.
    pub(super) places: Arc<Semaphore>,
}

impl Questions {
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
        if let Some(addresses) = without_dns(&self.clients, &name) {
            return Families::from_addresses(&addresses, HOSTS_TTL);
        }
        let mut last: Option<Families> = None;
        for name in candidates(&self.clients, &name, absolute) {
            let families = self.families(&name).await;
            let errors = [families.v6.as_ref().err(), families.v4.as_ref().err()];
            let [Some(v6), Some(v4)] = errors else {
                return families;
            };
            // As the C library: the next of the list after "no" and SERVFAIL, but not
            // after silence, which the next would most likely meet too.
            let goes_on =
                |it: &LookupError| it.is_negative() || matches!(it, LookupError::ServerFailure(_));
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
        for name in candidates(&self.clients, &parse(service)?, false) {
            match self.ask(&name, RecordType::SRV).await {
                Ok(lookup) => return targets(&lookup),
                Err(error) if error.is_negative() => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }

    /// The addresses of one family under exactly this name.
    async fn addresses(&self, name: &Name, family: RecordType) -> Result<Found, LookupError> {
        let lookup = self.ask(name, family).await?;
        let kind = match family {
            RecordType::AAAA => "AAAA",
            _ => "A",
        };
        let (addresses, ttl) = of_name(lookup.answers(), name, family);
        found(addresses, ttl, kind)
    }

    /// Asks the name servers in turn, as often as resolv.conf says: the first that
    /// answers with records or with "no" is believed; one that cannot tell or does not
    /// answer is passed over.
    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Lookup, LookupError> {
        let mut last = LookupError::Unreachable("there is none".to_owned());
        for _ in 0..self.clients.rounds {
            for server in &self.clients.servers {
                // Never closed; without a place it would ask all the same.
                let _place = self.places.acquire().await;
                match server.lookup(name.clone(), kind).await {
                    Ok(lookup) => return Ok(lookup),
                    Err(error) => last = understood(error, name, kind),
                }
                if last.is_negative() {
                    return Err(last);
                }
            }
        }
        Err(last)
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
    late.unwrap_or(Err(LookupError::TimedOut))
}

fn targets(lookup: &Lookup) -> Result<(Vec<Target>, Duration), LookupError> {
    let records = lookup.answers().iter();
    let services = records.filter_map(|record| match &record.data {
        RData::SRV(srv) => Some((srv, record.ttl)),
        _ => None,
    });
    let mut ttl = Duration::MAX;
    let mut targets = Vec::new();
    let mut not_offered = false;
    for (srv, seconds) in services {
        ttl = ttl.min(Duration::from_secs(seconds.into()));
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

/// The hosts file, and `localhost`, which is this host whatever DNS says (RFC 6761).
/// A name with one family in the file has no other: DNS is not asked for it.
fn without_dns(clients: &Clients, name: &Name) -> Option<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    for kind in [RecordType::AAAA, RecordType::A] {
        let query = Query::query(name.clone(), kind);
        if let Some(lookup) = clients.hosts.lookup_static_host(&query) {
            addresses.extend(lookup.answers().iter().filter_map(|it| it.data.ip_addr()));
        }
    }
    if addresses.is_empty() && name.is_localhost() {
        return Some(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()]);
    }
    (!addresses.is_empty()).then_some(addresses)
}

/// The names to ask for, in order: with enough dots the name itself goes first, and
/// otherwise last, behind the search list (resolv.conf(5)).
fn candidates(clients: &Clients, name: &Name, absolute: bool) -> Vec<Name> {
    let mut itself = name.clone();
    itself.set_fqdn(true);
    if absolute || name.is_fqdn() {
        return vec![itself];
    }
    let below = clients.search.iter();
    let mut names: Vec<Name> = below
        .filter_map(|domain| name.clone().append_domain(domain).ok())
        .collect();
    let dots = usize::from(name.num_labels()).saturating_sub(1);
    if dots >= clients.ndots {
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

/// The addresses that the answer gives to the name or to what its CNAMEs lead to,
/// and the shortest time to live on the way. Records of other names are not ours.
fn of_name(answers: &[Record], name: &Name, family: RecordType) -> (Vec<IpAddr>, Duration) {
    let mut owner = name;
    let mut ttl = u32::MAX;
    let cname = |owner: &Name| {
        answers.iter().find_map(|record| match &record.data {
            RData::CNAME(to) if record.name == *owner => Some((&to.0, record.ttl)),
            _ => None,
        })
    };
    // A chain has no more links than there are records; a loop ends here.
    for _ in 0..answers.len() {
        let Some((next, seconds)) = cname(owner) else {
            break;
        };
        ttl = ttl.min(seconds);
        owner = next;
    }
    let mut addresses = Vec::new();
    for record in answers {
        let own = record.name == *owner && record.record_type() == family;
        if let (true, Some(ip)) = (own, record.data.ip_addr()) {
            ttl = ttl.min(record.ttl);
            addresses.push(ip.to_canonical());
        }
    }
    (addresses, Duration::from_secs(ttl.into()))
}

fn understood(error: NetError, asked: &Name, kind: RecordType) -> LookupError {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            if none.query.name() != asked {
                LookupError::Chain
            } else if none.response_code == ResponseCode::NXDomain {
                LookupError::NoSuchName
            } else {
                LookupError::NoRecord(match kind {
                    RecordType::AAAA => "AAAA",
                    RecordType::SRV => "SRV",
                    _ => "A",
                })
            }
        }
        NetError::Dns(DnsError::ResponseCode(code)) => {
            LookupError::ServerFailure(response_code(code))
        }
        NetError::Timeout => LookupError::TimedOut,
        NetError::Io(error) => LookupError::Unreachable(error.to_string()),
        NetError::NoConnections | NetError::Busy => LookupError::Unreachable(error.to_string()),
        other => LookupError::Answer(other.to_string()),
    }
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
