//! The thread: accepts connections, as many as may be, and has them served.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tower_service::Service as _;

use super::bind::{AdminListener, BindProblem, Bound, CONNECTIONS_MAX};
use super::guard::{Guard, Kind};
use super::owed::Owed;
use super::patience::{ANSWER, ANSWER_OF_ANOTHER, Line, Patient};
use super::problem::Problem;
use super::reserve::Reserve;
use super::shared::Shared;
use super::stream::Connection;
use super::subject::Subject;
use super::unwinding::guarded;
use super::{api, dashboard, health, metrics};
use crate::net::address::Endpoint;
use crate::net::handed::HandedLabel;
use crate::net::limits::lower_priority;
use crate::net::listener;
use crate::observe::log::Log;

/// From the connect, or the answer before, to the last byte of a request's head.
const HEAD: Duration = Duration::from_secs(10);

/// A request's head at the most.
const HEAD_MAX: usize = 8 << 10;

/// Headers at the most.
const HEADERS_MAX: usize = 64;

/// Until the next try after an accept failed.
const ACCEPT_RETRY: Duration = Duration::from_millis(20);

/// Between looks whether everybody was answered, once the endpoint is closed.
const LOOK: Duration = Duration::from_millis(20);

/// Steps of nice(2) by which sessions go before whoever looks at them: a page of metrics of
/// thousands of servers takes milliseconds, which no reactor on the same core should wait for.
/// The thread has a tenth of a core yet where reactors want all of it.
const MODESTY: i32 = 10;

/// How long whoever is owed an answer may wait for it once the endpoint is closed. What asks control's thread has one at
/// once then; what is left is the time that this thread, which yields to all others, needs to be let run.
const OWED_PATIENCE: Duration = Duration::from_secs(3);

/// How long what is being said may take once nobody is owed an answer.
const CLOSE_PATIENCE: Duration = Duration::from_millis(200);

/// The endpoint at work. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    /// Whether connections are let in.
    open: watch::Sender<bool>,
    /// The same sockets, for a process that takes over.
    passable: Vec<(HandedLabel, OwnedFd)>,
    /// Paths of unix listeners go with these.
    held: Vec<listener::Bound>,
}

impl Server {
    /// Serves `subject` wherever `bound` listens; nothing if that is nowhere.
    pub fn start(bound: Bound, subject: Arc<dyn Subject>) -> Result<Self, BindProblem> {
        let log = subject.log().clone();
        Self::answering(bound, log, move || routes(Shared::new(subject)))
    }

