//! The congestion control of a network namespace, as a property of its routes.
//!
//! In a network namespace of one's own the *default* congestion control may only be
//! one that the machine permits to everybody (`tcp_allowed_congestion_control`), and
//! cubic need not be among these. A route may name any that is loaded (`ip route …
//! congctl NAME`), and every socket takes it from its route, when it connects and
//! when it is accepted, unless it sets one itself. Hence one netlink message for
//! each route.

use std::io;
use std::net::Ipv4Addr;

use super::netlink::Request;

// linux/rtnetlink.h; libc has no name for the metric.
const RTAX_CC_ALGO: u16 = 16;

/// Makes `name` the congestion control of 127.0.0.0/8 in this network namespace.
///
/// # Errors
/// What the kernel refused; `ENOENT` when it has no such algorithm.
pub(super) fn set_loopback_congestion(name: &str) -> io::Result<()> {
    let interface = nix::net::if_::if_nametoindex("lo")?;
    for (address, prefix) in [([127, 0, 0, 0], 8), ([127, 0, 0, 1], 32)] {
        Route {
            to: address.into(),
            prefix,
            from: Ipv4Addr::LOCALHOST,
            interface,
            local: true,
        }
        .set_congestion(name)?;
    }
    Ok(())
}

/// Makes `name` the congestion control towards the one host at the other end of
/// `interface`.
///
/// # Errors
/// What the kernel refused; `ENOENT` when it has no such algorithm.
pub(super) fn set_peer_congestion(
    interface: &str,
    from: Ipv4Addr,
    peer: Ipv4Addr,
    name: &str,
) -> io::Result<()> {
    Route {
        to: peer,
        prefix: 32,
        from,
        interface: nix::net::if_::if_nametoindex(interface)?,
        local: false,
    }
    .set_congestion(name)
}

/// A route as the kernel made it itself when the address was given.
struct Route {
    to: Ipv4Addr,
    prefix: u8,
    from: Ipv4Addr,
    interface: u32,
    /// To this host itself; otherwise to a neighbour.
    local: bool,
}

impl Route {
    /// Replaces the route by one with a metric.
    fn set_congestion(&self, name: &str) -> io::Result<()> {
        let (table, scope, kind) = if self.local {
            (libc::RT_TABLE_LOCAL, libc::RT_SCOPE_HOST, libc::RTN_LOCAL)
        } else {
            (libc::RT_TABLE_MAIN, libc::RT_SCOPE_LINK, libc::RTN_UNICAST)
        };
        // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
        let mut header = [0; 12];
        header[0] = libc::AF_INET as u8;
        header[1] = self.prefix;
        header[4] = table;
        header[5] = libc::RTPROT_KERNEL;
        header[6] = scope;
        header[7] = kind;
        let name = [name.as_bytes(), b"\0"].concat();
        let flags = libc::NLM_F_REPLACE | libc::NLM_F_CREATE;
        Request::new(libc::RTM_NEWROUTE, flags, &header)
            .with(libc::RTA_DST, &self.to.octets())
            .with(libc::RTA_PREFSRC, &self.from.octets())
            .with(libc::RTA_OIF, &self.interface.to_ne_bytes())
            .with_nested(libc::RTA_METRICS, RTAX_CC_ALGO, &name)
            .send()
    }
}
