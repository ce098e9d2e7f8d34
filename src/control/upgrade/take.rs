//! The new process: takes what the old one has, and says when it stands.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::channel::Channel;
use super::entrance;
use super::message::{Hello, Saying};
use super::moving;
use super::order::Settled;
use super::spawn;
use super::talk::{PREPARING, PROMPT, Talk, TalkError, out_of_turn};
use crate::control::resolve::KnownNames;
use crate::net::handed::{Handed, HandedLabel};
use crate::net::limits;
use crate::reactor::Berths;

/// Where the process is that is taken over from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakeOver {
    /// It has started this one, whose standard input is the connection.
    Parent,
    /// At this socket.
    At(PathBuf),
    /// At the socket in the runtime directory.
    Found,
}

impl FromStr for TakeOver {
    type Err = Infallible;

    /// `auto`, or the path of a socket.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "auto" => Self::Found,
            path => Self::At(path.into()),
        })
    }
}

impl TakeOver {
    /// What a process was asked for when it was started: by the one that started it, or by
    /// its command line.
    pub fn asked(flag: Option<Self>) -> Option<Self> {
        if spawn::is_child() {
            Some(Self::Parent)
        } else {
            flag
        }
    }

    /// Says to the process that started this one why nothing comes of it.
    pub fn refuse(&self, reason: &str) {
        let channel = match self {
            Self::Parent => spawn::from_parent().ok(),
            Self::At(_) | Self::Found => None,
        };
        let reason = reason.trim().to_owned();
        if let Some(channel) = channel {
            let _ = Talk(channel).say(&Saying::Refused { reason }, PROMPT);
        }
    }
}

/// Why this process does not begin.
#[derive(Debug, Error)]
pub(in crate::control) enum TakeError {
    #[error("{0}")]
    Talk(#[from] TalkError),
    #[error("{0}")]
    Unreachable(String),
}

/// A hand-over under way.
#[derive(Debug)]
pub(in crate::control) struct Taking {
    pub(in crate::control) talk: Talk,
    pub(in crate::control) handed: Handed,
    /// What names resolve to over there.
    pub(in crate::control) names: KnownNames,
    /// The process that is taken over from, and its build.
    pub(in crate::control) process: u32,
    pub(in crate::control) build: String,
    /// It started this one, and says when a service manager heeds it.
    pub(in crate::control) tells_service: bool,
}

impl Taking {
    /// Takes the listeners and what is known of servers.
    pub(in crate::control) fn begin(from: &TakeOver) -> Result<Self, TakeError> {
        let is_child = *from == TakeOver::Parent;
        let channel = match from {
            TakeOver::Parent => spawn::from_parent().map_err(|error| error.to_string()),
            TakeOver::At(path) => entrance::reach(Some(path)),
            TakeOver::Found => entrance::reach(None),
        };
        let mut taking = Self::over(channel.map_err(TakeError::Unreachable)?)?;
        taking.tells_service &= is_child;
        Ok(taking)
    }

    fn over(channel: Channel) -> Result<Self, TakeError> {
        let talk = Talk(channel);
        let room = limits::raise_descriptor_limit()
            .or_else(|_| limits::descriptor_limit())
            .unwrap_or(1024);
        let open = limits::open_descriptors().unwrap_or(64);
        talk.say(
            &Saying::Hello(Hello::own(room.saturating_sub(open))),
            PROMPT,
        )?;
        let theirs = match talk.hear(PREPARING)?.message {
            Saying::Hello(hello) => hello,
            other => return Err(out_of_turn(&other, "hello").into()),
        };
        if let Err(reason) = theirs.common() {
            let _ = talk.say(
                &Saying::Refused {
                    reason: reason.clone(),
                },
                PROMPT,
            );
            return Err(TakeError::Unreachable(reason));
        }
        let mut handed = Handed::default();
        loop {
            let heard = talk.hear(PREPARING)?;
            let Saying::Listeners {
                labels,
                cookies,
                last,
            } = heard.message
            else {
                return Err(out_of_turn(&heard.message, "listeners").into());
            };
            if labels.len() != heard.descriptors.len() {
                let lost = format!("{} of {}", heard.descriptors.len(), labels.len());
                return Err(TalkError::Lost(lost).into());
            }
            talk.have(&heard.descriptors, &cookies, PROMPT)?;
            for (label, socket) in labels.into_iter().zip(heard.descriptors) {
                handed.add(label, socket);
            }
            if last {
                break;
            }
        }
        let names = match talk.hear(PREPARING)?.message {
            Saying::Tables { tables } => {
                let age = Duration::from_micros(tables.age);
                handed.origin = Instant::now().checked_sub(age);
                handed.generation = Some(tables.generation);
                tables.names
            }
            other => return Err(out_of_turn(&other, "tables").into()),
        };
        Ok(Self {
            talk,
            handed,
            names,
            tells_service: theirs.has("service"),
            process: theirs.process,
            build: theirs.build,
        })
    }

    /// Everything stands; returns once it is this process that serves.
    pub(in crate::control) fn settle(
        &self,
        taken: Vec<HandedLabel>,
        berths: &Berths,
    ) -> Result<Settled, TakeError> {
        let talk = &self.talk;
        talk.say(&Saying::Ready { taken }, PREPARING)?;
        receive_all(talk, berths, PREPARING).map_err(|error| match error {
            TalkError::GivenUp(reason) => TakeError::Unreachable(reason),
            error => error.into(),
        })
    }

    /// This process does not begin after all.
    pub(in crate::control) fn refuse(&self, reason: String) {
        let _ = self.talk.say(&Saying::Refused { reason }, PROMPT);
    }
}

/// In a process that waits beside one on trial: everything comes back.
pub(super) fn take_back(talk: &Talk, berths: &Berths) -> Result<Settled, TalkError> {
    receive_all(talk, berths, PROMPT)
}

/// Whatever comes, up to where it is this process that has it.
fn receive_all(talk: &Talk, berths: &Berths, patience: Duration) -> Result<Settled, TalkError> {
    let (mut sessions, mut flows, mut spares) = (Vec::new(), Vec::new(), Vec::new());
    let tables = loop {
        let heard = talk.hear(patience)?;
        match heard.message {
            Saying::Tables { tables } => break tables,
            Saying::Sessions { .. } => sessions.extend(moving::receive(talk, heard, berths)?),
            Saying::Flows { .. } => flows.extend(super::flows::receive(talk, heard, berths)?),
            Saying::Spares { .. } => spares.extend(super::ahead::receive(talk, heard, berths)?),
            other => return Err(out_of_turn(&other, "tables")),
        }
    };
    let trial = match talk.hear(PROMPT)?.message {
        Saying::Commit { trial } => trial,
        other => return Err(out_of_turn(&other, "commit")),
    };
    if let Err(error) = talk.say(&Saying::Committed {}, PROMPT) {
        // Either the other process has given up and says so, or it is gone: then there is
        // nobody else who could serve.
        if let Ok(heard) = talk.hear(PROMPT) {
            return Err(match heard.message {
                Saying::GivenUp { reason } => TalkError::GivenUp(reason),
                _ => error,
            });
        }
    }
    Ok(Settled {
        tables,
        sessions,
        flows,
        spares,
        trial,
    })
}
