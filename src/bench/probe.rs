//! A client of the origin: sends strings and records through whatever lies in
//! between, and checks that what comes back is what was sent.
//!
//! Plain blocking sockets with a deadline for each exchange, however slowly its bytes drip: a
//! probe is one connection, and should be easy to follow. What the other side says is escaped
//! before anybody is shown it: it may be anybody.

pub mod datagrams;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::origin::record::{RECORD_MAX, Record};
use super::socket;

/// What to send.
#[derive(Debug, Clone)]
pub struct ProbeOptions {
    /// The origin's command port, or a forwarder in front of it.
    pub address: SocketAddr,
    /// How many strings.
    pub strings: u32,
    /// How many records.
    pub records: u32,
    /// Each exchange ends after this, from the first byte sent to the last received.
    pub timeout: Duration,
    /// All of them together end after this, the connect included.
    pub total: Duration,
}

/// What a probe found.
#[derive(Debug, Clone, Serialize)]
pub struct ProbeReport {
    /// Until the connection stood, in nanoseconds. Through a forwarder this is
    /// the time to the forwarder.
    pub connect_ns: u64,
    /// The first string's round trip, in nanoseconds: through a forwarder it
    /// contains the forwarder's own connect.
    pub first_answer_ns: u64,
    /// Each further string's round trip, in nanoseconds.
    pub string_ns: Vec<u64>,
    /// Each record's round trip, in nanoseconds.
    pub record_ns: Vec<u64>,
    /// Bytes of records that came back, all equal to what was sent.
    pub record_bytes: u64,
    /// `TCP_INFO` of this end.
    pub info_here: String,
    /// `TCP_INFO` of the origin's end, as it says, with all but printable ASCII escaped.
    pub info_origin: String,
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// Nobody there, or not in time.
    #[error("cannot connect to {address}: {error}")]
    Connect {
        /// Whom.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The connection broke, or an answer did not come in time.
    #[error("{during}: {error}")]
    Broken {
        /// What was being done.
        during: &'static str,
        /// Why.
        error: io::Error,
    },
    /// An answer came, but not the expected one.
    #[error("{during}: sent {sent}, got {got}")]
    Differs {
        /// What was being done.
        during: &'static str,
        /// What was sent, shortened.
        sent: String,
        /// What came, shortened.
        got: String,
    },
}

/// Sends what `options` ask for over one connection.
///
/// # Errors
/// The first thing that went wrong.
pub fn probe(options: &ProbeOptions) -> Result<ProbeReport, ProbeError> {
    let started = Instant::now();
    let stream = TcpStream::connect_timeout(&options.address, options.timeout.min(options.total))
        .map_err(|error| ProbeError::Connect {
        address: options.address,
        error,
    })?;
    let connect_ns = nanoseconds(started.elapsed());
    let mut client = Client::new(stream, options.timeout, started + options.total)?;

    let mut string_ns = Vec::new();
    for number in 0..options.strings.max(1) {
        string_ns.push(client.string(number)?);
    }
    let mut record_ns = Vec::new();
    let mut record_bytes = 0;
    for number in 0..options.records {
        let record = Record::sample(u64::from(number), 3, 100 << (number % 8));
        record_ns.push(client.record(&record)?);
        record_bytes += record.encode().len() as u64;
    }
    let info_origin = client.info()?;
    let info_here =
        socket::path_info(&client.reader.get_ref().stream).map_err(broken("reading TCP_INFO"))?;
    Ok(ProbeReport {
        connect_ns,
        first_answer_ns: string_ns.remove(0),
        string_ns,
        record_ns,
        record_bytes,
        info_here,
        info_origin,
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn broken(during: &'static str) -> impl Fn(io::Error) -> ProbeError {
    move |error| {
        let error = match error.kind() {
            // What a socket timeout is called is an accident of the interface.
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        };
        ProbeError::Broken { during, error }
    }
}

/// One connection to a command port.
struct Client {
    reader: BufReader<Timed>,
    timeout: Duration,
    /// Of all exchanges.
    ends: Instant,
}

/// A stream whose reads and writes end by a deadline, all together.
struct Timed {
    stream: TcpStream,
    deadline: Instant,
}

impl Timed {
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Timed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(bytes)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Client {
    fn new(stream: TcpStream, timeout: Duration, ends: Instant) -> Result<Self, ProbeError> {
        stream
            .set_nodelay(true)
            .map_err(broken("setting socket options"))?;
        let deadline = ends.min(Instant::now() + timeout);
        Ok(Self {
            reader: BufReader::new(Timed { stream, deadline }),
            timeout,
            ends,
        })
    }

    fn string(&mut self, number: u32) -> Result<u64, ProbeError> {
        const DURING: &str = "STRING";
        let text = format!("probe {number}: Füße, 流れ, \"quotes\" and \\ backslashes");
        let started = Instant::now();
        self.send(DURING, format!("STRING\n{text}\n").as_bytes())?;
        let got = self.line(DURING)?;
        let took = nanoseconds(started.elapsed());
        if got == text {
            Ok(took)
        } else {
            Err(differs(DURING, &text, &got))
        }
    }

    fn record(&mut self, record: &Record) -> Result<u64, ProbeError> {
        const DURING: &str = "RECORD";
        let encoded = record.encode();
        let mut message = format!("RECORD {}\n", encoded.len()).into_bytes();
        message.extend_from_slice(&encoded);
        let started = Instant::now();
        self.send(DURING, &message)?;
        let header = self.line(DURING)?;
        let len = header
            .strip_prefix("RECORD ")
            .and_then(|len| len.parse::<u64>().ok())
            .filter(|len| *len <= RECORD_MAX)
            .ok_or_else(|| differs(DURING, &format!("RECORD {}", encoded.len()), &header))?;
        let mut answer = vec![0; len as usize];
        self.reader
            .read_exact(&mut answer)
            .map_err(broken(DURING))?;
        let took = nanoseconds(started.elapsed());
        match Record::decode(&answer) {
            Ok(got) if got == *record => Ok(took),
            Ok(got) => Err(differs(DURING, &format!("{record:?}"), &format!("{got:?}"))),
            Err(error) => Err(differs(DURING, &format!("{record:?}"), &error)),
        }
    }

    fn info(&mut self) -> Result<String, ProbeError> {
        const DURING: &str = "INFO";
        self.send(DURING, b"INFO\n")?;
        let line = self.line(DURING)?;
        line.strip_prefix("INFO ")
            .map(shown)
            .ok_or_else(|| differs(DURING, "INFO", &line))
    }

    /// Begins an exchange.
    fn send(&mut self, during: &'static str, bytes: &[u8]) -> Result<(), ProbeError> {
        let timed = self.reader.get_mut();
        timed.deadline = self.ends.min(Instant::now() + self.timeout);
        timed.write_all(bytes).map_err(broken(during))
    }

    /// One line without its newline; bounded in length.
    fn line(&mut self, during: &'static str) -> Result<String, ProbeError> {
        const LEN_MAX: u64 = 64 * 1024;
        let mut line = Vec::new();
        let mut limited = (&mut self.reader).take(LEN_MAX);
        limited
            .read_until(b'\n', &mut line)
            .map_err(broken(during))?;
        if line.pop() != Some(b'\n') {
            return Err(broken(during)(io::ErrorKind::UnexpectedEof.into()));
        }
        Ok(String::from_utf8_lossy(&line).into_owned())
    }
}

/// What a server says of itself: nothing that steers a terminal.
fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 1000;
    text.chars()
        .take(SHOWN_MAX)
        .flat_map(char::escape_default)
        .collect()
}

/// Long values are shortened: an error is read by a person.
fn differs(during: &'static str, sent: &str, got: &str) -> ProbeError {
    let shorten = |text: &str| match text.char_indices().nth(200) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    };
    ProbeError::Differs {
        during,
        sent: shorten(sent),
        got: shorten(got),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn probe_of(
        timeout: Duration,
        server: impl FnOnce(TcpStream) + Send + 'static,
    ) -> Result<ProbeReport, ProbeError> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || server(listener.accept().unwrap().0));
        let report = probe(&ProbeOptions {
            address,
            strings: 1,
            records: 0,
            timeout,
            total: Duration::from_secs(60),
        });
        server.join().unwrap();
        report
    }

    /// Answers the string, then `info`.
    fn answer(stream: &TcpStream, info: &[u8]) {
        let mut reader = BufReader::new(stream);
        let (mut command, mut text) = (String::new(), String::new());
        reader.read_line(&mut command).unwrap();
        reader.read_line(&mut text).unwrap();
        let mut writer = stream;
        writer.write_all(text.as_bytes()).unwrap();
        reader.read_line(&mut command).unwrap();
        writer.write_all(info).unwrap();
    }

    /// Each answer comes in time, and there is no end of them.
    #[test]
    fn a_probe_ends_however_many_exchanges_there_are() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(&stream);
            let mut line = String::new();
            while reader.read_line(&mut line).is_ok_and(|len| len > 0) {
                std::thread::sleep(Duration::from_millis(20));
                if line != "STRING\n" && (&stream).write_all(line.as_bytes()).is_err() {
                    break;
                }
                line.clear();
            }
        });
        let started = Instant::now();
        let error = probe(&ProbeOptions {
            address,
            strings: u32::MAX,
            records: 0,
            timeout: Duration::from_secs(60),
            total: Duration::from_millis(300),
        });
        assert!(matches!(error, Err(ProbeError::Broken { .. })), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(30));
        server.join().unwrap();
    }

    #[test]
    fn what_a_server_says_steers_no_terminal() {
        let info = "INFO rtt=1us \x1b[2J\u{9b}1m\u{202e}\n";
        let report = probe_of(Duration::from_secs(60), move |stream| {
            answer(&stream, info.as_bytes());
        });
        let info = report.unwrap().info_origin;
        assert!(info.starts_with("rtt=1us "), "{info}");
        assert!(
            info.bytes().all(|byte| matches!(byte, b' '..=b'~')),
            "{info}"
        );
    }

    /// A byte now and then, each in time by itself.
    #[test]
    fn an_answer_that_drips_meets_its_deadline() {
        let report = probe_of(Duration::from_millis(300), |mut stream| {
            while stream.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let error = report.unwrap_err();
        assert!(
            matches!(&error, ProbeError::Broken { error, .. } if error.kind() == io::ErrorKind::TimedOut),
            "{error}"
        );
    }
}
