//! What the kernel knows about a connection: `TCP_INFO`, and how many bytes its
//! queues still hold.
//!
//! The struct is `struct tcp_info` of linux/tcp.h. libc's copy ends where it
//! stood in 2005, and the kernel's grows with each release, so the bytes are
//! read by offset: an older kernel returns fewer, and what it leaves out reads
//! as zero.

use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;

use crate::net::sys;

/// `tcpi_rcv_wnd` ends here (Linux 6.2); nothing after it is needed.
const LEN: usize = 236;

/// A snapshot of one connection. Zero means zero, or a kernel too old to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpInfo {
    /// The state of the connection.
    pub state: State,
    /// Smoothed round trip time.
    pub rtt: Duration,
    /// Its mean deviation.
    pub rtt_variance: Duration,
    /// The least round trip time lately seen (`net.ipv4.tcp_min_rtt_wlen`); `None`
    /// before the first sample.
    pub min_rtt: Option<Duration>,
    /// Retransmission timeout.
    pub rto: Duration,
    /// Segments retransmitted since the start.
    pub retransmits: u32,
    /// Segments the kernel now takes for lost.
    pub lost: u32,
    /// Segments sent and not acknowledged. Of a listener: connections waiting.
    pub unacked: u32,
    /// Of those, selectively acknowledged. Of a listener: its backlog.
    pub sacked: u32,
    /// Congestion window, segments.
    pub cwnd: u32,
    /// Segment size towards the peer, bytes.
    pub send_mss: u32,
    /// Segment size the peer is seen to use, bytes.
    pub receive_mss: u32,
    /// Path MTU, bytes.
    pub path_mtu: u32,
    /// How far segments may arrive out of order before they count as lost.
    pub reordering: u32,
    /// Bytes a second lately delivered to the peer.
    pub delivery_rate: u64,
    /// Whether that rate was measured while there was too little to send.
    pub delivery_rate_app_limited: bool,
    /// Bytes a second the kernel paces at; `None` is unlimited.
    pub pacing_rate: Option<u64>,
    /// Payload bytes the peer acknowledged. The SYN and the FIN count as one each.
    pub bytes_acked: u64,
    /// Payload bytes received.
    pub bytes_received: u64,
    /// Payload bytes sent, retransmissions included (Linux 4.19).
    pub bytes_sent: u64,
    /// Payload bytes retransmitted (Linux 4.19).
    pub bytes_retransmitted: u64,
    /// Bytes in the send buffer that were never sent.
    pub notsent_bytes: u32,
    /// The peer's receive window, bytes (Linux 5.4).
    pub send_window: u32,
    /// Time with data to send or unacknowledged.
    pub busy: Duration,
    /// Of that, held back by the peer's receive window.
    pub window_limited: Duration,
    /// Of that, held back by our send buffer.
    pub send_buffer_limited: Duration,
    /// Time since the last acknowledgement came.
    pub since_last_ack: Duration,
    /// Time since the last data came.
    pub since_last_data: Duration,
}

/// `TCP_ESTABLISHED` and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the states of RFC 9293, figure 5")]
pub enum State {
    Established,
    SynSent,
    SynReceived,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    /// A state this version does not know.
    Unknown(u8),
}

impl TcpInfo {
    /// Reads it. EOPNOTSUPP for a unix socket.
    pub fn read(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut bytes = [0; LEN];
        sys::option_bytes(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut bytes)?;
        Ok(Self::parse(&bytes))
    }

