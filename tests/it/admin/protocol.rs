//! What is no request of ours, and who takes too long (139, 146).

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use super::{many_forwards, steered};
use crate::kit::admin::{Answer, exchange};
use crate::kit::{Directory, Listener, PATIENCE, Setup};

#[test]
fn b146_what_is_no_request_of_ours_is_told_so() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    let admin = &steered.admin;
    let to = |line: &str, headers: &str| {
        admin.send(
            &format!("{line} HTTP/1.1\r\nHost: localhost\r\n{headers}"),
            "",
        )
    };
    for (answer, status) in [
        (to("GET /nothing", ""), 404),
        (to("POST /metrics", "Content-Length: 0\r\n"), 405),
        (to("DELETE /healthz", ""), 405),
        (
            to("GET /healthz", &format!("X: {}\r\n", "x".repeat(9000))),
            431,
        ),
        (
            to("GET /healthz", "Content-Length: 1\r\nContent-Length: 2\r\n"),
            400,
        ),
        (to("GET /healthz", "Origin: http://evil.example\r\n"), 403),
        (
            admin.send("GET /healthz HTTP/1.1\r\nHost: evil.example\r\n", ""),
            421,
        ),
        (admin.send("GET /healthz HTTP/1.1\r\n", ""), 400),
    ] {
        assert_eq!(answer.status, status, "{answer:?}");
        // What hyper turns down it says without a body.
        if !answer.body.is_empty() {
            let kind = answer.header("content-type");
            assert_eq!(kind, Some("application/problem+json"), "{answer:?}");
            assert_eq!(answer.json()["status"], status);
        }
    }
    let allowed = to("POST /metrics", "Content-Length: 0\r\n");
    let allowed = allowed.header("allow").unwrap();
    assert!(allowed.contains("GET"), "{allowed}");
    let head = to("HEAD /metrics", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let page = to("GET /healthz", "Origin: http://localhost\r\n");
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'"), "{policy}");
}

#[test]
fn b146_tcp_needs_the_token_and_metrics_have_a_port() {
    let (server, directory) = (Listener::new(), Directory::new());
    let token = directory.join("token");
    std::fs::write(&token, "0123456789abcdef0123\n").unwrap();
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).unwrap();
    let setup = Setup::new(server.address())
        .set("admin.listen", "127.0.0.1:0")
        .set("admin.token_file", token.display())
        .set("metrics.listen", "127.0.0.1:0");
    let forwarder = setup.start();
    let said = forwarder.wait_for_line("reactors, engine");
    let admin = said.text("admin").to_owned();
    let metrics = forwarder.wait_for_line("metrics can be read");
    let metrics = metrics.text("listener").to_owned();
    let get = |at: &str, path: &str, headers: &str| {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        exchange(
            stream,
            &format!("GET {path} HTTP/1.1\r\nHost: {at}\r\n{headers}"),
            "",
        )
    };
    let bearer = "Authorization: Bearer 0123456789abcdef0123\r\n";
    let answer = get(&admin, "/metrics", "");
    assert_eq!(answer.status, 401);
    assert!(
        answer
            .header("www-authenticate")
            .unwrap()
            .starts_with("Bearer")
    );
    assert_eq!(
        get(&admin, "/metrics", "Authorization: Bearer x\r\n").status,
        401
    );
    assert_eq!(get(&admin, "/metrics", bearer).status, 200);
    assert_eq!(get(&admin, "/healthz", "").status, 200);
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(get(&metrics, path, "").status, 200, "{path}");
    }
    for path in ["/", "/v1/sessions", "/openapi.json"] {
        assert_eq!(get(&metrics, path, bearer).status, 404, "{path}");
    }
}

#[test]
fn b139_the_ninth_connection_gets_503() {
    let server = Listener::new();
    let steered = steered(Setup::new(server.address()));
    // Each has had an answer, so it is served, and stays.
    let mut held: Vec<_> = (0..8).map(|_| steered.admin.connect()).collect();
    for stream in &mut held {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let mut buffer = [0; 4096];
        let n = stream.read(&mut buffer).unwrap();
        assert_eq!(Answer::of(&buffer[..n]).status, 200);
    }
    let answer = steered.admin.get("/healthz");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.header("retry-after"), Some("1"));
    held.truncate(7);
    crate::kit::wait_until("there is room again", PATIENCE, || {
        steered.admin.get("/healthz").status == 200
    });
}

#[test]
fn b139_who_takes_nothing_or_a_byte_a_second_is_cut_after_ten_seconds() {
    let (server, directory) = (Listener::new(), Directory::new());
    let file = many_forwards(&directory, 600, &[server.address().to_string()]);
    let steered = steered(Setup::configured(&file, 600));
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (mut idle, mut slow) = (steered.admin.connect(), steered.admin.connect());
    let asked = Instant::now();
    idle.write_all(request).unwrap();
    slow.write_all(request).unwrap();
    let mut taken = 0;
    // A connection that was cut takes no further request.
    while asked.elapsed() < PATIENCE && slow.write_all(b"x").is_ok() {
        taken += slow.read(&mut [0; 1]).unwrap_or(0);
        std::thread::sleep(Duration::from_millis(500));
    }
    assert!(taken >= 2, "it was cut at once");
    let elapsed = asked.elapsed();
    assert!(elapsed >= Duration::from_secs(9), "{elapsed:?}");
    assert!(elapsed < PATIENCE, "it was not cut");
    let mut whole = Vec::new();
    let _ = idle.read_to_end(&mut whole);
    let length = steered.admin.get("/metrics").body.len();
    assert!(whole.len() < length, "{} of {length} bytes", whole.len());
    assert_eq!(steered.admin.get("/healthz").status, 200);
}
