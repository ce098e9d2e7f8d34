//! What this process listens on, so that a connect that would end there is known for what
//! it is: a forward that connects to itself makes one client into as many sessions as
//! there are descriptors.
//!
//! A connect asks for a bit by the port of its target, and for no more where nothing
//! listens on such a port. What else it takes is done once in a while for each address
//! (`reactor::loops` remembers), because `:443` to another host's 443 is the ordinary case.
//!
//! ```text
//! pool ── dials ──► listener of a forward ── which dials ──► its pools
//!   ▲                                                          │
//!   └───────────────── a loop: refused ◄───────────────────────┘
//! ```
//! A loop of several forwards is found by what was dialled lately (`LINK_LIFE`): each
//! turn of it dials again. One that passes through another process is not seen here.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::net::address::{Endpoint, Transport};
use crate::relay::id::PoolId;

/// How long a link between pools counts after it was dialled. A turn of a loop takes
/// milliseconds; a link that leads elsewhere by now must not count for ever.
const LINK_LIFE: Duration = Duration::from_secs(60);

const PORT_WORDS: usize = 65_536 / 64;

/// Whose a listener is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The name of its forward.
    pub forward: Arc<str>,
    /// What its clients may be connected to.
    pub pools: Arc<[PoolId]>,
}

/// The listeners of this process. Shared by everything that dials.
#[derive(Debug)]
pub struct OwnListeners {
    /// A bit for each TCP port that any of them has.
    ports: Box<[AtomicU64]>,
    /// How many are unix listeners.
    unix: AtomicUsize,
    /// How often they have changed.
    generation: AtomicU64,
    state: Mutex<State>,
    /// The same for datagrams: ports of their own.
    datagrams: Option<Arc<OwnListeners>>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By port.
    inet: HashMap<u16, Vec<Listening>>,
    unix: Vec<(u64, Endpoint, Arc<Owner>)>,
    /// Which pool was found to lead to which, and when last.
    links: BTreeMap<PoolId, BTreeMap<PoolId, Instant>>,
}

#[derive(Debug)]
struct Listening {
    id: u64,
    local: SocketAddr,
    /// An IPv6 socket that takes IPv4, too.
    dual: bool,
    owner: Arc<Owner>,
}

/// For as long as this lives the listener counts as one of this process.
#[derive(Debug)]
pub struct Registration {
    of: Arc<OwnListeners>,
    id: u64,
    /// Of a TCP listener.
    port: Option<u16>,
}

impl Default for OwnListeners {
    fn default() -> Self {
        Self {
            datagrams: Some(Arc::new(Self::of_one_transport())),
            ..Self::of_one_transport()
        }
    }
}

impl OwnListeners {
    fn of_one_transport() -> Self {
        Self {
            datagrams: None,
            ports: (0..PORT_WORDS).map(|_| AtomicU64::new(0)).collect(),
            unix: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            state: Mutex::default(),
        }
    }
}

impl OwnListeners {
    /// Those of a transport.
    pub fn of(self: &Arc<Self>, transport: Transport) -> &Arc<Self> {
        match (&self.datagrams, transport) {
            (Some(datagrams), Transport::Udp) => datagrams,
            _ => self,
        }
    }

    /// Notes that this process listens at `local`. `dual`: with an IPv6 socket that takes
    /// IPv4, too.
    pub fn register(
        self: &Arc<Self>,
        local: &Endpoint,
        dual: bool,
        owner: Arc<Owner>,
    ) -> Registration {
        let mut state = self.state();
        let id = state.next;
        state.next += 1;
        let port = match local {
            Endpoint::Inet(local) => {
                let listening = Listening {
                    id,
                    local: *local,
                    dual,
                    owner,
                };
                state.inet.entry(local.port()).or_default().push(listening);
                let (word, bit) = place(local.port());
                self.ports[word].fetch_or(bit, Ordering::Relaxed);
                Some(local.port())
            }
            other => {
                state.unix.push((id, other.clone(), owner));
                self.unix.fetch_add(1, Ordering::Relaxed);
                None
            }
        };
        self.generation.fetch_add(1, Ordering::Release);
        Registration {
            of: self.clone(),
            id,
            port,
        }
    }

