//! What two processes say to each other, and which versions of it they know.
//!
//! ```text
//!  new ── Hello ─────────────────────────────────────────────────────────► old
//!  new ◄─ Hello, or Refused ─────────────────────────────────────────────── old
//!  new ◄─ Listeners + descriptors ── each answered by Have ─────────────── old
//!  new ◄─ Tables: what is known of servers and clients ──────────────────── old
//!  new ── Ready, or Refused ─────────────────────────────────────────────► old
//!                                              from here on sessions wait
//!  new ◄─ Sessions + descriptors ── each answered by Have ──────────────── old
//!  new ◄─ Flows + descriptors ── each answered by Have ─────────────────── old
//!  new ◄─ Spares + descriptors ── each answered by Have ────────────────── old
//!  new ◄─ Tables: what was counted ──────────────────────────────────────── old
//!  new ◄─ Commit ────────────────────────────────────────────────────────── old
//!  new ── Committed ─────────────────────────────────────────────────────► old
//!                                              the new one lets clients in
//!                                              on trial: see `trial`
//!  new ◄─ Service: the service manager heeds it from now on ────────────── old
//!  new ◄─ Sessions that were still being opened then ───────────────────── old
//!  new ◄─ Rest: what the old one counted meanwhile ──────────────────────── old
//! ```
//! A field that is not known is passed over, one that is missing has its default; a kind of
//! message that is not known is refused by name. So a version of the protocol is one set of
//! kinds and an order in which they come.

use serde::{Deserialize, Serialize};

use super::tables::Tables;
use crate::net::handed::HandedLabel;
use crate::reactor::{FlowManifest, Manifest, SpareManifest};

/// The protocol that this build speaks best.
pub(in crate::control) const PROTOCOL: u32 = 1;

/// The oldest that it speaks as well.
pub(in crate::control) const OLDEST: u32 = 1;

/// What this build can do beyond handing listeners over.
pub(in crate::control) const FEATURES: &[&str] =
    &["tables", "sessions", "flows", "trial", "spares", "service"];

/// Who speaks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in crate::control) struct Hello {
    /// Versions of the protocol that it speaks, from the oldest one.
    pub(in crate::control) protocol: u32,
    pub(in crate::control) oldest: u32,
    /// For people.
    pub(in crate::control) build: String,
    #[serde(default)]
    pub(in crate::control) features: Vec<String>,
    pub(in crate::control) process: u32,
    /// Descriptors that it has room for.
    #[serde(default)]
    pub(in crate::control) room: u64,
}

impl Hello {
    /// That of this process.
    pub(in crate::control) fn own(room: u64) -> Self {
        Self {
            protocol: PROTOCOL,
            oldest: OLDEST,
            build: env!("CARGO_PKG_VERSION").to_owned(),
            features: FEATURES.iter().map(ToString::to_string).collect(),
            process: std::process::id(),
            room,
        }
    }

    /// Whether it can do this.
    pub(in crate::control) fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|it| it == feature)
    }

    /// The version that both speak.
    pub(in crate::control) fn common(&self) -> Result<u32, String> {
        let common = self.protocol.min(PROTOCOL);
        if common >= self.oldest.max(OLDEST) {
            return Ok(common);
        }
        Err(format!(
            "thalweg {} hands over by version {} to {}, this is thalweg {} with version {OLDEST} \
             to {PROTOCOL}: upgrade by way of a release between them, or restart",
            self.build,
            self.oldest,
            self.protocol,
            env!("CARGO_PKG_VERSION"),
        ))
    }
}

/// See the module's documentation.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(in crate::control) enum Saying {
    Hello(Hello),
    /// Nothing comes of it.
    Refused {
        reason: String,
    },
    /// A descriptor each.
    Listeners {
        labels: Vec<HandedLabel>,
        cookies: Vec<u64>,
        last: bool,
    },
    /// `SO_COOKIE` of what has come; of sessions also those that it cannot have, by their
    /// place in the message, and why.
    Have {
        cookies: Vec<u64>,
        #[serde(default)]
        refused: Vec<(usize, String)>,
    },
    /// Sessions, with their descriptors and tails one behind the other. Answered by `Have`.
    Sessions {
        manifests: Vec<Manifest>,
    },
    /// Flows of datagrams, with a descriptor each. Answered by `Have`.
    Flows {
        manifests: Vec<FlowManifest>,
    },
    /// Connections that stand ready, with a descriptor each. Answered by `Have`.
    Spares {
        manifests: Vec<SpareManifest>,
    },
    Tables {
        tables: Box<Tables>,
    },
    /// Everything stands; these listeners will be served.
    Ready {
        taken: Vec<HandedLabel>,
    },
    /// Nobody else has it from here on.
    Commit {
        /// It is on trial: the former process waits, and asks how it is.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        trial: bool,
    },
    Committed {},
    /// On trial: how is it?
    Ask {},
    Well {
        ready: bool,
        /// What an operator has said: to keep it, or to go back.
        #[serde(default)]
        verdict: Option<bool>,
    },
    /// The trial is over: everything goes back, from the sessions on.
    GoBack {
        reason: String,
    },
    /// The answer came too late, nothing was handed over.
    GivenUp {
        reason: String,
    },
    Rest {
        tables: Box<Tables>,
    },
    /// A service manager has heeded that the new process is the service.
    Service {},
}

impl Saying {
    /// Its kind, for people.
    pub(in crate::control) fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Refused { .. } => "refused",
            Self::Listeners { .. } => "listeners",
            Self::Have { .. } => "have",
            Self::Sessions { .. } => "sessions",
            Self::Flows { .. } => "flows",
            Self::Spares { .. } => "spares",
            Self::Tables { .. } => "tables",
            Self::Ready { .. } => "ready",
            Self::Commit { .. } => "commit",
            Self::Committed {} => "committed",
            Self::Ask {} => "ask",
            Self::Well { .. } => "well",
            Self::GoBack { .. } => "go_back",
            Self::GivenUp { .. } => "given_up",
            Self::Rest { .. } => "rest",
            Self::Service {} => "service",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hello(oldest: u32, protocol: u32) -> Hello {
        Hello {
            protocol,
            oldest,
            ..Hello::own(0)
        }
    }

    #[test]
    fn b128_neighbouring_versions_speak_the_older_one_and_others_are_refused() {
        assert_eq!(hello(1, 1).common(), Ok(1));
        assert_eq!(hello(PROTOCOL, PROTOCOL + 1).common(), Ok(PROTOCOL));
        let refused = hello(PROTOCOL + 1, PROTOCOL + 2).common().unwrap_err();
        assert!(
            refused.contains("by way of a release between them"),
            "{refused}"
        );
    }

    #[test]
    fn b128_unknown_fields_are_passed_over_and_unknown_kinds_refused() {
        let text = r#"{"kind":"commit","colour":"red"}"#;
        let message: Saying = serde_json::from_str(text).unwrap();
        assert_eq!(message.name(), "commit");
        let error = serde_json::from_str::<Saying>(r#"{"kind":"dance"}"#).unwrap_err();
        assert!(error.to_string().contains("dance"), "{error}");
    }
}
