//! What a large configuration costs: behaviour 119.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::kit::*;
use crate::kit::admin::Admin;
use crate::kit::directory::Directory;
use crate::kit::process::Process;
use crate::kit::*;

const FORWARDS: u32 = 500;
const SERVERS: u32 = 10;

/// 5,000 servers of this weight, but for one.
fn text(port: u16, server: SocketAddr, weight: u32, one: u32) -> String {
    let mut text = String::new();
    for forward in 0..FORWARDS {
        let listen = if forward == 0 { port } else { 0 };
        let _ = write!(
            text,
            "[[forward]]\nname = \"f{forward}\"\nlisten = \"127.0.0.1:{listen}\"\n\
             [forward.upstream]\nbalance = \"first\"\nservers = ["
        );
        for at in 0..SERVERS {
            let weight = if (forward, at) == (250, 5) {
                one
            } else {
                weight
            };
            let address = match (forward, at) {
                (0, 0) => server.to_string(),
                _ => format!("127.1.{}.{}:{}", forward >> 8, forward & 255, 7000 + at),
            };
            let _ = write!(text, "{{ address = \"{address}\", weight = {weight} }}, ");
        }
        let _ = writeln!(text, "]");
    }
    text
}

/// CPU time of each reactor so far. What one takes during a reload, all its turns together, is
/// the longest that any of them can have had it away from its sessions.
fn ran(process: Process) -> BTreeMap<String, Duration> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", process.0)).unwrap();
    let read = |task: std::io::Result<std::fs::DirEntry>| {
        let path = task.ok()?.path();
        let name = std::fs::read_to_string(path.join("comm")).ok()?;
        let times = std::fs::read_to_string(path.join("schedstat")).ok()?;
        let ran = times.split(' ').next()?.parse().ok()?;
        let is_reactor = name.starts_with("reactor-");
        is_reactor.then(|| (name.trim().to_owned(), Duration::from_nanos(ran)))
    };
    tasks.filter_map(read).collect()
}

/// Between the pings of [`PingPong`], which is there to wait and not to keep a core busy.
const BETWEEN: Duration = Duration::from_millis(1);

/// A client that sends and waits for the answer, again and again; the longest that it waited.
struct PingPong {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl PingPong {
    fn begin(port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(Ordering::Relaxed) {
                let since = Instant::now();
                stream.write_all(&byte).unwrap();
                stream.read_exact(&mut byte).unwrap();
                longest = longest.max(since.elapsed());
                std::thread::sleep(BETWEEN);
            }
            longest
        });
        Self { stop, thread }
    }

    fn end(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// Behaviour 119: what is applied is what differs, of however much. How long that takes, for how
/// long a reactor is away and how much less one server is than all of them is measured in
/// docs/operations.md, and said here.
#[test]
fn b119_of_500_forwards_and_5000_servers_only_what_differs_is_touched() {
    on_every_engine(|case| {
        let (server, port, admin) = (Echo::new(b'a'), free_port(), Directory::new());
        let text = |weight, one| text(port, server.address, weight, one);
        let forwards = FORWARDS as usize;
        let it = Reloadable::with(case, &text(1, 1), forwards, Some(2), |setup| {
            setup.set("log.sessions", "off").admin(&admin)
        });
        let at = Admin::at(&admin.join("admin.sock"));
        let sockets = it.listening();
        let process = it.forwarder.process();
        let mut client = Peer::connect(([127, 0, 0, 1], port).into());
        let said = || it.forwarder.lines_with("reloaded: ");
        let reload = |what: &str, text: &str| {
            it.write(text);
            let head = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n\
                        Content-Type: application/json\r\nContent-Length: 2\r\n";
            let known = said().len();
            let before = ran(process);
            let watch = Stopwatch::start();
            let answer = at.send(head, "{}");
            let took = watch.elapsed();
            let after = ran(process);
            let away = after
                .iter()
                .map(|(name, ran)| ran.saturating_sub(before[name]));
            let away = away.max().unwrap_or_default();
            println!("{} {what}: {took:?}; a reactor ran {away:?}", case.engine);
            // One that takes longer than the endpoint waits is carried out all the same.
            assert!([200, 503].contains(&answer.status), "{}", answer.body);
            if answer.status == 200 {
                let answer = answer.json();
                let of = |what: &str| answer[format!("{what}_seconds")].as_f64().unwrap();
                let [read, compare, apply] = ["read", "compare", "apply"].map(of);
                println!("read {read:.4} s, compared {compare:.4} s, applied {apply:.4} s");
                assert_eq!(answer["listeners_kept"], forwards, "{what}");
                assert_eq!(answer["listeners_opened"].as_array().unwrap().len(), 0);
            }
            let said = poll(PATIENCE, || said().get(known).cloned()).expect("a reload");
            let changes = said.json()["changes"].as_array().map(Vec::len);
            (changes.unwrap_or_default(), took)
        };
        let (changes, all) = reload("all", &text(2, 2));
        assert_eq!(changes, (FORWARDS * SERVERS) as usize);
        let beside = PingPong::begin(port);
        assert_eq!(reload("all, beside a ping-pong", &text(1, 1)).0, changes);
        println!("{}: it waited {:?} at the most", case.engine, beside.end());
        let (changes, one) = reload("one", &text(1, 3));
        assert_eq!(changes, 1);
        assert_eq!(reload("none", &text(1, 3)).0, 0);
        let times = all.as_secs_f64() / one.as_secs_f64();
        println!("{}: one is {times:.1} times faster than all", case.engine);
        assert_eq!(it.listening(), sockets, "the sockets are the same");
        let mut letter = [0];
        client.stream().read_exact(&mut letter).unwrap();
        client.send(100);
    });
}
