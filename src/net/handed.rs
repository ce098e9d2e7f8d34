//! Listening sockets as one process hands them to the next: what each is for, and how the
//! configuration writes it.
//!
//! Invariant: what nobody asks for is closed when this is dropped, and whoever handed it
//! over still has it.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::address::{Address, Transport, UnixName};
use super::inherited::{Carries, Inherited, Label, Origin};
use super::listener::{self, Bound, Lacking};
use super::options::SocketOptions;

/// What a listening socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Clients of a forward.
    Forward,
    /// The admin endpoint.
    Admin,
    /// The endpoint that has metrics only.
    Metrics,
    /// New processes that take over.
    Upgrade,
}

/// By what a socket is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HandedLabel {
    /// What it is for.
    pub role: Role,
    /// As the configuration writes it.
    pub address: String,
    /// Whose a port that the kernel chose is; else empty.
    #[serde(default)]
    pub forward: String,
    /// A service manager has it as well, and its path with it.
    #[serde(default)]
    pub passed: bool,
}

impl HandedLabel {
    /// Of something that only its address tells apart.
    pub fn new(role: Role, address: &impl ToString) -> Self {
        Self {
            role,
            address: address.to_string(),
            forward: String::new(),
            passed: false,
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Handed {
    /// Time zero of whoever handed them over: what is told of times is by that.
    pub origin: Option<Instant>,
    /// Which configuration it goes by.
    pub generation: Option<u64>,
    sockets: Vec<(HandedLabel, OwnedFd)>,
    taken: Vec<HandedLabel>,
}

impl Handed {
    /// One more.
    pub fn add(&mut self, label: HandedLabel, socket: OwnedFd) {
        self.sockets.push((label, socket));
    }

    /// All that are found by this.
    pub fn take(&mut self, label: &HandedLabel) -> Vec<OwnedFd> {
        let (found, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sockets)
            .into_iter()
            .partition(|(its, _)| its == label);
        self.sockets = rest;
        if !found.is_empty() {
            self.taken.push(label.clone());
        }
        found.into_iter().map(|(_, socket)| socket).collect()
    }

    /// Listens with what was handed over for `address`; `None`: nothing was that can be
    /// listened on.
    pub fn listen(&mut self, role: Role, address: &Address) -> Option<Bound> {
        let label = HandedLabel::new(role, address);
        let mut inherited = Inherited::default();
        for socket in self.take(&label) {
            let its = Label {
                address: label.address.clone(),
                forward: String::new(),
            };
            inherited
                .add(socket, Origin::HandedOver(its), &label.address)
                .ok()?;
        }
        let claimed = inherited.claim("", address, Carries::Streams);
        let options = SocketOptions::default();
        let some = !claimed.is_empty();
        some.then(|| {
            listener::adopt(
                (Transport::Tcp, address),
                claimed,
                &options,
                1,
                Lacking::Share,
            )
            .ok()
        })?
    }

    /// Where a unix socket of this role is in a directory, by how its name begins: where the
    /// address was not configured but found.
    pub fn found_in(&self, role: Role, directory: &Path, stem: &str) -> Option<Address> {
        let paths = self.sockets.iter().filter_map(|(its, _)| {
            let path = PathBuf::from(its.address.strip_prefix("unix:")?);
            let name = path.file_name()?.to_str()?;
            let is_here = path.parent() == Some(directory) && name.starts_with(stem);
            (its.role == role && is_here).then_some(path)
        });
        Some(Address::Unix(UnixName::Path(paths.min()?)))
    }

    /// All of this role.
    pub fn take_role(&mut self, role: Role) -> Vec<(HandedLabel, OwnedFd)> {
        let (found, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.sockets)
            .into_iter()
            .partition(|(its, _)| its.role == role);
        self.sockets = rest;
        found
    }

    /// What was asked for and found.
    pub fn taken(&self) -> &[HandedLabel] {
        &self.taken
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_there_no_more_and_the_rest_stays() {
        let socket = || OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
        let mut handed = Handed::default();
        let [one, two] =
            ["127.0.0.1:80", "127.0.0.1:81"].map(|it| HandedLabel::new(Role::Forward, &it));
        handed.add(one.clone(), socket());
        handed.add(one.clone(), socket());
        handed.add(two, socket());
        assert_eq!(handed.take(&one).len(), 2);
        assert_eq!(handed.take(&one).len(), 0);
        assert_eq!(handed.take_role(Role::Admin).len(), 0);
        assert_eq!(handed.take_role(Role::Forward).len(), 1);
        assert_eq!(handed.taken(), [one]);
    }
}
