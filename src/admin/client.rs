//! Whoever asks: finds the socket of a running thalweg and speaks HTTP to it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::bind::runtime_directories;
use super::problem::ProblemBody;

/// How long an answer may take to begin.
const PATIENCE: Duration = Duration::from_secs(15);

/// What has a new process started first, and how long that may take.
pub const UPGRADE: &str = "/v1/upgrade";
const PATIENCE_FOR_ANOTHER: Duration = Duration::from_secs(90);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum AskError {
    /// There is nobody to ask.
    #[error("{0}")]
    NotFound(String),
    /// Nobody answers.
    #[error("{place} does not answer: {error}")]
    Io {
        /// Where.
        place: String,
        /// Why.
        error: String,
    },
    /// The answer is no.
    #[error("{detail}")]
    Refused {
        /// Of HTTP.
        status: u16,
        /// Why, and what to do.
        detail: String,
    },
}

/// Where to ask.
#[derive(Debug, Clone)]
enum Place {
    Unix(PathBuf),
    /// `host:port`, and the token.
    Tcp(String, Option<String>),
}

/// A way to ask a running thalweg.
#[derive(Debug)]
pub struct Client {
    place: Place,
    runtime: tokio::runtime::Runtime,
}

/// An answer as it came.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Of the body.
    pub etag: Option<String>,
    /// The whole of it.
    pub body: Vec<u8>,
}

impl Client {
    /// Asks at a unix socket.
    pub fn at_socket(path: &Path) -> Result<Self, AskError> {
        Self::at(Place::Unix(path.to_owned()))
    }

    /// Asks at `host:port`, with the token that is there.
    pub fn at_address(address: &str, token: Option<String>) -> Result<Self, AskError> {
        Self::at(Place::Tcp(address.to_owned(), token))
    }

    /// Asks the one that runs here. It is an error if none does, or several do.
    pub fn find() -> Result<Self, AskError> {
        let found = sockets();
        match found.as_slice() {
            [] => Err(AskError::NotFound(
                "no running thalweg is found; say where it is by --socket PATH (its first line of \
                 log says `admin unix:PATH`)"
                    .to_owned(),
            )),
            [one] => Self::at_socket(one),
            several => {
                let list: Vec<String> = several.iter().map(|it| it.display().to_string()).collect();
                Err(AskError::NotFound(format!(
                    "{} run here; say which one by --socket: {}",
                    several.len(),
                    list.join(", ")
                )))
            }
        }
    }

