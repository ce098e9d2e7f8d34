//! Listening on sockets that were inherited, in place of binding.

use std::os::fd::AsFd;

use super::{BindCause, BindError, Bound, ListenSocket, join, set_again, unix};
use crate::net::address::{Address, Endpoint, UnixName};
use crate::net::inherited::{InheritedSocket, Origin};
use crate::net::options::{Leg, SocketOptions};

/// What reactors for which there is no socket have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacking {
    /// A duplicate of one that there is: whoever else keeps that one loses no connection
    /// when this process dies.
    Share,
    /// One of their own in the same group, as if this process had bound it; a duplicate
    /// where that cannot be had.
    Join,
}

/// As [`super::bind`], of the sockets that were claimed for `address`; at least one.
/// Options are set on them as far as that can be done later than at their making.
pub fn adopt(
    address: &Address,
    claimed: Vec<InheritedSocket>,
    options: &SocketOptions,
    reactors: usize,
    lacking: Lacking,
) -> Result<Bound, BindError> {
    let plan = options.plan(Leg::Client);
    let reactors = reactors.max(1);
    let mut bound = Bound {
        locals: Vec::new(),
        shares: (0..reactors).map(|_| Vec::new()).collect(),
        refusal: None,
        dual: claimed.iter().any(|it| it.dual),
        passed: claimed
            .iter()
            .any(|it| matches!(it.origin, Origin::Passed { .. })),
        file: None,
        registered: Vec::new(),
    };
    let mut groups: Vec<(Endpoint, Vec<ListenSocket>)> = Vec::new();
    for socket in claimed {
        if let Err(refused) = set_again(&socket.fd, socket.family, options, &plan) {
            bound.refusal = Some(refused);
        }
        // What was passed has a path that belongs to whoever passed it; what is handed over
        // one that belongs to the process before, until this one serves it.
        if let (Endpoint::Unix(UnixName::Path(path)), Origin::Kept(_)) =
            (&socket.local, &socket.origin)
        {
            bound.file = unix::SocketFile::new(path);
        }
        let socket = ListenSocket {
            fd: socket.fd,
            local: socket.local,
            family: socket.family,
        };
        match groups.iter_mut().find(|(local, _)| *local == socket.local) {
            Some((_, group)) => group.push(socket),
            None => groups.push((socket.local.clone(), vec![socket])),
        }
    }
    for (local, mut group) in groups {
        let missing = reactors.saturating_sub(group.len());
        let own = group.len();
        for nth in 0..missing {
            let model = &group[nth % own];
            let joined = match lacking {
                Lacking::Join => join(&model.fd, &local, options).ok(),
                Lacking::Share => None,
            };
            let one = match joined {
                Some(joined) => joined,
                None => duplicate(model).map_err(|cause| BindError::new(address, cause))?,
            };
            group.push(one);
        }
        bound.locals.push(local);
        for (nth, socket) in group.into_iter().enumerate() {
            bound.shares[nth % reactors].push(socket);
        }
    }
    Ok(bound)
}

fn duplicate(socket: &ListenSocket) -> Result<ListenSocket, BindCause> {
    let fd = socket.fd.as_fd().try_clone_to_owned();
    Ok(ListenSocket {
        fd: fd.map_err(|error| BindCause::system("dup", &error))?,
        local: socket.local.clone(),
        family: socket.family,
    })
}
