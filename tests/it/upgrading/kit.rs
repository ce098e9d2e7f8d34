//! A forwarder that is followed by others, and what is looked at from outside.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::kit::*;
use crate::kit::{admin::Answer, directory::Directory, process::Process};

/// A forwarder whose place others take. Those are no children of the test: they are found by
/// their runtime directory, and ended with this.
pub(crate) struct Upgradable {
    // Dropped first: they have the pipe that the log of the first one is read from.
    followers: Followers,
    pub(crate) forwarder: Forwarder,
    pub(crate) directory: Directory,
}

/// Whoever runs with this runtime directory.
struct Followers(PathBuf);

impl Drop for Followers {
    fn drop(&mut self) {
        // One that is being started may not be seen yet.
        for _ in 0..3 {
            for process in running_in(&self.0) {
                process.signal(nix::sys::signal::Signal::SIGKILL);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

fn running_in(directory: &std::path::Path) -> Vec<Process> {
    let wanted = format!("RUNTIME_DIRECTORY={}\0", directory.display());
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
    let is_in = |number: &u32| {
        let environment = std::fs::read(format!("/proc/{number}/environ")).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&wanted)
    };
    numbers
        .filter(is_in)
        .map(Process)
        .filter(|it| it.is_alive())
        .collect()
}

/// A forward of this name, to this server, as a configuration has it.
pub(super) fn forward(name: &str, server: std::net::SocketAddr) -> String {
    format!("[[forward]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nupstream = \"{server}\"\n")
}

impl Upgradable {
    pub(crate) fn start(setup: Setup) -> Self {
        let directory = Directory::new();
        Self::start_in(setup, directory)
    }

    pub(crate) fn start_in(setup: Setup, directory: Directory) -> Self {
        let forwarder = setup.admin(&directory).start();
        Self {
            forwarder,
            followers: Followers(directory.path().to_owned()),
            directory,
        }
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::at(&self.directory.join("admin.sock"))
    }

    /// The socket for those who take over.
    pub(crate) fn entrance(&self) -> PathBuf {
        self.directory.join("upgrade.sock")
    }

    /// Asks for an upgrade.
    pub(crate) fn ask(&self, order: &str) -> Answer {
        let head = format!(
            "POST /v1/upgrade HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n",
            order.len()
        );
        self.admin().send(&head, order)
    }

    /// Upgrades, and which process serves now; the one before is gone soon, unless it has
    /// sessions.
    #[track_caller]
    pub(crate) fn upgrade(&self) -> Process {
        let before = self.serving();
        let answer = self.ask("{}");
        assert_eq!(answer.status, 200, "{}", answer.body);
        let process = Process(answer.json()["process"].as_u64().unwrap() as u32);
        assert_ne!(process, before);
        assert_eq!(self.serving(), process);
        process
    }

    /// Who answers.
    #[track_caller]
    pub(crate) fn serving(&self) -> Process {
        let about = self.admin().get("/v1").json();
        Process(about["pid"].as_u64().unwrap() as u32)
    }

    /// Everybody who runs.
    pub(crate) fn processes(&self) -> Vec<Process> {
        running_in(&self.followers.0)
    }

    /// `thalweg ctl`.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .arg("ctl")
            .args(arguments)
            .arg("--socket")
            .arg(self.directory.join("admin.sock"))
            .output()
            .unwrap()
    }

    /// All is as before: it is this process that serves, and it can be followed.
    #[track_caller]
    pub(crate) fn goes_on(&self, process: Process) {
        assert_eq!(self.serving(), process);
        self.exchange();
        wait_until("nobody else runs", PATIENCE, || {
            self.processes() == [process]
        });
    }

    /// One connection, to and fro, to a server that says a letter and echoes.
    #[track_caller]
    pub(crate) fn exchange(&self) {
        Held::open(self.forwarder.address()).ping();
    }
}

/// Waits until a process has ended.
#[track_caller]
pub(crate) fn is_gone(process: Process) {
    wait_until("the former process ends", PATIENCE, || !process.is_alive());
}

/// The listening sockets of a process, by what the kernel calls them.
pub(crate) fn sockets_of(process: Process) -> std::collections::BTreeSet<String> {
    let targets = process.descriptor_targets().into_iter();
    let sockets = targets.map(|(_, target)| target);
    sockets.filter(|it| it.starts_with("socket:")).collect()
}

/// The inode of whoever listens on this port.
pub(crate) fn listening_on(port: u16) -> std::collections::BTreeSet<String> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let wanted = format!(":{port:04X}");
    let listening = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is = fields.get(3) == Some(&"0A") && fields.get(1)?.ends_with(&wanted);
        is.then(|| format!("socket:[{}]", fields[9]))
    });
    listening.collect()
}

/// A connection that stays.
pub(crate) struct Held(std::net::TcpStream);

impl Held {
    #[track_caller]
    pub(crate) fn open(address: std::net::SocketAddr) -> Self {
        use std::io::Read as _;
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        Self(stream)
    }

    /// To and fro.
    #[track_caller]
    pub(crate) fn ping(&mut self) {
        self.says(*b"ping");
    }

    /// Likewise of these bytes.
    #[track_caller]
    pub(super) fn says(&mut self, bytes: [u8; 4]) {
        use std::io::{Read as _, Write as _};
        self.0.write_all(&bytes).unwrap();
        let mut answer = [0; 4];
        self.0.read_exact(&mut answer).unwrap();
        assert_eq!(answer, bytes);
    }
}
