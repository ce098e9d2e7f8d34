//! curl and git through a tapped forwarder: what they get is what is there, and what
//! is shown is what they asked.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use super::site::Site;
use super::{check_printable, tapped, wait_for_closes};
use crate::kit::directory::Directory;
use crate::kit::pattern::Pattern;
use crate::kit::*;

/// Whether a program is there; said aloud where it is not.
pub(crate) fn has(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let there = found.is_ok();
    if !there {
        skip(&test_name(), &format!("{program} is not installed"));
    }
    there
}

/// Runs a command that must succeed; what it wrote.
#[track_caller]
fn run(command: &mut Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output.stdout
}

fn curl(arguments: &[&str]) -> Command {
    let mut command = Command::new("curl");
    // Whatever proxy or configuration this machine has, it is not for the test.
    command.args(["-q", "--noproxy", "*", "--silent", "--show-error"]);
    command.args(["--max-time", "30"]).args(arguments);
    command
}

#[test]
fn curl_gets_what_is_there() {
    if !has("curl") {
        return;
    }
    on_every_path(|case| {
        let directory = Directory::new();
        let large = Pattern::new(7).upcoming(200 * KIB).repeat(10);
        std::fs::write(directory.join("large"), &large).unwrap();
        std::fs::write(directory.join("small"), "small\n").unwrap();
        let site = Site::of(directory.path());
        for format in ["hex", "text", "http", "pcapng"] {
            let file = directory.join(&format!("tap-{format}"));
            let keys = "max_bytes_per_session = \"4MiB\"";
            let forwarder = tapped(case, site.address(), format, &file, keys).start();
            let url = |name: &str| format!("http://{}/{name}", forwarder.address());
            let header = ["-H", "Authorization: Bearer c2VjcmV0"];
            let got = run(curl(&header).args([url("small"), url("large")]));
            assert!(
                got == [b"small\n", &large[..]].concat(),
                "not what is there"
            );
            assert!(forwarder.terminate().success());
            if format == "http" {
                let text = wait_for_closes(&file, 1);
                check_printable(&text);
                assert!(text.contains("  GET /small HTTP/1.1\n"), "{text}");
                let body = format!("  body of {} bytes\n", large.len());
                assert!(text.contains(&body), "{text}");
                assert!(!text.contains("c2VjcmV0"), "{text}");
            }
        }
    });
}

/// A server of HTTP/2 without TLS, on a unix socket; killed when it is dropped.
struct Nginx(std::process::Child);

