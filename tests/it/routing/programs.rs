//! The programs that speak these: openssl, curl and Java send hellos, and a browser's was
//! captured; HAProxy and nginx send headers and take them; Wireshark reads what is sent.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;
use crate::kit::program::{Program, is_here};

/// What Chromium 1xx sent for `https://a.example/` (with a post-quantum key share, GREASE
/// and ECH's GREASE), Java's `SSLSocket`, Go 1.19's `crypto/tls` (asked for `h2` and `http/1.1`) and
/// curl: captured on loopback, all that came before an answer.
const CAPTURED: [(&str, &[u8]); 4] = [
    (
        "chromium",
        include_bytes!("../../../fuzz/corpus/first_bytes/chromium_hello"),
    ),
    (
        "java",
        include_bytes!("../../../fuzz/corpus/first_bytes/java_hello"),
    ),
    (
        "go",
        include_bytes!("../../../fuzz/corpus/first_bytes/go_hello"),
    ),
    (
        "curl",
        include_bytes!("../../../fuzz/corpus/first_bytes/curl_hello"),
    ),
];

const BY_NAME: &str = "[[forward.route]]\nname = \"a\"\nsni = \"a.example\"\nupstream = {other}\n";

/// A forward whose clients that ask for `a.example` go elsewhere, and where.
fn by_name(case: Case) -> (Routed, Listener, Listener) {
    let (own, other) = (Listener::new(), Listener::new());
    let routed = Routed::start(case, &to(&own), &BY_NAME.replace("{other}", &to(&other)));
    (routed, own, other)
}

#[test]
fn b53_captured_hellos_are_routed_whole_and_byte_by_byte() {
    on_every_engine(|case| {
        let (routed, _own, other) = by_name(case);
        for (who, hello) in CAPTURED {
            for dripped in [false, true] {
                let client = routed.connect();
                if dripped {
                    drip(&client, hello);
                } else {
                    write(&client, hello);
                }
                expect_bytes(&other.accept(), hello);
                drop(client);
                let record = routed.record();
                assert_eq!(
                    (record.text("sni"), record.text("route")),
                    ("a.example", "a"),
                    "{who}"
                );
            }
        }
        routed.check_idle();
    });
}

/// Runs it against the forward; a hello must come where its name leads.
fn hello_of(command: impl Fn(u16) -> Command + Sync) {
    on_every_engine(|case| {
        let (routed, _own, other) = by_name(case);
        let program = Program::start(&mut command(routed.address().port()));
        let upstream = other.accept();
        let mut head = [0; 3];
        upstream.stream().read_exact(&mut head).unwrap();
        assert_eq!(head[..2], [0x16, 3], "no hello");
        drop((upstream, program));
        let record = routed.record();
        assert_eq!(
            (record.text("sni"), record.text("route")),
            ("a.example", "a")
        );
    });
}

#[test]
fn b53_a_hello_of_openssl() {
    if is_here("openssl") {
        hello_of(|port| {
            let mut command = Command::new("openssl");
            let at = format!("127.0.0.1:{port}");
            command.args([
                "s_client",
                "-connect",
                &at,
                "-servername",
                "a.example",
                "-alpn",
                "h2",
            ]);
            command
        });
    }
}

#[test]
fn b53_a_hello_of_curl() {
    if is_here("curl") {
        hello_of(|port| {
            let mut command = Command::new("curl");
            let at = format!("a.example:443:127.0.0.1:{port}");
            command.args(["-sk", "--connect-to", &at, "https://a.example/"]);
            command
        });
    }
}

/// HAProxy with this proxy in its configuration.
fn haproxy(directory: &Path, proxy: &str) -> Program {
    let file = directory.join("haproxy.cfg");
    let timeouts = "timeout connect 5s\n timeout client 60s\n timeout server 60s\n";
    let text = format!("defaults\n mode tcp\n {timeouts}\n{proxy}");
    std::fs::write(&file, text).unwrap();
    Program::start(
        Command::new("/usr/sbin/haproxy")
            .arg("-db")
            .arg("-f")
            .arg(file),
    )
}

/// nginx with this in its stream block.
fn nginx(directory: &Path, stream: &str) -> Program {
    let file = directory.join("nginx.conf");
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let module = if Path::new(module).exists() {
        format!("load_module {module};\n")
    } else {
        String::new()
    };
    let pid = directory.join("nginx.pid");
    let text = format!(
        "{module}daemon off;\nmaster_process off;\npid {};\nerror_log stderr crit;\nevents {{}}\n\
         stream {{\n{stream}\n}}\n",
        pid.display()
    );
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("/usr/sbin/nginx");
    command
        .arg("-p")
        .arg(directory)
        .args(["-e", "stderr", "-c"])
        .arg(file);
    Program::start(&mut command)
}

/// A connection to a program, as soon as it listens.
fn connect(port: u16) -> Peer {
    let to = SocketAddr::from(([127, 0, 0, 1], port));
    poll(PATIENCE, || Peer::try_connect(to).ok()).expect("the program listens")
}

/// A client of the program in front; what it sends arrives, and it is the client.
fn is_announced(routed: &Routed, server: &Listener, port: u16) {
    let mut client = connect(port);
    client.send(100_000);
    let mut upstream = server.accept();
    upstream.expect(100_000);
    upstream.send(1_000);
    client.expect(1_000);
    let local = client.local();
    drop((client, upstream));
    let record = routed.record();
    assert_eq!(record.text("client"), local.to_string(), "{record:?}");
    assert!(record.text("peer").starts_with("127.0.0.1:"), "{record:?}");
}

