#![allow(unsafe_code)]
//! The few raw calls about sockets that nix and socket2 do not offer in the
//! form the hot path needs: options by number, queue lengths, and `accept4`
//! that returns the peer's address.
//!
//! Every unsafe block of this room's socket code is in this file. Callers pass
//! borrowed descriptors and slices, so no pointer outlives its call.

use std::io;
use std::net::UdpSocket;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use libc::{c_int, c_ulong, socklen_t};
use nix::errno::Errno;
use socket2::SockAddr;

/// `setsockopt(2)` with a value of any length.
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &[u8],
) -> Result<(), Errno> {
    // SAFETY: the pointer and length are those of one live slice, and the
    // kernel copies the value before it returns.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            name,
            value.as_ptr().cast(),
            value.len() as socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// `setsockopt(2)` with an `int`.
pub(crate) fn set_int(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> Result<(), Errno> {
    set_option(fd, level, name, &value.to_ne_bytes())
}

/// `getsockopt(2)`: fills `value` from its start and returns how many bytes the
/// kernel wrote, which may be fewer.
pub(crate) fn option_bytes(
    fd: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: &mut [u8],
) -> Result<usize, Errno> {
    let mut len = value.len() as socklen_t;
    // SAFETY: the pointer and length are those of one live, exclusively
    // borrowed slice; the kernel writes at most `len` bytes.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            level,
            name,
            value.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    Errno::result(result).map(|_| (len as usize).min(value.len()))
}

/// An ioctl that writes one `int`, such as SIOCOUTQ.
pub(crate) fn ioctl_int(fd: BorrowedFd<'_>, request: c_ulong) -> Result<c_int, Errno> {
    let mut value: c_int = 0;
    // SAFETY: every request this crate passes (SIOCOUTQ, SIOCINQ, FIONREAD) writes
    // exactly one int through the pointer, which is to a live local.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, &raw mut value) };
    Errno::result(result).map(|_| value)
}

/// `send(2)` that does not wait, and raises no signal. Asked of the kernel directly, as the two below:
/// the C library's own are points at which a thread may be cancelled, which takes it two atomic
/// operations a call in a process with several threads, and these are one datagram each.
pub(crate) fn send_now(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize, Errno> {
    let nobody = std::ptr::null::<libc::sockaddr>();
    // SAFETY: the kernel reads as many bytes of one live slice as it has, and no address.
    let sent = unsafe {
        libc::syscall(
            libc::SYS_sendto,
            fd.as_raw_fd(),
            bytes.as_ptr(),
            bytes.len(),
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
            nobody,
            0,
        )
    };
    Errno::result(sent).map(|sent| sent as usize)
}

/// `recv(2)` that does not wait.
pub(crate) fn receive_now(fd: BorrowedFd<'_>, room: &mut [u8]) -> Result<usize, Errno> {
    let nowhere = std::ptr::null_mut::<libc::sockaddr>();
    // SAFETY: the kernel writes no more bytes to one live, exclusively borrowed slice than it has,
    // and no address.
    let len = unsafe {
        libc::syscall(
            libc::SYS_recvfrom,
            fd.as_raw_fd(),
            room.as_mut_ptr(),
            room.len(),
            libc::MSG_DONTWAIT,
            nowhere,
            nowhere,
        )
    };
    Errno::result(len).map(|len| len as usize)
}

/// `connect(2)` of a socket of datagrams, which does not wait.
pub(crate) fn connect_now(fd: BorrowedFd<'_>, to: &SockAddr) -> Result<(), Errno> {
    // SAFETY: the pointer and length are those of one live address, which the kernel copies.
    let result = unsafe { libc::syscall(libc::SYS_connect, fd.as_raw_fd(), to.as_ptr(), to.len()) };
    Errno::result(result).map(drop)
}

/// `connect(2)` to `AF_UNSPEC`: a connection ends at once, by a reset; a socket of datagrams has no
/// peer any more, and no port either, unless one was asked for.
pub(crate) fn disconnect(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    let nobody = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as libc::sa_family_t,
        sa_data: [0; 14],
    };
    // SAFETY: the pointer and length are those of one live value, which the kernel copies.
    let result = unsafe {
        libc::syscall(
            libc::SYS_connect,
            fd.as_raw_fd(),
            &raw const nobody,
            size_of_val(&nobody) as socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// `epoll_ctl(2)`: has a socket told of with this number whenever the instance is asked and
/// something is in it to be read, or has failed.
pub(crate) fn watch_level(
    epoll: BorrowedFd<'_>,
    fd: BorrowedFd<'_>,
    number: u64,
) -> Result<(), Errno> {
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: number,
    };
    // SAFETY: the pointer is to a live local, which the kernel copies.
    let result = unsafe {
        libc::epoll_ctl(
            epoll.as_raw_fd(),
            libc::EPOLL_CTL_ADD,
            fd.as_raw_fd(),
            &raw mut event,
        )
    };
    Errno::result(result).map(drop)
}

/// `accept4(2)`, non-blocking and close-on-exec from birth, with the peer's
/// address. One system call, no allocation.
pub(crate) fn accept4(fd: BorrowedFd<'_>) -> Result<(OwnedFd, SockAddr), Errno> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let mut errno = Errno::UnknownErrno;
    let call = |storage: *mut socket2::SockAddrStorage, len: *mut socklen_t| {
        // SAFETY: `try_init` passes a zeroed storage and its true size, both
        // alive during the call; the kernel writes no more than that.
        let raw = unsafe { libc::accept4(fd.as_raw_fd(), storage.cast(), len, flags) };
        if raw < 0 {
            errno = Errno::last();
            return Err(std::io::Error::from_raw_os_error(errno as i32));
        }
        // SAFETY: the kernel just made this descriptor and nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    };
    // SAFETY: the closure reports success only after the kernel filled the
    // address and set its length.
    unsafe { SockAddr::try_init(call) }.map_err(|_| errno)
}

/// One of the old-style `ETHTOOL_G*` flags of an interface (linux/ethtool.h).
pub(crate) fn offload(interface: &str, command: u32) -> io::Result<bool> {
    #[repr(C)]
    struct EthtoolValue {
        command: u32,
        data: u32,
    }
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let mut value = EthtoolValue { command, data: 0 };
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    let name = interface.bytes();
    for (slot, byte) in request.ifr_name[..room].iter_mut().zip(name) {
        *slot = byte as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL reads the ifreq and, through its pointer, reads and
    // writes one ethtool_value; both live until the call returns.
    let result =
        unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.data != 0)
}

/// Whether the kernel and its filters let this process ask for an io_uring at all:
/// the errno of asking for an impossible one. `EFAULT` and `EINVAL` are the answers
/// of a kernel that would give one.
pub(crate) fn io_uring_refusal() -> Option<Errno> {
    // SAFETY: io_uring_setup(2) is told of no memory (a null pointer), which makes it
    // fail before it makes anything; there is no wrapper without the feature `uring`.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_setup,
            0,
            std::ptr::null_mut::<libc::c_void>(),
        )
    };
    match Errno::result(result) {
        Ok(_) | Err(Errno::EFAULT | Errno::EINVAL) => None,
        Err(errno) => Some(errno),
    }
}
