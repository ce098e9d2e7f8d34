#![allow(unsafe_code)]
//! Many datagrams with one system call: recvmmsg(2) and sendmmsg(2).
//!
//! Owns the memory that datagrams are read into, in slots of 64 KiB each, and in which they
//! stay until they are sent on: nothing is copied. Slots are not used one page after the
//! other but a little further each time, because small datagrams at the same place of many
//! pages would push one another out of the cache.
//!
//! Every pointer that the kernel gets is made in the call that passes it, from memory of
//! this batch that the call borrows exclusively, and none is kept.

use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::null_mut;

use libc::{c_void, iovec, mmsghdr, msghdr};
use nix::errno::Errno;

use super::{LocalAddress, UDP_GRO, UDP_SEGMENT};
use crate::net::sys;

/// Slots, and so datagrams or trains of them that are on their way at once.
pub const SLOTS: usize = 64;

/// Bytes of a slot: more than any datagram has, and any train.
pub const SLOT: usize = 65_536;

/// From one slot to the next: a slot, and some cache lines.
const STRIDE: usize = SLOT + 19 * 64;

/// Messages of one sendmmsg, and pieces of all of them.
const MESSAGES: usize = 128;
const PIECES: usize = 512;

/// Datagrams that go in one message; older kernels take no more (`UDP_MAX_SEGMENTS`).
pub const SEGMENTS_MAX: usize = 64;

/// What comes beside a datagram: IPV6_PKTINFO, UDP_GRO, each with a header.
const CONTROL: usize = 12;
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();

type Control = [u64; CONTROL];

/// A datagram that was received, or several of the same size as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Train {
    /// Who sent it; only of a listener.
    pub from: SocketAddr,
    /// Which address it came to, if the socket is on all of them.
    pub to: Option<LocalAddress>,
    /// Bytes in all.
    pub len: u32,
    /// Bytes of each datagram but the last, which may be shorter; 0: it is one datagram.
    pub segment: u16,
    /// It was larger than any buffer: what is there is only its beginning.
    pub is_cut: bool,
}

impl Train {
    /// Datagrams in it.
    pub const fn datagrams(&self) -> u32 {
        match self.segment {
            0 => 1,
            segment => self.len.div_ceil(segment as u32),
        }
    }
}

/// A part of a slot that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Which slot.
    pub slot: u16,
    /// Where in it.
    pub start: u32,
    /// How many bytes.
    pub len: u32,
}

/// What is sent with one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message {
    /// Its first piece, and how many there are, in the list of all pieces.
    pub pieces: (u16, u16),
    /// To whom, and from which local address; `None`: a connected socket knows.
    pub to: Option<(SocketAddr, Option<LocalAddress>)>,
    /// Cut into datagrams of so many bytes; 0: it is one.
    pub segment: u16,
}

/// See the module's documentation.
pub struct Batch {
    bytes: Box<[u8]>,
    trains: Box<[Train]>,
    headers: Box<[mmsghdr]>,
    parts: Box<[iovec]>,
    names: Box<[libc::sockaddr_in6]>,
    controls: Box<[Control]>,
}

// SAFETY: the pointers in `headers` and `parts` are written before each call and followed
// by nobody after it; everything else is plain memory.
unsafe impl Send for Batch {}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").finish_non_exhaustive()
    }
}

