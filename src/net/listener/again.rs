//! Sockets that listen already: others beside them, and other options for them. None is
//! ever closed for that, so no accept queue is lost.

use std::io;
use std::os::fd::AsFd;

use nix::errno::Errno;
use socket2::{SockAddr, SockRef};

use super::{ListenSocket, backlog_of};
use crate::net::address::{Endpoint, Transport};
use crate::net::datagram;
use crate::net::dial::make_socket;
use crate::net::options::OPTIONS;
use crate::net::options::plan::Stage;
use crate::net::options::{Family, Leg, OptionName, OptionPlan, Refusal, SocketOptions};

/// One more socket in the group of one that listens at `local`, so that the kernel spreads
/// connections over both.
///
/// Fails for a unix socket, where there are no groups, and where the group belongs to
/// another user than this process is by now (EADDRINUSE).
pub fn join(
    listener: impl AsFd,
    (transport, local): (Transport, &Endpoint),
    options: &SocketOptions,
) -> io::Result<ListenSocket> {
    let Endpoint::Inet(address) = local else {
        return Err(Errno::EAFNOSUPPORT.into());
    };
    let family = if address.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let first = SockRef::from(&listener);
    // The only one of its address has no need for it so far.
    first.set_reuse_port(true)?;
    let plan = options.plan(Leg::Client);
    let socket = match transport {
        Transport::Tcp => make_socket(family, plan.mptcp)?.0,
        Transport::Udp => datagram::make_socket(family)?,
    };
    if family == Family::V6 {
        socket.set_only_v6(first.only_v6()?)?;
    }
    // What the kernel does not grant was said when the first one was made.
    let fd = socket.as_fd();
    match transport {
        Transport::Tcp => {
            socket.set_reuse_address(true)?;
            let _ = plan.apply(fd, Stage::Listener, family);
        }
        Transport::Udp => {
            let (on_all, has_buffer) = (address.ip().is_unspecified(), options.receive_buffer);
            datagram::prepare_listener(fd, family, on_all, has_buffer.is_some());
            let _ = plan.apply_datagrams(fd, Stage::Listener, family);
        }
    }
    socket.set_reuse_port(true)?;
    socket.bind(&SockAddr::from(*address))?;
    if transport == Transport::Tcp {
        socket.listen(backlog_of(options))?;
    }
    Ok(ListenSocket {
        fd: socket.into(),
        local: local.clone(),
        family,
    })
}

/// Sets the options of a listener anew, its backlog among them: whoever is accepted from
/// now on inherits them.
pub fn set_again(
    listener: impl AsFd,
    (transport, family): (Transport, Family),
    options: &SocketOptions,
    plan: &OptionPlan,
) -> Result<(), Refusal> {
    if transport == Transport::Udp {
        return plan.apply_datagrams(listener.as_fd(), Stage::Listener, family);
    }
    // On a socket that listens this only changes how many may wait.
    let _ = SockRef::from(&listener).listen(backlog_of(options));
    plan.apply(listener.as_fd(), Stage::Listener, family)
}

/// What [`set_again`] cannot bring about: options that belong to the making of a socket,
/// and such as are not asked for any more, for which there is no value to set.
pub fn fixed_options(before: &SocketOptions, after: &SocketOptions) -> Vec<String> {
    let mut fixed: Vec<String> = Vec::new();
    for row in OPTIONS.iter().filter(|row| row.legs.have(Leg::Client)) {
        let (was, is) = (row.get(before), row.get(after));
        let made_with = matches!(row.name, OptionName::Mptcp | OptionName::Interface);
        if was != is && (made_with || was.is_some() && is.is_none()) {
            fixed.push(row.name.to_string());
        }
    }
    let same = |a: &crate::net::options::RawOption, b: &crate::net::options::RawOption| {
        (a.level, a.name) == (b.level, b.name)
    };
    for raw in &before.raw {
        if !after.raw.iter().any(|it| same(it, raw)) {
            fixed.push(format!("raw {}:{}", raw.level, raw.name));
        }
    }
    fixed
}
