//! What a subject decides before it forwards: by the server that a TLS hello asks for, by a PROXY
//! header, by lists of networks and limits of each client.
//!
//! The same question for every forwarder: one name leads to the origin and whatever has another
//! nowhere; a header is required from anybody on loopback.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::bench::preface::{Preface, SERVER_NAME};

/// The most networks of a list.
const MOST: usize = 1_000_000;

/// What a subject asks of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Asks {
    /// What it looks at first.
    pub first: First,
    /// Networks of its list, none of which has a client in it; with any, there are limits, too, which
    /// no client meets.
    pub networks: usize,
}

/// What a connection begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum First {
    /// Its payload: nothing is looked at.
    #[default]
    Payload,
    /// A TLS hello, which it is routed by.
    Hello,
    /// A PROXY header of version 2.
    Header,
}

impl Asks {
    /// Takes `sni`, `preread`, `proxy2` and `access=N` out of a subject's variants.
    ///
    /// # Errors
    /// What contradicts, or is wrong with the number.
    pub(super) fn take_from(variants: &mut Vec<&str>) -> Result<Self, String> {
        let mut asks = Self::default();
        let mut wrong = None;
        variants.retain(|variant| {
            let first = match *variant {
                "sni" | "preread" => First::Hello,
                "proxy2" => First::Header,
                _ => {
                    let Some(number) = variant.strip_prefix("access=") else {
                        return true;
                    };
                    match number.parse() {
                        Ok(number @ 1..=MOST) => asks.networks = number,
                        _ => wrong = Some(format!("`{variant}`: a number from 1 to {MOST}")),
                    }
                    return false;
                }
            };
            if asks.first != First::Payload {
                wrong = Some(format!("`{variant}`: one of sni, preread, proxy2"));
            }
            asks.first = first;
            false
        });
        wrong.map_or(Ok(asks), Err)
    }

    /// What each of its connections begins with.
    pub(super) fn preface(self) -> Preface {
        match self.first {
            First::Payload => Preface::Nothing,
            First::Hello => Preface::hello(),
            First::Header => Preface::header(),
        }
    }

    /// The forward of this program from one address to the other: its configuration, and
    /// files that it names, which are to be in this directory.
    pub(super) fn thalweg(
        self,
        listen: SocketAddr,
        upstream: SocketAddr,
        directory: &Path,
    ) -> (String, Vec<(PathBuf, String)>) {
        let mut files = Vec::new();
        let default = match self.first {
            First::Hello => "127.0.0.1:1".to_owned(),
            First::Payload | First::Header => upstream.to_string(),
        };
        let mut content = format!("[[forward]]\nlisten = \"{listen}\"\nupstream = \"{default}\"\n");
        if self.first == First::Header {
            content.push_str("accept_proxy = { from = \"127.0.0.0/8\", versions = \"v2\" }\n");
        }
        if self.networks > 0 {
            let list = directory.join("networks.txt");
            let _ = write!(
                content,
                "access = [\"deny @{}\"]\nmax_per_client = 1000000\nconnect_rate = \"1000000/s\"\n",
                list.display()
            );
            files.push((list, networks(self.networks)));
        }
        if self.first == First::Hello {
            let _ = write!(
                content,
                "\n[[forward.route]]\nsni = \"{SERVER_NAME}\"\nupstream = \"{upstream}\"\n"
            );
        }
        (content, files)
    }
}

/// Of both families, a line each; no address of loopback and of the header's client.
fn networks(count: usize) -> String {
    let mut text = String::new();
    // From 16.0.0.0/24 and 2001::/48 on.
    for n in 0..count as u32 {
        let half = n / 2;
        let network = if n % 2 == 0 {
            format!("{}/24", Ipv4Addr::from_bits((16 << 24) + (half << 8)))
        } else {
            let bits = (0x2001_u128 << 112) + (u128::from(half) << 80);
            format!("{}/48", Ipv6Addr::from_bits(bits))
        };
        text.push_str(&network);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_taken_out_of_the_variants() {
        let mut variants = vec!["epoll", "sni", "access=1000"];
        let asks = Asks::take_from(&mut variants);
        let expected = Asks {
            first: First::Hello,
            networks: 1000,
        };
        assert_eq!((asks, variants), (Ok(expected), vec!["epoll"]));
        for wrong in [vec!["access=0"], vec!["access=x"], vec!["sni", "proxy2"]] {
            let words = wrong.join("+");
            assert!(Asks::take_from(&mut wrong.clone()).is_err(), "{words}");
        }
    }

    #[test]
    fn no_network_comes_twice_or_has_a_client() {
        let text = networks(100_000);
        let mut networks: Vec<ipnet::IpNet> =
            text.lines().map(|line| line.parse().unwrap()).collect();
        let clients = ["127.0.0.1", "192.0.2.1", "::1"];
        for client in clients.map(|it| it.parse::<std::net::IpAddr>().unwrap()) {
            assert!(!networks.iter().any(|it| it.contains(&client)));
        }
        assert!(networks.iter().all(|it| *it == it.trunc()));
        networks.sort_unstable();
        networks.dedup();
        assert_eq!(networks.len(), 100_000);
    }
}
