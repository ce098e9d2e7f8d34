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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tower_service::Service as _;

use super::bind::{BindProblem, Bound, CONNECTIONS_MAX};
use super::guard::{Guard, Kind};
use super::patience::{Line, Patient};
use super::problem::Problem;
use super::reserve::Reserve;
use super::shared::Shared;
use super::stream::Connection;
use super::subject::Subject;
use super::unwinding::guarded;
use super::{api, dashboard, events, health, live, metrics};
use crate::net::address::Endpoint;
use crate::observe::log::Log;

/// From the connect, or the answer before, to the last byte of a request's head.
const HEAD: Duration = Duration::from_secs(10);

/// A request's head at the most.
const HEAD_MAX: usize = 8 << 10;

/// Headers at the most.
const HEADERS_MAX: usize = 64;

/// Until the next try after an accept failed.
const ACCEPT_RETRY: Duration = Duration::from_millis(20);

/// How long what is being answered may take once the endpoint is closed.
const CLOSE_PATIENCE: Duration = Duration::from_millis(200);

/// The endpoint at work. It ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `subject` wherever `bound` listens; nothing if that is nowhere.
    pub fn start(bound: Bound, subject: Arc<dyn Subject>) -> Result<Self, BindProblem> {
        if bound.is_empty() {
            return Ok(Self {
                stop: None,
                thread: None,
            });
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
                runtime.block_on(serve(bound, subject, stopped));
                // Streams whose readers sleep are not waited for.
                runtime.shutdown_timeout(CLOSE_PATIENCE);
            })
            .map_err(BindProblem::Runtime)?;
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread),
        })
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

/// Until it is told to stop.
async fn serve(bound: Bound, subject: Arc<dyn Subject>, stopped: oneshot::Receiver<()>) {
    let guard = Arc::new(Guard {
        token: bound.token,
        hosts: bound.hosts,
    });
    let log = subject.log().clone();
    let shared = Shared::new(subject);
    let routes = routes(shared);
    let reserve = Arc::new(std::sync::Mutex::new(Reserve::take()));
    // Those who look at metrics do not keep those out who steer.
    let places = [CONNECTIONS_MAX; 2].map(|max| Arc::new(Semaphore::new(max)));
    for (kind, fd, at) in bound.listeners {
        let door = Door {
            kind,
            guard: guard.clone(),
            routes: routes.clone(),
            places: places[usize::from(kind == Kind::Metrics)].clone(),
            reserve: reserve.clone(),
            log: log.clone(),
        };
        // It listens already: there is nothing about it that can fail.
        if let Ok(listener) = Listener::new(fd, &at) {
            tokio::spawn(async move {
                // Whatever it was that panicked, the door stays open.
                while guarded(&door.log, door.keep(&listener)).await.is_none() {
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            });
        }
    }
    // An error is the end of whoever could have told it.
    let _ = stopped.await;
    drop(bound.held);
}

fn routes(shared: Shared) -> Router {
    use axum::routing::get;
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(metrics::metrics))
        .route("/", get(dashboard::dashboard))
        .route("/v1/live", get(live::live))
        .route("/v1/events", get(events::events))
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
    log: Log,
}

impl Door {
    /// Lets connections in for ever.
    async fn keep(&self, listener: &Listener) {
        loop {
            let accepted = match listener {
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
            connection.line.asked();
            let (door, connection) = (self.clone(), connection.clone());
            async move {
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
        let (mut parts, body) = request.into_parts();
        if let Err(problem) = self.guard.check(self.kind, &parts) {
            return problem.into_response();
        }
        parts.extensions.insert(connection);
        let request = Request::from_parts(parts, Body::new(body));
        let started = Instant::now();
        let answer = guarded(&self.log, self.routes.call(request));
        match tokio::time::timeout(super::patience::ANSWER, answer).await {
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
