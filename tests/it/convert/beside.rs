//! nginx and HAProxy run on files of the corpus, and thalweg on what they become, one after the
//! other in the same network: whatever a client meets must be the same.
//!
//! Servers are in a namespace of their own, so that listeners and servers can have one port, as
//! they do at an edge.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::{converted, thalweg};
use crate::kit::directory::Directory;
use crate::kit::namespace::{Namespace, ip};
use crate::kit::*;
use crate::tap::tools::has;

const SERVERS: [&str; 4] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"];
/// From which clients come: on both sides of each rule.
const CLIENTS: [&str; 4] = ["10.1.0.1", "10.1.0.2", "10.1.1.1", "10.9.0.1"];

/// Forwarders in one namespace, servers in the other, a wire between.
struct Field {
    near: Namespace,
    _far: Namespace,
}

impl Field {
    fn new() -> Option<Self> {
        let (near, far) = (Namespace::new()?, Namespace::new()?);
        near.run(|| {
            ip(&format!(
                "link add wire type veth peer name wire netns {}",
                far.path()
            ));
            ip("addr add 192.168.255.1/24 dev wire");
            ip("link set wire up");
            for client in CLIENTS {
                ip(&format!("addr add {client}/32 dev lo"));
            }
        });
        far.run(|| {
            ip("addr add 192.168.255.2/24 dev wire");
            ip("link set wire up");
            ip("route add default via 192.168.255.1");
            for server in SERVERS {
                ip(&format!("addr add {server}/32 dev lo"));
                let listener = TcpListener::bind((server, 443)).unwrap();
                std::thread::spawn(move || serve(&listener));
            }
            // It is there, and refuses.
            ip("addr add 10.0.0.99/32 dev lo");
        });
        near.run(|| ip("route add default via 192.168.255.2"));
        Some(Self { near, _far: far })
    }
}

/// Says who it is, then what it got up to the client's end, then `end`.
fn serve(listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        std::thread::spawn(move || -> io::Result<()> {
            let own = stream.local_addr()?.ip();
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(format!("{own}\n").as_bytes())?;
            let mut buffer = [0; 4096];
            loop {
                let count = stream.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                stream.write_all(&buffer[..count])?;
            }
            // Whoever still reads by now has been let go on reading.
            std::thread::sleep(Duration::from_millis(100));
            stream.write_all(b"end\n")
        });
    }
}

/// What a client does.
#[derive(Clone, Copy)]
struct Visit<'a> {
    port: u16,
    from: &'a str,
    says: &'a [u8],
}

/// What it meets: the server, what came back, how it ended.
fn meet(visit: Visit<'_>) -> String {
    let Ok(mut stream) = connect(visit) else {
        // Let in by the kernel and reset before it is seen, or after: the same to a client.
        return "turned away".to_owned();
    };
    let _ = stream.write_all(visit.says);
    let mut got = Vec::new();
    let mut buffer = [0; 4096];
    // The server's name and an echo of all that was said; a header stands before it.
    let mut ended = false;
    while !ended && !whole(&got, visit.says) {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => ended = true,
            Ok(count) => got.extend_from_slice(&buffer[..count]),
        }
    }
    if ended {
        return "turned away".to_owned();
    }
    let _ = stream.shutdown(Shutdown::Write);
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    let head = String::from_utf8_lossy(&got);
    let server = head.lines().next().unwrap_or_default();
    // Of a header the words, without the port, which is the kernel's choice.
    let header = head
        .lines()
        .nth(1)
        .filter(|line| line.starts_with("PROXY "));
    let header = header.map(|line| line.split(' ').take(4).collect::<Vec<_>>().join(" "));
    format!(
        "{server} {header:?} half-closed: {}",
        String::from_utf8_lossy(&rest).trim()
    )
}

fn whole(got: &[u8], says: &[u8]) -> bool {
    got.contains(&b'\n') && got.ends_with(says)
}

fn connect(visit: Visit<'_>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let from: IpAddr = visit.from.parse().unwrap();
    socket.bind(&SocketAddr::new(from, 0).into())?;
    socket.connect_timeout(
        &SocketAddr::from(([127, 0, 0, 1], visit.port)).into(),
        PATIENCE,
    )?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket.into())
}

