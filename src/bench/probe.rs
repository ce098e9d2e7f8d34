//! A client of the origin: sends strings and records through whatever lies in
//! between, and checks that what comes back is what was sent.
//!
//! Plain blocking sockets with a deadline on every wait: a probe is one
//! connection, and should be easy to follow.

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
    /// Each wait ends after this.
    pub timeout: Duration,
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
    /// `TCP_INFO` of the origin's end.
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
    let stream =
        TcpStream::connect_timeout(&options.address, options.timeout).map_err(|error| {
            ProbeError::Connect {
                address: options.address,
                error,
            }
        })?;
    let connect_ns = nanoseconds(started.elapsed());
    let mut client = Client::new(stream, options.timeout)?;

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
        socket::path_info(client.reader.get_ref()).map_err(broken("reading TCP_INFO"))?;
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
    reader: BufReader<TcpStream>,
    timeout: Duration,
}

impl Client {
    fn new(stream: TcpStream, timeout: Duration) -> Result<Self, ProbeError> {
        let set = || {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))
        };
        set().map_err(broken("setting socket options"))?;
        Ok(Self {
            reader: BufReader::new(stream),
            timeout,
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
            .map(str::to_owned)
            .ok_or_else(|| differs(DURING, "INFO", &line))
    }

    fn send(&mut self, during: &'static str, bytes: &[u8]) -> Result<(), ProbeError> {
        self.reader
            .get_mut()
            .write_all(bytes)
            .map_err(broken(during))
    }

    /// One line without its newline; bounded in length and in total time.
    fn line(&mut self, during: &'static str) -> Result<String, ProbeError> {
        const LEN_MAX: u64 = 64 * 1024;
        let deadline = Instant::now() + self.timeout;
        let mut line = Vec::new();
        let mut limited = (&mut self.reader).take(LEN_MAX);
        loop {
            let read = limited
                .read_until(b'\n', &mut line)
                .map_err(broken(during))?;
            if line.last() == Some(&b'\n') {
                line.pop();
                return Ok(String::from_utf8_lossy(&line).into_owned());
            }
            if read == 0 {
                return Err(broken(during)(io::ErrorKind::UnexpectedEof.into()));
            }
            if Instant::now() >= deadline {
                return Err(broken(during)(io::ErrorKind::TimedOut.into()));
            }
        }
    }
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
