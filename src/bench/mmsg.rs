//! Datagrams in batches: recvmmsg(2) and sendmmsg(2), with segments in one piece where that is asked for.
//!
//! nix has both calls, but leaves lengths of the last call in the headers, with which the next one reports
//! no control messages and cut addresses.

#![allow(unsafe_code)]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};

use socket2::SockAddr;

use super::datagram::HEADER;

/// Room for one control message with a number in it.
const CONTROL: usize = 4;

/// What has arrived.
pub(super) struct Arrivals {
    bytes: Vec<u8>,
    size: usize,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<[u64; CONTROL]>,
    headers: Vec<libc::mmsghdr>,
    pieces: Vec<libc::iovec>,
}

// SAFETY: the pointers in `headers` and `pieces` lead into vectors of the same value, whose heap blocks
// do not move with it, and nobody else has them.
unsafe impl Send for Arrivals {}

/// One of them.
pub(super) struct Arrival<'a> {
    /// Whole, or several in one piece.
    pub(super) bytes: &'a [u8],
    /// Bytes of each but the last, which may be shorter.
    pub(super) segment: usize,
    /// It was longer than there was room for.
    pub(super) cut: bool,
    index: usize,
}

impl<'a> Arrival<'a> {
    /// Each datagram of it.
    pub(super) fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        // An empty one is a datagram, too.
        let empty = self.bytes.is_empty().then_some(&self.bytes[..0]);
        empty
            .into_iter()
            .chain(self.bytes.chunks(self.segment.max(1)))
    }
}

impl Arrivals {
    /// `count` at a time, of `size` bytes at the most.
    pub(super) fn new(count: usize, size: usize) -> Self {
        // SAFETY: both are plain data for which all zeroes is a valid value.
        let (name, header): (libc::sockaddr_storage, libc::mmsghdr) =
            unsafe { (zeroed(), zeroed()) };
        let empty = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        let mut this = Self {
            bytes: vec![0; count * size],
            size,
            names: vec![name; count],
            controls: vec![[0; CONTROL]; count],
            headers: vec![header; count],
            pieces: vec![empty; count],
        };
        for index in 0..count {
            this.pieces[index].iov_base = this.bytes[index * size..].as_mut_ptr().cast();
            this.pieces[index].iov_len = size;
            let header = &mut this.headers[index].msg_hdr;
            header.msg_name = (&raw mut this.names[index]).cast();
            header.msg_control = (&raw mut this.controls[index]).cast();
            header.msg_iov = &raw mut this.pieces[index];
            header.msg_iovlen = 1;
        }
        this
    }

    /// Takes what is there without waiting, and says how many; 0: nothing.
    pub(super) fn receive(&mut self, socket: &impl AsFd) -> io::Result<usize> {
        for header in &mut self.headers {
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
            header.msg_hdr.msg_controllen = size_of::<[u64; CONTROL]>() as _;
        }
        loop {
            // SAFETY: the headers lead to names, pieces and controls of this value, as long as they say;
            // all of them live until the call returns, and so does the descriptor.
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_fd().as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    self.headers.len() as u32,
                    libc::MSG_DONTWAIT as _,
                    std::ptr::null_mut(),
                )
            };
            if count >= 0 {
                return Ok(count as usize);
            }
            let error = io::Error::last_os_error();
            match error.kind() {
                io::ErrorKind::WouldBlock => return Ok(0),
                io::ErrorKind::Interrupted => {}
                _ => return Err(error),
            }
        }
    }

    /// One of those that came last.
    pub(super) fn get(&self, index: usize) -> Arrival<'_> {
        let header = &self.headers[index];
        let len = (header.msg_len as usize).min(self.size);
        let from = index * self.size;
        Arrival {
            bytes: &self.bytes[from..from + len],
            segment: self.segment(index).unwrap_or(len),
            cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
            index,
        }
    }

    /// Who sent it.
    pub(super) fn from(&self, arrival: &Arrival<'_>) -> Option<SocketAddr> {
        address(&self.names[arrival.index])
    }

    /// What `UDP_GRO` says of a message that is several.
    fn segment(&self, index: usize) -> Option<usize> {
        let control = &self.controls[index];
        // struct cmsghdr: length (8), level (4), type (4); then an int.
        let told = self.headers[index].msg_hdr.msg_controllen;
        let kind = [(control[1] & 0xffff_ffff) as i32, (control[1] >> 32) as i32];
        let native = cfg!(target_endian = "little");
        (native && told >= 20 && kind == [libc::SOL_UDP, libc::UDP_GRO])
            .then_some((control[2] & 0xffff_ffff) as usize)
    }

    /// Sends some of those that came last back to where they came from, each in one piece. What the
    /// kernel does not take is lost, as on a path. Says how many it took.
    pub(super) fn send_back(&mut self, socket: &impl AsFd, which: &[usize]) -> usize {
        let mut headers = Vec::with_capacity(which.len());
        for &index in which {
            let mut header = self.headers[index];
            self.pieces[index].iov_len = header.msg_len as usize;
            header.msg_hdr.msg_control = std::ptr::null_mut();
            header.msg_hdr.msg_controllen = 0;
            header.msg_hdr.msg_flags = 0;
            headers.push(header);
        }
        let sent = send_all(socket, &mut headers);
        for &index in which {
            self.pieces[index].iov_len = self.size;
        }
        sent
    }
}

