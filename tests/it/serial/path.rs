//! The emulated path: is it what was asked for, and is nothing of it left behind?
//!
//! The arithmetic of rate, queue, loss and order is tested with virtual time, beside
//! the model. Here packets cross a live link, on whatever the machine has to spare: a
//! round trip or a rate is taken several times, and the best must be right. What no
//! machine can excuse is checked always: a path shorter than asked, or a line that
//! carried more than its rate.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::alone;
use crate::kit;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{setsockopt, sockopt};
use nix::unistd::{Pid, Uid};
use thalweg::bench::path::{Link, PathError};
use thalweg::net::tcp_info::TcpInfo;

/// How far a measured figure may be from what was asked.
const WITHIN: f64 = 0.05;

/// Attempts at a figure that a busy machine can spoil.
const ATTEMPTS: usize = 6;

/// A link as described, or the test is skipped aloud.
fn link(spec: &str) -> Option<Link> {
    match Link::start(&spec.parse().unwrap()) {
        Ok(link) => Some(link),
        Err(why @ (PathError::NotPermitted | PathError::Tun { .. })) => {
            kit::skip(&kit::test_name(), &why.to_string());
            None
        }
        Err(other) => panic!("{other}"),
    }
}

/// A socket for datagrams at each end.
fn datagrams(link: &Link) -> (UdpSocket, UdpSocket) {
    let [near, far] = [link.near(), link.far()].map(|end| {
        let address = SocketAddr::from((end.address(), 0));
        let socket = end.run(|| UdpSocket::bind(address).unwrap()).unwrap();
        socket.set_read_timeout(Some(kit::PATIENCE)).unwrap();
        socket
    });
    near.connect(far.local_addr().unwrap()).unwrap();
    far.connect(near.local_addr().unwrap()).unwrap();
    (near, far)
}

/// A connection across the path: the near end and the far end of it.
fn connection(link: &Link) -> (TcpStream, TcpStream) {
    let address = SocketAddr::from((link.far().address(), 0));
    let listener = link.far().run(|| TcpListener::bind(address).unwrap());
    let listener = listener.unwrap();
    let address = listener.local_addr().unwrap();
    let near = link.near().run(|| TcpStream::connect(address).unwrap());
    let (far, _) = listener.accept().unwrap();
    let near = near.unwrap();
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    (near, far)
}

/// The median round trip of handshakes as the kernel times them: no application has
/// to get its turn in between.
fn round_trip(link: &Link, count: usize) -> Duration {
    let mut times: Vec<Duration> = (0..count)
        .map(|_| TcpInfo::read(connection(link).0.as_fd()).unwrap().rtt)
        .collect();
    times.sort_unstable();
    times[count / 2]
}

fn share(found: Duration, asked: Duration) -> f64 {
    found.as_secs_f64() / asked.as_secs_f64() - 1.0
}

#[test]
fn a_round_trip_takes_what_was_asked() {
    let _alone = alone();
    for asked in [5, 20, 40, 80] {
        let Some(link) = link(&format!("rtt={asked}ms,rate=200Mbit")) else {
            return;
        };
        let asked = Duration::from_millis(asked);
        let mut found = Vec::new();
        for _ in 0..ATTEMPTS {
            let off = share(round_trip(&link, 9), asked);
            assert!(off > -WITHIN, "{asked:?}: faster than asked by {off}");
            found.push(off);
            if off < WITHIN {
                break;
            }
        }
        assert!(
            found.iter().any(|off| *off < WITHIN),
            "{asked:?}: {found:?}"
        );
    }
}

/// Bytes a second that the far end of a connection takes in for a while.
fn bulk_rate(link: &Link, warm_up: Duration, time: Duration) -> f64 {
    let (mut near, mut far) = connection(link);
    thread::scope(|scope| {
        scope.spawn(move || {
            near.set_write_timeout(Some(kit::PATIENCE)).unwrap();
            let chunk = vec![0; 256 * 1024];
            while near.write_all(&chunk).is_ok() {}
        });
        let mut buffer = vec![0; 256 * 1024];
        let take = |far: &mut TcpStream, buffer: &mut [u8], time: Duration| {
            let begin = Instant::now();
            let mut bytes = 0;
            while begin.elapsed() < time {
                bytes += far.read(buffer).unwrap();
            }
            bytes as f64 / begin.elapsed().as_secs_f64()
        };
        take(&mut far, &mut buffer, warm_up);
        let rate = take(&mut far, &mut buffer, time);
        // Ends the writer too.
        far.shutdown(Shutdown::Both).unwrap();
        rate
    })
}

