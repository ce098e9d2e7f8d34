//! What was asked for at one moment, by a thread of its own: a process that does not answer holds
//! up neither keys nor signals.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::tab::Tab;
use crate::admin::client::{AskError, Client, query};
use crate::admin::view::{About, Forward, Refusal, Server, Session, SessionPage};

/// Sessions that are asked for.
const SESSIONS: usize = 100;

/// Over how long rates of sessions are measured.
const INTERVAL_MS: u32 = 300;

/// What there was; of tables those that were asked for.
#[derive(Debug)]
pub(super) struct Picture {
    pub(super) at: Instant,
    pub(super) about: About,
    pub(super) sessions: Vec<Session>,
    pub(super) servers: Vec<Server>,
    pub(super) forwards: Vec<Forward>,
    pub(super) refused: Vec<Refusal>,
}

/// What is to be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) tab: Tab,
    /// Of sessions.
    pub(super) sort: &'static str,
    /// Those of this server or forward alone: the parameter and its value.
    pub(super) scope: Option<(&'static str, String)>,
}

/// What the thread is to do.
#[derive(Debug)]
pub(super) enum Order {
    Look(Wanted),
    /// A POST.
    Act(String, Value),
}

/// What came of it.
#[derive(Debug)]
pub(super) enum Done {
    Seen(Wanted, Box<Picture>),
    Acted,
    Failed(AskError),
}

impl Picture {
    /// Asks for what a tab needs.
    pub(super) fn take(client: &Client, wanted: &Wanted) -> Result<Self, AskError> {
        let mut picture = Self {
            at: Instant::now(),
            about: About::default(),
            sessions: Vec::new(),
            servers: Vec::new(),
            forwards: Vec::new(),
            refused: Vec::new(),
        };
        match wanted.tab {
            Tab::Sessions => {
                let scope = wanted
                    .scope
                    .iter()
                    .map(|(key, it)| (*key, Some(it.clone())));
                let mut parameters: Vec<_> = scope.collect();
                parameters.extend([
                    ("sort", Some(wanted.sort.to_owned())),
                    ("limit", Some(SESSIONS.to_string())),
                    ("interval_ms", Some(INTERVAL_MS.to_string())),
                ]);
                let page: SessionPage =
                    client.get(&format!("/v1/sessions{}", query(&parameters)))?;
                picture.sessions = page.sessions;
            }
            Tab::Servers => picture.servers = client.get("/v1/servers")?,
            Tab::Forwards | Tab::Endings => picture.forwards = client.get("/v1/forwards")?,
            Tab::Refused => picture.refused = client.get("/v1/refused")?,
        }
        picture.about = client.get("/v1")?;
        picture.at = Instant::now();
        Ok(picture)
    }

    /// What holds of every table: who it is, until there is something to fill one with.
    pub(super) fn heading(self) -> Self {
        Self {
            sessions: Vec::new(),
            servers: Vec::new(),
            forwards: Vec::new(),
            refused: Vec::new(),
            ..self
        }
    }

    /// All of it.
    pub(super) fn of_all(client: &Client) -> Result<Self, AskError> {
        let wanted = |tab: Tab| Wanted {
            tab,
            sort: "rate",
            scope: None,
        };
        let mut picture = Self::take(client, &wanted(Tab::Sessions))?;
        picture.servers = Self::take(client, &wanted(Tab::Servers))?.servers;
        picture.forwards = Self::take(client, &wanted(Tab::Forwards))?.forwards;
        // A process of an older build does not tell.
        let refused = Self::take(client, &wanted(Tab::Refused));
        picture.refused = refused.map(|it| it.refused).unwrap_or_default();
        Ok(picture)
    }
}

/// A thread that asks, and the ways to it and back. It ends with the process, or when nobody
/// wants anything any more.
pub(super) fn asker(client: Client) -> std::io::Result<(Sender<Order>, Receiver<Done>)> {
    let (orders, inbox) = channel();
    let (outbox, answers) = channel();
    std::thread::Builder::new()
        .name("asker".to_owned())
        .spawn(move || {
            while let Ok(order) = inbox.recv() {
                let done = match order {
                    Order::Look(wanted) => Picture::take(&client, &wanted)
                        .map(|picture| Done::Seen(wanted, Box::new(picture))),
                    Order::Act(path, body) => client
                        .post::<Value>(&path, &body, None)
                        .map(|_| Done::Acted),
                };
                if outbox.send(done.unwrap_or_else(Done::Failed)).is_err() {
                    return;
                }
            }
        })?;
    Ok((orders, answers))
}

/// Without an answer for so long, that is said.
pub(super) const SILENCE: Duration = Duration::from_secs(2);