    /// Offsets as in linux/tcp.h; the layout is part of the kernel's interface.
    fn parse(bytes: &[u8; LEN]) -> Self {
        let word = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&bytes[at..at + 4]);
            u32::from_ne_bytes(word)
        };
        let long = |at: usize| {
            let mut long = [0; 8];
            long.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(long)
        };
        let micros = |at| Duration::from_micros(u64::from(word(at)));
        let millis = |at| Duration::from_millis(u64::from(word(at)));
        Self {
            state: State::from(bytes[0]),
            delivery_rate_app_limited: bytes[7] & 1 == 1,
            rto: micros(8),
            send_mss: word(16),
            receive_mss: word(20),
            unacked: word(24),
            sacked: word(28),
            lost: word(32),
            since_last_data: millis(52),
            since_last_ack: millis(56),
            path_mtu: word(60),
            rtt: micros(68),
            rtt_variance: micros(72),
            cwnd: word(80),
            reordering: word(88),
            retransmits: word(100),
            pacing_rate: Some(long(104)).filter(|rate| *rate != u64::MAX),
            bytes_acked: long(120),
            bytes_received: long(128),
            notsent_bytes: word(144),
            // All ones before the first sample, zero from an old kernel.
            min_rtt: Some(word(148))
                .filter(|rtt| *rtt != u32::MAX && *rtt != 0)
                .map(|rtt| Duration::from_micros(u64::from(rtt))),
            delivery_rate: long(160),
            busy: Duration::from_micros(long(168)),
            window_limited: Duration::from_micros(long(176)),
            send_buffer_limited: Duration::from_micros(long(184)),
            bytes_sent: long(200),
            bytes_retransmitted: long(208),
            send_window: word(228),
        }
    }

    /// What held the sending on this leg back for most of `lifetime`, the age of
    /// the connection. The kernel divides the time into four: nothing to send,
    /// stopped by the peer's window, stopped by our send buffer, and the rest
    /// of the busy time, when segments were under way and the congestion
    /// window, pacing, losses or the path itself set the pace. The longest wins;
    /// of equals, the earlier in this list.
    pub fn limited_by(&self, lifetime: Duration) -> LimitedBy {
        if self.busy.is_zero() {
            return LimitedBy::Application;
        }
        let stopped = self.window_limited + self.send_buffer_limited;
        let shares = [
            (lifetime.saturating_sub(self.busy), LimitedBy::Application),
            (self.window_limited, LimitedBy::PeerWindow),
            (self.send_buffer_limited, LimitedBy::SendBuffer),
            (self.busy.saturating_sub(stopped), LimitedBy::Network),
        ];
        let mut longest = shares[0];
        for share in shares {
            if share.0 > longest.0 {
                longest = share;
            }
        }
        longest.1
    }
}

impl From<u8> for State {
    fn from(number: u8) -> Self {
        match number {
            1 => Self::Established,
            2 => Self::SynSent,
            3 => Self::SynReceived,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            other => Self::Unknown(other),
        }
    }
}

/// What held a leg back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitedBy {
    /// There was nothing to send: the other leg did not deliver.
    Application,
    /// The peer's receive window: it reads too slowly, or its buffer is small.
    PeerWindow,
    /// Our send buffer: raise `send_buffer` or `net.ipv4.tcp_wmem`.
    SendBuffer,
    /// Congestion window, pacing, losses, or the path's bandwidth.
    Network,
}

impl LimitedBy {
    /// The short name that records carry.
    pub fn name(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::PeerWindow => "peer_window",
            Self::SendBuffer => "send_buffer",
            Self::Network => "network",
        }
    }
}

impl fmt::Display for LimitedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Bytes the kernel still has to deliver: sent but not acknowledged, and not yet
/// sent (SIOCOUTQ). Of a unix socket, what the peer has not read, counted with
/// the kernel's overhead. Falls while a slow reader makes progress, even when
/// the socket does not become writable (behaviour 40). Nothing of a connection
/// that is no more: after a reset the kernel goes on counting what was in flight.
pub fn unsent(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    let len = sys::ioctl_int(fd, libc::TIOCOUTQ as libc::c_ulong)?.max(0) as u32;
    let is_dead = || TcpInfo::read(fd).is_ok_and(|info| info.state == State::Close);
    Ok(if len > 0 && is_dead() { 0 } else { len })
}

/// Bytes that the send buffer of a socket has room for, the kernel's overhead included
/// (`SO_MEMINFO`); 0 where it has none.
pub fn room(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    // The array of u32 of `linux/sock_diag.h`. What TCP has queued and what a unix socket's
    // peer has not read are counted in different places.
    const LEN: usize = libc::SK_MEMINFO_WMEM_QUEUED as usize + 1;
    let mut bytes = [0; LEN * 4];
    let len = sys::option_bytes(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, &mut bytes)?;
    let number = |index: libc::c_int| {
        let at = index as usize * 4;
        let number = bytes[..len].get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_ne_bytes(number))
    };
    let most = number(libc::SK_MEMINFO_SNDBUF).ok_or(Errno::ENOPROTOOPT)?;
    let queued = number(libc::SK_MEMINFO_WMEM_QUEUED).unwrap_or(0);
    let allocated = number(libc::SK_MEMINFO_WMEM_ALLOC).unwrap_or(0);
    Ok(most.saturating_sub(queued.max(allocated)))
}

