//! The admin endpoint on the real binary (139 to 151).

pub(crate) mod api;
mod contrib;
mod ctl;
mod dashboard;
mod fuzzed;
pub(crate) mod metrics;
mod protocol;
mod readiness;
mod starting;
mod tapped;
mod told;
mod top;

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::kit::{Admin, Directory, Forwarder, Setup};

/// A forwarder with an endpoint.
pub(crate) struct Steered {
    pub(crate) forwarder: Forwarder,
    pub(crate) admin: Admin,
    directory: Directory,
}

pub(crate) fn steered(setup: Setup) -> Steered {
    let directory = Directory::new();
    let forwarder = setup.admin(&directory).start();
    let admin = Admin::at(&directory.join("admin.sock"));
    Steered {
        forwarder,
        admin,
        directory,
    }
}

/// A configuration with so many forwards to one address, each with so many servers.
fn many_forwards(directory: &Directory, forwards: usize, servers: &[String]) -> PathBuf {
    let mut text = String::new();
    for number in 0..forwards {
        let _ = writeln!(
            text,
            "[[forward]]\nname = \"f{number}\"\nlisten = \"127.0.0.1:0\"\nupstream = {servers:?}\n"
        );
    }
    let path = directory.join("many.toml");
    std::fs::write(&path, text).unwrap();
    path
}
