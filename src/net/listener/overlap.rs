//! Which listeners the kernel does not let stand beside each other: pure, so that a
//! configuration is judged by it before anything is bound.
//!
//! | | `0.0.0.0` | `[::]` | `:PORT` | an IPv4 address | an IPv6 address |
//! | --- | --- | --- | --- | --- | --- |
//! | `:PORT` (both families) | clash | clash | clash | clash | clash |
//! | `0.0.0.0` | clash | | clash | clash | |
//! | `[::]` (`IPV6_V6ONLY`) | | clash | clash | | clash |
//!
//! Tried on Linux 6.18: without SO_REUSEPORT on the first socket of a listener (see
//! [`super`]) the second `listen` is EADDRINUSE, whichever of the two is more exact. Two
//! sockets that are bound to different interfaces do not see each other.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::net::address::Address;

/// Listeners, each with what the caller calls it.
#[derive(Debug)]
pub struct Listeners<T> {
    ports: HashMap<u16, Port<T>>,
}

/// Those of one port.
#[derive(Debug)]
struct Port<T> {
    /// Of every address, of one family or of both; few.
    wild: Vec<Place<T>>,
    /// Of one address, or a name.
    exact: Vec<Place<T>>,
}

/// A listener.
#[derive(Debug, Clone)]
struct Place<T> {
    address: Address,
    interface: Option<String>,
    tag: T,
}

impl<T> Default for Listeners<T> {
    fn default() -> Self {
        Self {
            ports: HashMap::new(),
        }
    }
}

impl<T: Clone> Listeners<T> {
    /// Adds a listener, or says which of the earlier ones it clashes with. The very same
    /// address twice is for the caller to find. A name stands for addresses that are not
    /// known: it clashes with what every address clashes with.
    pub fn add(
        &mut self,
        address: &Address,
        interface: Option<&str>,
        tag: T,
    ) -> Result<(), (Address, T)> {
        // Port 0 is another port each time; a unix socket has none.
        let Some(number @ 1..) = address.port() else {
            return Ok(());
        };
        let new = Place {
            address: address.clone(),
            interface: interface.map(str::to_owned),
            tag,
        };
        let port = self.ports.entry(number).or_insert_with(|| Port {
            wild: Vec::new(),
            exact: Vec::new(),
        });
        // Two exact addresses never clash, so thousands of them cost nothing.
        let wild = new.families().is_wild();
        let exact = if wild { port.exact.as_slice() } else { &[] };
        let mut rivals = port.wild.iter().chain(exact);
        if let Some(rival) = rivals.find(|it| it.clashes_with(&new)) {
            return Err((rival.address.clone(), rival.tag.clone()));
        }
        let list = if wild {
            &mut port.wild
        } else {
            &mut port.exact
        };
        list.push(new);
        Ok(())
    }
}

/// Which families an address takes connections of, and whether on every address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Families {
    /// `:PORT`.
    Both,
    EveryV4,
    EveryV6,
    OneV4,
    OneV6,
    /// A name: one of them, or both.
    Unknown,
}

impl Families {
    fn is_wild(self) -> bool {
        matches!(self, Self::Both | Self::EveryV4 | Self::EveryV6)
    }
}

impl<T> Place<T> {
    fn families(&self) -> Families {
        match &self.address {
            Address::Any { .. } => Families::Both,
            Address::Inet(SocketAddr::V4(it)) if it.ip().is_unspecified() => Families::EveryV4,
            Address::Inet(SocketAddr::V6(it)) if it.ip().is_unspecified() => Families::EveryV6,
            Address::Inet(SocketAddr::V4(_)) => Families::OneV4,
            Address::Inet(SocketAddr::V6(_)) => Families::OneV6,
            Address::Name { .. } | Address::Unix(_) | Address::Srv(_) | Address::Passed(_) => {
                Families::Unknown
            }
        }
    }

    fn clashes_with(&self, other: &Self) -> bool {
        use Families::{Both, EveryV4, EveryV6, OneV4, OneV6};
        let apart = match (&self.interface, &other.interface) {
            (Some(mine), Some(theirs)) => mine != theirs,
            _ => false,
        };
        !apart
            && self.address != other.address
            && matches!(
                (self.families(), other.families()),
                (Both, _)
                    | (_, Both)
                    | (EveryV4, EveryV4 | OneV4)
                    | (OneV4, EveryV4)
                    | (EveryV6, EveryV6 | OneV6)
                    | (OneV6, EveryV6)
            )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::net::listener::bind;
    use crate::net::options::SocketOptions;

    const ADDRESSES: [&str; 6] = ["", "0.0.0.0", "[::]", "127.0.0.1", "[::1]", "localhost"];

    fn clash(first: &str, second: &str) -> bool {
        let mut listeners = Listeners::default();
        listeners.add(&first.parse().unwrap(), None, 1).unwrap();
        listeners.add(&second.parse().unwrap(), None, 2).is_err()
    }

    /// The table above, held against the kernel: with one reactor and with two.
    #[test]
    fn what_is_said_to_clash_is_what_the_kernel_refuses() {
        if std::net::TcpListener::bind("[::1]:0").is_err() {
            eprintln!("skipped: this machine has no IPv6");
            return;
        }
        let options = SocketOptions::default();
        let pairs = ADDRESSES.map(|first| ADDRESSES.map(|second| (first, second)));
        let pairs = pairs
            .iter()
            .flatten()
            .filter(|(first, second)| first != second);
        for (first, second) in pairs {
            for reactors in [1, 2] {
                let (first, second, refused) = loop {
                    let at: Address = format!("{first}:0").parse().unwrap();
                    let held = bind(&at, &options, reactors).unwrap();
                    let port = match &held.locals()[0] {
                        crate::net::address::Endpoint::Inet(local) => local.port(),
                        other => panic!("{other}"),
                    };
                    let second: Address = format!("{second}:{port}").parse().unwrap();
                    let refused = bind(&second, &options, reactors).is_err();
                    drop(held);
                    // Somebody else on this machine may have the port in the other family.
                    if !refused || bind(&second, &options, reactors).is_ok() {
                        break (format!("{first}:{port}"), second.to_string(), refused);
                    }
                };
                // A name is known to clash only where every address does.
                if clash(&first, &second) || !format!("{first}{second}").contains("localhost") {
                    assert_eq!(clash(&first, &second), refused, "{first} and {second}");
                }
            }
        }
    }

    #[test]
    fn other_ports_and_other_interfaces_are_apart() {
        assert!(clash(":5000", "localhost:5000"));
        assert!(!clash(":5000", "localhost:5001"));
        assert!(!clash(":0", "127.0.0.1:0"));
        assert!(!clash("unix:/a", "unix:/b"));
        let mut listeners = Listeners::default();
        let (wide, narrow): (Address, Address) =
            (":53".parse().unwrap(), "10.0.0.1:53".parse().unwrap());
        listeners.add(&wide, Some("eth0"), "a").unwrap();
        listeners.add(&narrow, Some("eth1"), "b").unwrap();
        // One that is bound to none sees both.
        let other: Address = "10.0.0.2:53".parse().unwrap();
        assert_eq!(listeners.add(&other, None, "c"), Err((wide, "a")));
    }
}