    fn at(place: Place) -> Result<Self, AskError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build();
        let runtime = runtime.map_err(|error| AskError::Io {
            place: "the runtime".to_owned(),
            error: error.to_string(),
        })?;
        Ok(Self { place, runtime })
    }

    /// What is at a path.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AskError> {
        self.parsed(&self.fetch(Method::GET, path, None, None)?)
    }

    /// What is at a path, as it comes.
    pub fn raw(&self, path: &str) -> Result<Reply, AskError> {
        self.fetch(Method::GET, path, None, None)
    }

    /// Has something done, and returns what is told of it. `version`: only if that is what
    /// it is.
    pub fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        version: Option<&str>,
    ) -> Result<T, AskError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(&error))?;
        self.parsed(&self.fetch(Method::POST, path, Some(body), version)?)
    }

    /// Has something done that is told of by `take` as it happens, until that returns
    /// `false` or there is no more.
    pub fn stream(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        mut take: impl FnMut(&[u8]) -> bool,
    ) -> Result<(), AskError> {
        self.runtime.block_on(async {
            let mut response = self.ask(method, path, body, None).await?;
            if !response.status().is_success() {
                return Err(refused(response).await);
            }
            while let Some(frame) = response.body_mut().frame().await {
                let frame = frame.map_err(|error| self.broken(&error))?;
                if let Some(bytes) = frame.data_ref()
                    && !take(bytes)
                {
                    break;
                }
            }
            Ok(())
        })
    }

    fn parsed<T: DeserializeOwned>(&self, reply: &Reply) -> Result<T, AskError> {
        let bytes = if reply.body.is_empty() {
            b"null"
        } else {
            reply.body.as_slice()
        };
        serde_json::from_slice(bytes).map_err(|error| self.broken(&error))
    }

    fn fetch(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        version: Option<&str>,
    ) -> Result<Reply, AskError> {
        self.runtime.block_on(async {
            let response = self.ask(method, path, body, version).await?;
            if !response.status().is_success() {
                return Err(refused(response).await);
            }
            let etag = response.headers().get(header::ETAG);
            let etag = etag.and_then(|it| it.to_str().ok()).map(str::to_owned);
            let body = response.into_body().collect().await;
            let body = body.map_err(|error| self.broken(&error))?;
            Ok(Reply {
                etag,
                body: body.to_bytes().to_vec(),
            })
        })
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
        version: Option<&str>,
    ) -> Result<hyper::Response<hyper::body::Incoming>, AskError> {
        let host = match &self.place {
            Place::Unix(_) => "localhost",
            Place::Tcp(address, _) => address,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, host);
        if let Place::Tcp(_, Some(token)) = &self.place {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(version) = version {
            request = request.header(header::IF_MATCH, version);
        }
        let body = match body {
            Some(body) => {
                request = request.header(header::CONTENT_TYPE, "application/json");
                Body::from(body)
            }
            None => Body::empty(),
        };
        let request = request.body(body).map_err(|error| self.broken(&error))?;
        let exchange = async {
            match &self.place {
                Place::Unix(path) => send(UnixStream::connect(path).await?, request).await,
                Place::Tcp(address, _) => send(TcpStream::connect(address).await?, request).await,
            }
        };
        let patience = if path == UPGRADE {
            PATIENCE_FOR_ANOTHER
        } else {
            PATIENCE
        };
        match tokio::time::timeout(patience, exchange).await {
            Ok(answer) => answer.map_err(|error| self.unreached(&error)),
            Err(_) => Err(self.broken(&"it takes too long")),
        }
    }

    fn unreached(&self, error: &io::Error) -> AskError {
        match (error.kind(), &self.place) {
            (io::ErrorKind::PermissionDenied, Place::Unix(_)) => {
                self.broken(&"only the user of that process, and root, may ask it (sudo?)")
            }
            (io::ErrorKind::NotFound, Place::Unix(_)) => self.broken(&"there is no such socket"),
            (io::ErrorKind::ConnectionRefused, Place::Unix(_)) => {
                self.broken(&"nobody listens there: no thalweg runs there any more")
            }
            _ => self.broken(error),
        }
    }

    fn broken(&self, error: &dyn std::fmt::Display) -> AskError {
        AskError::Io {
            place: match &self.place {
                Place::Unix(path) => path.display().to_string(),
                Place::Tcp(address, _) => address.clone(),
            },
            error: error.to_string(),
        }
    }
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    request: Request<Body>,
) -> io::Result<hyper::Response<hyper::body::Incoming>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(io::Error::other)
}

/// What a refusal says.
async fn refused(response: hyper::Response<hyper::body::Incoming>) -> AskError {
    let status = response.status();
    let body = response.into_body().collect().await;
    let body = body
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let detail = match serde_json::from_slice::<ProblemBody>(&body) {
        Ok(problem) => match problem.place {
            Some(place) => format!("{} ({place})", problem.detail),
            None => problem.detail,
        },
        Err(_) => plain(&body).unwrap_or_else(|| reason(status)),
    };
    let detail = if status == StatusCode::UNAUTHORIZED {
        format!("{detail} (here: --token-file PATH)")
    } else {
        detail
    };
    AskError::Refused {
        status: status.as_u16(),
        detail,
    }
}

/// An answer in plain text, such as that of /readyz.
fn plain(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let printable = !text.contains(|c: char| c.is_control() && c != '\n');
    (printable && !text.is_empty()).then(|| text.to_owned())
}

fn reason(status: StatusCode) -> String {
    let words = status.canonical_reason().unwrap_or("no reason is given");
    format!("{} {words}", status.as_u16())
}

/// The sockets of those that run here, as far as this user may see.
fn sockets() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for directory in runtime_directories() {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let named = entries.filter(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with("admin") && name.ends_with(".sock")
        });
        found.extend(named.map(|entry| entry.path()));
    }
    found.sort();
    // One that nobody listens on is left from a process that was killed.
    found.retain(|path| {
        std::os::unix::net::UnixStream::connect(path).map_or_else(
            |error| error.kind() != io::ErrorKind::ConnectionRefused,
            |_| true,
        )
    });
    found
}

/// A segment of a path, encoded as one.
pub fn segment(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Parameters behind a path: those that are there.
pub fn query(parameters: &[(&str, Option<String>)]) -> String {
    let mut text = String::new();
    for (key, value) in parameters {
        if let Some(value) = value {
            text.push(if text.is_empty() { '?' } else { '&' });
            text.push_str(key);
            text.push('=');
            text.push_str(&segment(value));
        }
    }
    text
}
