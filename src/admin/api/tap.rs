//! Looking at sessions while they run: a tap for whoever asks, for as long as he reads.
//!
//! A POST, because it changes which path bytes take. It has a pipe and a thread of its own; who
//! reads too slowly misses bytes, which is said where they are missing, and nobody waits for
//! him. It ends when the caller goes, or with the one session that was asked for.

use std::sync::Arc;

use axum::body::{Body as Answer, Bytes};
use axum::extract::{Extension, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

use super::extract::{Body, NoParameters, Parameters};
use super::sessions::{Identity, client_of};
use crate::admin::gather;
use crate::admin::problem::Problem;
use crate::admin::shared::Shared;
use crate::admin::stream::Connection;
use crate::admin::subject::{Looker, once};
use crate::config::units::format_size;
use crate::config::{Tap, TapDirection, TapFilter, TapFormat};
use crate::observe::notice::Notice;
use crate::observe::tap::{Onlooking, Source};
use crate::reactor::inspect::{Inspect, SessionFilter};
use crate::relay::id::ForwardId;

/// Bytes that are read from the pipe at a time.
const PIECE: usize = 64 << 10;

/// Whom to look at, the criteria together, and how it is to look.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TapOrder {
    /// `hex`, `text`, `http` or `pcapng`.
    #[schema(example = "http")]
    format: String,
    /// Sessions of the forward of this name.
    #[schema(nullable = false)]
    forward: Option<String>,
    /// Sessions of clients at this address or in this network.
    #[schema(nullable = false, example = "10.0.0.0/8")]
    client: Option<String>,
    /// The live session with this id, alone.
    #[schema(nullable = false, example = "0-1")]
    session: Option<String>,
    /// Every session there is and will be.
    #[serde(default)]
    all: bool,
    /// `up`, `down` or `both`.
    #[schema(nullable = false)]
    direction: Option<String>,
    /// Shown of each session, both directions together; 65,536 if nobody says otherwise.
    #[schema(nullable = false, minimum = 1)]
    max_bytes: Option<u64>,
    /// Headers and parameters whose values are masked besides those that are anyway.
    #[serde(default)]
    mask: Vec<String>,
    /// Masks nothing.
    #[serde(default)]
    unmask: bool,
}

/// Looks at sessions
///
/// The answer goes on until the caller goes, or the session that was asked for has ended. Those
/// that run are shown from now on.
#[utoipa::path(
    post,
    path = "/v1/tap",
    request_body = TapOrder,
    responses((status = OK, description = "What flows, as it does", content(
        (String = "text/plain"),
        (Vec<u8> = "application/x-pcapng"),
    )))
)]
pub(super) async fn tap(
    State(shared): State<Shared>,
    Extension(connection): Extension<Connection>,
    Parameters(NoParameters {}): Parameters<NoParameters>,
    Body(order): Body<TapOrder>,
) -> Result<Response, Problem> {
    let whom = order.whom(&shared)?;
    let tap = order.tap()?;
    let kind = match tap.format {
        TapFormat::Pcapng => "application/x-pcapng",
        TapFormat::Hex | TapFormat::Text | TapFormat::Http => "text/plain; charset=utf-8",
    };
    let full = |_| Problem::unavailable("as many look at sessions as may: try again later");
    let place = shared.taps.clone().try_acquire_owned().map_err(full)?;
    let streams = connection.streams(&shared.streams)?;
    let notice = Notice::LookedAt {
        sessions: order.described(),
        bytes: format_size(tap.max_bytes_per_session),
    };
    let none = |error| Problem::unavailable(format!("a tap cannot be had now: {error}"));
    let (onlooking, pipe) = Onlooking::start(tap, shared.subject.log()).map_err(none)?;
    let pipe = pipe::Receiver::from_owned_fd(pipe.into()).map_err(none)?;
    let log = shared.subject.log().clone();
    let forwards = match &whom {
        Whom::All(_, forwards) => forwards.clone(),
        Whom::One(..) => None,
    };
    let looking = Looking {
        looker: Arc::new(Looker {
            forwards,
            onlooking,
        }),
        shared,
        _places: [place, streams],
    };
    looking.begin(&whom).await?;
    log.notice(notice);
    let pieces = stream::unfold((pipe, looking), |(mut pipe, looking)| async move {
        let mut piece = Vec::with_capacity(PIECE);
        match pipe.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(Bytes::from(piece)), (pipe, looking))),
            Err(error) => Some((Err(error), (pipe, looking))),
        }
    });
    Ok(([(header::CONTENT_TYPE, kind)], Answer::from_stream(pieces)).into_response())
}

/// At whom.
enum Whom {
    /// One that lives, of this reactor.
    One(u16, Arc<SessionFilter>),
    /// Those that live and those to come.
    /// … of these forwards; without, of all.
    All(Arc<SessionFilter>, Option<Vec<ForwardId>>),
}

/// Of those nothing is shown.
fn datagrams() -> Problem {
    Problem::bad_request("datagrams are not shown, only connections: for those use tcpdump")
}

