//! IP and TCP headers of packets that were never sent: RFC 791, 8200, 9293.

use std::net::{IpAddr, SocketAddr};

pub(super) const FIN: u8 = 0x01;
pub(super) const SYN: u8 = 0x02;
pub(super) const RST: u8 = 0x04;
pub(super) const PSH: u8 = 0x08;
pub(super) const ACK: u8 = 0x10;

/// Payload of a segment: what fits into 1500 bytes of either family with room for
/// the headers, and for no options.
pub(super) const MSS: usize = 1440;

/// Window scale of both ends: with the window below, no chunk ever exceeds it.
const WINDOW_SCALE: u8 = 14;
const WINDOW: u16 = u16::MAX;
const HOPS: u8 = 64;
const TCP: u8 = 6;

/// One segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment<'a> {
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) sequence: u32,
    pub(super) acknowledgment: u32,
    pub(super) flags: u8,
    /// Numbers the packets of a sender (IPv4 identification).
    pub(super) number: u16,
    pub(super) payload: &'a [u8],
}

impl Segment<'_> {
    /// Appends the packet, from the IP header on. Both addresses are of one family.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let tcp = self.tcp();
        let length = tcp.len() + self.payload.len();
        let mut sum = Sum::default();
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = [0; 20];
                ip[0] = 0x45;
                ip[2..4].copy_from_slice(&((20 + length) as u16).to_be_bytes());
                ip[4..6].copy_from_slice(&self.number.to_be_bytes());
                ip[6] = 0x40;
                ip[8] = HOPS;
                ip[9] = TCP;
                ip[12..16].copy_from_slice(&from.octets());
                ip[16..20].copy_from_slice(&to.octets());
                let mut header = Sum::default();
                header.add(&ip);
                ip[10..12].copy_from_slice(&header.finish().to_be_bytes());
                out.extend_from_slice(&ip);
                sum.add(&ip[12..20]);
            }
            (from, to) => {
                let octets = |ip: IpAddr| match ip {
                    IpAddr::V6(v6) => v6.octets(),
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                };
                let mut ip = [0; 40];
                ip[0] = 0x60;
                ip[4..6].copy_from_slice(&(length as u16).to_be_bytes());
                ip[6] = TCP;
                ip[7] = HOPS;
                ip[8..24].copy_from_slice(&octets(from));
                ip[24..40].copy_from_slice(&octets(to));
                out.extend_from_slice(&ip);
                sum.add(&ip[8..40]);
            }
        }
        sum.add(&[0, TCP]);
        sum.add(&(length as u16).to_be_bytes());
        sum.add(&tcp);
        sum.add(self.payload);
        let at = out.len();
        out.extend_from_slice(&tcp);
        out[at + 16..at + 18].copy_from_slice(&sum.finish().to_be_bytes());
        out.extend_from_slice(self.payload);
    }

    /// The header without its checksum; a SYN has the two options that matter to
    /// whoever reads the capture.
    fn tcp(&self) -> Vec<u8> {
        let mut options = Vec::new();
        if self.flags & SYN != 0 {
            options.extend_from_slice(&[2, 4]);
            options.extend_from_slice(&(MSS as u16).to_be_bytes());
            options.extend_from_slice(&[1, 3, 3, WINDOW_SCALE]);
        }
        let mut tcp = Vec::with_capacity(20 + options.len());
        tcp.extend_from_slice(&self.from.port().to_be_bytes());
        tcp.extend_from_slice(&self.to.port().to_be_bytes());
        tcp.extend_from_slice(&self.sequence.to_be_bytes());
        tcp.extend_from_slice(&self.acknowledgment.to_be_bytes());
        let words = (20 + options.len()) / 4;
        tcp.extend_from_slice(&[(words << 4) as u8, self.flags]);
        tcp.extend_from_slice(&WINDOW.to_be_bytes());
        tcp.extend_from_slice(&[0; 4]);
        tcp.extend_from_slice(&options);
        tcp
    }
}

/// The checksum of RFC 1071. Every part but the last has an even length.
#[derive(Debug, Default)]
struct Sum(u32);

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        for pair in bytes.chunks(2) {
            let high = u32::from(pair[0]) << 8;
            self.0 += high | pair.get(1).map_or(0, |low| u32::from(*low));
        }
    }

    const fn finish(&self) -> u16 {
        let mut sum = self.0;
        while sum > 0xFFFF {
            sum = (sum & 0xFFFF) + (sum >> 16);
        }
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        let mut sum = Sum::default();
        sum.add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(!sum.finish(), 0xddf2);
    }
}
