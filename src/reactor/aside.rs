//! What few sessions have besides, in one box of its own: nearly all of an idle crowd have
//! none of it, and pay for one pointer.

use super::attempts::Dialling;
use super::opened::Opened;
use crate::net::address::Endpoint;
use crate::net::tcp_info::TcpInfo;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Aside(Option<Box<Few>>);

#[derive(Debug, Default)]
struct Few {
    /// Only of a client that says something before its payload.
    opened: Option<Opened>,
    /// Only if connecting did not go smoothly.
    dialling: Option<Box<Dialling>>,
    /// What the kernel said last of its legs; only for a record.
    last_words: Option<Box<LastWords>>,
}

/// What is known of the legs of a session only while they are open.
#[derive(Debug, Default)]
pub(super) struct LastWords {
    pub(super) tcp: [Option<TcpInfo>; 2],
    /// Where the client came in, at a listener on all addresses.
    pub(super) reached: Option<Endpoint>,
}

impl Aside {
    /// Of a session that has these.
    pub(super) fn new(opened: Option<Opened>, dialling: Option<Box<Dialling>>) -> Self {
        let any = opened.is_some() || dialling.is_some();
        Self(any.then(|| {
            Box::new(Few {
                opened,
                dialling,
                last_words: None,
            })
        }))
    }

    /// What its client said before its payload.
    pub(super) fn opened(&self) -> Option<&Opened> {
        self.0.as_ref()?.opened.as_ref()
    }

    /// Likewise.
    pub(super) fn opened_mut(&mut self) -> Option<&mut Opened> {
        self.0.as_mut()?.opened.as_mut()
    }

    /// What it remembers of being connected.
    pub(super) fn dialling(&self) -> Option<&Dialling> {
        self.0.as_ref()?.dialling.as_deref()
    }

    /// Likewise.
    pub(super) fn dialling_mut(&mut self) -> Option<&mut Dialling> {
        self.0.as_mut()?.dialling.as_deref_mut()
    }

    /// Likewise; made if it remembers nothing yet.
    pub(super) fn dialling_or_new(&mut self) -> &mut Dialling {
        self.0
            .get_or_insert_default()
            .dialling
            .get_or_insert_default()
    }

    /// There is nothing to remember of being connected.
    pub(super) fn forget_dialling(&mut self) {
        let Some(parts) = &mut self.0 else { return };
        parts.dialling = None;
        if parts.opened.is_none() && parts.last_words.is_none() {
            self.0 = None;
        }
    }

    /// What the kernel said last of its legs.
    pub(super) fn last_words(&self) -> Option<&LastWords> {
        self.0.as_ref()?.last_words.as_deref()
    }

    /// Likewise; made if it has said nothing yet.
    pub(super) fn last_words_or_new(&mut self) -> &mut LastWords {
        self.0
            .get_or_insert_default()
            .last_words
            .get_or_insert_default()
    }
}