/// Datagrams that are sent one behind the other.
pub(super) struct Departures {
    bytes: Vec<u8>,
    size: usize,
    train: usize,
    count: usize,
    name: Option<SockAddr>,
    control: [u64; CONTROL],
    headers: Vec<libc::mmsghdr>,
    pieces: Vec<libc::iovec>,
}

// SAFETY: as for `Arrivals`.
unsafe impl Send for Departures {}

impl Departures {
    /// `count` datagrams at a time of `size` bytes, `train` of them in one piece.
    pub(super) fn new(count: usize, size: usize, train: usize) -> Self {
        // SAFETY: plain data for which all zeroes is a valid value.
        let header: libc::mmsghdr = unsafe { zeroed() };
        let empty = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        Self {
            bytes: vec![0; count * size],
            size,
            train: train.max(1),
            count,
            name: None,
            control: segments(size),
            headers: vec![header; count],
            pieces: vec![empty; count],
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The one at a place, to be written.
    pub(super) fn datagram(&mut self, index: usize) -> &mut [u8] {
        &mut self.bytes[index * self.size..][..self.size]
    }

    /// The front of it.
    pub(super) fn front(&mut self, index: usize) -> Option<&mut [u8; HEADER]> {
        self.datagram(index).first_chunk_mut()
    }

    /// Sends the first `count` of them, to whom the socket is connected or to `to`, and says how many the
    /// kernel took.
    pub(super) fn send(
        &mut self,
        socket: &impl AsFd,
        to: Option<SocketAddr>,
        count: usize,
    ) -> io::Result<usize> {
        self.name = to.map(SockAddr::from);
        let (name, name_len) = match &self.name {
            Some(name) => (name.as_ptr().cast_mut().cast(), name.len()),
            None => (std::ptr::null_mut(), 0),
        };
        let mut messages = 0;
        let mut at = 0;
        while at < count {
            let here = self.train.min(count - at);
            self.pieces[messages].iov_base = self.bytes[at * self.size..].as_mut_ptr().cast();
            self.pieces[messages].iov_len = here * self.size;
            let header = &mut self.headers[messages].msg_hdr;
            header.msg_iov = &raw mut self.pieces[messages];
            header.msg_iovlen = 1;
            header.msg_namelen = name_len;
            header.msg_name = name;
            let (control, len) = if here > 1 {
                ((&raw mut self.control).cast(), SEGMENTS_LEN)
            } else {
                (std::ptr::null_mut(), 0)
            };
            header.msg_control = control;
            header.msg_controllen = len as _;
            at += here;
            messages += 1;
        }
        let taken = send_once(socket, &mut self.headers[..messages])?;
        Ok((taken * self.train).min(count))
    }
}

/// Bytes of a control message with a u16.
const SEGMENTS_LEN: usize = 24;

/// The control message that has a datagram cut into such of `size` bytes (udp(7)).
fn segments(size: usize) -> [u64; CONTROL] {
    let mut bytes = [0_u8; CONTROL * 8];
    // struct cmsghdr: length (8), level (4), type (4); the length is without padding.
    bytes[..8].copy_from_slice(&18_u64.to_ne_bytes());
    bytes[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    bytes[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    bytes[16..18].copy_from_slice(&(size as u16).to_ne_bytes());
    let mut words = [0; CONTROL];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks(8)) {
        *word = u64::from_ne_bytes([
            bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7],
        ]);
    }
    words
}

/// Until the kernel has taken all of them or refuses one, which is left out.
fn send_all(socket: &impl AsFd, headers: &mut [libc::mmsghdr]) -> usize {
    let (mut at, mut taken) = (0, 0);
    while at < headers.len() {
        if let Ok(sent) = send_once(socket, &mut headers[at..]) {
            at += sent.max(1);
            taken += sent;
        } else {
            at += 1;
        }
    }
    taken
}

fn send_once(socket: &impl AsFd, headers: &mut [libc::mmsghdr]) -> io::Result<usize> {
    loop {
        // SAFETY: every header leads to a name, a piece and a control message, as long as it says, of the
        // value that the caller borrows; they live until the call returns, and so does the descriptor.
        let count = unsafe {
            libc::sendmmsg(
                socket.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as u32,
                libc::MSG_DONTWAIT as _,
            )
        };
        if count >= 0 {
            return Ok(count as usize);
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock => return Ok(0),
            io::ErrorKind::Interrupted => {}
            _ => return Err(error),
        }
    }
}

fn address(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match i32::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: the kernel wrote a sockaddr_in here, which the storage has room and alignment for.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(name.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: likewise a sockaddr_in6.
            let name = unsafe { &*(&raw const *name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(SocketAddrV6::new(ip, port, name.sin6_flowinfo, name.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let there = UdpSocket::bind("127.0.0.1:0").unwrap();
        let here = UdpSocket::bind("127.0.0.1:0").unwrap();
        here.connect(there.local_addr().unwrap()).unwrap();
        (here, there)
    }

    #[test]
    fn a_train_arrives_in_one_piece_or_in_many_and_goes_back_again() {
        for train in [1, 4] {
            let (here, there) = pair();
            if train > 1 {
                setsockopt(&there, sockopt::UdpGroSegment, &true).unwrap();
            }
            let mut out = Departures::new(6, 100, train);
            for index in 0..6 {
                out.datagram(index).fill(index as u8);
            }
            assert_eq!(out.send(&here, None, 6).unwrap(), 6);
            let mut arrivals = Arrivals::new(8, 2048);
            for _ in 0..2 {
                let count = arrivals.receive(&there).unwrap();
                assert_eq!(count, if train > 1 { 2 } else { 6 });
                let mut seen = Vec::new();
                for index in 0..count {
                    let arrival = arrivals.get(index);
                    assert!(!arrival.cut);
                    assert_eq!(arrivals.from(&arrival), here.local_addr().ok());
                    for datagram in arrival.datagrams() {
                        assert_eq!(datagram.len(), 100);
                        seen.push(datagram[0]);
                    }
                }
                assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
                out.send(&here, None, 6).unwrap();
            }
            arrivals.receive(&there).unwrap();
            assert_eq!(arrivals.send_back(&there, &[1]), 1);
            let mut back = [0; 2048];
            let len = here.recv(&mut back).unwrap();
            assert_eq!(len, if train > 1 { 200 } else { 100 });
        }
    }

    #[test]
    fn what_is_too_long_or_empty_is_told() {
        let (here, there) = pair();
        here.send(&[1; 300]).unwrap();
        here.send(&[]).unwrap();
        let mut arrivals = Arrivals::new(4, 200);
        assert_eq!(arrivals.receive(&there).unwrap(), 2);
        assert!(arrivals.get(0).cut);
        let empty = arrivals.get(1);
        assert!(!empty.cut && empty.datagrams().eq([&[] as &[u8]]));
        assert_eq!(arrivals.receive(&there).unwrap(), 0);
    }
}
