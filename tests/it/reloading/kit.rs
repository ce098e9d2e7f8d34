//! A forwarder with a file that is written anew, and clients that never stop.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::kit::directory::Directory;
use crate::kit::*;

/// A forwarder and the file that says what it does.
pub(crate) struct Reloadable {
    // Dropped first.
    pub(crate) forwarder: Forwarder,
    pub(crate) file: PathBuf,
    pub(crate) directory: Directory,
}

impl Reloadable {
    /// Starts with `text`, which has so many forwards.
    pub(crate) fn start(case: Case, text: &str, forwards: usize, reactors: Option<u16>) -> Self {
        Self::with(case, text, forwards, reactors, |setup| setup)
    }

    /// Likewise, without a record of each session.
    pub(crate) fn quiet(case: Case, text: &str, forwards: usize, reactors: Option<u16>) -> Self {
        Self::with(case, text, forwards, reactors, |setup| {
            setup.set("log.sessions", "off")
        })
    }

    pub(crate) fn with(
        case: Case,
        text: &str,
        forwards: usize,
        reactors: Option<u16>,
        more: impl FnOnce(Setup) -> Setup,
    ) -> Self {
        let directory = Directory::new();
        let file = directory.join("thalweg.toml");
        std::fs::write(&file, text).unwrap();
        let mut setup = Setup::configured(&file, forwards).engine(case.engine);
        setup = match reactors {
            Some(reactors) => setup.reactors(reactors),
            // The file says it.
            None => setup.reactors_by_file(),
        };
        let forwarder = more(setup).start();
        Self {
            forwarder,
            file,
            directory,
        }
    }

    /// Writes the file anew, by renaming another one over it.
    pub(crate) fn write(&self, text: &str) {
        let new = self.directory.join("thalweg.toml.new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(&new, &self.file).unwrap();
    }

    /// Reloads, and what it said of that.
    #[track_caller]
    pub(crate) fn reload(&self, text: &str) -> Record {
        let said = || {
            let records = self.forwarder.records().into_iter();
            records
                .filter(|it| matches!(it.text("kind"), "reloaded" | "reload_refused"))
                .collect::<Vec<_>>()
        };
        let before = said().len();
        self.write(text);
        self.forwarder.process().signal(Signal::SIGHUP);
        match poll(PATIENCE, || said().get(before).cloned()) {
            Some(record) => record,
            None => panic!(
                "it says nothing of a reload: {:?}",
                self.forwarder.records()
            ),
        }
    }

    /// Likewise; it must have been carried out.
    #[track_caller]
    pub(crate) fn reloads(&self, text: &str) -> Record {
        let said = self.reload(text);
        assert_eq!(said.text("kind"), "reloaded", "{said:?}");
        said
    }

    /// The inode of each listening socket of TCP, by the port.
    pub(crate) fn listening(&self) -> Vec<(u16, u64)> {
        let own: Vec<u64> = self
            .forwarder
            .process()
            .descriptor_targets()
            .into_iter()
            .filter_map(|(_, target)| {
                let inode = target.strip_prefix("socket:[")?.strip_suffix(']')?;
                inode.parse().ok()
            })
            .collect();
        let mut found = Vec::new();
        for table in ["tcp", "tcp6"] {
            let path = format!("/proc/{}/net/{table}", self.forwarder.process().0);
            let text = std::fs::read_to_string(path).unwrap_or_default();
            for line in text.lines().skip(1) {
                let fields: Vec<&str> = line.split_whitespace().collect();
                let (local, state, inode) = (fields[1], fields[3], fields[9]);
                let port = local.rsplit_once(':').map_or("0", |(_, port)| port);
                let inode: u64 = inode.parse().unwrap();
                if state == "0A" && own.contains(&inode) {
                    found.push((u16::from_str_radix(port, 16).unwrap(), inode));
                }
            }
        }
        found.sort_unstable();
        found
    }
}

/// A server that says its letter for each connection and echoes what follows until the
/// end.
pub(crate) struct Echo {
    pub(crate) address: SocketAddr,
    pub(crate) served: Arc<AtomicU64>,
}

impl Echo {
    pub(crate) fn new(letter: u8) -> Self {
        Self::at(([127, 0, 0, 1], 0).into(), letter)
    }

    /// At this address.
    pub(crate) fn at(address: SocketAddr, letter: u8) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        // Any number of clients at a time.
        socket2::SockRef::from(&listener).listen(4096).unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::new(AtomicU64::new(0));
        for _ in 0..4 {
            let (listener, served) = (listener.try_clone().unwrap(), served.clone());
            std::thread::spawn(move || {
                for client in listener.incoming() {
                    let Ok(mut client) = client else { return };
                    served.fetch_add(1, Ordering::Relaxed);
                    std::thread::spawn(move || {
                        let mut buffer = [0; 4096];
                        if client.write_all(&[letter]).is_err() {
                            return;
                        }
                        while let Ok(len @ 1..) = client.read(&mut buffer) {
                            if client.write_all(&buffer[..len]).is_err() {
                                return;
                            }
                        }
                    });
                }
            });
        }
        Self { address, served }
    }
}

/// What clients saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) whole: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) reset: AtomicU64,
    pub(crate) truncated: AtomicU64,
}