/// Bytes that wait to be read (SIOCINQ). A FIN is not counted.
pub fn unread(fd: BorrowedFd<'_>) -> Result<u32, Errno> {
    sys::ioctl_int(fd, libc::FIONREAD as libc::c_ulong).map(|len| len.max(0) as u32)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;
    use crate::net::options::plan::set_abort_on_close;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    /// Polls the kernel until it agrees; its bookkeeping may lag a few microseconds.
    fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !holds() {
            assert!(Instant::now() < deadline, "not within 5 s: {what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn counts_what_crossed_a_connection() {
        let (mut near, mut far) = pair();
        near.write_all(&[7; 10_000]).unwrap();
        far.read_exact(&mut [0; 10_000]).unwrap();
        far.write_all(&[7; 300]).unwrap();
        near.read_exact(&mut [0; 300]).unwrap();
        // The SYN counts as one acknowledged byte.
        eventually("all acknowledged", || {
            TcpInfo::read(near.as_fd()).unwrap().bytes_acked == 10_001
        });
        let info = TcpInfo::read(near.as_fd()).unwrap();
        assert_eq!(info.state, State::Established);
        assert_eq!(info.bytes_sent, 10_000);
        assert_eq!(info.bytes_received, 300);
        assert_eq!(info.bytes_retransmitted, 0);
        assert_eq!(info.notsent_bytes, 0);
        assert!(info.rtt > Duration::ZERO && info.rtt < Duration::from_secs(5));
        assert!(info.min_rtt.is_some());
        assert!(info.send_mss > 500 && info.path_mtu > info.send_mss);
        assert!(info.cwnd > 0 && info.send_window > 0 && info.delivery_rate > 0);
        assert!(info.reordering > 0 && info.rto >= Duration::from_millis(1));
    }

    #[test]
    fn agrees_with_libc_where_libc_still_follows_the_kernel() {
        let mut bytes = [0_u8; LEN];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = index as u8;
        }
        let at = |offset: usize| u32::from_ne_bytes(bytes[offset..offset + 4].try_into().unwrap());
        let info = TcpInfo::parse(&bytes);
        assert_eq!(
            info.unacked,
            at(std::mem::offset_of!(libc::tcp_info, tcpi_unacked))
        );
        assert_eq!(
            info.path_mtu,
            at(std::mem::offset_of!(libc::tcp_info, tcpi_pmtu))
        );
        assert_eq!(
            info.cwnd,
            at(std::mem::offset_of!(libc::tcp_info, tcpi_snd_cwnd))
        );
        assert_eq!(
            info.retransmits,
            at(std::mem::offset_of!(libc::tcp_info, tcpi_total_retrans))
        );
    }

    #[test]
    fn a_peer_that_does_not_read_is_the_limit() {
        let (mut near, far) = pair();
        near.set_nonblocking(true).unwrap();
        let started = Instant::now();
        while near.write(&[0; 16_384]).is_ok() {}
        eventually("the closed window shows", || {
            TcpInfo::read(near.as_fd())
                .unwrap()
                .limited_by(started.elapsed())
                == LimitedBy::PeerWindow
        });
        drop(far);
    }

    #[test]
    fn the_longest_share_of_the_lifetime_is_the_verdict() {
        let zero = TcpInfo::parse(&[0; LEN]);
        let second = Duration::from_secs(1);
        assert_eq!(zero.limited_by(second), LimitedBy::Application);
        let busy = TcpInfo {
            busy: second * 6,
            ..zero
        };
        assert_eq!(busy.limited_by(second * 10), LimitedBy::Network);
        assert_eq!(busy.limited_by(second * 13), LimitedBy::Application);
        let window = TcpInfo {
            window_limited: second * 4,
            ..busy
        };
        assert_eq!(window.limited_by(second * 9), LimitedBy::PeerWindow);
        let buffer = TcpInfo {
            send_buffer_limited: second * 4,
            ..busy
        };
        assert_eq!(buffer.limited_by(second * 9), LimitedBy::SendBuffer);
    }

    #[test]
    fn b40_unsent_falls_while_a_slow_reader_reads() {
        let (mut near, mut far) = pair();
        near.set_nonblocking(true).unwrap();
        while near.write(&[0; 16_384]).is_ok() {}
        let full = unsent(near.as_fd()).unwrap();
        assert!(full > 65_536);
        assert!(unread(far.as_fd()).unwrap() > 0);
        let mut buffer = vec![0; 1 << 20];
        eventually("the queue falls", || {
            let _ = far.read(&mut buffer).unwrap();
            unsent(near.as_fd()).unwrap() < full
        });
    }

    #[test]
    fn b40_unix_sockets_tell_what_is_unread_too() {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        assert_eq!(unsent(near.as_fd()).unwrap(), 0);
        near.write_all(&[1; 1000]).unwrap();
        assert!(unsent(near.as_fd()).unwrap() >= 1000);
        assert_eq!(unread(far.as_fd()).unwrap(), 1000);
        far.read_exact(&mut [0; 1000]).unwrap();
        assert_eq!(unsent(near.as_fd()).unwrap(), 0);
        assert_eq!(TcpInfo::read(near.as_fd()), Err(Errno::EOPNOTSUPP));
        set_abort_on_close(near.as_fd()).unwrap();
    }

    #[test]
    fn b09_abort_on_close_is_seen_as_a_reset() {
        let (near, mut far) = pair();
        set_abort_on_close(near.as_fd()).unwrap();
        drop(near);
        let error = far.read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    }
}
