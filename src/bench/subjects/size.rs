//! How large a subject's configuration is: forwards beside the one that is measured, and
//! servers in its pool.
//!
//! Every listener and every server has an address of its own in 127.0.0.0/8, so that
//! nothing of it takes a port from anybody else:
//!
//! | network | what |
//! | --- | --- |
//! | `127.0.0.1` | the forward that is measured |
//! | `127.1.0.0/16` | its neighbours: the last two bytes are its port, their ports count up from 10000 |
//! | `127.2.0.0/16` | servers, all of them the origin |

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// The first port of the neighbours; the last lies below the ephemeral ports (32768).
const PORT: u16 = 10_000;

/// The largest configuration, in forwards as in servers.
const MOST: usize = 20_000;

/// One forward to one server is the usual size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Forwards in all; the one that is measured comes last.
    pub forwards: usize,
    /// Servers of each forward.
    pub servers: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            forwards: 1,
            servers: 1,
        }
    }
}

impl Size {
    /// Takes `forwards=N` and `servers=N` out of a subject's variants.
    ///
    /// # Errors
    /// What is wrong with the number.
    pub(super) fn take_from(variants: &mut Vec<&str>) -> Result<Self, String> {
        let mut size = Self::default();
        let mut wrong = None;
        variants.retain(|variant| {
            let (place, number) = match variant.split_once('=') {
                Some(("forwards", number)) => (&mut size.forwards, number),
                Some(("servers", number)) => (&mut size.servers, number),
                _ => return true,
            };
            match number.parse() {
                Ok(number @ 1..=MOST) => *place = number,
                _ => wrong = Some(format!("`{variant}`: a number from 1 to {MOST}")),
            }
            false
        });
        wrong.map_or(Ok(size), Err)
    }

    /// Where the forwards listen that are not measured, given where that one does.
    pub(super) fn neighbours(self, measured: SocketAddr) -> impl Iterator<Item = SocketAddr> {
        let [high, low] = measured.port().to_be_bytes();
        let ip = Ipv4Addr::new(127, 1, high, low);
        (1..self.forwards as u16).map(move |n| SocketAddrV4::new(ip, PORT + n).into())
    }

    /// The servers of each forward: the origin itself, or many addresses of it.
    pub(super) fn servers(self, origin: SocketAddr) -> impl Iterator<Item = SocketAddr> {
        let port = origin.port();
        (0..self.servers as u32).map(move |n| {
            if self.servers == 1 {
                return origin;
            }
            // No address ends in 0 or 255.
            let ip = Ipv4Addr::new(127, 2, (n / 250) as u8, (n % 250) as u8 + 1);
            SocketAddrV4::new(ip, port).into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_taken_out_of_the_variants() {
        let mut variants = vec!["forwards=8000", "global.busy_poll=1us", "servers=3"];
        let size = Size::take_from(&mut variants);
        let expected = Size {
            forwards: 8000,
            servers: 3,
        };
        assert_eq!(
            (size, variants),
            (Ok(expected), vec!["global.busy_poll=1us"])
        );
        for wrong in ["forwards=0", "servers=x", "servers=20001"] {
            let error = Size::take_from(&mut vec![wrong]).unwrap_err();
            assert!(error.contains("1 to 20000"), "{error}");
        }
    }

    #[test]
    fn no_address_comes_twice() {
        let size = Size {
            forwards: 8000,
            servers: 5000,
        };
        let measured = SocketAddr::from(([127, 0, 0, 1], 40_000));
        let mut all: Vec<SocketAddr> = size.neighbours(measured).collect();
        assert_eq!(all.len(), 7_999);
        all.extend(size.servers(SocketAddr::from(([127, 0, 0, 1], 9))));
        assert_eq!(all.len(), 12_999);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 12_999);
        let one = Size::default();
        assert_eq!(one.neighbours(measured).count(), 0);
        assert_eq!(one.servers(measured).collect::<Vec<_>>(), [measured]);
    }
}