/// Connections a second that clients come at, if the machine has the time for it: what
/// behaviour 66 asks for.
pub(crate) const RATE: u32 = 2_000;

/// Clients that come [`RATE`] times a second from several threads, whatever becomes of those
/// before them: connect, a message to and fro, an end, the end. A machine that has not the time
/// for that many gets fewer, one after the other without a pause: how many is told, not judged.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    pub(crate) seen: Arc<Seen>,
    threads: Vec<JoinHandle<()>>,
    since: Instant,
}

/// Clients at a time, over all threads. More wait until one of these has ended.
const AT_A_TIME: usize = 32;

impl Load {
    /// Begins, to these addresses in turn.
    pub(crate) fn begin(addresses: &[SocketAddr], threads: usize) -> Self {
        let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::<Seen>::default());
        let since = Instant::now();
        let between = Duration::from_secs(1) / RATE;
        let spawn = |index: usize| {
            let (stop, seen) = (stop.clone(), seen.clone());
            let addresses = addresses.to_vec();
            std::thread::spawn(move || {
                let (mut turn, mut under_way) = (index, Vec::new());
                loop {
                    let is_over = stop.load(Ordering::Relaxed);
                    let due = since + between * turn as u32;
                    let wait = due.saturating_duration_since(Instant::now());
                    let fits = under_way.len() < AT_A_TIME.div_ceil(threads);
                    if !is_over && wait.is_zero() && fits {
                        match Client::begin(addresses[turn % addresses.len()]) {
                            Ok(client) => under_way.push(client),
                            Err(error) => seen.count(&Err(error)),
                        }
                        turn += threads;
                    } else if is_over && under_way.is_empty() {
                        return;
                    } else {
                        std::thread::sleep(wait.clamp(BETWEEN_LOOKS / 10, BETWEEN_LOOKS));
                    }
                    under_way.retain_mut(|client| match client.outcome() {
                        None => true,
                        Some(outcome) => {
                            seen.count(&outcome);
                            false
                        }
                    });
                }
            })
        };
        Self {
            threads: (0..threads).map(spawn).collect(),
            stop,
            seen,
            since,
        }
    }

    /// Likewise [`Self::end`], once so many clients at least have been served.
    #[track_caller]
    pub(crate) fn end_after(self, count: u64) {
        until("so many clients are served", || {
            let seen = &self.seen;
            let lost = [&seen.refused, &seen.reset, &seen.truncated];
            seen.whole.load(Ordering::Relaxed) >= count
                || lost.iter().any(|it| it.load(Ordering::Relaxed) > 0)
        });
        self.end();
    }

    /// Ends; nobody may have been refused, reset or cut short. Says what rate was held.
    #[track_caller]
    pub(crate) fn end(self) {
        let lasted = self.since.elapsed().as_secs_f64();
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        let count = |it: &AtomicU64| it.load(Ordering::Relaxed);
        let seen = &self.seen;
        let lost = [&seen.refused, &seen.reset, &seen.truncated].map(count);
        assert_eq!(
            lost,
            [0; 3],
            "refused, reset, truncated of {}",
            count(&seen.whole)
        );
        assert!(count(&seen.whole) > 0, "nobody was served");
        let rate = count(&seen.whole) as f64 / lasted;
        println!(
            "{} clients, {rate:.0} of {RATE} a second",
            count(&seen.whole)
        );
    }
}

impl Seen {
    /// What became of one client: whether everything came.
    fn count(&self, outcome: &std::io::Result<bool>) {
        let counter = match outcome {
            Ok(true) => &self.whole,
            Ok(false) => &self.truncated,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => &self.refused,
            Err(_) => &self.reset,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Between looks at clients that wait for an answer.
const BETWEEN_LOOKS: Duration = Duration::from_millis(1);

/// One client, which has said all that it has to say.
struct Client {
    stream: TcpStream,
    answer: Vec<u8>,
    since: Instant,
}

impl Client {
    fn begin(address: SocketAddr) -> std::io::Result<Self> {
        let since = Instant::now();
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"0123456789abcdef")?;
        stream.shutdown(std::net::Shutdown::Write)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            answer: Vec::new(),
            since,
        })
    }

    /// Whether everything came, once that is known.
    fn outcome(&mut self) -> Option<std::io::Result<bool>> {
        let mut buffer = [0; 64];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    let whole = self.answer.len() == 17 && self.answer[1..] == *b"0123456789abcdef";
                    return Some(Ok(whole));
                }
                Ok(n) => self.answer.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    let late = self.since.elapsed() > PATIENCE;
                    return late.then(|| Err(std::io::ErrorKind::TimedOut.into()));
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A client of another address of this host: 127.0.0.LAST.
pub(crate) fn client_of(last: u8, to: SocketAddr) -> std::io::Result<Peer> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into())?;
    socket.connect(&to.into())?;
    Ok(Peer::client(TcpStream::from(socket)))
}

/// Waits until something is so, without a word of why not.
#[track_caller]
pub(crate) fn until(what: &str, is: impl Fn() -> bool) {
    wait_until(what, PATIENCE, is);
}

/// Between two reloads, so that clients come and go.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);