/// A ClientHello that asks for a name, of TLS 1.2 and no more than it must have.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    let mut entry = vec![0];
    entry.extend_from_slice(&(name.len() as u16).to_be_bytes());
    entry.extend_from_slice(name.as_bytes());
    let mut list = (entry.len() as u16).to_be_bytes().to_vec();
    list.extend_from_slice(&entry);
    let mut extension = vec![0, 0];
    extension.extend_from_slice(&(list.len() as u16).to_be_bytes());
    extension.extend_from_slice(&list);
    let mut body = vec![3, 3];
    body.extend_from_slice(&[7; 32]);
    body.extend_from_slice(&[0, 0, 2, 0x13, 0x01, 1, 0]);
    body.extend_from_slice(&(extension.len() as u16).to_be_bytes());
    body.extend_from_slice(&extension);
    let mut record = vec![22, 3, 1];
    record.extend_from_slice(&(body.len() as u16 + 4).to_be_bytes());
    record.extend_from_slice(&[1, 0]);
    record.extend_from_slice(&(body.len() as u16).to_be_bytes());
    record.extend_from_slice(&body);
    record
}

/// Everything that is asked of a forwarder, and how often each answer came.
fn survey() -> BTreeMap<String, BTreeMap<String, usize>> {
    let mut seen: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
    let mut note = |what: &str, got: String| {
        *seen
            .entry(what.to_owned())
            .or_default()
            .entry(got)
            .or_default() += 1;
    };
    let visit = |port, from, says: &'static [u8]| Visit { port, from, says };
    // Shares over a round of the weights, 25 times.
    for _ in 0..100 {
        note("shares", meet(visit(443, CLIENTS[1], b"x")));
    }
    for from in CLIENTS {
        note(&format!("access from {from}"), meet(visit(444, from, b"x")));
    }
    for name in [
        "www.a.example",
        "WWW.A.example",
        "b.example",
        "x.y.b.example",
        "other.example",
    ] {
        let hello = hello(name);
        // A round of the weights, whose order is everybody's own.
        for _ in 0..4 {
            note(
                &format!("name {name}"),
                meet(Visit {
                    port: 445,
                    from: CLIENTS[1],
                    says: &hello,
                }),
            );
        }
    }
    note("header", meet(visit(446, CLIENTS[1], b"x")));
    for _ in 0..4 {
        note("one refuses", meet(visit(447, CLIENTS[1], b"x")));
    }
    // Two may, the third may not, and another client may.
    let held: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = connect(visit(448, CLIENTS[1], b"")).unwrap();
            let mut name = [0; 9];
            stream.read_exact(&mut name).unwrap();
            stream
        })
        .collect();
    note("third of one client", meet(visit(448, CLIENTS[1], b"x")));
    note("first of another", meet(visit(448, CLIENTS[2], b"x")));
    drop(held);
    seen
}

