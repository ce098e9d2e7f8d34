//! Who listens on a TCP port of this machine, as far as this process may see: what
//! `ss -ltnp` shows.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

/// A process that listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder {
    /// Its number.
    pub process: u32,
    /// What it is called (`comm`).
    pub name: String,
}

/// Whom the listening ports belong to; read once, because walking all descriptors of a
/// machine takes a while.
#[derive(Debug, Default)]
pub struct Holders {
    /// Sockets by port.
    sockets: HashMap<u16, HashSet<u64>>,
    /// Processes by socket.
    owners: HashMap<u64, Holder>,
}

impl Holders {
    /// Reads /proc. What may not be seen is left out.
    pub fn read() -> Self {
        let mut sockets: HashMap<u16, HashSet<u64>> = HashMap::new();
        for path in ["/proc/net/tcp", "/proc/net/tcp6"] {
            let text = fs::read_to_string(path).unwrap_or_default();
            for (port, socket) in text.lines().filter_map(listening) {
                sockets.entry(port).or_default().insert(socket);
            }
        }
        let wanted: HashSet<u64> = sockets.values().flatten().copied().collect();
        Self {
            sockets,
            owners: owners(&wanted),
        }
    }

    /// A process that listens on this port, on whichever address; `None` where there is
    /// none, or none that may be seen.
    pub fn of(&self, port: u16) -> Option<&Holder> {
        let mut sockets = self.sockets.get(&port)?.iter();
        sockets.find_map(|socket| self.owners.get(socket))
    }
}

/// Port and inode of a line of /proc/net/tcp (proc_net(5)) whose state is LISTEN.
fn listening(line: &str) -> Option<(u16, u64)> {
    let mut fields = line.split_whitespace();
    let (_, port) = fields.nth(1)?.rsplit_once(':')?;
    let state = fields.nth(1)?;
    let inode = fields.nth(5)?;
    (state == "0A").then_some(())?;
    Some((u16::from_str_radix(port, 16).ok()?, inode.parse().ok()?))
}

fn owners(wanted: &HashSet<u64>) -> HashMap<u64, Holder> {
    let mut owners = HashMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(|it| it.parse::<u32>().ok()) else {
            continue;
        };
        let descriptors = fs::read_dir(entry.path().join("fd"));
        for descriptor in descriptors.into_iter().flatten().flatten() {
            let socket = fs::read_link(descriptor.path()).ok();
            let socket = socket.as_deref().and_then(socket_of);
            if let Some(socket) = socket.filter(|it| wanted.contains(it)) {
                owners.entry(socket).or_insert_with(|| Holder {
                    process,
                    name: fs::read_to_string(entry.path().join("comm"))
                        .unwrap_or_default()
                        .trim()
                        .to_owned(),
                });
            }
        }
    }
    owners
}

/// `socket:[12345]`.
fn socket_of(link: &Path) -> Option<u64> {
    let text = link.to_str()?;
    text.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_with_its_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holders = Holders::read();
        let holder = holders.of(port).unwrap();
        assert_eq!(holder.process, std::process::id());
        assert!(!holder.name.is_empty());
        drop(listener);
        assert_eq!(Holders::read().of(port), None);
    }

    #[test]
    fn only_those_who_listen_count() {
        let line = "   0: 0100007F:1B58 00000000:0000 0A 00000000:00000000 00:00000000 00000000 \
                    0        0 4242 1 0000000000000000 100 0 0 10 0";
        assert_eq!(listening(line), Some((7000, 4242)));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(
            listening("  sl  local_address rem_address   st tx_queue"),
            None
        );
        assert_eq!(listening(""), None);
    }
}
