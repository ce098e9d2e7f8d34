//! Another user and a sandbox (156 to 158), and what a reload may no longer do in them (120).

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use nix::sys::signal::Signal;
use nix::unistd::{User, chown};

use crate::kit::admin::Admin;
use crate::kit::directory::Directory;
use crate::kit::peer::transfer;
use crate::kit::*;

/// A file of a configuration in a folder that belongs to whom the forwarder becomes.
struct Place {
    directory: Directory,
    file: PathBuf,
    nobody: User,
}

impl Place {
    /// `None`, said aloud: only root can become somebody else.
    fn new() -> Option<Self> {
        let nobody = User::from_name("nobody").unwrap();
        let root = nix::unistd::geteuid().is_root();
        let Some(nobody) = nobody.filter(|_| root) else {
            skip(&test_name(), "only root can become another user");
            return None;
        };
        let directory = Directory::new();
        chown(directory.path(), Some(nobody.uid), Some(nobody.gid)).unwrap();
        let file = directory.join("thalweg.toml");
        Some(Self {
            directory,
            file,
            nobody,
        })
    }

    fn write(&self, global: &str, rest: &str) {
        let log = self.directory.join("a.log");
        let text = format!(
            "[global]\nuser = \"nobody\"\n{global}\n[log]\nto = \"{}\"\n{rest}",
            log.display()
        );
        fs::write(&self.file, text).unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("a.log")).unwrap_or_default()
    }

    #[track_caller]
    fn wait_for_line(&self, text: &str) {
        wait_until(text, PATIENCE, || self.log().contains(text));
    }

    fn start(&self, listen: u16) -> Forwarder {
        // Its log is in a file: where it listens is known beforehand.
        let nowhere = fs::File::create("/dev/null").unwrap();
        let setup = Setup::between(format!("127.0.0.1:{listen}"), "127.0.0.1:9");
        setup.only_file(&self.file).stdout(nowhere).start()
    }
}

fn forward(name: &str, listen: impl std::fmt::Display, server: impl std::fmt::Display) -> String {
    format!("[[forward]]\nname = \"{name}\"\nlisten = \"{listen}\"\nupstream = \"{server}\"\n")
}

/// A line of `status` of every thread: all values that it has.
fn of_every_thread(forwarder: &Forwarder, name: &str) -> Vec<String> {
    let tasks = format!("/proc/{}/task", forwarder.process().0);
    let mut values: Vec<String> = fs::read_dir(tasks)
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok())
        .map(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    values.sort();
    values.dedup();
    values
}

#[test]
fn b156_every_thread_is_the_user_without_capabilities_and_reloads() {
    on_every_engine(|case| {
        let Some(place) = Place::new() else { return };
        let server = Listener::new();
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let engine = format!("engine = \"{}\"", case.engine);
        place.write(
            &format!("reactors = 1\n{engine}"),
            &forward("a", &listen, server.address()),
        );
        let forwarder = place.start(port);
        let (uid, gid) = (place.nobody.uid.as_raw(), place.nobody.gid.as_raw());
        assert_eq!(
            of_every_thread(&forwarder, "Uid:"),
            [format!("{uid} {uid} {uid} {uid}")]
        );
        assert_eq!(
            of_every_thread(&forwarder, "Gid:"),
            [format!("{gid} {gid} {gid} {gid}")]
        );
        assert_eq!(of_every_thread(&forwarder, "Groups:"), [gid.to_string()]);
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
            assert_eq!(
                of_every_thread(&forwarder, set),
                ["0000000000000000"],
                "{set}"
            );
        }
        assert_eq!(of_every_thread(&forwarder, "NoNewPrivs:"), ["1"]);
        place.wait_for_line("user nobody");
        // More reactors join a group of the same user; the log is begun anew.
        fs::rename(place.directory.join("a.log"), place.directory.join("b.log")).unwrap();
        place.write(
            &format!("reactors = 2\n{engine}"),
            &forward("a", &listen, server.address()),
        );
        forwarder.process().signal(Signal::SIGHUP);
        place.wait_for_line("reloaded");
        let owner = fs::metadata(place.directory.join("a.log")).unwrap().uid();
        assert_eq!(owner, uid);
        assert!(
            forwarder
                .process()
                .threads()
                .iter()
                .any(|it| it == "reactor-1")
        );
        Crowd::connect(listen.parse().unwrap(), &server, 20).finish();
        assert_eq!(of_every_thread(&forwarder, "CapEff:"), ["0000000000000000"]);
    });
}

