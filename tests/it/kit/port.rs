//! Ports for whoever must know them before somebody listens.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below those that the kernel gives to connections and to who asks for any: 32,768 and more,
/// unless `net.ipv4.ip_local_port_range` says otherwise.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// A port of 127.0.0.1 that nobody has, and another one each time. It stays free: nobody else
/// is given it.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test binaries that run at the same time begin elsewhere.
    let first = std::process::id().wrapping_mul(7_919);
    loop {
        let next = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = (PORTS.start + next % (PORTS.end - PORTS.start)) as u16;
        let at = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(at).is_ok() && UdpSocket::bind(at).is_ok() {
            return port;
        }
    }
}

/// 127.0.0.1 with such a port.
pub(crate) fn free_address() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port()).into()
}
