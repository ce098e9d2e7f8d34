//! One request to rtnetlink(7) and its answer: interfaces, addresses, routes.
//!
//! Each request has a socket of its own in the calling thread's network namespace,
//! asks for an acknowledgement, and waits two seconds for it at the most.

use std::io;
use std::os::fd::AsRawFd;

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

/// `NLA_F_NESTED`: the value is attributes again.
const NESTED: u16 = 1 << 15;

/// `struct nlmsghdr`.
const HEADER: usize = 16;

/// A request in the making.
#[derive(Debug)]
pub(super) struct Request {
    bytes: Vec<u8>,
}

impl Request {
    /// `kind` is `RTM_…`, `flags` are added to those that ask for an acknowledgement,
    /// `header` is the struct that the kind begins with.
    pub(super) fn new(kind: u16, flags: i32, header: &[u8]) -> Self {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes.extend_from_slice(header);
        Self { bytes }
    }

    /// Adds an attribute.
    pub(super) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        attribute(&mut self.bytes, kind, value);
        self
    }

    /// Adds an attribute that holds one other.
    pub(super) fn with_nested(self, outer: u16, kind: u16, value: &[u8]) -> Self {
        let mut inner = Vec::new();
        attribute(&mut inner, kind, value);
        self.with(outer | NESTED, &inner)
    }

    /// Sends it and waits for the kernel's word.
    ///
    /// # Errors
    /// What the kernel refused.
    pub(super) fn send(mut self) -> io::Result<()> {
        let len = self.bytes.len() as u32;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        let socket = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(2))?;
        send(socket.as_raw_fd(), &self.bytes, MsgFlags::empty())?;
        let mut answer = [0_u8; 1024];
        let len = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        // nlmsghdr, then nlmsgerr, which begins with a negative errno or 0.
        match answer[..len].get(HEADER..HEADER + 4) {
            Some(code) => match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
                0 => Ok(()),
                code => Err(io::Error::from_raw_os_error(-code)),
            },
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
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
        let request = Request::new(libc::RTM_NEWROUTE, 0, &[0; 12]).with(16, b"cubic\0");
        let attribute = &request.bytes[HEADER + 12..];
        assert_eq!(attribute.len(), 12);
        assert_eq!(u16::from_ne_bytes([attribute[0], attribute[1]]), 10);
    }

    #[test]
    fn a_nested_attribute_counts_what_is_in_it() {
        let request = Request::new(libc::RTM_NEWROUTE, 0, &[]).with_nested(8, 16, b"bbr\0");
        let outer = &request.bytes[HEADER..];
        assert_eq!(u16::from_ne_bytes([outer[0], outer[1]]), 12);
        assert_eq!(u16::from_ne_bytes([outer[2], outer[3]]), 8 | NESTED);
    }
}
