//! The shipped units under systemd itself (154, 159, 160): it is the first process of
//! namespaces of its own, with a control group of its own, and is gone with the test.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::kit::directory::Directory;
use crate::kit::namespace::Namespace;
use crate::kit::process::Process;
use crate::kit::*;
use crate::reloading::kit::Echo;

/// Where Debian and others have it.
const SYSTEMD: &str = "/lib/systemd/systemd";

/// What the units want of a whole system, and this one has not.
const TARGETS: [&str; 6] = [
    "sysinit.target",
    "basic.target",
    "shutdown.target",
    "sockets.target",
    "network-online.target",
    "test.target",
];

/// In its namespaces, before it begins: control groups, places to write, the program and the
/// configuration where services with a /tmp of their own find them.
const PREPARE: &str = r#"
set -e
mount --make-rprivate /
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /var/log
mkdir -p /run/units /run/bin /run/etc
mount --bind "$FILES" /run/etc
touch /run/bin/thalweg
mount --bind "$PROGRAM" /run/bin/thalweg
cp "$FILES"/units/* /run/units/
exec env -i container=thalweg PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/run/units \
    "$SYSTEMD" --system --unit=test.target --log-target=console --log-level=info
"#;

/// See the module's documentation.
struct Systemd {
    unshare: Child,
    first: Process,
    group: PathBuf,
    files: Directory,
}

impl Systemd {
    /// With the units of `contrib/systemd`; says that the test is skipped where it cannot be.
    fn start() -> Option<Self> {
        match Self::try_start() {
            Ok(systemd) => Some(systemd),
            Err(why) => {
                skip(&test_name(), &format!("no systemd of its own: {why}"));
                None
            }
        }
    }

    fn try_start() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() || !Path::new(SYSTEMD).exists() {
            return Err("it takes root and systemd".into());
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let groups = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (at, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(at))
        });
        let groups = groups.ok_or("no control groups of version 2")?;
        let files = Directory::new();
        write_units(&files);
        let name = files.path().file_name().unwrap();
        let group = groups.join(name);
        fs::create_dir(&group).map_err(|error| format!("a control group: {error}"))?;
        // It enters the group before it unshares, which is then the root of all that it sees.
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.display());
        let output = fs::File::create(files.join("systemd.log")).unwrap();
        let unshare = Command::new("sh")
            .args(["-c", &enter, "sh", "unshare", "--pid", "--fork", "--mount"])
            .args(["--mount-proc", "--cgroup", "--ipc", "--uts", "--kill-child"])
            .args(["sh", "-c", PREPARE])
            .env("FILES", files.path())
            .env("PROGRAM", env!("CARGO_BIN_EXE_thalweg"))
            .env("SYSTEMD", SYSTEMD)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut systemd = Self {
            first: Process(0),
            unshare,
            group,
            files,
        };
        let children = format!("/proc/{0}/task/{0}/children", systemd.unshare.id());
        let is_up = poll(PATIENCE, || {
            let child = fs::read_to_string(&children).ok()?;
            systemd.first = Process(child.split_whitespace().next()?.parse().ok()?);
            let ended = systemd.unshare.try_wait().ok()?.is_some();
            let says = systemd.run(&["systemctl", "is-active", "test.target"]);
            (ended || says.contains("active")).then_some(!ended)
        });
        if is_up == Some(true)
            && systemd.run(&["systemctl", "is-active", "test.target"]) == "active"
        {
            return Ok(systemd);
        }
        let said = fs::read_to_string(systemd.files.join("systemd.log")).unwrap_or_default();
        Err(said
            .lines()
            .last()
            .unwrap_or("it does not begin")
            .to_owned())
    }

    /// Runs a command inside; what it says.
    fn run(&self, command: &[&str]) -> String {
        let output = Command::new("nsenter")
            .args(["--all", "--target", &self.first.0.to_string()])
            .args(command)
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).trim().to_owned()
    }

    #[track_caller]
    fn systemctl(&self, words: &[&str]) {
        let said = self.run(&[&["systemctl", "--no-ask-password"], words].concat());
        assert_eq!(said, "", "systemctl {words:?}\n{}", self.log());
    }

    fn property(&self, unit: &str, name: &str) -> String {
        self.run(&["systemctl", "show", unit, "--value", "-p", name])
    }

    #[track_caller]
    fn wait_for(&self, unit: &str, name: &str, value: &str) {
        wait_until(&format!("{name} is {value}"), PATIENCE, || {
            self.property(unit, name) == value
        });
    }

    /// The main process, by its number inside.
    fn main(&self) -> u32 {
        self.property(UNIT, "MainPID").parse().unwrap()
    }

    /// Its process is killed, and systemd starts the next one.
    #[track_caller]
    fn kill(&self) {
        let (restarts, before) = (self.property(UNIT, "NRestarts"), self.main());
        let next = restarts.parse::<u32>().unwrap() + 1;
        self.run(&["kill", "-KILL", &before.to_string()]);
        self.wait_for(UNIT, "NRestarts", &next.to_string());
        self.wait_for(UNIT, "ActiveState", "active");
        assert_ne!(self.main(), before);
    }

    #[track_caller]
    fn upgrade(&self) {
        let before = self.main();
        let said = self.run(&[
            "/run/bin/thalweg",
            "ctl",
            "upgrade",
            "--socket",
            "/run/thalweg/admin.sock",
        ]);
        let next = said
            .strip_prefix("process ")
            .and_then(|it| it.split(' ').next());
        let next = next.unwrap_or_else(|| panic!("{said}\n{}", self.log()));
        self.wait_for(UNIT, "MainPID", next);
        assert_ne!(self.main(), before);
        assert_eq!(self.property(UNIT, "ActiveState"), "active");
    }

    fn configure(&self, text: &str) {
        fs::write(self.files.join("thalweg.toml"), text).unwrap();
    }

    /// What it has said, and the services in it.
    fn log(&self) -> String {
        fs::read_to_string(self.files.join("systemd.log")).unwrap_or_default()
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log());
        }
        // Whatever is in its namespace of processes goes with it.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        // Those below first; one is busy until its last process is reaped.
        let mut groups = vec![self.group.clone()];
        let mut at = 0;
        while let Some(group) = groups.get(at).cloned() {
            let below = fs::read_dir(group).into_iter().flatten().flatten();
            groups.extend(below.map(|it| it.path()).filter(|it| it.is_dir()));
            at += 1;
        }
        for group in groups.iter().rev() {
            let _ = poll(PATIENCE, || fs::remove_dir(group).ok());
        }
    }
}

const UNIT: &str = "thalweg.service";

/// The shipped ones, but for where the program and the configuration are.
fn write_units(files: &Directory) {
    let units = files.join("units");
    fs::create_dir(&units).unwrap();
    for target in TARGETS {
        let text = format!("[Unit]\nDescription={target}\nDefaultDependencies=no\n");
        fs::write(units.join(target), text).unwrap();
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd");
    for unit in [UNIT, "thalweg.socket"] {
        let text = fs::read_to_string(shipped.join(unit)).unwrap();
        let text = text.replace("/usr/bin/thalweg", "/run/bin/thalweg");
        let text = text.replace("/etc/thalweg/", "/run/etc/");
        let text = text.replace(
            "[Service]",
            "[Service]\nStandardOutput=append:/run/etc/systemd.log",
        );
        fs::write(units.join(unit), text).unwrap();
    }
}

/// A client that exchanges a few bytes with a server that echoes.
struct Client(TcpStream);

impl Client {
    #[track_caller]
    fn connect(port: u16) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        Self(stream)
    }

    #[track_caller]
    fn ping(&mut self) {
        self.0.write_all(b"ping").unwrap();
        let mut answer = [0; 4];
        self.0.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ping");
    }
}

#[test]
fn b154_b160_under_systemd_it_is_reloaded_killed_upgraded_and_stopped() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    namespace.run(|| {
        let server = Echo::new(b'a');
        let Some(systemd) = Systemd::start() else {
            return;
        };
        let forward = |name: &str, port: u16| {
            format!(
                "[[forward]]\nname = \"{name}\"\nlisten = \"127.0.0.1:{port}\"\n\
                 upstream = \"{}\"\n",
                server.address
            )
        };
        let global = "[global]\nsurvive_crash = true\nreactors = 1\nsandbox = \"auto\"\n\
                      sandbox_ports = [\"7001-7004\"]\n";
        systemd.configure(&(global.to_owned() + &forward("a", 7001)));
        systemd.systemctl(&["start", UNIT]);
        assert_eq!(systemd.property(UNIT, "ActiveState"), "active");
        let mut held = Client::connect(7001);
        // A reload is over when systemctl returns, or soon after.
        systemd.configure(&(global.to_owned() + &forward("a", 7001) + &forward("b", 7002)));
        systemd.systemctl(&["reload", UNIT]);
        systemd.wait_for(
            UNIT,
            "StatusText",
            "forwarding: 2 listeners, configuration 2",
        );
        held.ping();
        // Two listeners, the journal, both sides of the session.
        systemd.wait_for(UNIT, "NFileDescriptorStore", "5");
        systemd.kill();
        held.ping();
        Client::connect(7002).ping();
        // Two upgrades, each with one forward more: that is kept, and the session.
        for count in [3, 4] {
            let forwards = (0..count).map(|nth| {
                let name = char::from(b'a' + nth).to_string();
                forward(&name, 7001 + u16::from(nth))
            });
            systemd.configure(&(global.to_owned() + &forwards.collect::<String>()));
            systemd.upgrade();
            held.ping();
            let status = format!("forwarding: {count} listeners, configuration {}", count - 1);
            systemd.wait_for(UNIT, "StatusText", &status);
            let kept = (count + 3).to_string();
            systemd.wait_for(UNIT, "NFileDescriptorStore", &kept);
            assert_eq!(systemd.property(UNIT, "NRestarts"), "1");
        }
        systemd.kill();
        held.ping();
        for port in 7001..=7004 {
            Client::connect(port).ping();
        }
        systemd.systemctl(&["stop", UNIT]);
        assert_eq!(systemd.property(UNIT, "ActiveState"), "inactive");
        assert_eq!(systemd.property(UNIT, "Result"), "success");
        assert_eq!(systemd.property(UNIT, "NFileDescriptorStore"), "0");
        assert!(TcpStream::connect("127.0.0.1:7001").is_err());
        let said = systemd.log();
        assert!(!said.contains("reception only permitted"), "{said}");
    });
}

#[test]
fn b152_b160_a_socket_unit_starts_it_and_holds_who_comes_meanwhile() {
    let Some(namespace) = Namespace::new() else {
        return;
    };
    namespace.run(|| {
        let server = Echo::new(b'a');
        let Some(systemd) = Systemd::start() else {
            return;
        };
        systemd.configure(&format!(
            "[[forward]]\nlisten = \"systemd:web\"\nupstream = \"{}\"\n",
            server.address
        ));
        systemd.systemctl(&["start", "thalweg.socket"]);
        assert_eq!(systemd.property(UNIT, "ActiveState"), "inactive");
        // Whoever comes first waits until it stands.
        Client::connect(443).ping();
        for _ in 0..2 {
            systemd.run(&["kill", "-KILL", &systemd.main().to_string()]);
            Client::connect(443).ping();
        }
        systemd.wait_for(UNIT, "ActiveState", "active");
        systemd.upgrade();
        Client::connect(443).ping();
        systemd.kill();
        Client::connect(443).ping();
    });
}