#[test]
fn b156_a_port_below_1024_keeps_one_capability() {
    let Some(place) = Place::new() else { return };
    let first_free = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first_free.trim() != "1024" {
        skip(&test_name(), "no port is privileged here");
        return;
    }
    // TCP port 921 is nobody's.
    place.write("", &forward("a", "127.0.0.1:921", "127.0.0.1:9"));
    let forwarder = place.start(921);
    // CAP_NET_BIND_SERVICE is the tenth.
    for set in ["CapPrm:", "CapEff:", "CapBnd:"] {
        assert_eq!(
            of_every_thread(&forwarder, set),
            ["0000000000000400"],
            "{set}"
        );
    }
    for set in ["CapInh:", "CapAmb:"] {
        assert_eq!(
            of_every_thread(&forwarder, set),
            ["0000000000000000"],
            "{set}"
        );
    }
}

#[test]
fn b120_what_a_reload_may_no_longer_do_is_refused_before_anything_changes() {
    on_every_engine(|case| {
        let Some(place) = Place::new() else { return };
        let server = Listener::new();
        let port = free_port();
        let listen = format!("127.0.0.1:{port}");
        let own = forward("a", &listen, server.address());
        let global = format!("sandbox = \"auto\"\nengine = \"{}\"", case.engine);
        place.write(&global, &own);
        let secret = Directory::new();
        let outside = secret.join("networks");
        fs::write(&outside, "127.0.0.0/8\n").unwrap();
        let forwarder = place.start(port);
        place.wait_for_line("user nobody");
        let whole = place.log().contains("TCP ports (not UDP");
        if !whole {
            skip(
                &test_name(),
                "this kernel has no Landlock for ports; the rest is tried",
            );
        }
        let sock = place.directory.join("a.sock");
        let unix = format!("unix:{}", sock.display());
        let group = format!(
            "{own}{}unix_group = \"root\"\n",
            forward("b", &unix, server.address())
        );
        let access = format!("{own}access = [\"allow @{}\"]\n", outside.display());
        let mut tried = vec![
            // Another user's group: the sandbox is not asked.
            (group, "forward b", "CAP_CHOWN"),
        ];
        if whole {
            tried.extend([
                (
                    own.clone() + &forward("b", "127.0.0.1:80", server.address()),
                    "forward b: `listen`",
                    "listen on TCP port 80",
                ),
                (
                    own.clone() + &forward("b", &unix, "127.0.0.1:5432"),
                    "forward b: `upstream`",
                    "connect to TCP port 5432",
                ),
                (access, "forward a: `access`", "read in"),
            ]);
        } else {
            tried.push((
                own.clone() + &forward("b", "127.0.0.1:80", server.address()),
                "forward b",
                "CAP_NET_BIND_SERVICE",
            ));
        }
        for (nth, (text, key, permission)) in tried.into_iter().enumerate() {
            place.write(&global, &text);
            forwarder.process().signal(Signal::SIGHUP);
            wait_until("the reload is over", PATIENCE, || {
                place.log().matches("not reloaded").count() > nth
            });
            let log = place.log();
            let told = log
                .lines()
                .rfind(|line| line.contains("not reloaded"))
                .unwrap();
            assert!(
                told.contains(key) && told.contains(permission),
                "{key}: {told}"
            );
            assert!(!sock.exists(), "a path stays");
            Crowd::connect(listen.parse().unwrap(), &server, 2).finish();
        }
        // What it may do it does.
        let another = format!("127.0.0.1:{}", server.address().port());
        place.write(
            &global,
            &(own + &forward("c", format!("unix:{}", sock.display()), another)),
        );
        forwarder.process().signal(Signal::SIGHUP);
        place.wait_for_line("1 forward added");
        assert!(sock.exists());
    });
}

