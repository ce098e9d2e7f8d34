//! The connection between two processes: whole packets, each with its descriptors.
//!
//! ```text
//!  "TWHO"  length of text  length of bytes  descriptors │ text (JSON) │ bytes
//!   4       4               4                4           │             │
//!  └──────────────── descriptors come with the first byte ─────────────────┘
//! ```
//! Whoever is at the other end may say anything, stop in the middle or be gone: that is an
//! error with a reason, within a time, and nothing else. What comes beyond what a packet
//! announces is closed. A descriptor that the kernel had no room to hand over is an error:
//! it says so by a flag alone, and closes what is left.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown,
};
use thiserror::Error;

/// Descriptors that one packet may have: the kernel takes 253 (`SCM_MAX_FD`).
pub(in crate::control) const DESCRIPTORS_MAX: usize = 250;

/// Text that one packet may have.
const TEXT_MAX: usize = 64 << 20;

/// Bytes that one packet may have.
const BYTES_MAX: usize = 256 << 20;

const MAGIC: [u8; 4] = *b"TWHO";
const HEAD: usize = 16;

/// Why nothing more comes.
#[derive(Debug, Error)]
pub(in crate::control) enum ChannelError {
    #[error("it has closed the connection")]
    Closed,
    #[error("it has said nothing for {0:?}")]
    Silent(Duration),
    #[error("what it sends is no hand-over: {0}")]
    Foreign(String),
    #[error("descriptors were lost on their way: this process has no room for them")]
    Truncated,
    #[error("{0}")]
    System(#[from] io::Error),
}

impl From<Errno> for ChannelError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PIPE | Errno::CONNRESET => Self::Closed,
            other => Self::System(other.into()),
        }
    }
}

/// A packet.
#[derive(Debug, Default)]
pub(in crate::control) struct Packet {
    pub(in crate::control) text: Vec<u8>,
    pub(in crate::control) bytes: Vec<u8>,
    pub(in crate::control) descriptors: Vec<OwnedFd>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::control) struct Channel(OwnedFd);