    /// Whether anything may be known of a connect to `target`: nearly always not, and then
    /// this is all it costs.
    pub fn may_be_own(&self, target: &Endpoint) -> bool {
        match target {
            Endpoint::Inet(target) => {
                let (word, bit) = place(target.port());
                self.ports[word].load(Ordering::Relaxed) & bit != 0
            }
            Endpoint::Unix(_) => self.unix.load(Ordering::Relaxed) > 0,
            Endpoint::Unnamed => false,
        }
    }

    /// How often the listeners have changed: what was found out before counts no more.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Whose listener a connect to `target` would end at. Asks the kernel whether an
    /// address is one of this host where a listener has every address.
    pub fn owner(&self, target: &Endpoint) -> Option<Arc<Owner>> {
        if !self.may_be_own(target) {
            return None;
        }
        let Endpoint::Inet(target) = target else {
            let state = self.state();
            let found = state.unix.iter().find(|(_, local, _)| local == target);
            return found.map(|(.., owner)| owner.clone());
        };
        let (exact, every) = {
            let state = self.state();
            let listening = state.inet.get(&target.port())?;
            let of = |found: Option<&Listening>| found.map(|it| it.owner.clone());
            let exact = listening.iter().find(|it| it.is_at(target.ip()));
            let every = listening.iter().find(|it| it.takes_every(target.ip()));
            (of(exact), of(every))
        };
        exact.or_else(|| every.filter(|_| is_of_this_host(*target)))
    }

    /// Notes that `pool` dials a listener of `owner`, and says whether that leads back to
    /// `pool`: at once, or by what was dialled lately.
    pub fn leads_back(&self, pool: PoolId, owner: &Owner) -> bool {
        self.leads_back_at(pool, owner, Instant::now())
    }