const NOBODY: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    /// An empty one. Memory is taken as it is used.
    pub fn new() -> Self {
        let nothing = Train {
            from: NOBODY,
            to: None,
            len: 0,
            segment: 0,
            is_cut: false,
        };
        // SAFETY: all three are plain data for which zeroes are valid: null pointers, no
        // lengths, no family.
        let (header, part, name) = unsafe {
            (
                zeroed::<mmsghdr>(),
                zeroed::<iovec>(),
                zeroed::<libc::sockaddr_in6>(),
            )
        };
        Self {
            bytes: vec![0; SLOTS * STRIDE].into(),
            trains: vec![nothing; SLOTS].into(),
            headers: vec![header; MESSAGES].into(),
            parts: vec![part; PIECES].into(),
            names: vec![name; MESSAGES].into(),
            controls: vec![[0; CONTROL]; MESSAGES].into(),
        }
    }

    /// Receives into the slots from `first` on, `most` at the most; how many came. Does not
    /// wait. `of_clients`: who sent them is asked for.
    pub fn receive(
        &mut self,
        fd: BorrowedFd<'_>,
        first: usize,
        most: usize,
        of_clients: bool,
    ) -> Result<usize, Errno> {
        let most = most.min(SLOTS - first);
        let slots = self.bytes.chunks_exact_mut(STRIDE).skip(first);
        for (at, slot) in slots.take(most).enumerate() {
            self.parts[at] = iovec {
                iov_base: slot.as_mut_ptr().cast(),
                iov_len: SLOT,
            };
        }
        let name_len = if of_clients {
            size_of::<libc::sockaddr_in6>()
        } else {
            0
        };
        let (parts, names) = (self.parts.as_mut_ptr(), self.names.as_mut_ptr());
        let controls = self.controls.as_mut_ptr();
        for (at, header) in self.headers[..most].iter_mut().enumerate() {
            let header = &mut header.msg_hdr;
            header.msg_name = if of_clients {
                names.wrapping_add(at).cast()
            } else {
                null_mut()
            };
            header.msg_namelen = name_len as u32;
            header.msg_iov = parts.wrapping_add(at);
            header.msg_iovlen = 1;
            header.msg_control = controls.wrapping_add(at).cast();
            header.msg_controllen = size_of::<Control>() as _;
            header.msg_flags = 0;
        }
        // SAFETY: the kernel reads `most` headers and writes to what they point to, with
        // the lengths they say: slots, names and controls of this batch, which is borrowed
        // exclusively until the call returns.
        let count = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                most as u32,
                libc::MSG_DONTWAIT as _,
                null_mut(),
            )
        };
        let count = Errno::result(count)? as usize;
        for at in 0..count {
            self.trains[first + at] = self.read(at, of_clients);
        }
        Ok(count)
    }

    /// Receives one datagram by a connected socket into a slot, which needs no header: that saves
    /// a tenth of what receiving one takes. Trains must not come joined to it. Does not wait.
    pub fn receive_single(&mut self, fd: BorrowedFd<'_>, slot: usize) -> Result<usize, Errno> {
        let room = &mut self.bytes[slot * STRIDE..][..SLOT];
        let len = sys::receive_now(fd, room)?;
        self.trains[slot] = Train {
            from: NOBODY,
            to: None,
            len: len as u32,
            segment: 0,
            is_cut: false,
        };
        Ok(1)
    }

    /// What came into a slot.
    fn read(&self, at: usize, of_clients: bool) -> Train {
        let header = &self.headers[at];
        let mut train = Train {
            from: NOBODY,
            to: None,
            len: header.msg_len,
            segment: 0,
            is_cut: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        };
        if of_clients {
            train.from = address(&self.names[at]);
        }
        let len = header.msg_hdr.msg_controllen as _;
        for (level, name, data) in entries(&self.controls[at], len) {
            let word = |at: usize| data.get(at..at + 4).and_then(|it| it.try_into().ok());
            match (level, name) {
                (libc::SOL_UDP, UDP_GRO) => {
                    let segment = word(0).map_or(0, i32::from_ne_bytes);
                    // Of a single datagram it says nothing.
                    if (segment as u32) < train.len {
                        train.segment = segment as u16;
                    }
                }
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    // ipi_ifindex, ipi_spec_dst, ipi_addr: the second is ours.
                    train.to = word(4).map(|ip: [u8; 4]| LocalAddress {
                        ip: Ipv4Addr::from(ip).into(),
                        interface: 0,
                    });
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let ip: Option<[u8; 16]> = data.get(..16).and_then(|it| it.try_into().ok());
                    let interface = word(16).map_or(0, u32::from_ne_bytes);
                    train.to = ip.map(|ip| local_v6(Ipv6Addr::from(ip), interface));
                }
                _ => {}
            }
        }
        train
    }

    /// What is in a slot.
    pub fn train(&self, slot: usize) -> &Train {
        &self.trains[slot]
    }

    /// The bytes in a slot.
    pub fn payload(&self, slot: usize) -> &[u8] {
        let len = (self.trains[slot].len as usize).min(SLOT);
        &self.bytes[slot * STRIDE..][..len]
    }

    /// A slot, to be written what is sent from it.
    pub fn slot_mut(&mut self, slot: usize) -> &mut [u8] {
        &mut self.bytes[slot * STRIDE..][..SLOT]
    }

    /// Sends messages in order, as many as go without an error; an error is that of the
    /// first. No more are taken than fit. `is_v6`: of the socket.
    pub fn send(
        &mut self,
        fd: BorrowedFd<'_>,
        is_v6: bool,
        messages: &[Message],
        pieces: &[Piece],
    ) -> Result<usize, Errno> {
        if let [single] = messages
            && (single.pieces.1, single.segment, single.to) == (1, 0, None)
        {
            return self.send_single(fd, pieces[usize::from(single.pieces.0)]);
        }
        let mut used = 0;
        let mut count = 0;
        for message in messages.iter().take(MESSAGES) {
            let (first, len) = (usize::from(message.pieces.0), usize::from(message.pieces.1));
            if used + len > PIECES {
                break;
            }
            for (part, piece) in pieces[first..first + len].iter().enumerate() {
                let (start, len) = (piece.start as usize, piece.len as usize);
                let slot = &mut self.bytes[usize::from(piece.slot) * STRIDE..][..SLOT];
                self.parts[used + part] = iovec {
                    iov_base: slot[start..start + len].as_mut_ptr().cast(),
                    iov_len: len,
                };
            }
            self.address_to(count, message, is_v6);
            let header: &mut msghdr = &mut self.headers[count].msg_hdr;
            header.msg_iov = self.parts[used..].as_mut_ptr();
            header.msg_iovlen = len as _;
            header.msg_flags = 0;
            used += len;
            count += 1;
        }
        // SAFETY: the kernel reads `count` headers and what they point to: pieces of slots,
        // names and controls of this batch, which is borrowed until the call returns.
        let sent = unsafe {
            libc::sendmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as u32,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        Errno::result(sent).map(|sent| sent as usize)
    }

    /// One datagram by a connected socket, which needs no header: the kernel copies three of
    /// them for each message of a batch, and a question goes out by itself.
    fn send_single(&self, fd: BorrowedFd<'_>, piece: Piece) -> Result<usize, Errno> {
        let slot = &self.bytes[usize::from(piece.slot) * STRIDE..][..SLOT];
        let (start, len) = (piece.start as usize, piece.len as usize);
        sys::send_now(fd, &slot[start..start + len]).map(|_| 1)
    }

    /// Writes whom a message goes to, from where, and how it is cut.
    fn address_to(&mut self, at: usize, message: &Message, is_v6: bool) {
        let mut name: *mut c_void = null_mut();
        let mut name_len = 0;
        let control = &mut self.controls[at];
        let mut len = 0;
        if let Some((to, from)) = message.to {
            self.names[at] = raw_address(to, is_v6);
            name = (&raw mut self.names[at]).cast();
            name_len = if is_v6 {
                size_of::<libc::sockaddr_in6>()
            } else {
                size_of::<libc::sockaddr_in>()
            };
            if let Some(local) = from {
                len = put_source(control, local, is_v6);
            }
        }
        if message.segment != 0 {
            let segment = message.segment.to_ne_bytes();
            len += put(control, len, (libc::SOL_UDP, UDP_SEGMENT), &segment);
        }
        let pointer: *mut c_void = if len == 0 {
            null_mut()
        } else {
            control.as_mut_ptr().cast()
        };
        let header = &mut self.headers[at].msg_hdr;
        header.msg_name = name;
        header.msg_namelen = name_len as u32;
        header.msg_control = pointer;
        header.msg_controllen = len as _;
    }
}

