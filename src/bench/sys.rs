//! The few requests to the kernel for which nix and socket2 have no safe call.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::signal::Signal;

/// Lets `command` get SIGTERM when the thread that starts it ends, however it
/// ends. SIGTERM and not SIGKILL: a subject that has workers then stops them too.
pub(super) fn die_with_parent(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed;
    // prctl(2) is a bare system call, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| nix::sys::prctl::set_pdeathsig(Signal::SIGTERM).map_err(Into::into));
    }
}

/// Brings the loopback interface of the current network namespace up.
pub(super) fn loopback_up() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut request = interface_request("lo");
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives until the call returns;
    // the descriptor is open for as long.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            libc::SIOCSIFFLAGS as _,
            &raw mut request,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Makes a TUN device called `name` in the calling thread's network namespace. Each
/// read and write of the file is one bare IP packet (`IFF_NO_PI`), never more than the
/// MTU, because no offload is offered; it does not block. The device vanishes when the
/// file is closed.
pub(super) fn tun(name: &str) -> io::Result<File> {
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")?;
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes one ifreq, which lives until the call
    // returns; the descriptor is open for as long.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(device)
}

/// Nice value of threads that go first: each weighs three times as much as an ordinary one (3,121 to
/// 1,024, `sched_prio_to_weight` of the kernel).
const FIRST_NICE: libc::c_int = -5;

/// Gives the calling thread [`FIRST_NICE`].
///
/// Not `SCHED_FIFO`: threads of that class that find work without end, as those of a closed loop do, leave
/// ordinary ones nothing, and are themselves held for 50 ms of each second (`sched_rt_runtime_us`), which shows as a
/// delay of the subject.
pub(super) fn run_first() -> io::Result<()> {
    // SAFETY: setpriority(2) takes no memory; 0 is the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, FIRST_NICE) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

fn interface_request(name: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain data for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let room = request.ifr_name.len() - 1;
    for (slot, byte) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    request
}
