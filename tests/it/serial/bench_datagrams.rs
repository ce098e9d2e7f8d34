//! `thalweg bench`, `origin` and `probe` with datagrams: that they count what is lost, refuse to compare who
//! changes or mixes up datagrams, and cross an emulated path. Never how fast anything is.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid};
use serde_json::Value;

use super::alone;
use crate::kit;

const THALWEG: &str = env!("CARGO_BIN_EXE_thalweg");

fn bench(arguments: &[&str]) -> Output {
    bench_for("200ms", arguments)
}

fn bench_for(duration: &str, arguments: &[&str]) -> Output {
    let short =
        "bench --rounds 1 --warm-up 20ms --layout one-core --idle-sessions 0 --json --duration";
    let mut command = Command::new(THALWEG);
    command
        .args(short.split(' '))
        .arg(duration)
        .args(arguments)
        .stdin(Stdio::null());
    command.output().unwrap()
}

/// Likewise; where it does not show what it should, once more and for longer. A machine that stands still for a
/// fifth of a second, which is also when a datagram is given up, has nothing to show for a short one.
fn bench_until(arguments: &[&str], is_shown: impl Fn(&Output) -> bool) -> Output {
    let output = bench(arguments);
    if is_shown(&output) {
        return output;
    }
    bench_for("3s", arguments)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What `bench` said of each subject in the first shape.
fn rows(output: &Output) -> Vec<Value> {
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no report: {}", text(&output.stderr)));
    let schema = serde_json::from_str(include_str!("../../../docs/bench.schema.json")).unwrap();
    kit::schema::assert_conforms(&report, &schema);
    report["layouts"][0]["shapes"][0]["rows"]
        .as_array()
        .unwrap()
        .clone()
}

#[test]
fn datagrams_are_measured_directly_and_through_forwarders() {
    let _alone = alone();
    let mut subjects = "direct,thalweg".to_owned();
    if thalweg::bench::subjects::launch::find_program("nginx").is_some() {
        subjects.push_str(",nginx");
    } else {
        kit::skip("nginx", "is not installed");
    }
    for shape in [
        "udp-rr:flows=4:size=1400",
        "udp-rr:port=new:flows=4",
        "udp-rr:rate=200:flows=4",
        "udp-stream:window=8",
        "udp-stream:direction=down:window=8",
        "udp-stream:direction=both:rate=2k:flows=2",
        "udp-stream:train=8:window=32:size=1000",
        "udp-stream:direction=down:train=8:window=32:size=1000",
    ] {
        let arrived = |row: &Value| row["datagrams"]["lost_share"].as_f64() < Some(1.0);
        let output = bench_until(&["--subjects", &subjects, "--shapes", shape], |output| {
            output.status.success() && rows(output).iter().all(arrived)
        });
        let stderr = text(&output.stderr);
        if stderr.contains("has no stream module") {
            return kit::skip("nginx", "has no stream module");
        }
        assert!(output.status.success(), "{shape}: {stderr}");
        for row in rows(&output) {
            let found = &row["datagrams"];
            assert!(
                found["arrived_per_second"]["estimate"].as_f64() > Some(0.0),
                "{shape}: {row}"
            );
            let (sent, lost) = (
                found["sent"].as_u64().unwrap(),
                found["lost_share"].as_f64(),
            );
            assert!(sent > 0 && lost < Some(1.0), "{shape}: {row}");
            assert!(
                row["per_exchange"].is_object() || row["per_datagram"].is_object(),
                "{shape}: {row}"
            );
        }
    }
}

#[test]
fn what_forwards_connections_alone_is_not_compared() {
    let _alone = alone();
    let output = bench(&[
        "--subjects",
        "direct,thalweg:connect",
        "--shapes",
        "udp-rr:flows=2",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let failure = rows(&output)[1]["failure"].as_str().unwrap().to_owned();
    assert_eq!(failure, "it forwards no datagrams");
}

/// This test program, as a forwarder with a fault.
fn faulty(fault: &str) -> String {
    let this = std::env::current_exe().unwrap();
    format!(
        "{fault}=cmd:{} --ignored --exact \
         serial::bench_datagrams::acts_as_a_faulty_forwarder {fault} {{listen}} {{upstream}}",
        this.display()
    )
}

#[test]
#[ignore = "started by other tests, as a process of its own"]
fn acts_as_a_faulty_forwarder() {
    let arguments: Vec<String> = std::env::args().collect();
    let [.., fault, listen, upstream] = arguments.as_slice() else {
        return;
    };
    let (Ok(listen), Ok(upstream)) = (listen.parse::<SocketAddr>(), upstream.parse()) else {
        // Started by hand, with all ignored tests: there is nothing to forward.
        return;
    };
    let listener = TcpListener::bind(listen).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(upstream).unwrap();
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    forward_datagrams(listen, upstream, fault);
}

fn forward_datagrams(listen: SocketAddr, upstream: SocketAddr, fault: &str) {
    let socket = Arc::new(UdpSocket::bind(listen).unwrap());
    let mut flows: HashMap<SocketAddr, UdpSocket> = HashMap::new();
    let mut clients: Vec<SocketAddr> = Vec::new();
    let mut room = vec![0; 65_536];
    for count in 1_u32.. {
        let Ok((mut len, client)) = socket.recv_from(&mut room) else {
            continue;
        };
        let flow = flows.entry(client).or_insert_with(|| {
            let server = UdpSocket::bind("127.0.0.1:0").unwrap();
            server.connect(upstream).unwrap();
            // Answers to one client go to the one before it.
            let to = match (fault, clients.last()) {
                ("crosses", Some(other)) => *other,
                _ => client,
            };
            clients.push(client);
            let (back, answers) = (Arc::clone(&socket), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let mut room = vec![0; 65_536];
                while let Ok(len) = answers.recv(&mut room) {
                    let _ = back.send_to(&room[..len], to);
                }
            });
            server
        });
        match fault {
            "loses" if count % 4 == 0 => continue,
            "changes" if count % 50 == 0 => room[len - 1] ^= 1,
            "cuts" => len = len.min(1000),
            "doubles" if count > 20 => drop(flow.send(&room[..len])),
            _ => {}
        }
        let _ = flow.send(&room[..len]);
    }
}

#[test]
fn a_subject_that_loses_datagrams_is_compared_and_the_loss_is_said() {
    let _alone = alone();
    let subject = faulty("loses");
    let arguments = [
        "--subjects",
        "direct",
        "--subject",
        &subject,
        "--shapes",
        "udp-stream:rate=2k:flows=2",
    ];
    let lost = |output: &Output| {
        let share = &rows(output)[1]["datagrams"]["lost_share"];
        share.as_f64().unwrap_or_default()
    };
    // Every fourth, and what a busy machine loses besides.
    let is_shown = |output: &Output| output.status.success() && (0.2..0.9).contains(&lost(output));
    let output = bench_until(&arguments, is_shown);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(is_shown(&output), "{}", rows(&output)[1]);
}

#[test]
fn a_subject_that_changes_cuts_doubles_or_mixes_up_datagrams_is_not_compared() {
    let _alone = alone();
    for (fault, shape, why) in [
        ("changes", "udp-stream:rate=2k:flows=2", "cut, changed or"),
        ("cuts", "udp-stream:rate=2k:flows=2", "cut, changed or"),
        (
            "doubles",
            "udp-stream:rate=2k:flows=2",
            "more datagrams arrived",
        ),
        (
            "changes",
            "udp-rr:rate=1k:flows=2",
            "differs from its question",
        ),
        // The start-up's own question is the client before the first one.
        (
            "crosses",
            "udp-stream:direction=down:rate=2k:flows=3",
            "another client",
        ),
    ] {
        let subject = faulty(fault);
        let arguments = [
            "--subjects",
            "direct",
            "--subject",
            &subject,
            "--shapes",
            shape,
        ];
        let output = bench_until(&arguments, |output| {
            let failure = |output| {
                let failure = rows(output)[1]["failure"].as_str().map(str::to_owned);
                failure.unwrap_or_default()
            };
            output.stdout.is_empty() || failure(output).contains(why)
        });
        let stderr = text(&output.stderr);
        if fault == "crosses" && output.stdout.is_empty() {
            // Not even an exchange crosses it at the start.
            assert!(stderr.contains("cannot start"), "{stderr}");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{fault}: {stderr}");
        let row = &rows(&output)[1];
        let failure = row["failure"].as_str().unwrap_or_default();
        assert!(failure.contains(why), "{fault}, {shape}: {row}");
        assert_eq!(row["ratios"].as_array().map(Vec::len), Some(0), "{row}");
    }
}

#[test]
fn datagrams_cross_an_emulated_path() {
    let _alone = alone();
    if !Uid::effective().is_root() {
        return kit::skip("datagrams over a path", "needs root");
    }
    for shape in [
        "udp-rr:flows=2",
        "udp-stream:direction=both:rate=500:flows=2",
    ] {
        let path = "rtt=4ms,rate=50Mbit";
        let output = bench(&["--subjects", "direct", "--shapes", shape, "--path", path]);
        let stderr = text(&output.stderr);
        if stderr.contains("TUN device") {
            return kit::skip("datagrams over a path", &stderr);
        }
        assert!(output.status.success(), "{shape}: {stderr}");
        let row = &rows(&output)[0];
        assert!(row["datagrams"]["sent"].as_u64() > Some(0), "{row}");
        if let Some(p50) = row["latency_nanoseconds"]["p50"].as_u64() {
            assert!(p50 > 3_900_000, "{row}");
        }
    }
}

/// An origin as a user starts one, and where it takes datagrams.
fn origin() -> (Child, String) {
    let mut origin = Command::new(THALWEG)
        .args(["origin", "-l", "127.0.0.1:0", "--udp", "127.0.0.1:0"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(origin.stdout.take().unwrap()).lines();
    let address = loop {
        let line = lines.next().expect("it says where").unwrap();
        if let Some(address) = line.strip_prefix("datagrams on ") {
            break address.to_owned();
        }
    };
    (origin, address)
}

#[test]
fn a_probe_sends_datagrams_of_every_size_and_says_when_nobody_answers() {
    let (mut origin, address) = origin();
    let probe = |sizes: &str| {
        let arguments = [
            "probe", "--udp", &address, "--count", "14", "--sizes", sizes,
        ];
        Command::new(THALWEG)
            .args(arguments)
            .args(["--json", "--timeout", "10s"])
            .output()
            .unwrap()
    };
    let output = probe("0,1,1472,1473,9000,65507,64");
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for size in report["sizes"].as_array().unwrap() {
        assert_eq!(
            (size["sent"].as_u64(), size["lost"].as_u64()),
            (Some(2), Some(0)),
            "{size}"
        );
        assert_eq!(
            size["round_trip_ns"].as_array().map(Vec::len),
            Some(2),
            "{size}"
        );
    }
    assert_eq!(probe("65508").status.code(), Some(2));
    kill(Pid::from_raw(origin.id() as i32), Signal::SIGTERM).unwrap();
    assert!(origin.wait().unwrap().success());
    let output = probe("64");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("refused"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn an_origin_streams_to_nobody_unless_it_is_part_of_a_measurement() {
    use thalweg::bench::datagram::Order;
    let (mut origin, address) = origin();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(&address).unwrap();
    client.set_read_timeout(Some(kit::PATIENCE)).unwrap();
    let order = Order {
        size: 100,
        train: 1,
        rate: 0,
        window: 0,
    };
    let order = order.datagram(1, 500);
    client.send(&order).unwrap();
    // It is echoed, and one more question is answered next: nothing came in between.
    client.send(b"?").unwrap();
    let mut room = [0; 200];
    let len = client.recv(&mut room).unwrap();
    assert_eq!(room[..len], order);
    let len = client.recv(&mut room).unwrap();
    assert_eq!(&room[..len], b"?");
    kill(Pid::from_raw(origin.id() as i32), Signal::SIGTERM).unwrap();
    origin.wait().unwrap();
}