/// Takes off what ICMP said of datagrams sent before, and what the device said; how many of
/// these say that nobody listens or that there is no way there. No send fails for it then.
pub fn take_errors(fd: BorrowedFd<'_>) -> u32 {
    /// More wait for the next time. As many as one turn sends to clients that are gone, and as many
    /// again: those that were left would take the room of datagrams in the receive queue.
    const MOST: usize = 512;
    /// `SO_EE_ORIGIN_ICMP` and `_ICMP6` of linux/errqueue.h.
    const ICMP: [u8; 2] = [2, 3];
    let mut refusals = 0;
    for _ in 0..MOST {
        let mut control = [0u64; 24];
        // SAFETY: plain data for which zeroes are valid.
        let mut header: msghdr = unsafe { zeroed() };
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: the header points to one live local of the length it says, and to no
        // memory for a payload, which is thrown away.
        let taken = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) };
        if taken < 0 {
            break;
        }
        let len = header.msg_controllen as _;
        for (level, name, data) in entries(&control, len) {
            let is_error = matches!(
                (level, name),
                (libc::IPPROTO_IP, libc::IP_RECVERR) | (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
            );
            // sock_extended_err: errno, origin, …
            let errno: Option<[u8; 4]> = data.get(..4).and_then(|it| it.try_into().ok());
            if is_error
                && data.get(4).is_some_and(|origin| ICMP.contains(origin))
                && errno.is_some_and(|it| i32::from_ne_bytes(it) != libc::EMSGSIZE)
            {
                refusals += 1;
            }
        }
    }
    refusals
}

