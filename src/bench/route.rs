//! The congestion control of loopback, as a property of its route.
//!
//! In a network namespace of one's own the *default* congestion control may only be
//! one that the machine permits to everybody (`tcp_allowed_congestion_control`), and
//! cubic need not be among these. A route may name any that is loaded (`ip route …
//! congctl NAME`), and every socket takes it from its route, when it connects and
//! when it is accepted, unless it sets one itself. Hence one netlink message for
//! each loopback route.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

// linux/rtnetlink.h; libc has no name for the metric.
const RTAX_CC_ALGO: u16 = 16;
const NESTED: u16 = 1 << 15;

/// Makes `name` the congestion control of 127.0.0.0/8 in this network namespace.
///
/// # Errors
/// What the kernel refused; `ENOENT` when it has no such algorithm.
pub(super) fn set_loopback_congestion(name: &str) -> io::Result<()> {
    let interface = nix::net::if_::if_nametoindex("lo")?;
    for (address, prefix) in [([127, 0, 0, 0], 8), ([127, 0, 0, 1], 32)] {
        request(&message(address, prefix, interface, name))?;
    }
    Ok(())
}

fn request(message: &[u8]) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(2))?;
    send(socket.as_raw_fd(), message, MsgFlags::empty())?;
    let mut answer = [0_u8; 1024];
    let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    // nlmsghdr (16 bytes), then nlmsgerr, which begins with a negative errno or 0.
    match answer[..len].get(16..20) {
        Some(code) => match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(-code)),
        },
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// RTM_NEWROUTE that replaces the kernel's own local route by one with a metric.
fn message(address: [u8; 4], prefix: u8, interface: u32, congestion: &str) -> Vec<u8> {
    let mut metric = Vec::new();
    attribute(
        &mut metric,
        RTAX_CC_ALGO,
        &[congestion.as_bytes(), b"\0"].concat(),
    );

    // struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
    let mut body = vec![
        libc::AF_INET as u8,
        prefix,
        0,
        0,
        libc::RT_TABLE_LOCAL,
        libc::RTPROT_KERNEL,
        libc::RT_SCOPE_HOST,
        libc::RTN_LOCAL,
        0,
        0,
        0,
        0,
    ];
    attribute(&mut body, libc::RTA_DST, &address);
    attribute(&mut body, libc::RTA_PREFSRC, &[127, 0, 0, 1]);
    attribute(&mut body, libc::RTA_OIF, &interface.to_ne_bytes());
    attribute(&mut body, libc::RTA_METRICS | NESTED, &metric);

    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_REPLACE | libc::NLM_F_CREATE;
    let mut message = Vec::new();
    message.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
    message.extend_from_slice(&libc::RTM_NEWROUTE.to_ne_bytes());
    message.extend_from_slice(&(flags as u16).to_ne_bytes());
    // Sequence number and port: one question, one answer.
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&body);
    message
}

/// `struct rtattr`: length with its header, type, value, padding to four bytes.
fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend_from_slice(&(4 + value.len() as u16).to_ne_bytes());
    out.extend_from_slice(&kind.to_ne_bytes());
    out.extend_from_slice(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_their_length_is_not() {
        let mut out = Vec::new();
        attribute(&mut out, RTAX_CC_ALGO, b"cubic\0");
        assert_eq!(out.len(), 12);
        assert_eq!(u16::from_ne_bytes([out[0], out[1]]), 10);
        let message = message([127, 0, 0, 1], 32, 1, "cubic");
        let len = u32::from_ne_bytes([message[0], message[1], message[2], message[3]]);
        assert_eq!(len as usize, message.len());
    }
}