impl TapOrder {
    fn whom(&self, shared: &Shared) -> Result<Whom, Problem> {
        let some = self.forward.is_some() || self.client.is_some();
        let mut filter = SessionFilter::default();
        let mut forwards = None;
        match (&self.session, some, self.all) {
            (None, true, false) | (None, false, true) => {}
            (Some(id), false, false) => {
                let none = || Problem::not_found(format!("there is no session {id}"));
                let identity = Identity::parse(id).ok_or_else(none)?;
                if identity.is_flow {
                    return Err(datagrams().at("body, session"));
                }
                return Ok(Whom::One(identity.reactor, Arc::new(identity.filter())));
            }
            _ => {
                let problem = "say whom to look at: a session, or a forward and a client, or all";
                return Err(Problem::bad_request(problem).at("body"));
            }
        }
        if let Some(name) = &self.forward {
            let known = shared.subject.forwards();
            let of_name = known.iter().filter(|it| *it.forward.name == **name);
            let of_name: Vec<_> = of_name.collect();
            if of_name.is_empty() {
                let none = Problem::not_found(format!("there is no forward named {name:?}"));
                return Err(none.at("body, forward"));
            }
            if of_name.iter().all(|it| !it.config.protocol.has_tcp()) {
                let problem =
                    format!("a tap shows connections, and {name} forwards datagrams alone");
                return Err(Problem::bad_request(problem).at("body"));
            }
            filter.forward = Some(name.as_str().into());
            forwards = Some(of_name.iter().map(|it| it.forward.id).collect());
        }
        filter.client = self.networks()?.first().copied();
        Ok(Whom::All(Arc::new(filter), forwards))
    }

    fn networks(&self) -> Result<Vec<ipnet::IpNet>, Problem> {
        let Some(client) = &self.client else {
            return Ok(Vec::new());
        };
        match client_of(client) {
            Some((network, None)) => Ok(vec![network]),
            _ => Err(Problem::bad_request("this is no address and no network").at("body, client")),
        }
    }

    fn tap(&self) -> Result<Tap, Problem> {
        let format = TapFormat::of_word(&self.format).ok_or_else(|| {
            Problem::bad_request("a format is hex, text, http or pcapng").at("body, format")
        })?;
        let direction = self.direction.as_deref().unwrap_or("both");
        let direction = TapDirection::of_word(direction).ok_or_else(|| {
            Problem::bad_request("a direction is up, down or both").at("body, direction")
        })?;
        if self.max_bytes == Some(0) {
            let problem = "of a session at least one byte is shown";
            return Err(Problem::bad_request(problem).at("body, max_bytes"));
        }
        let defaults = Tap::default();
        Ok(Tap {
            format,
            filter: TapFilter {
                client: self.networks()?,
                direction,
                ..TapFilter::default()
            },
            max_bytes_per_session: self.max_bytes.unwrap_or(defaults.max_bytes_per_session),
            mask: self.mask.clone(),
            unmask: self.unmask,
            ..defaults
        })
    }

    /// For the log.
    fn described(&self) -> String {
        let parts = [
            ("session", &self.session),
            ("forward", &self.forward),
            ("client", &self.client),
        ];
        let parts = parts.iter().filter_map(|(what, which)| {
            let which = which.as_deref()?;
            Some(format!("{what} {}", which.escape_default()))
        });
        let parts: Vec<String> = parts.collect();
        if parts.is_empty() {
            return "every session".to_owned();
        }
        parts.join(", ")
    }
}

/// It ends when this is dropped: with the answer, whatever ends that.
struct Looking {
    looker: Arc<Looker>,
    shared: Shared,
    _places: [OwnedSemaphorePermit; 2],
}

impl Looking {
    async fn begin(&self, whom: &Whom) -> Result<(), Problem> {
        let looker = &self.looker;
        let subject = &*self.shared.subject;
        match whom {
            Whom::One(reactor, filter) => {
                let source = looker.onlooking.source_of_one(*reactor);
                match self.look_at(*reactor, filter, source).await {
                    0 => Err(Problem::not_found("there is no such session any more")),
                    _ => Ok(()),
                }
            }
            Whom::All(filter, _) => {
                // Before those that there are: one that comes meanwhile is told of it twice,
                // which is no matter, rather than not at all.
                subject.look(looker);
                for reactor in gather::reactors(subject) {
                    let onlooker = looker.of(reactor);
                    let source = onlooker.source.clone();
                    let asked = gather::ask(subject, reactor, |it| it.look_on(onlooker));
                    if asked.await == Some(true) {
                        self.look_at(reactor, filter, source).await;
                    }
                }
                Ok(())
            }
        }
    }

    /// Shows those that run; how many there are.
    async fn look_at(&self, reactor: u16, filter: &Arc<SessionFilter>, source: Source) -> usize {
        let filter = filter.clone();
        let look = move |it: &mut dyn Inspect, from| it.look_at(from, &filter, &source);
        let shown = gather::walk(&*self.shared.subject, (reactor, 0), look).await;
        shown.map_or(0, Iterator::count)
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        // Over first: who looks away forgets those of whom that is said.
        self.looker.onlooking.end();
        for reactor in gather::reactors(&*self.shared.subject) {
            let away = once(|it| it.look_away());
            // One that has ended shows nobody anything.
            self.shared.subject.visit(reactor, away);
        }
    }
}