    fn leads_back_at(&self, pool: PoolId, owner: &Owner, now: Instant) -> bool {
        let links = &mut self.state().links;
        let mut seen: BTreeSet<PoolId> = BTreeSet::new();
        let mut next: Vec<PoolId> = owner.pools.to_vec();
        while let Some(at) = next.pop() {
            if at == pool {
                return true;
            }
            if seen.insert(at)
                && let Some(further) = links.get_mut(&at)
            {
                further.retain(|_, dialled| now.duration_since(*dialled) < LINK_LIFE);
                next.extend(further.keys());
            }
        }
        let of_pool = links.entry(pool).or_default();
        of_pool.extend(owner.pools.iter().map(|to| (*to, now)));
        false
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves it whole: each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    fn is_at(&self, ip: IpAddr) -> bool {
        self.local.ip().to_canonical() == ip.to_canonical()
    }

    fn takes_every(&self, ip: IpAddr) -> bool {
        match self.local.ip() {
            IpAddr::V4(local) => local.is_unspecified() && ip.to_canonical().is_ipv4(),
            IpAddr::V6(local) => {
                local.is_unspecified() && (self.dual || ip.to_canonical().is_ipv6())
            }
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut state = self.of.state();
        if let Some(port) = self.port {
            let left = state.inet.get_mut(&port).map(|listening| {
                listening.retain(|it| it.id != self.id);
                listening.len()
            });
            if left == Some(0) {
                state.inet.remove(&port);
                let (word, bit) = place(port);
                self.of.ports[word].fetch_and(!bit, Ordering::Relaxed);
            }
        } else {
            state.unix.retain(|(id, ..)| *id != self.id);
            self.of.unix.fetch_sub(1, Ordering::Relaxed);
        }
        self.of.generation.fetch_add(1, Ordering::Release);
    }
}

/// Where the bit of a port is.
const fn place(port: u16) -> (usize, u64) {
    (port as usize / 64, 1 << (port % 64))
}

/// Whether a connect to this address ends on this host. A datagram socket that is
/// connected sends nothing; but the kernel has chosen a route, and from there to an address
/// of this host a packet comes from that very address.
pub fn is_of_this_host(target: SocketAddr) -> bool {
    let ip = target.ip().to_canonical();
    if ip.is_loopback() || ip.is_unspecified() {
        return true;
    }
    let unspecified: IpAddr = match ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let mut target = target;
    if target.ip() != ip {
        target.set_ip(ip);
    }
    let local = UdpSocket::bind((unspecified, 0)).and_then(|socket| {
        socket.connect(target)?;
        socket.local_addr()
    });
    local.is_ok_and(|local| local.ip() == ip)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::net::address::UnixName;

    fn inet(text: &str) -> Endpoint {
        Endpoint::Inet(text.parse().unwrap())
    }

    fn owner(name: &str, pools: &[u32]) -> Arc<Owner> {
        Arc::new(Owner {
            forward: name.into(),
            pools: pools.iter().copied().map(PoolId::new).collect(),
        })
    }

    fn found(own: &OwnListeners, target: &str) -> Option<String> {
        own.owner(&inet(target)).map(|it| it.forward.to_string())
    }

    #[test]
    fn a_listener_is_known_for_as_long_as_it_is_registered() {
        let own = Arc::new(OwnListeners::default());
        assert_eq!(found(&own, "127.0.0.1:4000"), None);
        let before = own.generation();
        let one = own.register(&inet("127.0.0.1:4000"), false, owner("one", &[1]));
        let two = own.register(&inet("127.0.0.2:4000"), false, owner("two", &[2]));
        assert_ne!(own.generation(), before);
        assert_eq!(found(&own, "127.0.0.1:4000").as_deref(), Some("one"));
        assert_eq!(found(&own, "127.0.0.2:4000").as_deref(), Some("two"));
        assert_eq!(found(&own, "127.0.0.3:4000"), None);
        assert_eq!(found(&own, "127.0.0.1:4001"), None);
        assert!(!own.may_be_own(&inet("127.0.0.1:4001")));
        drop(one);
        assert_eq!(found(&own, "127.0.0.1:4000"), None);
        assert_eq!(found(&own, "127.0.0.2:4000").as_deref(), Some("two"));
        drop(two);
        assert!(!own.may_be_own(&inet("127.0.0.2:4000")));
    }

    #[test]
    fn every_address_of_this_host_ends_at_a_listener_on_all_of_them() {
        let own = Arc::new(OwnListeners::default());
        let _v4 = own.register(&inet("0.0.0.0:4000"), false, owner("v4", &[1]));
        let _both = own.register(&inet("[::]:4001"), true, owner("both", &[1]));
        let _v6 = own.register(&inet("[::]:4002"), false, owner("v6", &[1]));
        for (target, at) in [
            ("127.0.0.1:4000", Some("v4")),
            ("127.9.9.9:4000", Some("v4")),
            ("0.0.0.0:4000", Some("v4")),
            ("[::ffff:127.0.0.1]:4000", Some("v4")),
            ("[::1]:4000", None),
            ("127.0.0.1:4001", Some("both")),
            ("[::1]:4001", Some("both")),
            ("127.0.0.1:4002", None),
            ("[::1]:4002", Some("v6")),
            // Documentation: no host has it.
            ("192.0.2.1:4000", None),
            ("[2001:db8::1]:4002", None),
        ] {
            assert_eq!(found(&own, target).as_deref(), at, "{target}");
        }
    }

    #[test]
    fn a_unix_listener_is_known_by_its_name() {
        let own = Arc::new(OwnListeners::default());
        let name = |text: &str| Endpoint::Unix(UnixName::Path(text.into()));
        let _one = own.register(&name("/run/a.sock"), false, owner("one", &[1]));
        assert!(own.owner(&name("/run/a.sock")).is_some());
        assert!(own.owner(&name("/run/b.sock")).is_none());
    }

    #[test]
    fn a_chain_of_forwards_is_none_of_its_own_and_a_ring_is() {
        let (own, now) = (OwnListeners::default(), Instant::now());
        let [a, b, c] = [1, 2, 3].map(PoolId::new);
        let [to_a, to_b, to_c] = [1, 2, 3].map(|id| owner("it", &[id]));
        assert!(own.leads_back_at(a, &to_a, now), "itself");
        assert!(!own.leads_back_at(a, &to_b, now));
        assert!(!own.leads_back_at(b, &to_c, now));
        assert!(!own.leads_back_at(a, &to_b, now), "again");
        assert!(own.leads_back_at(c, &to_a, now));
        assert!(own.leads_back_at(b, &to_a, now));
        // What was refused was not dialled.
        assert!(!own.leads_back_at(a, &to_c, now));
        let later = now + LINK_LIFE;
        assert!(!own.leads_back_at(c, &to_a, later), "a link of long ago");
    }
}
