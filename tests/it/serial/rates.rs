//! Byte rates at the sizes of behaviour 85: 10 MB/s over five seconds.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::alone;
use crate::kit::*;

/// Bytes a second, and what flows at once after a pause: in a tenth of a second.
const RATE: f64 = 10e6;
const BURST: f64 = RATE / 10.0;

/// The last share of a burst, of ten milliseconds, may be had while there is anything left of it:
/// see `policy::meter`.
const SHARE: f64 = RATE / 100.0;

/// What a ring may have received of a session already when that is to be held back: one buffer, which
/// is paid for afterwards.
const AT_HAND: f64 = 40.0 * 1024.0;

/// How long each is measured.
const MEASURED: Duration = Duration::from_secs(5);

/// What arrived at an end.
#[derive(Debug, Clone, Copy)]
struct Arrived {
    in_the_first_second: f64,
    in_all: f64,
}

/// Servers that send as much as they can, and tell of what they are sent.
struct Greedy {
    address: SocketAddr,
    /// When the client that comes next began.
    began: Arc<Mutex<Instant>>,
    arrived: Mutex<Receiver<Arrived>>,
}

impl Greedy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (told, arrived) = channel();
        let began = Arc::new(Mutex::new(Instant::now()));
        let since = began.clone();
        // Ends with the process of the test: it waits in accept.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (other, told) = (stream.try_clone().unwrap(), told.clone());
                let began = *since.lock().unwrap();
                thread::spawn(move || pour(&stream));
                thread::spawn(move || {
                    let _ = told.send(drink(&other, began));
                    // What is on its way is taken, so that the session has an end.
                    other.set_read_timeout(None).unwrap();
                    let _ = std::io::copy(&mut &other, &mut std::io::sink());
                });
            }
        });
        Self {
            address,
            began,
            arrived: Mutex::new(arrived),
        }
    }
}

/// Sends until nobody takes it.
fn pour(mut stream: &TcpStream) {
    let chunk = vec![7; 64 * 1024];
    while stream.write_all(&chunk).is_ok() {}
}

/// Reads for as long as it is measured.
fn drink(mut stream: &TcpStream, began: Instant) -> Arrived {
    let mut chunk = vec![0; 64 * 1024];
    let mut arrived = Arrived {
        in_the_first_second: 0.0,
        in_all: 0.0,
    };
    let wait = Some(Duration::from_millis(20));
    stream.set_read_timeout(wait).unwrap();
    loop {
        let read = stream.read(&mut chunk);
        let now = began.elapsed();
        match read {
            _ if now > MEASURED => break,
            Ok(0) => break,
            Ok(len) => {
                arrived.in_all += len as f64;
                if now <= Duration::from_secs(1) {
                    arrived.in_the_first_second += len as f64;
                }
            }
            Err(_) => {}
        }
    }
    arrived
}

/// Never more than the rate allows, whatever the machine does; and no less than 95 % of it, but for what the
/// machine took away.
#[track_caller]
fn is_kept(arrived: Arrived, sessions: f64, watch: Stopwatch, what: &str) {
    let seconds = MEASURED.as_secs_f64();
    // The forwarder and who reads each wait once for a moment that they were not let run.
    let had = 2.0 * watch.late().as_secs_f64();
    println!(
        "{what}: {:.2} % of the rate, {:.2} of it in the first second; {had:.2} s were taken away",
        arrived.in_all / RATE / seconds * 100.0,
        arrived.in_the_first_second / RATE
    );
    assert!(
        arrived.in_the_first_second <= RATE + BURST + SHARE + sessions * AT_HAND,
        "{what}: {arrived:?}"
    );
    assert!(
        arrived.in_all <= RATE * seconds * 1.05,
        "{what}: {arrived:?}"
    );
    let least = RATE * (seconds - had) * 0.95;
    assert!(
        arrived.in_all >= least,
        "{what}: {arrived:?}, {had} s were taken away"
    );
}