impl Nginx {
    fn serving(directory: &Directory) -> Self {
        let at = directory.path().display();
        let configuration = format!(
            "daemon off; pid {at}/pid; error_log stderr; worker_processes 1;\n\
             events {{}}\n\
             http {{ access_log off; client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
             fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
             server {{ listen unix:{at}/nginx http2; root {at}; }} }}\n"
        );
        let file = directory.join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        // Its workers must be able to read what it serves.
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(directory.path(), open).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(file).arg("-p").arg(directory.path());
        let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn();
        let server = Self(child.unwrap());
        let socket = directory.join("nginx");
        let answers = || std::os::unix::net::UnixStream::connect(&socket).is_ok();
        wait_until("nginx listens", PATIENCE, answers);
        server
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it when it is asked, not when it is killed.
        let pid = nix::unistd::Pid::from_raw(self.0.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// Headers as a library compresses them that is not ours, on both sides.
#[test]
fn curl_and_nginx_speak_http2_through_it() {
    if !has("curl") || !has_nginx() {
        return;
    }
    let features = String::from_utf8(run(Command::new("curl").arg("-V"))).unwrap();
    if !features.contains("HTTP2") {
        return skip(&test_name(), "this curl has no HTTP/2");
    }
    on_every_path(|case| {
        let directory = Directory::new();
        let large = Pattern::new(9).upcoming(200 * KIB);
        std::fs::write(directory.join("large"), large).unwrap();
        let _server = Nginx::serving(&directory);
        let file = directory.join("tap");
        let keys = "max_bytes_per_session = \"4MiB\"";
        let upstream = format!("unix:{}", directory.join("nginx").display());
        let forwarder = tapped(case, upstream, "http", &file, keys).start();
        let arguments = ["--http2-prior-knowledge", "-H", "Cookie: k=c2VjcmV0"];
        // One request each: curl itself fails at its second without TLS (7.88).
        let get = |name: &str| {
            let url = format!("http://{}/{name}", forwarder.address());
            run(curl(&arguments).arg(url))
        };
        assert!(get("large") == large, "not what is there");
        assert!(get("none").starts_with(b"<html>"));
        assert!(get("large") == large, "not what is there");
        assert!(forwarder.terminate().success());
        let text = wait_for_closes(&file, 3);
        check_printable(&text);
        let count = |what: &str| text.matches(what).count();
        assert_eq!(count("  HTTP/2 begins\n"), 3, "{text}");
        assert_eq!(count("    :path: /large\n"), 2, "{text}");
        assert_eq!(
            (count("    :status: 200\n"), count("    :status: 404\n")),
            (2, 1),
            "{text}"
        );
        assert_eq!(count("    cookie: [10 bytes masked]\n"), 3, "{text}");
        assert!(
            !text.contains("c2VjcmV0") && !text.contains("decoded no further"),
            "{text}"
        );
        let first = text.split(" id=0.2 open ").next().unwrap();
        let sent = first.lines().filter(|line| line.contains("DATA stream=1 "));
        let lengths = sent.map(|line| {
            let (_, rest) = line.split_once("length=").unwrap();
            rest.split(' ').next().unwrap().parse::<usize>().unwrap()
        });
        assert_eq!(lengths.sum::<usize>(), large.len());
    });
}

/// It knows no `--version`.
fn has_nginx() -> bool {
    let found = Command::new("nginx")
        .arg("-v")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if found.is_err() {
        skip(&test_name(), "nginx is not installed");
    }
    found.is_ok()
}

/// The first thing that a client of TLS says is where it wants to go.
#[test]
fn the_handshake_of_curl_tells_its_server_and_protocols() {
    if !has("curl") {
        return;
    }
    on_every_engine(|case| {
        let (directory, listener) = (Directory::new(), Listener::new());
        let file = directory.join("tap");
        let forwarder = tapped(case, listener.address(), "http", &file, "").start();
        let port = forwarder.address().port();
        let resolve = format!("host.example:{port}:127.0.0.1");
        let url = format!("https://host.example:{port}/");
        let mut client = curl(&["--resolve", &resolve, &url]);
        let mut client = client
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = listener.accept();
        assert!(server.is_readable_within(PATIENCE));
        // It speaks no TLS.
        server.reset();
        client.wait().unwrap();
        let text = wait_for_closes(&file, 1);
        assert!(
            text.contains("  TLS record handshake version=TLS1."),
            "{text}"
        );
        assert!(
            text.contains("  TLS ClientHello sni=host.example alpn="),
            "{text}"
        );
        assert!(text.contains("http/1.1"), "{text}");
    });
}

#[test]
fn git_clones_what_is_there() {
    if !has("git") {
        return;
    }
    on_every_engine(|case| {
        let directory = Directory::new();
        let site = Site::of(directory.path());
        let head = repository(&directory);
        let file = directory.join("tap");
        let keys = "max_bytes_per_session = \"16MiB\"";
        let forwarder = tapped(case, site.address(), "http", &file, keys).start();
        let url = format!("http://{}/bare.git", forwarder.address());
        let clone = directory.join("clone");
        run(git(directory.path())
            .args(["clone", "--quiet", &url])
            .arg(&clone));
        run(git(&clone).args(["fsck", "--strict"]));
        assert_eq!(run(git(&clone).args(["rev-parse", "HEAD"])), head);
        assert!(forwarder.terminate().success());
        let text = wait_for_closes(&file, 1);
        check_printable(&text);
        let asked = "  GET /bare.git/info/refs?service=git-upload-pack HTTP/1.1\n";
        assert!(text.contains(asked), "{text}");
    });
}

/// Git without the configuration of this machine, in a directory.
fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(directory);
    for (name, value) in [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_SYSTEM", "/dev/null"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_AUTHOR_NAME", "a"),
        ("GIT_AUTHOR_EMAIL", "a@host.example"),
        ("GIT_COMMITTER_NAME", "a"),
        ("GIT_COMMITTER_EMAIL", "a@host.example"),
        ("no_proxy", "*"),
    ] {
        command.env(name, value);
    }
    for name in [
        "GIT_DIR",
        "GIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "http_proxy",
        "all_proxy",
    ] {
        command.env_remove(name);
    }
    command
}

/// A repository that can be served as files, with a megabyte in it; its commit.
fn repository(directory: &Directory) -> Vec<u8> {
    let work = directory.join("work");
    run(git(directory.path()).args(["init", "--quiet", "work"]));
    for n in 0..4_u8 {
        let bytes = Pattern::new(u64::from(n)).upcoming(256 * KIB);
        std::fs::write(work.join(format!("file{n}")), bytes).unwrap();
    }
    run(git(&work).args(["add", "."]));
    run(git(&work).args(["commit", "--quiet", "--message", "all"]));
    let head = run(git(&work).args(["rev-parse", "HEAD"]));
    run(git(directory.path()).args(["clone", "--quiet", "--bare", "work", "bare.git"]));
    run(git(&directory.join("bare.git")).arg("update-server-info"));
    head
}