const ACCEPT: &str = "accept_proxy = [\"127.0.0.0/8\"]\n";

#[test]
fn b47_headers_of_haproxy() {
    if !is_here("haproxy") {
        return;
    }
    on_every_engine(|case| {
        let server = Listener::new();
        let routed = Routed::start(case, &to(&server), ACCEPT);
        let directory = Directory::new();
        let options = [
            "send-proxy",
            "send-proxy-v2",
            "send-proxy-v2 proxy-v2-options crc32c,unique-id",
        ];
        for option in options {
            let port = free_port();
            let text = format!(
                "listen front\n bind 127.0.0.1:{port}\n unique-id-format %pid-%rt\n \
                 server it {} {option}\n",
                routed.address()
            );
            let _program = haproxy(directory.path(), &text);
            is_announced(&routed, &server, port);
        }
    });
}

#[test]
fn b47_a_header_of_nginx() {
    if !is_here("nginx") {
        return;
    }
    on_every_engine(|case| {
        let server = Listener::new();
        let routed = Routed::start(case, &to(&server), ACCEPT);
        let (directory, port) = (Directory::new(), free_port());
        let text = format!(
            "server {{ listen 127.0.0.1:{port}; proxy_pass {}; proxy_protocol on; }}",
            routed.address()
        );
        let _program = nginx(directory.path(), &text);
        is_announced(&routed, &server, port);
    });
}

/// A pool of this server that is told who comes.
fn sends(port: u16, send: &str) -> (String, String) {
    let upstream = "\"told\"".to_owned();
    let lines =
        format!("\n[upstream.told]\nservers = [\"127.0.0.1:{port}\"]\nsend_proxy = {send}\n");
    (upstream, lines)
}

const HEADERS: [&str; 3] = [
    "\"v1\"",
    "\"v2\"",
    "{ version = \"v2\", tlvs = [\"unique_id\", \"crc32c\"] }",
];

#[test]
fn b52_haproxy_takes_the_headers() {
    if !is_here("haproxy") {
        return;
    }
    on_every_engine(|case| {
        // HAProxy tells its own server who the client is, by a line.
        let server = Listener::new();
        let (directory, port) = (Directory::new(), free_port());
        let text = format!(
            "listen back\n bind 127.0.0.1:{port} accept-proxy\n server it {} send-proxy\n",
            server.address()
        );
        let _program = haproxy(directory.path(), &text);
        drop(connect(port));
        for send in HEADERS {
            let (upstream, lines) = sends(port, send);
            let routed = Routed::start(case, &upstream, &lines);
            let client = routed.connect();
            write(&client, "payload");
            let (from, at) = (client.local(), routed.address());
            let line = format!(
                "PROXY TCP4 {} {} {} {}\r\n",
                from.ip(),
                at.ip(),
                from.port(),
                at.port()
            );
            expect_bytes(&server.accept(), format!("{line}payload"));
        }
    });
}

#[test]
fn b52_nginx_takes_the_headers() {
    if !is_here("nginx") {
        return;
    }
    on_every_engine(|case| {
        let (directory, port) = (Directory::new(), free_port());
        let text = format!(
            "server {{ listen 127.0.0.1:{port} proxy_protocol; \
             return \"$proxy_protocol_addr:$proxy_protocol_port\\n\"; }}"
        );
        let _program = nginx(directory.path(), &text);
        drop(connect(port));
        for send in HEADERS {
            let (upstream, lines) = sends(port, send);
            let routed = Routed::start(case, &upstream, &lines);
            let client = routed.connect();
            expect_bytes(&client, format!("{}\n", client.local()));
        }
    });
}

/// What a dissector that is not ours reads out of a header, field by field.
fn dissected(directory: &Path, header: &[u8]) -> String {
    let mut dump = "000000".to_owned();
    for byte in header {
        let _ = write!(dump, " {byte:02x}");
    }
    let (text, packets) = (directory.join("header.txt"), directory.join("header.pcap"));
    std::fs::write(&text, dump + "\n").unwrap();
    let mut made = Command::new("text2pcap");
    made.args(["-q", "-T", "40000,443"])
        .arg(&text)
        .arg(&packets);
    let made = made.stderr(Stdio::null()).status().unwrap();
    assert!(made.success());
    let fields = [
        "proxy.src.ipv4",
        "proxy.dst.ipv4",
        "proxy.srcport",
        "proxy.dstport",
    ];
    let mut command = Command::new("tshark");
    command.env("HOME", directory).arg("-r").arg(&packets);
    command.args(["-o", "tcp.try_heuristic_first:TRUE"]);
    command.args(["-T", "fields", "-E", "separator=,"]);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.stderr(Stdio::null()).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn b52_wireshark_reads_the_headers() {
    if !is_here("tshark") || !is_here("text2pcap") {
        return;
    }
    on_every_engine(|case| {
        let server = Listener::new();
        let directory = Directory::new();
        for send in HEADERS {
            let (upstream, lines) = sends(server.address().port(), send);
            let routed = Routed::start(case, &upstream, &lines);
            let client = routed.connect();
            client.half_close();
            let upstream = server.accept();
            let mut header = Vec::new();
            upstream.stream().read_to_end(&mut header).unwrap();
            let (from, at) = (client.local(), routed.address());
            let expected = format!("{},{},{},{}", from.ip(), at.ip(), from.port(), at.port());
            assert_eq!(dissected(directory.path(), &header), expected, "{send}");
        }
    });
}