impl Channel {
    /// Over a connected stream socket.
    pub(in crate::control) fn over(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self(socket))
    }

    /// Both ends of a new one; the second is for another process.
    pub(in crate::control) fn pair() -> io::Result<(Self, OwnedFd)> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let (here, there) = socketpair(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self::over(here)?, there))
    }

    /// Who is at the other end: its process and its user.
    pub(in crate::control) fn peer(&self) -> io::Result<(i32, u32)> {
        let peer = getsockopt(&self.0, PeerCredentials)?;
        Ok((peer.pid(), peer.uid()))
    }

    /// Says something, with at most [`DESCRIPTORS_MAX`] descriptors.
    pub(in crate::control) fn send(
        &self,
        text: &[u8],
        bytes: &[u8],
        descriptors: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<(), ChannelError> {
        let mut head = [0; HEAD];
        head[..4].copy_from_slice(&MAGIC);
        head[4..8].copy_from_slice(&(text.len() as u32).to_le_bytes());
        head[8..12].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        head[12..].copy_from_slice(&(descriptors.len() as u32).to_le_bytes());
        let whole = [&head[..], text, bytes].concat();
        let deadline = Instant::now() + patience;
        let (mut sent, mut descriptors) = (0, descriptors);
        while sent < whole.len() {
            match self.send_some(&whole[sent..], descriptors) {
                Ok(count) => {
                    sent += count;
                    // They went with the first of these bytes.
                    descriptors = &[];
                }
                Err(Errno::AGAIN) => self.wait(PollFlags::POLLOUT, deadline, patience)?,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn send_some(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(Errno::INVAL);
        }
        rustix::net::sendmsg(
            &self.0,
            &[IoSlice::new(bytes)],
            &mut control,
            SendFlags::NOSIGNAL,
        )
    }

    /// The next packet.
    pub(in crate::control) fn receive(&self, patience: Duration) -> Result<Packet, ChannelError> {
        let deadline = Instant::now() + patience;
        let mut packet = Packet::default();
        let mut head = [0; HEAD];
        self.fill(&mut head, &mut packet, deadline, patience)?;
        let number = |at: usize| {
            let bytes = [head[at], head[at + 1], head[at + 2], head[at + 3]];
            u32::from_le_bytes(bytes) as usize
        };
        let foreign = |why: &str| Err(ChannelError::Foreign(why.to_owned()));
        if head[..4] != MAGIC {
            return foreign("it does not begin as a packet does");
        }
        let (text, bytes, descriptors) = (number(4), number(8), number(12));
        if text > TEXT_MAX || bytes > BYTES_MAX || descriptors > DESCRIPTORS_MAX {
            return foreign("a packet of it is larger than any is");
        }
        packet.text = self.read(text, &mut packet, deadline, patience)?;
        packet.bytes = self.read(bytes, &mut packet, deadline, patience)?;
        if packet.descriptors.len() != descriptors {
            return Err(ChannelError::Foreign(format!(
                "a packet announces {descriptors} descriptors and has {}",
                packet.descriptors.len()
            )));
        }
        Ok(packet)
    }

    /// So many bytes; no more is set aside for them than have come, so that an
    /// announcement alone costs nothing.
    fn read(
        &self,
        len: usize,
        packet: &mut Packet,
        deadline: Instant,
        patience: Duration,
    ) -> Result<Vec<u8>, ChannelError> {
        const CHUNK: usize = 1 << 20;
        let mut read = Vec::new();
        while read.len() < len {
            let at = read.len();
            read.resize(len.min(at + CHUNK), 0);
            self.fill(&mut read[at..], packet, deadline, patience)?;
        }
        Ok(read)
    }

    fn fill(
        &self,
        mut into: &mut [u8],
        packet: &mut Packet,
        deadline: Instant,
        patience: Duration,
    ) -> Result<(), ChannelError> {
        while !into.is_empty() {
            match self.receive_some(into, packet) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(count) => into = &mut into[count..],
                Err(ChannelError::System(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(PollFlags::POLLIN, deadline, patience)?;
                }
                Err(ChannelError::System(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive_some(&self, into: &mut [u8], packet: &mut Packet) -> Result<usize, ChannelError> {
        let mut space =
            [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX + 3))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            &self.0,
            &mut [IoSliceMut::new(into)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                packet.descriptors.extend(descriptors);
            }
        }
        if received.flags.contains(ReturnFlags::CTRUNC) {
            return Err(ChannelError::Truncated);
        }
        Ok(received.bytes)
    }

    fn wait(
        &self,
        wanted: PollFlags,
        deadline: Instant,
        patience: Duration,
    ) -> Result<(), ChannelError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ChannelError::Silent(patience));
        }
        let timeout = PollTimeout::try_from(left.max(Duration::from_millis(1)));
        let mut socket = [PollFd::new(self.0.as_fd(), wanted)];
        // What is the matter with it the next call says.
        let _ = poll(&mut socket, timeout.unwrap_or(PollTimeout::MAX));
        Ok(())
    }

    /// Whether nobody is at the other end any more.
    pub(in crate::control) fn is_hung_up(&self) -> bool {
        let mut socket = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        let told = poll(&mut socket, PollTimeout::ZERO);
        let hung_up = |it: &PollFd<'_>| {
            it.revents()
                .is_some_and(|it| it.contains(PollFlags::POLLHUP))
        };
        told.is_ok() && socket.iter().any(hung_up)
    }

    /// Takes nothing more than what is here already: from now on whatever the other end
    /// says fails there. So both know the same of what was the last.
    pub(in crate::control) fn refuse_more(&self) {
        let _ = rustix::net::shutdown(&self.0, Shutdown::Read);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    fn ends() -> (Channel, Channel) {
        let (one, other) = Channel::pair().unwrap();
        (one, Channel::over(other).unwrap())
    }

    #[test]
    fn b127_packets_arrive_whole_with_their_descriptors() {
        let (one, other) = ends();
        let sockets: Vec<_> = (0..DESCRIPTORS_MAX)
            .map(|_| UnixStream::pair().unwrap().0)
            .collect();
        let cookie = |it: BorrowedFd<'_>| rustix::net::sockopt::socket_cookie(it).unwrap();
        let sent: Vec<u64> = sockets.iter().map(|it| cookie(it.as_fd())).collect();
        let bytes = vec![7; 3 << 20];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let descriptors: Vec<_> = sockets.iter().map(AsFd::as_fd).collect();
                one.send(b"{}", &bytes, &descriptors, SOON).unwrap();
                one.send(b"[]", b"", &descriptors[..1], SOON).unwrap();
            });
            let first = other.receive(SOON).unwrap();
            assert_eq!(first.bytes, bytes);
            let came: Vec<u64> = first
                .descriptors
                .iter()
                .map(|it| cookie(it.as_fd()))
                .collect();
            assert_eq!(came, sent);
            for it in &first.descriptors {
                let flags = rustix::io::fcntl_getfd(it).unwrap();
                assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "b136");
            }
            let second = other.receive(SOON).unwrap();
            assert_eq!(
                (&second.text[..], second.descriptors.len()),
                (&b"[]"[..], 1)
            );
        });
    }

    #[test]
    fn b128_whatever_comes_instead_of_a_packet_is_an_error() {
        let huge = [&MAGIC[..], &[255; 12]].concat();
        let too_many = [
            &MAGIC[..],
            &2_u32.to_le_bytes(),
            &[0; 4],
            &1_u32.to_le_bytes(),
            b"{}",
        ];
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            &huge,
            &too_many.concat(),
            b"TWHO",
        ] {
            let (mut from, to) = UnixStream::pair().unwrap();
            from.write_all(bytes).unwrap();
            drop(from);
            let error = Channel::over(to.into()).unwrap().receive(SOON).unwrap_err();
            let expected = matches!(error, ChannelError::Foreign(_) | ChannelError::Closed);
            assert!(expected, "{bytes:?}: {error}");
        }
    }

    #[test]
    fn b126_silence_has_an_end() {
        let (one, other) = ends();
        let error = other.receive(Duration::from_millis(30)).unwrap_err();
        assert!(matches!(error, ChannelError::Silent(_)), "{error}");
        drop(one);
        let error = other.receive(SOON).unwrap_err();
        assert!(matches!(error, ChannelError::Closed), "{error}");
    }

    #[test]
    fn b126_what_was_said_before_the_other_end_refused_is_read_and_nothing_after() {
        let (one, other) = ends();
        one.send(b"1", b"", &[], SOON).unwrap();
        other.refuse_more();
        let error = one.send(b"2", b"", &[], SOON).unwrap_err();
        assert!(matches!(error, ChannelError::Closed), "{error}");
        assert_eq!(other.receive(SOON).unwrap().text, b"1");
        other.receive(SOON).unwrap_err();
        // The other way stays open.
        other.send(b"3", b"", &[], SOON).unwrap();
        assert_eq!(one.receive(SOON).unwrap().text, b"3");
    }
}
