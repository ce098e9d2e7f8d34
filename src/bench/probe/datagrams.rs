//! The same with datagrams: each comes back as it was sent, or is lost.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::{ProbeError, broken, nanoseconds};
use crate::bench::datagram::LEN_MAX;
use crate::bench::pattern;

/// What to send.
#[derive(Debug, Clone)]
pub struct DatagramProbe {
    /// An echo of datagrams, or a forwarder in front of one.
    pub address: SocketAddr,
    /// How many, one after another.
    pub count: u32,
    /// Bytes of each, in turn; 0 is a size, too.
    pub sizes: Vec<usize>,
    /// One is lost when it has not come back after so long.
    pub timeout: Duration,
    /// None is sent after this, and none waited for.
    pub total: Duration,
}

/// What became of the datagrams of one size.
#[derive(Debug, Clone, Serialize)]
pub struct SizeReport {
    /// Bytes of each.
    pub size_bytes: usize,
    /// How many were sent.
    pub sent: u32,
    /// How many did not come back in time.
    pub lost: u32,
    /// The round trips of the others, in nanoseconds.
    pub round_trip_ns: Vec<u64>,
}

/// What a probe with datagrams found.
#[derive(Debug, Clone, Serialize)]
pub struct DatagramReport {
    /// One for each size, in the order given.
    pub sizes: Vec<SizeReport>,
}

impl DatagramReport {
    /// How many were sent before the time for all of them was over.
    pub fn sent(&self) -> u32 {
        self.sizes.iter().map(|it| it.sent).sum()
    }

    /// How many did not come back in time.
    pub fn lost(&self) -> u32 {
        self.sizes.iter().map(|it| it.lost).sum()
    }
}

/// Sends what `options` ask for from one port.
///
/// # Errors
/// Nobody there (an ICMP error says so), or something else came back.
pub fn probe(options: &DatagramProbe) -> Result<DatagramReport, ProbeError> {
    const DURING: &str = "a datagram";
    let any = match options.address.ip() {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let connect = || {
        let socket = UdpSocket::bind(any)?;
        socket.connect(options.address)?;
        Ok(socket)
    };
    let socket = connect().map_err(|error| ProbeError::Connect {
        address: options.address,
        error,
    })?;
    let of_size = |size: &usize| SizeReport {
        size_bytes: *size,
        sent: 0,
        lost: 0,
        round_trip_ns: Vec::new(),
    };
    let mut sizes: Vec<SizeReport> = options.sizes.iter().map(of_size).collect();
    let mut room = vec![0; LEN_MAX + 1];
    let end = Instant::now() + options.total;
    for number in 0..options.count {
        let place = number as usize % sizes.len().max(1);
        let Some(report) = sizes.get_mut(place) else {
            break;
        };
        // Each begins elsewhere in the pattern, so that a late one is not taken for this one.
        let sent = pattern::slice(u64::from(number) * 7_919, report.size_bytes.min(LEN_MAX));
        let started = Instant::now();
        if started >= end {
            break;
        }
        socket.send(sent).map_err(broken(DURING))?;
        report.sent += 1;
        match wait_for(&socket, sent, &mut room, end.min(started + options.timeout)) {
            Ok(Some(at)) => report
                .round_trip_ns
                .push(nanoseconds(at.duration_since(started))),
            Ok(None) => report.lost += 1,
            Err(error) => return Err(broken(DURING)(error)),
        }
    }
    Ok(DatagramReport { sizes })
}

/// When it came back; `None`: not by then.
fn wait_for(
    socket: &UdpSocket,
    sent: &[u8],
    room: &mut [u8],
    deadline: Instant,
) -> io::Result<Option<Instant>> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.recv(room) {
            Ok(len) if room[..len] == *sent => return Ok(Some(Instant::now())),
            // A late one of another size or number; one that was changed never comes, and is lost.
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                return Ok(None);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_back_changed_is_lost_and_nobody_is_an_error() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        let options = DatagramProbe {
            address,
            count: 6,
            sizes: vec![0, 1, 65_507],
            timeout: Duration::from_millis(500),
            total: Duration::from_secs(60),
        };
        let thread = std::thread::spawn(move || {
            let mut room = vec![0; LEN_MAX];
            for number in 0..6 {
                let (len, from) = server.recv_from(&mut room).unwrap();
                if number == 4 {
                    room[0] ^= 1;
                }
                server.send_to(&room[..len], from).unwrap();
            }
        });
        let report = probe(&options).unwrap();
        thread.join().unwrap();
        let found: Vec<(u32, usize)> = report
            .sizes
            .iter()
            .map(|it| (it.lost, it.round_trip_ns.len()))
            .collect();
        assert_eq!((found, report.lost()), (vec![(0, 2), (1, 1), (0, 2)], 1));
        // Its socket is closed: the kernel says so.
        let error = probe(&options).unwrap_err();
        assert!(matches!(error, ProbeError::Broken { .. }), "{error}");
    }

    /// Whoever says nothing has each of them waited for.
    #[test]
    fn a_probe_ends_however_many_datagrams_are_lost() {
        let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
        let report = probe(&DatagramProbe {
            address: silent.local_addr().unwrap(),
            count: u32::MAX,
            sizes: vec![1],
            timeout: Duration::from_millis(20),
            total: Duration::from_millis(200),
        });
        let report = report.unwrap();
        assert!((1..=20).contains(&report.sent()), "{}", report.sent());
        assert_eq!(report.lost(), report.sent());
    }
}