#[test]
fn b157_b158_every_thread_is_in_the_sandbox_and_forwards() {
    on_every_path(|case| {
        let server = Listener::new();
        let directory = Directory::new();
        let setup = Setup::new(server.address()).case(case).reactors(2);
        let setup = setup.set("global.sandbox", "auto").admin(&directory);
        let forwarder = setup.start();
        let told = forwarder.wait_for_line("no_new_privs");
        assert_eq!(of_every_thread(&forwarder, "Seccomp:"), ["2"], "{told:?}");
        assert_eq!(of_every_thread(&forwarder, "NoNewPrivs:"), ["1"]);
        let crowd = Crowd::through(&forwarder, &server, 10);
        crowd.ping();
        let (mut client, mut upstream) = (forwarder.connect(), server.accept());
        transfer(&mut client, &mut upstream, 8 * MIB);
        transfer(&mut upstream, &mut client, 8 * MIB);
        drop((client, upstream));
        crowd.finish();
        forwarder.wait_for_sessions(11);
        // What looks at it says the same.
        let said = Admin::at(&directory.join("admin.sock")).get("/v1").body;
        let confinement = told.text("confinement");
        assert!(said.contains(confinement), "{said}");
        forwarder.process().signal(Signal::SIGHUP);
        forwarder.wait_for_line("reloaded");
        assert!(forwarder.terminate().success());
    });
}

#[test]
fn b156_somebody_else_s_file_is_not_read_any_more() {
    let Some(place) = Place::new() else { return };
    place.write("", &forward("a", "127.0.0.1:0", "127.0.0.1:9"));
    let secret = place.directory.join("networks");
    fs::write(&secret, "127.0.0.0/8\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "{}access = [\"allow @{}\"]\n",
        forward("a", "127.0.0.1:0", "127.0.0.1:9"),
        secret.display()
    );
    place.write("", &text);
    let nowhere = fs::File::create("/dev/null").unwrap();
    let setup = Setup::between("127.0.0.1:1", "127.0.0.1:9");
    let said = setup.only_file(&place.file).stdout(nowhere).try_start();
    let said = said.expect_err("it starts");
    assert!(
        said.contains("networks") && said.to_lowercase().contains("permission denied"),
        "{said}"
    );
}

#[test]
fn what_a_sandbox_lets_do_is_told_beforehand() {
    let directory = Directory::new();
    let file = directory.join("thalweg.toml");
    let text = "[global]\nsandbox = \"auto\"\n[log]\nto = \"/var/log/thalweg/log\"\n\
                [[forward]]\nname = \"web\"\nlisten = \":443\"\nupstream = \"10.0.0.1:8443\"\n";
    for (text, first) in [
        (text.to_owned(), "as started; sandbox: "),
        (text.replace("auto", "off"), "as started; no sandbox"),
    ] {
        std::fs::write(&file, text).unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_thalweg"))
            .args(["check", "--sandbox", "-c"])
            .arg(&file)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.starts_with(first), "{said}");
        for line in [
            "  listen on TCP port 443: forward web: `listen`",
            "  connect to TCP port 8443: forward web: `upstream`",
            "  write in /var/log/thalweg: [log] to",
        ] {
            assert!(said.lines().any(|it| it == line), "{line}: {said}");
        }
        let own = format!(
            "  read in {}: the configuration",
            directory.path().display()
        );
        assert!(said.lines().any(|it| it == own), "{own}: {said}");
        assert!(
            said.contains("not restricted by any kernel so far: UDP"),
            "{said}"
        );
    }
}