#[test]
fn b85_a_rate_of_each_kind_is_kept_each_way() {
    let _alone = alone();
    on_every_path(|case| {
        let server = Greedy::start();
        for key in ["rate_per_session", "rate_per_client", "rate"] {
            let forwarder = Setup::new(server.address)
                .case(case)
                .set(&format!("defaults.{key}"), "\"10MB/s\"")
                .start();
            let what = |way| format!("{} {} {key} {way}", case.engine, case.path);
            // What comes up is left where it is: each way is held back by itself.
            let come = || {
                let began = Instant::now();
                *server.began.lock().unwrap() = began;
                (TcpStream::connect(forwarder.address()).unwrap(), began)
            };
            let watch = Stopwatch::start();
            let (client, began) = come();
            is_kept(drink(&client, began), 1.0, watch, &what("down"));
            drop(client);
            let _ = server.arrived.lock().unwrap().recv().unwrap();
            // The rest of the bucket is there again.
            thread::sleep(Duration::from_millis(150));
            let watch = Stopwatch::start();
            let (client, _) = come();
            let arrived = thread::scope(|scope| {
                scope.spawn(|| pour(&client));
                let arrived = server.arrived.lock().unwrap().recv().unwrap();
                let _ = client.shutdown(std::net::Shutdown::Both);
                arrived
            });
            is_kept(arrived, 1.0, watch, &what("up"));
            drop(client);
            let counters = forwarder.counters();
            let of = match key.rsplit('_').next() {
                Some("rate") | None => "forward",
                Some(of) => of,
            };
            assert!(counters.of(&format!("held_back_{of}")) > 0, "{key}");
            for record in forwarder.wait_for_sessions(2) {
                assert!(record.number("held_back_us") > Some(500_000), "{record:?}");
            }
        }
    });
}

/// Behaviour 85: over two reactors, whichever a session is on.
#[test]
fn b85_sessions_of_a_client_share_its_rate_evenly() {
    let _alone = alone();
    on_every_engine(|case| {
        let server = Greedy::start();
        let forwarder = Setup::new(server.address)
            .case(case)
            .reactors(2)
            .set("defaults.rate_per_client", "\"10MB/s\"")
            .start();
        let to = forwarder.address();
        let watch = Stopwatch::start();
        // A second of all of them is the same second.
        let began = Instant::now();
        let shares: Vec<Arrived> = thread::scope(|scope| {
            let session = || drink(&TcpStream::connect(to).unwrap(), began);
            let sessions: Vec<_> = (0..8).map(|_| scope.spawn(session)).collect();
            sessions.into_iter().map(|it| it.join().unwrap()).collect()
        });
        let sum = |of: fn(&Arrived) -> f64| shares.iter().map(of).sum::<f64>();
        let all = Arrived {
            in_the_first_second: sum(|it| it.in_the_first_second),
            in_all: sum(|it| it.in_all),
        };
        let jain = all.in_all * all.in_all / (8.0 * sum(|it| it.in_all * it.in_all));
        println!("{}: Jain {jain:.3}", case.engine);
        assert!(jain >= 0.95, "{jain}: {shares:?}");
        is_kept(all, 8.0, watch, &format!("{} eight sessions", case.engine));
    });
}

/// Behaviour 85: what is held back waits with its sender. A forwarder that holds a session back
/// has no more memory than one that does not.
#[test]
fn b85_holding_back_takes_no_memory() {
    let _alone = alone();
    on_every_path(|case| {
        let server = Greedy::start();
        let most_held = |rate: Option<&str>| {
            let setup = Setup::new(server.address).case(case);
            let forwarder = match rate {
                Some(rate) => setup.set("defaults.rate_per_session", rate),
                None => setup,
            };
            let forwarder = forwarder.start();
            let sessions: Vec<TcpStream> = (0..8)
                .map(|_| TcpStream::connect(forwarder.address()).unwrap())
                .collect();
            thread::scope(|scope| {
                for stream in &sessions {
                    scope.spawn(|| drink(stream, Instant::now()));
                }
                let began = Instant::now();
                let mut most = (0, 0);
                while began.elapsed() < MEASURED {
                    let process = forwarder.process();
                    most.0 = most.0.max(process.memory().anonymous);
                    most.1 = most.1.max(process.bytes_in_pipes());
                    thread::sleep(Duration::from_millis(50));
                }
                most
            })
        };
        let without = most_held(None);
        let with = most_held(Some("\"1MB/s\""));
        println!(
            "{} {}: {with:?} bytes, {without:?} without",
            case.engine, case.path
        );
        assert!(with.0 <= without.0 + MIB, "{with:?} {without:?}");
        assert!(
            with.1 <= without.1.max(256 * KIB as usize),
            "{with:?} {without:?}"
        );
    });
}
