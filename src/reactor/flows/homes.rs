//! Where flows live when their datagrams come elsewhere.
//!
//! The kernel spreads the clients of an address over its sockets by a hash, so another socket in the
//! group takes half of everybody's clients: their datagrams come to another reactor than the one that
//! has their flows, and their upstream ports. Before that happens each reactor notes here whom it has;
//! who gets a datagram of a client without a flow looks here, and passes it to the one who has it.
//!
//! ```text
//!  a client ─► socket of reactor 1 ─ no flow, noted at 0 ─► mailbox of reactor 0 ─► its flow, its port
//!           ◄────────────────────── socket of reactor 0 ◄──────────────────────────────┘
//! ```
//! Nothing is noted, and nothing looked up, unless sockets have changed hands: then one test of a number
//! that nobody writes is all that a new client costs. A flow is forgotten when it ends.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::net::datagram::LocalAddress;
use crate::relay::id::ListenerId;

/// Datagrams that wait for a reactor: what is more is lost, as in a full queue.
const WAITING_MAX: usize = 4096;

/// What a flow goes by: the same client at two listeners, or at two addresses of one, is
/// two flows, because the answers leave from two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FlowName {
    pub(super) listener: ListenerId,
    pub(super) client: SocketAddr,
    pub(super) local: Option<LocalAddress>,
}

/// In one piece: a hasher that is given a field at a time takes as long for each of a dozen as for all.
impl Hash for FlowName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut bytes = [0; 4 + 2 + 16 + 16];
        bytes[..4].copy_from_slice(&self.listener.number().to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.client.port().to_ne_bytes());
        let mut len = 6;
        for ip in [Some(self.client.ip()), self.local.map(|it| it.ip)] {
            match ip {
                Some(IpAddr::V4(ip)) => {
                    bytes[len..len + 4].copy_from_slice(&ip.octets());
                    len += 4;
                }
                Some(IpAddr::V6(ip)) => {
                    bytes[len..len + 16].copy_from_slice(&ip.octets());
                    len += 16;
                }
                None => {}
            }
        }
        state.write(&bytes[..len]);
    }
}

/// See the module's documentation. Shared by all reactors.
#[derive(Debug, Default)]
pub struct Homes {
    noted: AtomicUsize,
    of: Mutex<HashMap<FlowName, u16>>,
    boxes: RwLock<BTreeMap<u16, Arc<Mailbox>>>,
}

/// Datagrams for the flows of one reactor.
pub(super) struct Mailbox {
    waiting: AtomicUsize,
    letters: Mutex<VecDeque<Strayed>>,
    wake: Box<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").finish_non_exhaustive()
    }
}

/// A datagram that came to another reactor.
#[derive(Debug)]
pub(super) struct Strayed {
    pub(super) name: FlowName,
    pub(super) payload: Vec<u8>,
}

impl Homes {
    /// A reactor is there, and woken so.
    pub fn connect(&self, reactor: u16, wake: Box<dyn Fn() + Send + Sync>) {
        let mailbox = Mailbox {
            waiting: AtomicUsize::new(0),
            letters: Mutex::default(),
            wake,
        };
        let mut boxes = self.boxes.write().unwrap_or_else(PoisonError::into_inner);
        boxes.insert(reactor, Arc::new(mailbox));
    }

    /// That of a reactor; without one nothing is passed to it.
    pub(super) fn mailbox(&self, reactor: u16) -> Option<Arc<Mailbox>> {
        let boxes = self.boxes.read().unwrap_or_else(PoisonError::into_inner);
        boxes.get(&reactor).cloned()
    }

    /// It has ended.
    pub fn disconnect(&self, reactor: u16) {
        let mut boxes = self.boxes.write().unwrap_or_else(PoisonError::into_inner);
        boxes.remove(&reactor);
    }

    /// Whether any flow is noted.
    pub(super) fn knows_any(&self) -> bool {
        self.noted.load(Ordering::Relaxed) > 0
    }

    fn map(&self) -> MutexGuard<'_, HashMap<FlowName, u16>> {
        // Each change is one step.
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, names: impl Iterator<Item = FlowName>, reactor: u16) {
        let mut of = self.map();
        of.extend(names.map(|name| (name, reactor)));
        self.noted.store(of.len(), Ordering::Relaxed);
    }

    pub(super) fn forget(&self, name: &FlowName, reactor: u16) {
        let mut of = self.map();
        if of.get(name) == Some(&reactor) {
            of.remove(name);
        }
        self.noted.store(of.len(), Ordering::Relaxed);
    }

    /// Who has the flow of a client, if that is noted and somebody else.
    pub(super) fn elsewhere(&self, name: &FlowName, reactor: u16) -> Option<u16> {
        let home = self.map().get(name).copied()?;
        (home != reactor).then_some(home)
    }

    /// Passes a datagram on; `false`: there is nobody, or no room.
    pub(super) fn pass(&self, to: u16, name: FlowName, payload: Vec<u8>) -> bool {
        let mailbox = self.mailbox(to);
        mailbox.is_some_and(|mailbox| mailbox.put(Strayed { name, payload }))
    }
}

impl Mailbox {
    fn put(&self, strayed: Strayed) -> bool {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        if letters.len() >= WAITING_MAX {
            return false;
        }
        letters.push_back(strayed);
        let before = self.waiting.swap(letters.len(), Ordering::Release);
        drop(letters);
        if before == 0 {
            (self.wake)();
        }
        true
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.load(Ordering::Acquire) == 0
    }

    pub(super) fn take(&self) -> VecDeque<Strayed> {
        let mut letters = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.store(0, Ordering::Release);
        std::mem::take(&mut *letters)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn name(port: u16) -> FlowName {
        FlowName {
            listener: ListenerId::new(1),
            client: ([127, 0, 0, 1], port).into(),
            local: None,
        }
    }

    #[test]
    fn what_strays_comes_home_in_its_order_and_wakes_once() {
        let homes = Homes::default();
        let woken = Arc::new(AtomicUsize::new(0));
        let wakes = woken.clone();
        let wake = move || {
            wakes.fetch_add(1, Ordering::Relaxed);
        };
        homes.connect(0, Box::new(wake));
        assert!(!homes.knows_any());
        homes.note([name(1), name(2)].into_iter(), 0);
        assert_eq!(homes.elsewhere(&name(1), 1), Some(0));
        assert_eq!(homes.elsewhere(&name(1), 0), None, "it is at home");
        assert_eq!(homes.elsewhere(&name(3), 1), None);
        let mailbox = homes.mailbox(0).unwrap();
        assert!(mailbox.is_empty());
        for n in 0..3 {
            assert!(homes.pass(0, name(1), vec![n]));
        }
        assert!(!mailbox.is_empty());
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        let mail = mailbox.take();
        assert!(mail.iter().map(|it| it.payload[0]).eq(0..3));
        assert!(mailbox.is_empty());
        assert!(!homes.pass(7, name(1), Vec::new()), "nobody lives there");
        homes.forget(&name(1), 1);
        assert_eq!(homes.elsewhere(&name(1), 1), Some(0), "it was not its own");
        homes.forget(&name(1), 0);
        homes.forget(&name(2), 0);
        assert!(!homes.knows_any());
        homes.disconnect(0);
        assert!(homes.mailbox(0).is_none());
    }

    #[test]
    fn a_full_mailbox_takes_no_more() {
        let homes = Homes::default();
        homes.connect(0, Box::new(|| {}));
        for _ in 0..WAITING_MAX {
            assert!(homes.pass(0, name(1), Vec::new()));
        }
        assert!(!homes.pass(0, name(1), Vec::new()));
    }
}
