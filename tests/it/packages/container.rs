//! The container (159): its root as `Containerfile` lays it out, read-only, run by chroot as the first process of a
//! namespace and as a user without privileges.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::project;
use crate::kit::process::Process;
use crate::kit::{
    Directory, End, Listener, PATIENCE, Peer, Setup, on_every_engine, poll, skip, test_name,
    wait_until,
};

/// The lines of `Containerfile` that say `word`, without it.
fn lines(word: &str) -> Vec<String> {
    let text = fs::read_to_string(project("Containerfile")).unwrap();
    let mine = text.lines().filter_map(|line| line.strip_prefix(word));
    mine.map(|line| line.trim().to_owned()).collect()
}

fn line(word: &str) -> String {
    let [one] = &lines(word)[..] else {
        panic!("{word}: not one line")
    };
    one.clone()
}

/// Lays out the root: what is copied, and nothing else but the places that a runtime mounts things at. A binary that
/// is not static brings its libraries.
fn lay_out(root: &Path) {
    assert_eq!(line("FROM "), "scratch");
    for copied in lines("COPY ") {
        let (source, destination) = copied.split_once(' ').unwrap();
        let to = root.join(destination.trim_start_matches('/'));
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        match source {
            "thalweg" => fs::copy(binary(), &to).unwrap(),
            // As scripts/package puts it there.
            "thalweg.toml" => fs::copy(project("examples/minimal.toml"), &to).unwrap(),
            other => panic!("{other} is not in the folder that scripts/package makes"),
        };
    }
    for path in libraries(&binary()) {
        let to = root.join(path.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&path, &to).unwrap();
    }
    for place in ["proc", "run", "dev"] {
        fs::create_dir(root.join(place)).unwrap();
    }
    fs::write(root.join("dev/null"), "").unwrap();
    // The user may be nobody: it is let in to see.
    for entry in [root.to_path_buf(), root.join("usr"), root.join("etc")] {
        fs::set_permissions(entry, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// The static one, if whoever runs the tests has it and says where; else that under test.
fn binary() -> PathBuf {
    let given = std::env::var_os("THALWEG_STATIC_BINARY");
    given.map_or_else(|| env!("CARGO_BIN_EXE_thalweg").into(), PathBuf::from)
}

fn libraries(binary: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(binary).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(PathBuf::from).collect()
}

/// What a runtime does: its own processes and mounts, a root that nobody writes to, and a tmpfs at /run. The number
/// of the user and what is run come after it.
const RUNTIME: &str = r#"
set -e
mount --bind "$0" "$0"
mount -t proc proc "$0/proc"
mount -t tmpfs -o mode=1777 tmpfs "$0/run"
mount --bind /dev/null "$0/dev/null"
mount -o remount,bind,ro "$0"
exec chroot --userspec="$1" "$0" "$2" "$3" --engine "$4" "$5" "$6" \
  --set global.reactors=1 --set log.format=json --set log.sessions=close
"#;

/// `chroot` resolves what it runs in the new root, and the kit passes the arguments of `run` after that. So a
/// small shell outside puts them together.
fn contained(root: &Path, engine: &str, configuration: &str) -> Setup {
    let entry: Vec<String> = serde_json::from_str(&line("ENTRYPOINT ")).unwrap();
    let command: Vec<String> = serde_json::from_str(&line("CMD ")).unwrap();
    assert_eq!(
        (entry.len(), command.len()),
        (1, 3),
        "{entry:?} {command:?}"
    );
    let file = root.join(command[2].trim_start_matches('/'));
    fs::write(&file, configuration).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let root = root.display().to_string();
    let words = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        RUNTIME,
        &root,
        &line("USER "),
        &entry[0],
        &command[0],
        engine,
        &command[1],
        &command[2],
    ];
    Setup::configured(&file, 1)
        .wrapped(&words)
        .env("RUNTIME_DIRECTORY", "/run/thalweg")
}

/// One that runs. Ended with the first process of its namespace, and that by its number: what it was to end with
/// (PDEATHSIG) is forgotten where it becomes another user.
struct Container {
    outside: Child,
    first: Process,
    address: SocketAddr,
}

impl Container {
    fn start(setup: &Setup) -> Self {
        let mut command = setup.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut outside = command.spawn().unwrap();
        let log = BufReader::new(outside.stdout.take().unwrap());
        let first = poll(PATIENCE, || children(outside.id()).first().copied());
        let mut lines = log.lines().map_while(Result::ok);
        let address = lines.by_ref().find_map(|line| {
            let record: serde_json::Value = serde_json::from_str(&line).ok()?;
            record["listener"].as_str()?.parse().ok()
        });
        // Whoever logs to nobody would wait, or lose lines.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            first: Process(first.expect("the forwarder")),
            address: address.expect("where it listens"),
            outside,
        }
    }

    fn wait_for_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        poll(patience, || self.outside.try_wait().unwrap())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // While the one outside is not reaped, the number inside is nobody else's.
        if let Ok(None) = self.outside.try_wait() {
            self.first.signal(Signal::SIGKILL);
            let _ = self.outside.wait();
        }
    }
}

