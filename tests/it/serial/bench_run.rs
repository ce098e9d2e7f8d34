//! `thalweg bench` and `thalweg demo` as a user starts them: that they work, that
//! they refuse to compare what is broken, and that they leave nothing behind. Never
//! how fast anything is.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::alone;
use crate::kit;

const THALWEG: &str = env!("CARGO_BIN_EXE_thalweg");

/// A directory for the temporary files of one run, which must be empty afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("bench-test-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(THALWEG);
        command
            .args(arguments)
            .env("TMPDIR", &self.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn assert_clean(&self) {
        let left: Vec<_> = fs::read_dir(&self.0).unwrap().flatten().collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The shortest run that measures anything.
const SHORT: [&str; 12] = [
    "--rounds",
    "1",
    "--duration",
    "100ms",
    "--warm-up",
    "20ms",
    "--layout",
    "one-core",
    "--idle-sessions",
    "0",
    "--check-one-in",
    "1",
];

fn bench(scratch: &Scratch, arguments: &[&str]) -> Output {
    scratch.run(&[&["bench"], SHORT.as_slice(), arguments].concat())
}

#[test]
fn quick_measures_every_shape_and_writes_the_whole_report() {
    let _alone = alone();
    let scratch = Scratch::new("quick");
    let out = Scratch::new("quick-report");
    let watch = kit::Stopwatch::start();
    let directory = out.0.to_str().unwrap();
    let output = scratch.run(&[
        "bench",
        "--quick",
        "--subjects",
        "direct,thalweg,thalweg:splice",
        "--json",
        "--report",
        directory,
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(watch.allowing() < Duration::from_secs(60));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let schema = serde_json::from_str(include_str!("../../../docs/bench.schema.json")).unwrap();
    kit::schema::assert_conforms(&report, &schema);
    assert_eq!(report["format"], "thalweg-bench");
    let shapes = report["layouts"][0]["shapes"].as_array().unwrap();
    assert_eq!(shapes.len(), 4);
    for shape in shapes {
        for row in shape["rows"].as_array().unwrap() {
            let figure = row["exchanges_per_second"]["estimate"].as_f64();
            let figure = figure
                .or(row["throughput_bytes_per_second"]["estimate"].as_f64())
                .unwrap();
            assert!(figure > 0.0 && row["failure"].is_null(), "{row}");
            assert!(
                row["samples"][0]["checked_bytes"].as_u64().unwrap() > 0,
                "{row}"
            );
        }
    }
    let idle = &report["layouts"][0]["subjects"][1]["idle_session"];
    assert_eq!(idle["descriptors"].as_f64(), Some(2.0), "{idle}");
    let page = fs::read_to_string(out.0.join("report.html")).unwrap();
    assert!(page.contains("</html>") && page.contains("<svg"));
    for outside in ["src=", "href=\"h", "@import", "url("] {
        assert!(
            !page.contains(outside),
            "the page refers to something outside by {outside}"
        );
    }
    let plots = fs::read_dir(&out.0).unwrap().flatten();
    let plots = plots.filter(|file| file.path().extension().is_some_and(|e| e == "svg"));
    assert!(plots.count() >= 8);
    scratch.assert_clean();
}

#[test]
fn peers_that_are_installed_are_configured_so_that_they_work() {
    let _alone = alone();
    let scratch = Scratch::new("peers");
    let mut subjects = vec!["direct"];
    for (program, specs) in [
        ("nginx", ["nginx", "nginx:tuned"].as_slice()),
        ("haproxy", &["haproxy", "haproxy:nosplice"]),
        ("socat", &["socat"]),
        ("realm", &["realm"]),
    ] {
        if thalweg::bench::subjects::launch::find_program(program).is_some() {
            subjects.extend(specs);
        } else {
            kit::skip(program, "is not installed");
        }
    }
    let list = subjects.join(",");
    let output = bench(
        &scratch,
        &["--subjects", &list, "--shapes", "bulk-up,rr:flows=4"],
    );
    let stderr = text(&output.stderr);
    if stderr.contains("has no stream module") {
        kit::skip("nginx", "has no stream module");
        return;
    }
    assert!(output.status.success(), "{stderr}");
    scratch.assert_clean();
}

#[test]
fn what_clients_say_first_reaches_no_origin_and_every_byte_behind_it_does() {
    let _alone = alone();
    let scratch = Scratch::new("first");
    let mut subjects = vec!["thalweg:sni+access=500", "thalweg:proxy2+access=500"];
    for (peer, names) in [
        ("nginx", ["nginx+preread", "nginx+proxy2"]),
        ("haproxy", ["haproxy+sni", "haproxy+proxy2"]),
    ] {
        if thalweg::bench::subjects::launch::find_program(peer).is_some() {
            subjects.extend(names);
        } else {
            kit::skip(
                &format!("a hello and a header in front of {peer}"),
                "not installed",
            );
        }
    }
    let output = bench(
        &scratch,
        &[
            "--subjects",
            &subjects.join(","),
            "--shapes",
            "crr:flows=4,rr:flows=4,bulk-up:flows=2,bulk-down:flows=2",
            "--json",
        ],
    );
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let layout = &report["layouts"][0];
    for shape in layout["shapes"].as_array().unwrap() {
        for row in shape["rows"].as_array().unwrap() {
            assert!(row["failure"].is_null(), "{row}");
        }
    }
    let files = layout["subjects"][0]["launch"]["files"].as_array().unwrap();
    let networks = files[1][1].as_str().unwrap();
    assert_eq!(networks.lines().count(), 500);
    scratch.assert_clean();
}

#[test]
fn open_loops_mixes_and_fresh_connections_work_in_both_layouts() {
    let _alone = alone();
    let scratch = Scratch::new("shapes");
    let shapes = "bulk-both:flows=2,rr:rate=40:flows=4,crr:flows=4,mix:flows=4,rr:size=200KiB:flows=2,\
         mix:bulk=4:direction=up:flows=2,burst:bulk=2:size=200kB:flows=2,crr-nagle:flows=4";
    let mut layouts = vec!["one-core"];
    if thalweg::net::limits::allowed_cpus().len() > 1 {
        layouts.push("own-core");
    } else {
        kit::skip("layout own-core", "needs a second CPU");
    }
    for layout in layouts {
        let output = scratch.run(&[
            "bench",
            "--rounds",
            "1",
            "--duration",
            "300ms",
            "--warm-up",
            "50ms",
            "--layout",
            layout,
            "--idle-sessions",
            "0",
            "--subjects",
            "direct,thalweg:copy",
            "--shapes",
            shapes,
            "--json",
        ]);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let measured = |shape: usize| &report["layouts"][0]["shapes"][shape]["rows"][1];
        for mix in [3, 5] {
            let quiet = &measured(mix)["quiet"];
            for figure in ["exchanges_per_second", "p50_ratio", "p99_ratio"] {
                let estimate = quiet[figure]["estimate"].as_f64().unwrap();
                assert!(estimate > 0.0, "{layout}: {quiet}");
            }
        }
        let share = measured(6)["burst"]["bulk_share_before_last"]["estimate"]
            .as_f64()
            .unwrap();
        assert!((0.0..=1.0).contains(&share), "{layout}: {share}");
    }
    scratch.assert_clean();
}

#[test]
fn a_large_configuration_is_compared_with_the_same_subject_without() {
    let _alone = alone();
    let scratch = Scratch::new("sizes");
    let output = bench(
        &scratch,
        &[
            "--subjects",
            "direct,thalweg:copy,thalweg:copy+forwards=20+servers=30",
            "--shapes",
            "crr:flows=4",
            "--starts",
            "2",
            "--json",
        ],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let layout = &report["layouts"][0];
    let large = &layout["subjects"][2];
    let configuration = large["launch"]["files"][0][1].as_str().unwrap();
    assert_eq!(configuration.matches("[[forward]]").count(), 20);
    assert_eq!(configuration.matches("127.2.0.").count(), 30);
    let ratios = layout["shapes"][0]["rows"][2]["ratios"].as_array().unwrap();
    let growth = |it: &&Value| it["against"] == "thalweg:copy" && it["of"] == "cpu";
    assert!(ratios.iter().any(|it| growth(&it)), "{ratios:?}");
    let starts = layout["starts"].as_array().unwrap();
    assert_eq!(starts.len(), 2);
    assert!(starts[1]["seconds_ratio"]["estimate"].as_f64().unwrap() > 0.0);
    scratch.assert_clean();
}

#[test]
fn a_subject_that_cannot_start_ends_the_run_and_says_what_it_printed() {
    let _alone = alone();
    let scratch = Scratch::new("no-start");
    let output = bench(
        &scratch,
        &[
            "--subjects",
            "direct",
            "--subject",
            "x=cmd:/bin/sh -c {listen}{upstream}",
        ],
    );
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("x cannot start: it ended by itself"),
        "{stderr}"
    );
    assert!(stderr.contains("it printed:"), "{stderr}");

    let output = bench(
        &scratch,
        &["--subject", "x=cmd:/no/such/program {listen} {upstream}"],
    );
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("cannot run `/no/such/program`"));
    scratch.assert_clean();
}

/// This test program, as a forwarder with a fault.
fn faulty(fault: &str) -> String {
    let this = std::env::current_exe().unwrap();
    format!(
        "{fault}=cmd:{} --ignored --exact serial::bench_run::acts_as_a_faulty_forwarder {fault} {{listen}} {{upstream}}",
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
    let Ok(listen) = listen.parse::<SocketAddr>() else {
        // Started by hand, with all ignored tests: there is nothing to forward.
        return;
    };
    let listener = TcpListener::bind(listen).unwrap();
    for client in listener.incoming().flatten() {
        let (fault, upstream) = (fault.clone(), upstream.clone());
        std::thread::spawn(move || {
            let server = TcpStream::connect(upstream).unwrap();
            let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || copy_with_fault(from, to, &fault));
            copy_with_fault(server, client, "none");
        });
    }
}

/// After a megabyte, which a start-up check does not reach, loses or changes a byte.
fn copy_with_fault(mut from: TcpStream, mut to: TcpStream, fault: &str) {
    let mut buffer = vec![0; 65_536];
    let mut moved = 0_usize;
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let before = moved;
        moved += read;
        let now = before < 1_100_000 && moved >= 1_100_000;
        let end = match fault {
            "loses" if now => read - 1,
            "changes" if now => {
                buffer[0] ^= 1;
                read
            }
            _ => read,
        };
        if to.write_all(&buffer[..end]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn a_subject_that_loses_or_changes_bytes_is_not_compared() {
    let _alone = alone();
    let scratch = Scratch::new("faulty");
    for fault in ["loses", "changes"] {
        let output = bench(
            &scratch,
            &[
                "--subjects",
                "direct",
                "--subject",
                &faulty(fault),
                "--shapes",
                "bulk-up",
                "--json",
            ],
        );
        assert_eq!(output.status.code(), Some(1));
        let stderr = text(&output.stderr);
        assert!(
            stderr.contains("not compared: one-core, bulk-up"),
            "{fault}: {stderr}"
        );
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let row = &report["layouts"][0]["shapes"][0]["rows"][1];
        assert_eq!(row["ratios"].as_array().map(Vec::len), Some(0), "{row}");
        assert!(row["failure"].is_string(), "{row}");
    }
    scratch.assert_clean();
}

#[test]
fn a_rate_beyond_reach_is_said() {
    let _alone = alone();
    let scratch = Scratch::new("rate");
    let output = bench(
        &scratch,
        &["--subjects", "direct", "--shapes", "rr:rate=50M:flows=2"],
    );
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("the rate was not reached: 50.0 M/s asked for"),
        "{stderr}"
    );
}

#[test]
fn too_few_descriptors_are_said_before_anything_starts() {
    let _alone = alone();
    let scratch = Scratch::new("descriptors");
    let output = Command::new("/bin/sh")
        .args([
            "-c",
            "ulimit -n 200; exec \"$0\" bench --subjects direct,thalweg --idle-sessions 5000",
            THALWEG,
        ])
        .env("TMPDIR", &scratch.0)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("5000 idle sessions needs 10064 descriptors"),
        "{stderr}"
    );
    assert!(stderr.contains("only 200 are allowed"), "{stderr}");
    scratch.assert_clean();
}

#[test]
fn nonsense_on_the_command_line_is_named() {
    let _alone = alone();
    let scratch = Scratch::new("nonsense");
    for (arguments, code, word) in [
        (
            ["--shapes", "bulk-sideways"],
            2,
            "unknown shape `bulk-sideways`",
        ),
        (["--subjects", "envoy"], 2, "unknown subject `envoy`"),
        (["--against", "nobody"], 2, "no such subject"),
        (["--duration", "0s"], 2, "--duration must be more"),
        (
            ["--congestion", "nosuch"],
            2,
            "no congestion control `nosuch`; it has ",
        ),
    ] {
        let output = scratch.run(&[["bench"].as_slice(), &arguments].concat());
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(word), "{stderr}");
    }
}

fn children_of(parent: u32) -> Vec<i32> {
    fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|pid| pid.parse().ok())
        .collect()
}

fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn exit_code(child: &mut Child) -> Option<i32> {
    wait_for("end", || child.try_wait().unwrap()).code()
}

#[test]
fn an_interrupt_before_the_first_round_ends_stops_everything_that_was_started() {
    let _alone = alone();
    let scratch = Scratch::new("interrupt");
    let mut child = scratch
        .command(&[
            "bench",
            "--subjects",
            "direct,thalweg,thalweg:copy",
            "--duration",
            "100s",
        ])
        .spawn()
        .unwrap();
    let started = wait_for("two subjects", || {
        Some(children_of(child.id())).filter(|children| children.len() == 2)
    });
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    assert_eq!(exit_code(&mut child), Some(1));
    let output = child.wait_with_output().unwrap();
    let stderr = text(&output.stderr);
    assert!(
        stderr.contains("interrupted before a round was finished"),
        "{stderr}"
    );
    for pid in started {
        wait_for("end of a subject", || {
            kill(Pid::from_raw(pid), None).is_err().then_some(())
        });
    }
    scratch.assert_clean();
}

#[test]
fn an_interrupt_keeps_the_rounds_that_were_finished() {
    let _alone = alone();
    let scratch = Scratch::new("kept");
    let child = scratch
        .command(&[
            "bench",
            "--subjects",
            "direct,thalweg:copy",
            "--shapes",
            "rr:flows=2",
            "--layout",
            "one-core",
            "--idle-sessions",
            "0",
            "--rounds",
            "1000",
            "--duration",
            "50ms",
            "--warm-up",
            "10ms",
            "--json",
        ])
        .spawn()
        .unwrap();
    wait_for("a subject", || {
        Some(children_of(child.id())).filter(|children| children.len() == 1)
    });
    // Some rounds' time; if not even one has ended by then, it is said below.
    std::thread::sleep(Duration::from_secs(3));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = text(&output.stderr);
    if stderr.contains("before a round was finished") {
        kit::skip(&kit::test_name(), "no round was finished in three seconds");
        return;
    }
    assert!(stderr.contains("interrupted: finished were "), "{stderr}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["layouts"][0]["shapes"][0]["rows"]
        .as_array()
        .unwrap();
    let rounds: Vec<u64> = rows
        .iter()
        .map(|row| row["samples"].as_array().unwrap().len() as u64)
        .collect();
    // Of each those that were not disturbed.
    assert!(rounds.iter().all(|it| (1..1000).contains(it)), "{rounds:?}");
    let said = report["interrupted"].as_str().unwrap();
    assert!(said.contains(" of 1000 rounds one-core"), "{said}");
    assert!(rows.iter().all(|row| row["failure"].is_null()));
    scratch.assert_clean();
}

#[test]
fn a_single_round_has_no_interval() {
    let _alone = alone();
    let scratch = Scratch::new("single");
    let output = bench(
        &scratch,
        &["--subjects", "direct,thalweg:copy", "--shapes", "bulk-down"],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    assert!(!stdout.contains('±'), "{stdout}");
    assert!(!stdout.contains('['), "{stdout}");
    assert!(
        stdout.contains("noise") || stdout.contains("disturbed"),
        "{stdout}"
    );
    scratch.assert_clean();
}

#[test]
fn subjects_end_even_when_the_benchmark_is_killed() {
    let _alone = alone();
    let scratch = Scratch::new("killed");
    let mut child = scratch
        .command(&["bench", "--subjects", "direct,thalweg", "--rounds", "100"])
        .spawn()
        .unwrap();
    let started = wait_for("a subject", || {
        Some(children_of(child.id())).filter(|children| children.len() == 1)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    for pid in started {
        wait_for("end of the subject", || {
            kill(Pid::from_raw(pid), None).is_err().then_some(())
        });
    }
}

#[test]
fn the_demo_shows_both_ways_and_what_to_try_next() {
    let _alone = alone();
    let scratch = Scratch::new("demo");
    let output = scratch.run(&["demo", "--time", "1s"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let stdout = text(&output.stdout);
    for part in [
        "direct",
        "through thalweg",
        "█",
        "b/s",
        "s CPU/GB",
        "no difference",
        "Next:",
    ] {
        assert!(stdout.contains(part), "{part} is missing in:\n{stdout}");
    }
    if thalweg::bench::subjects::launch::find_program("nginx").is_some() {
        let said = format!("{stdout}{}", text(&output.stderr));
        assert!(
            said.contains("times nginx's bulk") || said.contains("without nginx"),
            "{said}"
        );
    } else {
        kit::skip("nginx", "is not installed");
    }
    scratch.assert_clean();
}