#[test]
fn bulk_moves_at_the_rate_that_was_asked() {
    let _alone = alone();
    for (rtt, rate) in [(10, 50), (20, 200), (40, 100)] {
        let begin = Instant::now();
        let Some(link) = link(&format!("rtt={rtt}ms,rate={rate}Mbit")) else {
            return;
        };
        link.set_congestion("cubic").unwrap();
        // 20 bytes of IP, 32 of TCP with timestamps.
        let payload = (1500.0 - 52.0) / 1500.0;
        let asked = f64::from(rate) * 1e6 / 8.0 * payload;
        let mut found = Vec::new();
        for _ in 0..ATTEMPTS {
            let rate = bulk_rate(
                &link,
                Duration::from_millis(500),
                Duration::from_millis(700),
            );
            found.push(rate / asked - 1.0);
            if found.last().unwrap().abs() < WITHIN {
                break;
            }
        }
        // Not an attempt but a law: the line never carried more than its rate.
        let carried = link.counters().up.bytes as f64;
        let most = f64::from(rate) * 1e6 / 8.0 * begin.elapsed().as_secs_f64();
        assert!(carried <= most, "{}: {carried} of {most}", link.spec());
        assert!(
            found.iter().any(|off| off.abs() < WITHIN),
            "{}: {found:?}",
            link.spec()
        );
    }
}

/// Sends numbered datagrams of `len` bytes, payload and headers, a burst at a time,
/// each burst when the link has dealt with the one before. Returns the numbers that
/// arrive, in their order.
fn send_numbered(link: &Link, count: u32, len: usize, burst: u32) -> Vec<u32> {
    let (near, far) = datagrams(link);
    // Room for all: what the receiver loses is not the path's loss.
    setsockopt(&far, sockopt::RcvBufForce, &(256 << 20)).unwrap();
    let mut payload = vec![0; len - 28];
    for number in 0..count {
        payload[..4].copy_from_slice(&number.to_ne_bytes());
        near.send(&payload).unwrap();
        if (number + 1) % burst == 0 || number + 1 == count {
            kit::wait_until("the link has dealt with a burst", kit::PATIENCE, || {
                let up = link.counters().up;
                up.packets + up.dropped + up.lost == u64::from(number + 1)
            });
        }
    }
    far.set_nonblocking(true).unwrap();
    let mut arrived = Vec::new();
    while far.recv(&mut payload).is_ok() {
        arrived.push(u32::from_ne_bytes(payload[..4].try_into().unwrap()));
    }
    arrived
}

#[test]
fn losses_are_as_many_as_asked_and_the_same_for_a_seed() {
    const COUNT: u32 = 20_000;
    let _alone = alone();
    for (loss, share) in [("0.5%", 0.005), ("5%", 0.05)] {
        let spec = format!("rtt=2ms,rate=1Gbit,loss={loss},queue=1MiB,seed=7");
        let mut runs = Vec::new();
        for _ in 0..2 {
            let Some(link) = link(&spec) else { return };
            let arrived = send_numbered(&link, COUNT, 128, 1_000);
            let up = link.counters().up;
            assert_eq!((up.dropped, up.overrun), (0, 0), "{up:?}");
            assert_eq!(up.packets as usize, arrived.len());
            assert_eq!(up.lost as usize, COUNT as usize - arrived.len());
            runs.push(arrived);
        }
        let lost = f64::from(COUNT) - runs[0].len() as f64;
        let expected = f64::from(COUNT) * share;
        // Five standard deviations.
        let slack = 5.0 * (expected * (1.0 - share)).sqrt();
        assert!((lost - expected).abs() < slack, "{loss}: {lost} of {COUNT}");
        assert!(runs[0] == runs[1], "{loss}: the seed does not decide");
    }
}