fn local_v6(ip: Ipv6Addr, interface: u32) -> LocalAddress {
    let ip = IpAddr::V6(ip).to_canonical();
    let is_of_link = matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
    LocalAddress {
        ip,
        interface: if is_of_link { interface } else { 0 },
    }
}

/// The entries of a control message: level, name, data.
fn entries(control: &[u64], len: usize) -> impl Iterator<Item = (i32, i32, &[u8])> {
    let (before, bytes, after) = {
        // SAFETY: any u64 is eight valid bytes.
        unsafe { control.align_to::<u8>() }
    };
    debug_assert!(before.is_empty() && after.is_empty());
    let bytes = &bytes[..len.min(bytes.len())];
    let mut at = 0;
    std::iter::from_fn(move || {
        let header = bytes.get(at..at + CONTROL_HEADER)?;
        let len = usize::from_ne_bytes(header.get(..8)?.try_into().ok()?);
        let level = i32::from_ne_bytes(header.get(8..12)?.try_into().ok()?);
        let name = i32::from_ne_bytes(header.get(12..16)?.try_into().ok()?);
        let data = bytes.get(at + CONTROL_HEADER..at + len)?;
        at += len.next_multiple_of(8);
        Some((level, name, data))
    })
}

/// Appends an entry behind `at` bytes; how many bytes it takes.
fn put(control: &mut Control, at: usize, (level, name): (i32, i32), data: &[u8]) -> usize {
    let word = at / 8;
    let kind = u64::from(level as u32) | u64::from(name as u32) << 32;
    control[word] = (CONTROL_HEADER + data.len()) as u64;
    // Two ints in their order in memory.
    control[word + 1] = if cfg!(target_endian = "little") {
        kind
    } else {
        kind.rotate_left(32)
    };
    for (place, eight) in control[word + 2..].iter_mut().zip(data.chunks(8)) {
        let mut bytes = [0; 8];
        bytes[..eight.len()].copy_from_slice(eight);
        *place = u64::from_ne_bytes(bytes);
    }
    (CONTROL_HEADER + data.len()).next_multiple_of(8)
}

/// The local address that a datagram leaves from. Not by which interface, but for an
/// address that means nothing without: the route decides, as for everything else.
fn put_source(control: &mut Control, local: LocalAddress, is_v6: bool) -> usize {
    if is_v6 {
        let ip = match local.ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        let mut info = [0; 20];
        info[..16].copy_from_slice(&ip.octets());
        info[16..].copy_from_slice(&local.interface.to_ne_bytes());
        return put(control, 0, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), &info);
    }
    let mut info = [0; 12];
    if let IpAddr::V4(ip) = local.ip {
        info[4..8].copy_from_slice(&ip.octets());
    }
    put(control, 0, (libc::IPPROTO_IP, libc::IP_PKTINFO), &info)
}

/// The kernel's form of an address for a socket of either family.
fn raw_address(to: SocketAddr, is_v6: bool) -> libc::sockaddr_in6 {
    // SAFETY: plain data for which zeroes are valid.
    let mut raw: libc::sockaddr_in6 = unsafe { zeroed() };
    match to {
        SocketAddr::V4(to) if !is_v6 => {
            raw.sin6_family = libc::AF_INET as _;
            raw.sin6_port = to.port().to_be();
            // sockaddr_in has its address where the other one has a flow label.
            raw.sin6_flowinfo = u32::from_ne_bytes(to.ip().octets());
        }
        SocketAddr::V4(to) => {
            raw.sin6_family = libc::AF_INET6 as _;
            raw.sin6_port = to.port().to_be();
            raw.sin6_addr.s6_addr = to.ip().to_ipv6_mapped().octets();
        }
        SocketAddr::V6(to) => {
            raw.sin6_family = libc::AF_INET6 as _;
            raw.sin6_port = to.port().to_be();
            raw.sin6_addr.s6_addr = to.ip().octets();
            raw.sin6_scope_id = to.scope_id();
        }
    }
    raw
}

/// An address as the kernel wrote it; IPv4-mapped addresses become IPv4.
fn address(raw: &libc::sockaddr_in6) -> SocketAddr {
    let port = u16::from_be(raw.sin6_port);
    if i32::from(raw.sin6_family) == libc::AF_INET {
        let ip = Ipv4Addr::from(raw.sin6_flowinfo.to_ne_bytes());
        return SocketAddrV4::new(ip, port).into();
    }
    let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
    match ip.to_ipv4_mapped() {
        Some(ip) => SocketAddrV4::new(ip, port).into(),
        None => SocketAddrV6::new(ip, port, 0, raw.sin6_scope_id).into(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