    /// Answers by these routes, which are made on its own thread.
    fn answering(
        mut bound: Bound,
        log: Log,
        routes: impl FnOnce() -> Router + Send + 'static,
    ) -> Result<Self, BindProblem> {
        let (open, is_open) = watch::channel(true);
        let mut server = Self {
            stop: None,
            thread: None,
            open,
            passable: bound.passable(),
            held: std::mem::take(&mut bound.held),
        };
        server.held.iter_mut().for_each(listener::Bound::own_path);
        if bound.is_empty() {
            return Ok(server);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(BindProblem::Runtime)?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("admin".to_owned())
            .spawn(move || {
                // Without it nobody is slower.
                let _ = lower_priority(MODESTY);
                runtime.block_on(serve(bound, (log, routes), stopped, is_open));
                // Streams whose readers sleep are not waited for.
                runtime.shutdown_timeout(CLOSE_PATIENCE);
            })
            .map_err(BindProblem::Runtime)?;
        server.stop = Some(stop);
        server.thread = Some(thread);
        Ok(server)
    }

    /// Its sockets, for a process that takes over.
    pub fn passable(&self) -> &[(HandedLabel, OwnedFd)] {
        &self.passable
    }

    /// Whether connections are let in from now on; they wait meanwhile, and those that were
    /// let in go on.
    pub fn let_in(&self, open: bool) {
        let _ = self.open.send(open);
    }

    /// Another process serves at these addresses from now on.
    pub fn leave_paths(&mut self, taken: &[HandedLabel]) {
        for bound in &mut self.held {
            let is_taken = |local: &Endpoint| {
                let local = local.to_string();
                taken.iter().any(|it| it.address == local)
            };
            if bound.locals().iter().any(is_taken) {
                bound.leave_path();
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Until it is told to stop, and whoever has asked for something was answered.
async fn serve(
    bound: Bound,
    (log, routes): (Log, impl FnOnce() -> Router),
    stopped: oneshot::Receiver<()>,
    open: watch::Receiver<bool>,
) {
    let guard = Arc::new(Guard {
        token: bound.token,
        hosts: bound.hosts,
    });
    let routes = routes();
    let owed = Owed::default();
    let reserve = Arc::new(std::sync::Mutex::new(Reserve::take()));
    // Those who look at metrics do not keep those out who steer.
    let places = [CONNECTIONS_MAX; 2].map(|max| Arc::new(Semaphore::new(max)));
    for AdminListener { kind, fd, at, .. } in bound.listeners {
        let door = Door {
            kind,
            guard: guard.clone(),
            routes: routes.clone(),
            places: places[usize::from(kind == Kind::Metrics)].clone(),
            reserve: reserve.clone(),
            owed: owed.clone(),
            log: log.clone(),
        };
        // It listens already: there is nothing about it that can fail.
        if let Ok(listener) = Listener::new(fd, &at) {
            let open = open.clone();
            tokio::spawn(async move {
                // Whatever it was that panicked, the door stays open.
                while guarded(&door.log, door.keep(&listener, open.clone()))
                    .await
                    .is_none()
                {
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            });
        }
    }
    // An error is the end of whoever could have told it.
    let _ = stopped.await;
    // The one who asked for what ends this process above all: to an upgrade or a drain.
    hold_while(|| owed.is_some(), OWED_PATIENCE).await;
    let busy = || {
        places
            .iter()
            .any(|it| it.available_permits() < CONNECTIONS_MAX)
    };
    hold_while(busy, CLOSE_PATIENCE).await;
}

/// Returns once this is so no more, or time is up.
async fn hold_while(it_is_so: impl Fn() -> bool, patience: Duration) {
    let deadline = Instant::now() + patience;
    while it_is_so() && Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
}

fn routes(shared: Shared) -> Router {
    use axum::routing::get;
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/", get(dashboard::dashboard))
        .merge(api::routes())
        .fallback(|| async { Problem::not_found("there is nothing here; see /openapi.json") })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                axum::http::StatusCode::METHOD_NOT_ALLOWED,
                "this is not done with that method; the header Allow has those that are",
            )
        })
        .with_state(shared)
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn new(fd: OwnedFd, at: &Endpoint) -> io::Result<Self> {
        Ok(match at {
            Endpoint::Inet(_) => Self::Tcp(TcpListener::from_std(fd.into())?),
            Endpoint::Unix(_) | Endpoint::Unnamed => Self::Unix(UnixListener::from_std(fd.into())?),
        })
    }
}

/// What is behind a listener.
#[derive(Clone)]
struct Door {
    kind: Kind,
    guard: Arc<Guard>,
    routes: Router,
    places: Arc<Semaphore>,
    reserve: Arc<std::sync::Mutex<Reserve>>,
    owed: Owed,
    log: Log,
}

impl Door {
    /// Lets connections in for ever, but for the times when it is closed.
    async fn keep(&self, listener: &Listener, mut open: watch::Receiver<bool>) {
        loop {
            // Nobody can open it any more: the process is ending.
            if open.wait_for(|it| *it).await.is_err() {
                return;
            }
            let accepted = tokio::select! {
                accepted = self.accept(listener) => accepted,
                _ = open.wait_for(|it| !*it) => continue,
            };
            let Err(error) = accepted else { continue };
            let again = {
                let mut reserve = lock(&self.reserve);
                reserve.give_up_one(&error)
            };
            if !again {
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }

    async fn accept(&self, listener: &Listener) -> io::Result<()> {
        match listener {
            Listener::Tcp(listener) => {
                let accepted = listener.accept().await;
                accepted.map(|(stream, _)| {
                    let _ = stream.set_nodelay(true);
                    self.clone().admit(stream);
                })
            }
            Listener::Unix(listener) => {
                let accepted = listener.accept().await;
                accepted.map(|(stream, _)| self.clone().admit(stream))
            }
        }
    }

    fn admit<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, stream: S) {
        let place = self.places.clone().try_acquire_owned().ok();
        tokio::spawn(async move {
            let reserve = self.reserve.clone();
            let log = self.log.clone();
            guarded(&log, self.converse(stream, place)).await;
            lock(&reserve).fill();
        });
    }

    /// Serves a connection until it ends.
    async fn converse<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        stream: S,
        place: Option<OwnedSemaphorePermit>,
    ) {
        let full = place.is_none();
        let connection = Connection {
            line: Line::new(),
            place: Arc::new(std::sync::Mutex::new(place)),
        };
        let io = TokioIo::new(Patient::new(stream, connection.line.clone()));
        let service = service_fn(|request: Request<Incoming>| {
            connection.line.asked(patience(&request));
            let (door, connection) = (self.clone(), connection.clone());
            let debt = self.owed.one_more();
            async move {
                let _debt = debt;
                let head = request.method() == axum::http::Method::HEAD;
                let mut response = if full {
                    full_house()
                } else {
                    door.answer(request, connection).await
                };
                dress(&mut response);
                if head {
                    *response.body_mut() = Body::empty();
                }
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_headers(HEADERS_MAX)
            .max_buf_size(HEAD_MAX)
            .keep_alive(!full);
        // How it ended is nobody's concern.
        let _ = http.serve_connection(io, service).await;
    }

    async fn answer(mut self, request: Request<Incoming>, connection: Connection) -> Response {
        let patience = patience(&request);
        let (mut parts, body) = request.into_parts();
        if let Err(problem) = self.guard.check(self.kind, &parts) {
            return problem.into_response();
        }
        parts.extensions.insert(connection);
        let request = Request::from_parts(parts, Body::new(body));
        let started = Instant::now();
        let answer = guarded(&self.log, self.routes.call(request));
        match tokio::time::timeout(patience, answer).await {
            Ok(Some(Ok(response))) => response,
            Ok(Some(Err(never))) => match never {},
            Ok(None) => Problem::new(
                axum::http::StatusCode::INTERNAL_SERVER_ERROR,
                "what was to answer this panicked; standard error has the place",
            )
            .into_response(),
            Err(_) => Problem::unavailable(format!(
                "there was no answer within {} s",
                started.elapsed().as_secs()
            ))
            .into_response(),
        }
    }
}

/// How long the answer may take.
fn patience<B>(request: &axum::http::Request<B>) -> Duration {
    match request.uri().path() {
        "/v1/upgrade" => ANSWER_OF_ANOTHER,
        _ => ANSWER,
    }
}

/// What the connection after the last one that fits is told.
fn full_house() -> Response {
    let problem = Problem::unavailable(format!(
        "{CONNECTIONS_MAX} connections are served already; try again"
    ));
    let mut response = problem.into_response();
    let headers = response.headers_mut();
    headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What every answer bears.
fn dress(response: &mut Response) {
    let headers = response.headers_mut();
    let fixed = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static(
            "default-src 'none'; frame-ancestors 'none'",
        ));
}

/// Whoever panicked while it held a lock left whole values behind it.
fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::sync::mpsc::channel;

    use super::*;
    use crate::config::{Config, LogFormat, LogLevel, LogTarget};
    use crate::net::handed::Handed;

    /// An answer that comes long after the endpoint was told to end, as one does from a thread that is not let run.
    #[test]
    fn b126_whoever_has_asked_is_answered_before_the_endpoint_ends() {
        let path = std::env::temp_dir().join(format!("thalweg-owed-{}.sock", std::process::id()));
        let text = format!(
            "[admin]\nlisten = \"unix:{}\"\n[[forward]]\nlisten = \"127.0.0.1:1\"\nupstream = \"127.0.0.1:2\"\n",
            path.display()
        );
        let config = Config::parse(&text).unwrap();
        let bound = Bound::take(&config, &mut Handed::default()).unwrap();
        let null = LogTarget::File("/dev/null".into());
        let (log, _writer) = Log::start(LogLevel::Error, LogFormat::Text, &null).unwrap();
        let (asked, is_asked) = channel();
        let late = move || {
            let asked = asked.clone();
            async move {
                let slow = move || {
                    let _ = asked.send(());
                    std::thread::sleep(4 * CLOSE_PATIENCE);
                    "done"
                };
                tokio::task::spawn_blocking(slow).await.unwrap()
            }
        };
        let routes = || Router::new().route("/", axum::routing::post(late));
        let server = Server::answering(bound, log, routes).unwrap();
        let mut client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let request =
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\r\n";
        client.write_all(request.as_bytes()).unwrap();
        is_asked.recv().unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        assert!(answer.ends_with("done"), "{answer:?}");
    }
}