#[test]
fn the_queue_holds_so_many_bytes_and_drops_its_tail() {
    let _alone = alone();
    let Some(link) = link("rtt=4ms,rate=8Mbit,queue=30000B") else {
        return;
    };
    let begin = Instant::now();
    let arrived = send_numbered(&link, 200, 1500, 200);
    let drained = begin.elapsed().as_secs_f64() * 1e6 / 1500.0;
    let up = link.counters().up;
    assert!(up.queue_peak <= 30_000 && up.queue_peak > 28_500, "{up:?}");
    assert_eq!(
        arrived[..20],
        (0..20).collect::<Vec<_>>(),
        "the first 20 fit"
    );
    assert!(arrived.len() as f64 <= 21.0 + drained, "{arrived:?}");
    assert_eq!(up.dropped + up.packets, 200);
    assert!(up.dropped > 0, "{up:?}");
}

#[test]
fn jitter_makes_packets_late_and_none_overtakes() {
    let _alone = alone();
    let Some(link) = link("rtt=10ms,rate=100Mbit,jitter=4ms,queue=1MiB") else {
        return;
    };
    let arrived = send_numbered(&link, 2_000, 200, 50);
    assert_eq!(arrived, (0..2_000).collect::<Vec<_>>());
    // 2 ms more on average each way; the least of many has next to none.
    let median = round_trip(&link, 31);
    assert!(median > Duration::from_millis(11), "{median:?}");
}

#[test]
fn a_larger_packet_than_the_mtu_is_cut_to_it() {
    let _alone = alone();
    let Some(link) = link("rtt=1ms,rate=100Mbit,mtu=600") else {
        return;
    };
    let (near, far) = datagrams(&link);
    near.send(&[7; 1_400]).unwrap();
    let mut buffer = [0; 2_000];
    assert_eq!(far.recv(&mut buffer).unwrap(), 1_400);
    // A packet is counted just after it was handed over.
    kit::wait_until("three pieces are counted", kit::PATIENCE, || {
        link.counters().up.packets == 3
    });
    // 1408 bytes of UDP in pieces of at most 576, each behind 20 bytes of IP.
    assert_eq!(link.counters().up.bytes, 1_408 + 60);
}

#[test]
fn the_routes_take_a_congestion_control_and_refuse_an_unknown_one() {
    let _alone = alone();
    let Some(link) = link("rtt=1ms,rate=100Mbit") else {
        return;
    };
    let error = link.set_congestion("nonesuch").unwrap_err().to_string();
    assert!(
        error.contains("nonesuch") && error.contains("modprobe tcp_nonesuch"),
        "{error}"
    );
    for name in ["cubic", "reno"] {
        link.set_congestion(name).unwrap();
        let (near, far) = connection(&link);
        for socket in [&near, &far] {
            let found = socket2::SockRef::from(socket).tcp_congestion().unwrap();
            let found = String::from_utf8_lossy(&found).into_owned();
            assert_eq!(found.trim_end_matches('\0'), name);
        }
    }
}

