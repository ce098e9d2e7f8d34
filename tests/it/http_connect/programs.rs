//! The programs that people use a proxy with: curl and git, where they are installed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Output, Stdio};

use super::{LOOPBACK, Proxy};
use crate::kit::directory::Directory;
use crate::kit::*;

/// Whether these programs are here; says so where not.
fn are_here(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| {
        let found = Command::new(program).arg("--version").output();
        let found = found.or_else(|_| Command::new(program).arg("version").output());
        found.is_err()
    });
    if let Some(program) = missing {
        skip(&test_name(), &format!("{program} is not installed"));
    }
    missing.is_none()
}

#[track_caller]
fn run(command: &mut Command) -> Output {
    // No proxy and no configuration but what the test gives.
    let clean = command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GIT_CONFIG_NOSYSTEM", "1");
    let output = clean.stdin(Stdio::null()).output();
    output.unwrap()
}

/// Answers one request on a connection of the listener, by hand.
fn serve_once(listener: &Listener, body: &str) {
    let peer = listener.accept();
    let mut lines = BufReader::new(peer.stream()).lines();
    while !lines.next().unwrap().unwrap().is_empty() {}
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    write!(peer.stream(), "{head}{body}").unwrap();
}

#[test]
fn b57_curl_goes_through() {
    if !are_here(&["curl"]) {
        return;
    }
    on_every_engine(|case| {
        let users = format!("{LOOPBACK}users = \"{{dir}}/users\"\n");
        let proxy = Proxy::start_with(case, &users, |setup, directory| {
            std::fs::write(directory.join("users"), super::access::users()).unwrap();
            setup
        });
        let server = Listener::new();
        let curl = |arguments: &[&str]| {
            let mut command = Command::new("curl");
            command.args(["-sS", "--max-time", "20", "-x"]);
            command.arg(format!("http://{}", proxy.address()));
            command.args(arguments);
            run(command.arg(format!("http://{}/", server.address())))
        };
        let body = "x".repeat(300_000);
        let through = std::thread::scope(|scope| {
            scope.spawn(|| serve_once(&server, &body));
            curl(&["--proxytunnel", "--proxy-user", "ann:secret"])
        });
        assert!(through.status.success(), "{through:?}");
        assert_eq!(through.stdout, body.as_bytes());
        let refused = curl(&["-p", "--proxy-user", "ann:wrong"]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("407"), "{said}");
        let plain = curl(&["--proxy-user", "ann:secret"]);
        let said = String::from_utf8_lossy(&plain.stdout).into_owned();
        assert!(
            said.contains("405") && said.contains("--proxytunnel"),
            "{said}"
        );
        proxy.wait_for_sessions(3);
        proxy.check_idle();
    });
}

/// A server of files over TLS, which ends with the test.
struct Tls {
    child: Child,
    port: u16,
}

/// Serves the files of its directory over TLS on a port from the kernel, and says
/// which.
const SERVER: &str = r#"
import http.server, ssl, sys
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"#;

impl Tls {
    fn start(directory: &Directory) -> Self {
        let mut child = Command::new("python3")
            .args(["-c", SERVER, "cert.pem", "key.pem"])
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        Self {
            child,
            port: line.trim().parse().unwrap(),
        }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn b55_git_clones_over_tls_through_the_proxy() {
    if !are_here(&["git", "openssl", "python3"]) {
        return;
    }
    let directory = Directory::new();
    let within = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        let output = run(command.args(arguments).current_dir(directory.path()));
        assert!(
            output.status.success(),
            "{program} {arguments:?}: {output:?}"
        );
    };
    within(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-keyout",
            "key.pem",
            "-out",
            "cert.pem",
        ],
    );
    std::fs::write(directory.join("file"), "what is in it\n".repeat(1000)).unwrap();
    let name = ["-c", "user.name=t", "-c", "user.email=t@localhost"];
    within("git", &["init", "-q", "repo"]);
    std::fs::rename(directory.join("file"), directory.join("repo/file")).unwrap();
    within("git", &["-C", "repo", "add", "file"]);
    within(
        "git",
        &[&name[..], &["-C", "repo", "commit", "-qm", "one"]].concat(),
    );
    within("git", &["-C", "repo", "update-server-info"]);
    let server = Tls::start(&directory);
    on_every_engine(|case| {
        let proxy = Proxy::start(case, LOOPBACK);
        let copy = directory.join(&format!("copy-{}", case.engine));
        let mut command = Command::new("git");
        command.args(["-c", "http.sslVerify=false", "-c"]);
        command.arg(format!("http.proxy=http://{}", proxy.address()));
        command.args(["clone", "-q"]);
        command.arg(format!("https://127.0.0.1:{}/repo/.git", server.port));
        let output = run(command.arg(&copy));
        assert!(output.status.success(), "{output:?}");
        let file = std::fs::read_to_string(copy.join("file")).unwrap();
        assert_eq!(file, "what is in it\n".repeat(1000));
        let record = proxy.wait_for_sessions(1).remove(0);
        assert_eq!(record.text("target"), format!("127.0.0.1:{}", server.port));
        assert_eq!(record.number("status"), Some(200));
        proxy.check_idle();
    });
}
