use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;

use nix::errno::Errno;

use super::*;

/// A folder of this test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("thalweg-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn config(text: &str) -> Config {
    Config::parse(text).unwrap()
}

/// Runs on a thread of its own, which alone is confined.
fn confined<T: Send + 'static>(
    config: &Config,
    work: impl FnOnce(Confinement) -> T + Send + 'static,
) -> T {
    let config = config.clone();
    let thread = std::thread::spawn(move || {
        let confinement = Confinement::enter(&config, None).unwrap();
        work(confinement)
    });
    thread.join().unwrap()
}

fn errno<T>(result: std::io::Result<T>) -> Errno {
    match result {
        Ok(_) => Errno::UnknownErrno,
        Err(error) => Errno::from_raw(error.raw_os_error().unwrap_or(0)),
    }
}

#[test]
fn b157_files_ports_and_programs_that_nobody_needs_are_denied() {
    let folder = Folder::new("sandboxed");
    let log = folder.0.join("log");
    fs::create_dir(&log).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = stranger.local_addr().unwrap();
    let text = format!(
        "global.sandbox = \"auto\"\nlog.to = \"{}\"\n[[forward]]\n\
         listen = \"127.0.0.1:0\"\nupstream = \"{server}\"\n",
        log.join("a.log").display()
    );
    let outside = folder.0.join("outside");
    let (abi, tried) = confined(&config(&text), move |confinement| {
        let sandbox = confinement.sandbox.unwrap();
        assert_eq!(sandbox.filter, Ok(()));
        let tried = [
            errno(fs::read("/etc/shadow")),
            errno(fs::write(&outside, "x")),
            errno(std::process::Command::new("/bin/true").status()),
            errno(TcpStream::connect(other)),
            // What it has need of.
            errno(fs::write(log.join("a.log"), "x")),
            errno(fs::rename(log.join("a.log"), log.join("b.log"))),
            errno(TcpStream::connect(server)),
            errno(TcpListener::bind("127.0.0.1:0")),
            errno(fs::read("/proc/self/status")),
            errno(fs::read("/etc/hosts")),
        ];
        (sandbox.landed, tried)
    });
    if !abi.has_files() {
        eprintln!("SKIPPED: {abi}");
        return;
    }
    let refused = &tried[..3];
    assert_eq!(refused, [Errno::EACCES; 3], "{tried:?}");
    if abi.has_ports() {
        assert_eq!(tried[3], Errno::EACCES, "{tried:?}");
    }
    assert_eq!(tried[4..], [Errno::UnknownErrno; 6], "{tried:?}");
    // This thread is as it was.
    assert!(fs::write(folder.0.join("outside"), "x").is_ok());
}

#[test]
fn b158_a_call_that_no_forwarder_makes_fails_and_kills_nobody() {
    let text = "global.sandbox = \"auto\"\n[[forward]]\n\
                listen = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:9\"\n";
    let tried = confined(&config(text), |_| {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let word = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        let namespace = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUTS);
        let root = nix::unistd::chroot("/");
        let calls = [namespace, root];
        (word("Seccomp:"), word("NoNewPrivs:"), calls)
    });
    assert_eq!((tried.0.as_str(), tried.1.as_str()), ("2", "1"));
    assert_eq!(tried.2, [Err(Errno::EPERM); 2]);
}

#[test]
fn what_a_later_configuration_needs_beyond_is_named_by_its_key() {
    let before = config(
        "[global]\nsandbox = \"auto\"\nsandbox_ports = [\"8000-8009\"]\n[[forward]]\n\
         name = \"web\"\nlisten = \":1080\"\nupstream = \"10.0.0.1:443\"\n",
    );
    let after = |listen: &str, upstream: &str, log: &str| {
        let text = format!(
            "log.to = \"{log}\"\n[[forward]]\nname = \"web\"\nlisten = \"{listen}\"\n\
             upstream = \"{upstream}\"\n"
        );
        let allowed = Reach::of(&before, None).with_further(&before.global.confine);
        Reach::of(&config(&text), None).beyond(&allowed, true)
    };
    let same = after(":1080", "10.0.0.2:443,10.0.0.3:8005", "stdout");
    assert_eq!(same, Vec::<String>::new());
    assert_eq!(
        after(":80", "10.0.0.1:5432", "/var/log/x/thalweg.log"),
        [
            "[log] to: the sandbox does not let it write in /var/log/x",
            "forward web: `listen`: the sandbox does not let it listen on TCP port 80",
            "forward web: `upstream`: the sandbox does not let it connect to TCP port 5432",
        ]
    );
    let any = after(":8001", "srv:_http._tcp.example.com", "stdout");
    assert_eq!(
        any,
        ["forward web: `upstream`: the sandbox does not let it connect to any TCP port"]
    );
}

#[test]
fn a_user_that_is_not_there_is_named() {
    let text = "global.user = \"nobody-of-that-name\"\n[[forward]]\n\
                listen = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:9\"\n";
    let config = config(text);
    let error = Confinement::enter(&config, None).unwrap_err().to_string();
    assert!(
        error.contains("[global] user: there is no user nobody-of-that-name"),
        "{error}"
    );
    let expected = Confinement::expected(&config);
    assert!(
        expected.contains("no user nobody-of-that-name"),
        "{expected}"
    );
}