/// A benchmark over a path that would take minutes.
fn long_benchmark(directory: &Path) -> Child {
    let arguments = "bench --path rtt=40ms,rate=50Mbit --subjects direct,thalweg --shapes rr \
                     --rounds 1000 --layout one-core";
    Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(arguments.split_whitespace())
        .env("TMPDIR", directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The network namespace of every thread and every descriptor of a process, such as
/// `net:[4026531840]`.
fn namespaces(process: &str) -> BTreeSet<String> {
    let list = |directory: String| fs::read_dir(directory).into_iter().flatten().flatten();
    let threads = list(format!("/proc/{process}/task")).map(|it| it.path().join("ns/net"));
    let descriptors = list(format!("/proc/{process}/fd")).map(|it| it.path());
    let links = threads.chain(descriptors);
    links
        .filter_map(|link| Some(fs::read_link(link).ok()?.to_string_lossy().into_owned()))
        .filter(|target| target.starts_with("net:["))
        .collect()
}

/// Those that any process of the machine uses, or that are mounted somewhere.
fn namespaces_in_use() -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let numbers = processes.filter_map(|it| it.file_name().into_string().ok());
    let numbers = numbers.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    let mut used: BTreeSet<String> = numbers.flat_map(|it| namespaces(&it)).collect();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mounted = mounts
        .split_whitespace()
        .filter(|it| it.starts_with("net:["));
    used.extend(mounted.map(str::to_owned));
    used
}

/// Ends a benchmark in the middle; what it made must be gone soon.
fn nothing_is_left_after(signal: Signal) {
    let _alone = alone();
    if !Uid::effective().is_root() {
        kit::skip(&kit::test_name(), "needs root");
        return;
    }
    let named = || fs::read_dir("/run/netns").map_or(0, Iterator::count);
    let before = (namespaces_in_use(), named());
    let directory = kit::directory::Directory::new();
    let mut benchmark = long_benchmark(directory.path());
    let process = benchmark.id().to_string();
    // Its own namespace, then both ends, then the forwarder that is measured.
    let mut made = BTreeSet::new();
    let running = kit::poll(kit::PATIENCE, || {
        made = &namespaces(&process) - &before.0;
        let children = format!("/proc/{process}/task/{process}/children");
        let children = fs::read_to_string(children).unwrap_or_default();
        (made.len() >= 2 && !children.trim().is_empty()).then_some(())
    });
    kill(Pid::from_raw(benchmark.id() as i32), signal).unwrap();
    let ended = kit::poll(kit::PATIENCE, || benchmark.try_wait().unwrap());
    if ended.is_none() {
        let _ = benchmark.kill();
    }
    assert!(
        running.is_some(),
        "the benchmark did not get going: {made:?}"
    );
    assert!(ended.is_some(), "the benchmark did not end by {signal}");
    kit::wait_until("its namespaces are gone", kit::PATIENCE, || {
        made.is_disjoint(&namespaces_in_use())
    });
    assert_eq!(named(), before.1, "/run/netns");
}

#[test]
fn sigkill_leaves_no_namespace_and_no_device() {
    nothing_is_left_after(Signal::SIGKILL);
}

#[test]
fn sigint_leaves_no_namespace_and_no_device() {
    nothing_is_left_after(Signal::SIGINT);
}

#[test]
fn every_shape_is_measured_over_a_path_and_the_report_says_so() {
    let _alone = alone();
    if !Uid::effective().is_root() {
        kit::skip(&kit::test_name(), "needs root");
        return;
    }
    let directory = kit::directory::Directory::new();
    let arguments = "bench --path rtt=4ms,rate=100Mbit --subjects direct,thalweg \
                     --shapes bulk-up:flows=1,bulk-down:flows=1,ping,rr:flows=8,crr:flows=4,mix \
                     --rounds 1 --duration 150ms --warm-up 50ms --layout one-core --json";
    let output = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(arguments.split_whitespace())
        .env("TMPDIR", directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let spec = "rtt=4ms,rate=100Mbit,loss=0%,mtu=1500,queue=64KiB,jitter=0s,seed=1";
    assert_eq!(report["path"]["spec"], spec);
    let method = report["method"].as_str().unwrap();
    assert!(method.contains(spec), "{method}");
    let packets = &report["path"]["counters"]["up"]["packets"];
    assert!(packets.as_u64().unwrap() > 100, "{packets}");
    let shapes = report["layouts"][0]["shapes"].as_array().unwrap();
    assert_eq!(shapes.len(), 6);
    for row in shapes.iter().flat_map(|it| it["rows"].as_array().unwrap()) {
        assert!(row["failure"].is_null(), "{row}");
    }
    // What a single exchange cannot be faster than, with or without a forwarder.
    for row in shapes[2]["rows"].as_array().unwrap() {
        let median = row["latency_nanoseconds"]["p50"].as_u64().unwrap();
        assert!(median > 3_800_000, "{median} ns");
    }
    let left = fs::read_dir(directory.path()).unwrap().count();
    assert_eq!(left, 0, "files left behind");
}

#[test]
fn without_privileges_the_refusal_says_what_is_needed() {
    const NOBODY: u32 = 65_534;
    if !Uid::effective().is_root() {
        kit::skip(&kit::test_name(), "needs root, to be somebody else");
        return;
    }
    let refused = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["bench", "--path", "rtt=1ms,rate=1Gbit", "--quick"])
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    let Ok(refused) = refused else {
        kit::skip(&kit::test_name(), "the program is not everybody's to run");
        return;
    };
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("root (CAP_SYS_ADMIN and CAP_NET_ADMIN)"),
        "{said}"
    );
}

#[test]
fn a_path_that_makes_no_sense_is_a_usage_error() {
    let refused = Command::new(env!("CARGO_BIN_EXE_thalweg"))
        .args(["bench", "--path", "rtt=40ms,rate=1G"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("did you mean `1Gbit`?"), "{said}");
}