#[test]
fn as_a_container_it_forwards_reaps_and_ends_well() {
    if !nix::unistd::geteuid().is_root() {
        return skip(&test_name(), "a root of its own needs root");
    }
    assert_eq!(line("STOPSIGNAL "), "SIGTERM");
    let user = line("USER ");
    let user: u32 = user.split(':').next().unwrap().parse().unwrap();
    assert_ne!(user, 0);
    on_every_engine(|case| {
        let (server, directory) = (Listener::new(), Directory::new());
        let root = directory.join("root");
        fs::create_dir(&root).unwrap();
        lay_out(&root);
        // The check is the forwarder itself, the only program that is there; each leaves a child to be reaped.
        let configuration = format!(
            "[[forward]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\n[forward.upstream]\nservers = [\"{}\"]\n\
             check = {{ type = \"command\", command = [\"/usr/bin/thalweg\", \"--version\"], interval = \"100ms\" }}\n",
            server.address()
        );
        let mut container = Container::start(&contained(&root, case.engine, &configuration));
        let first = container.first;
        let status = fs::read_to_string(format!("/proc/{}/status", first.0)).unwrap();
        let field = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name));
            value
                .unwrap()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert!(field("NSpid:").ends_with(" 1"), "{status}");
        assert_eq!(field("Uid:"), format!("{user} {user} {user} {user}"));
        assert_eq!(field("CapEff:"), "0000000000000000");
        let root_of_it = format!("/proc/{}/root", first.0);
        let written = fs::write(format!("{root_of_it}/x"), "");
        assert!(written.is_err(), "its root can be written to");
        assert!(!Path::new(&format!("{root_of_it}/bin/sh")).exists());

        let (mut client, mut upstream) = (Peer::connect(container.address), server.accept());
        client.send_byte();
        upstream.expect(1);
        upstream.send_byte();
        client.expect(1);
        // Checks come and go, and none stays as a zombie.
        let mut seen = std::collections::BTreeSet::new();
        wait_until("checks have come and gone", PATIENCE, || {
            seen.extend(children_of_all_threads(first.0));
            let gone = |it: &&u32| !Path::new(&format!("/proc/{it}")).exists();
            seen.iter().filter(gone).count() >= 5
        });
        assert!(
            root_of_socket(&root_of_it).exists(),
            "no socket for thalweg ctl"
        );
        // SIGTERM, which the first process has to ask for: the session that runs ends first.
        first.signal(Signal::SIGTERM);
        let early = container.wait_for_exit(Duration::from_millis(300));
        assert!(
            early.is_none(),
            "it did not wait for its session: {early:?}"
        );
        client.half_close();
        upstream.expect_then_eof(0);
        upstream.close();
        assert_eq!(client.receive_until_end(), End::Eof);
        let ended = container.wait_for_exit(PATIENCE).expect("it ends");
        assert_eq!(ended.code(), Some(0));
    });
}

/// In the tmpfs of its namespace, seen through its root.
fn root_of_socket(root: &str) -> PathBuf {
    PathBuf::from(format!("{root}/run/thalweg/admin.sock"))
}

fn children(of: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{of}/task/{of}/children")).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|it| it.parse().ok())
        .collect()
}

fn children_of_all_threads(of: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{of}/task"))
        .into_iter()
        .flatten();
    let each = tasks.flatten().map(|task| {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        text.split_whitespace()
            .filter_map(|it| it.parse().ok())
            .collect::<Vec<u32>>()
    });
    each.flatten().collect()
}
