//! What a large configuration costs: behaviour 119.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::json;

use super::kit::*;
use crate::kit::admin::Admin;
use crate::kit::directory::Directory;
use crate::kit::process::Process;
use crate::kit::*;

const FORWARDS: u32 = 500;
const SERVERS: u32 = 10;
const REACTORS: u32 = 2;

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
/// docs/operations.md, and said here; judged is what that comes from: how many forwards are
/// looked at, and how many orders reactors are given.
#[test]
fn b119_of_500_forwards_and_5000_servers_only_what_differs_is_touched() {
    on_every_engine(|case| {
        let (server, port, admin) = (Echo::new(b'a'), free_port(), Directory::new());
        let text = |weight, one| text(port, server.address, weight, one);
        let forwards = FORWARDS as usize;
        let it = Reloadable::with(
            case,
            &text(1, 1),
            forwards,
            Some(REACTORS as u16),
            |setup| setup.set("log.sessions", "off").admin(&admin),
        );
        let at = Admin::at(&admin.join("admin.sock"));
        let sockets = it.listening();
        let process = it.forwarder.process();
        let mut client = Peer::connect(([127, 0, 0, 1], port).into());
        let said = || it.forwarder.lines_with("reloaded: ");
        let reload = |what: &str, text: &str, touched: (u32, u32)| {
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
                let [compared, orders] = ["forwards_compared", "orders"].map(|it| &answer[it]);
                assert_eq!(
                    (compared, orders),
                    (&json!(touched.0), &json!(touched.1)),
                    "{what}"
                );
            }
            let said = poll(PATIENCE, || said().get(known).cloned()).expect("a reload");
            let changes = said.json()["changes"].as_array().map(Vec::len);
            (changes.unwrap_or_default(), took)
        };
        // Sixteen pools in an order.
        let all_of_them = (FORWARDS, REACTORS * FORWARDS.div_ceil(16));
        let (changes, all) = reload("all", &text(2, 2), all_of_them);
        assert_eq!(changes, (FORWARDS * SERVERS) as usize);
        let beside = PingPong::begin(port);
        assert_eq!(
            reload("all, beside a ping-pong", &text(1, 1), all_of_them).0,
            changes
        );
        println!("{}: it waited {:?} at the most", case.engine, beside.end());
        let (changes, one) = reload("one", &text(1, 3), (1, REACTORS));
        assert_eq!(changes, 1);
        assert_eq!(reload("none", &text(1, 3), (0, 0)).0, 0);
        let times = all.as_secs_f64() / one.as_secs_f64();
        println!("{}: one is {times:.1} times faster than all", case.engine);
        assert_eq!(it.listening(), sockets, "the sockets are the same");
        let mut letter = [0];
        client.stream().read_exact(&mut letter).unwrap();
        client.send(100);
    });
}

/// What decides about requests of `http-connect` is told to reactors only where its users or its list are others.
#[test]
fn b119_users_that_are_the_same_again_touch_nothing() {
    on_every_engine(|case| {
        let admin = Directory::new();
        let (users, list) = (admin.join("users"), admin.join("targets.txt"));
        std::fs::write(&users, crate::http_connect::users()).unwrap();
        std::fs::write(&list, "*.example:443\n").unwrap();
        let text = format!(
            "[[forward]]\nname = \"proxy\"\nlisten = \"127.0.0.1:0\"\nmode = \"http-connect\"\n\
             [forward.connect]\nusers = \"{}\"\naccess = [\"allow @{}\", \"deny all\"]\n",
            users.display(),
            list.display()
        );
        let _it = Reloadable::with(case, &text, 1, Some(2), |setup| {
            setup.set("log.sessions", "off").admin(&admin)
        });
        let at = Admin::at(&admin.join("admin.sock"));
        let orders = || {
            let head = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n\
                        Content-Type: application/json\r\nContent-Length: 2\r\n";
            let answer = at.send(head, "{}");
            assert_eq!(answer.status, 200, "{}", answer.body);
            answer.json()["orders"].as_u64().unwrap()
        };
        assert_eq!(orders(), 0);
        let bob = crate::http_connect::users().replace("ann:", "eve:");
        std::fs::write(&users, bob).unwrap();
        assert_eq!([orders(), orders()], [2, 0], "one for each reactor");
        std::fs::write(&list, "*.example:444\n").unwrap();
        assert_eq!([orders(), orders()], [2, 0], "one for each reactor");
    });
}

/// A reload reads lists of networks again, whatever else is as it was: only the forward whose list
/// says something else is told of to reactors.
#[test]
fn b119_a_list_that_says_the_same_again_touches_nothing() {
    on_every_engine(|case| {
        let (server, admin) = (Echo::new(b'a'), Directory::new());
        let ports = [free_port(), free_port(), free_port()];
        let [of_one, of_other] = ["one.txt", "other.txt"].map(|name| admin.join(name));
        std::fs::write(&of_one, "192.0.2.0/24\n").unwrap();
        std::fs::write(&of_other, "198.51.100.0/24\n").unwrap();
        let forward = |at: usize, keys: &str| {
            format!(
                "[[forward]]\nname = \"f{at}\"\nlisten = \"127.0.0.1:{}\"\nupstream = \"{}\"\n{keys}\n",
                ports[at], server.address
            )
        };
        let list = |path: &std::path::Path| format!("access = [\"deny @{}\"]", path.display());
        let limits = "max_per_client = 100\nconnect_rate = \"1000/s\"\nrate = \"1Gbit\"";
        let text = [
            forward(0, &list(&of_one)),
            forward(1, &list(&of_other)),
            forward(2, limits),
        ];
        let _it = Reloadable::with(case, &text.concat(), 3, Some(1), |setup| {
            setup.set("log.sessions", "off").admin(&admin)
        });
        let at = Admin::at(&admin.join("admin.sock"));
        let reload = || {
            let head = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n\
                        Content-Type: application/json\r\nContent-Length: 2\r\n";
            let answer = at.send(head, "{}");
            assert_eq!(answer.status, 200, "{}", answer.body);
            let answer = answer.json();
            assert_eq!(answer["forwards_compared"], 0, "{answer}");
            answer["orders"].as_u64().unwrap()
        };
        let is_let_in = |at: usize| {
            let mut client = TcpStream::connect(("127.0.0.1", ports[at])).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            matches!(client.read(&mut [0]), Ok(1))
        };
        assert_eq!(reload(), 0);
        assert!(is_let_in(0) && is_let_in(1) && is_let_in(2));
        std::fs::write(&of_other, "127.0.0.0/8\n").unwrap();
        assert_eq!(reload(), 1);
        assert!(is_let_in(0) && !is_let_in(1) && is_let_in(2));
        std::fs::write(&of_other, "# Nobody.\n").unwrap();
        assert_eq!(reload(), 1);
        assert!(is_let_in(0) && is_let_in(1) && is_let_in(2));
        assert_eq!(reload(), 0);
    });
}