/// Ends the process with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a forwarder until all of its ports answer, surveys it, and ends it.
fn surveyed(command: &mut Command) -> BTreeMap<String, BTreeMap<String, usize>> {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _running = Running(child.spawn().unwrap());
    for port in 443..=448 {
        let what = format!("{command:?} listens on {port}");
        wait_until(&what, PATIENCE, || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }
    survey()
}

fn compare(program: &str, file: &str, original: impl FnOnce(&Directory, &str) -> Command + Send) {
    let Some(field) = Field::new() else { return };
    let directory = Directory::new();
    let output = thalweg(&["convert", file]);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let toml = directory.join("thalweg.toml");
    std::fs::write(&toml, &output.stdout).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let (theirs, ours) = field.near.run(|| {
        let theirs = surveyed(&mut original(&directory, source.to_str().unwrap()));
        let mut command = Command::new(env!("CARGO_BIN_EXE_thalweg"));
        command.args(["run", "-c", toml.to_str().unwrap(), "--log-to", "/dev/null"]);
        command.args(["--set", "admin.listen=off"]);
        (theirs, surveyed(&mut command))
    });
    assert!(theirs.len() > 10, "{theirs:#?}");
    assert_eq!(theirs, ours, "{program} on the left, thalweg on the right");
}

#[test]
fn b169_nginx_and_what_its_file_becomes_do_the_same() {
    if !has("/usr/sbin/nginx") {
        return;
    }
    compare(
        "nginx",
        "tests/convert/nginx/run.conf",
        |directory, file| {
            let mut command = Command::new("/usr/sbin/nginx");
            let globals = format!(
                "daemon off; master_process off; pid {0}/pid; error_log {0}/error.log; \
             load_module /usr/lib/nginx/modules/ngx_stream_module.so;",
                directory.path().display()
            );
            command.args([
                "-p",
                directory.path().to_str().unwrap(),
                "-c",
                file,
                "-g",
                &globals,
            ]);
            command
        },
    );
}

#[test]
fn b169_haproxy_and_what_its_file_becomes_do_the_same() {
    if !has("haproxy") {
        return;
    }
    compare("HAProxy", "tests/convert/haproxy/run.cfg", |_, file| {
        let mut command = Command::new("haproxy");
        command.args(["-db", "-f", file]);
        command
    });
}

/// `--check-against` on a file: its exit code and what it says; `None`, aloud, where it cannot be run.
fn checked(program: &str, file: &str) -> Option<(i32, String)> {
    let at = if program == "nginx" {
        "/usr/sbin/nginx"
    } else {
        program
    };
    if !has(at) {
        return None;
    }
    // Whether namespaces are to be had.
    Namespace::new()?;
    let output = thalweg(&["convert", "--quiet", "--check-against", program, file]);
    let told = String::from_utf8(output.stderr).unwrap();
    Some((output.status.code().unwrap(), told))
}

#[test]
fn b174_a_file_of_ones_own_is_checked_against_its_program() {
    for (program, file) in [
        ("nginx", "tests/convert/nginx/run.conf"),
        ("haproxy", "tests/convert/haproxy/run.cfg"),
    ] {
        let Some((code, told)) = checked(program, file) else {
            continue;
        };
        assert_eq!(code, 0, "{told}");
        assert!(told.contains("0 differ"), "{told}");
    }
}

#[test]
fn b174_what_differs_is_said_and_what_cannot_run_too() {
    let directory = Directory::new();
    let file = directory.join("nginx.conf");
    // Another hash has other clients at each of the servers.
    let text = "events {} stream { upstream u { hash $remote_addr; \
                server 10.0.0.1:1; server 10.0.0.2:1; server 10.0.0.3:1; server 10.0.0.4:1; server 10.0.0.5:1; \
                server 10.0.0.6:1; server 10.0.0.7:1; server 10.0.0.8:1; } \
                server { listen 443; proxy_pass u; } }";
    std::fs::write(&file, text).unwrap();
    let Some((code, told)) = checked("nginx", file.to_str().unwrap()) else {
        return;
    };
    assert_eq!(code, 1, "{told}");
    assert!(
        told.contains("differs: 127.0.0.1:443, servers: nginx 10.0.0."),
        "{told}"
    );
    // What nginx itself does not take.
    std::fs::write(
        &file,
        text.replace("hash $remote_addr;", "hash $remote_addr; nonsense;"),
    )
    .unwrap();
    let Some((code, told)) = checked("nginx", file.to_str().unwrap()) else {
        return;
    };
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("nonsense"), "{told}");
}

/// Datagrams are asked for as well: who is served, and by whom.
#[test]
fn b174_datagrams_are_compared_too() {
    let directory = Directory::new();
    let file = directory.join("nginx.conf");
    let text = "events {} stream { upstream u { hash $remote_addr; \
                server 10.0.0.1:53; server 10.0.0.2:53; server 10.0.0.3:53; server 10.0.0.4:53; server 10.0.0.5:53; \
                server 10.0.0.6:53; server 10.0.0.7:53; server 10.0.0.8:53; } \
                server { listen 5300 udp; proxy_pass u; } }";
    for (text, code, says) in [
        (
            text.to_owned(),
            1,
            "differs: 127.0.0.1:5300/udp, servers: nginx 10.0.0.",
        ),
        (
            text.replace("hash $remote_addr; ", ""),
            0,
            "2 things asked, 0 differ",
        ),
    ] {
        std::fs::write(&file, text).unwrap();
        let Some((was, told)) = checked("nginx", file.to_str().unwrap()) else {
            return;
        };
        assert_eq!(was, code, "{told}");
        assert!(told.contains(says), "{told}");
        assert!(told.contains("not compared: timeouts"), "{told}");
    }
}

/// Half-closes are the same as well where they are let live: `proxy_half_close on` is in the
/// survey at 446, its opposite everywhere else.
#[test]
fn b169_timeouts_become_timeouts() {
    let (_, _, written) = converted(
        "nginx",
        "stream { server { listen 1; proxy_timeout 3s; proxy_half_close on; proxy_pass 10.0.0.1:1; } }",
    );
    assert!(written.contains("idle_timeout = \"3s\""), "{written}");
    assert!(written.contains("half_close_timeout = \"3s\""), "{written}");
}
