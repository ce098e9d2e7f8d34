//! `send_proxy =` of a pool: the header by which its servers learn who the client is.

use serde_json::{Value as Json, json};

use super::kind::{Kind, choice};
use super::raw::{Node, TableReader, Value};
use super::report::{Fault, Report};
use super::section::read_key;
use super::text::{list, quote};
use super::values;
use super::words::{Words, words};
use crate::proto::proxy::Version;

/// What each connection to a server begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SendProxy {
    /// How it is written.
    pub version: Version,
    /// The host that the client asked for (SNI).
    pub authority: bool,
    /// The first protocol that it offered (ALPN).
    pub alpn: bool,
    /// What the connection is called, for logs on both sides.
    pub unique_id: bool,
    /// A checksum.
    pub crc32c: bool,
    /// Which datagrams of a flow have it.
    pub datagrams: ProxyDatagrams,
}

words! {
    /// Which datagrams of a flow begin with a header.
    pub enum ProxyDatagrams {
        /// Each, as the specification wants it.
        Each = "each",
        /// The first alone, as some servers do.
        First = "first",
    }
}

impl Words for Version {
    const WORDS: &'static [(&'static str, Self)] = &[("v1", Self::V1), ("v2", Self::V2)];
}

words! {
    /// What a header of version 2 may say besides.
    enum TlvWord {
        /// See [`SendProxy::authority`].
        Authority = "authority",
        /// See [`SendProxy::alpn`].
        Alpn = "alpn",
        /// See [`SendProxy::unique_id`].
        UniqueId = "unique_id",
        /// See [`SendProxy::crc32c`].
        Crc32c = "crc32c",
    }
}

impl SendProxy {
    pub(super) const fn of(version: Version) -> Self {
        Self {
            version,
            authority: false,
            alpn: false,
            unique_id: false,
            crc32c: false,
            datagrams: ProxyDatagrams::Each,
        }
    }

    /// Whether it says what only the client's first bytes tell.
    pub const fn needs_hello(&self) -> bool {
        self.authority || self.alpn
    }

    const fn add(&mut self, tlv: TlvWord) {
        *self.switch(tlv) = true;
    }

    const fn switch(&mut self, tlv: TlvWord) -> &mut bool {
        match tlv {
            TlvWord::Authority => &mut self.authority,
            TlvWord::Alpn => &mut self.alpn,
            TlvWord::UniqueId => &mut self.unique_id,
            TlvWord::Crc32c => &mut self.crc32c,
        }
    }

    fn words(mut self) -> Vec<String> {
        let words = TlvWord::WORDS.iter();
        let chosen = words.filter(|(_, tlv)| *self.switch(*tlv));
        chosen.map(|(word, _)| (*word).to_owned()).collect()
    }
}

/// `send_proxy =`.
pub(super) struct SendProxyKey;

impl Kind for SendProxyKey {
    type Value = Option<SendProxy>;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<Option<SendProxy>> {
        match &node.value {
            Value::Table(_) => read_table(key, node, report).map(Some),
            Value::String(text) if text == "off" => Some(None),
            _ => values::choice(node, Version::WORDS)
                .map(|version| Some(SendProxy::of(version)))
                .map_err(|fault| {
                    let fault = fault.of_key(key);
                    report.error(&node.span, fault);
                })
                .ok(),
        }
    }

    fn write(&self, value: &Option<SendProxy>) -> Option<String> {
        let Some(send) = value else {
            return Some(quote("off"));
        };
        let version = quote(send.version.word());
        let tlvs = send.words();
        let tlvs = (!tlvs.is_empty()).then(|| format!(", tlvs = {}", list(tlvs)));
        let datagrams = (send.datagrams != ProxyDatagrams::Each)
            .then(|| format!(", datagrams = {}", quote(send.datagrams.word())));
        if tlvs.is_none() && datagrams.is_none() {
            return Some(version);
        }
        let (tlvs, datagrams) = (tlvs.unwrap_or_default(), datagrams.unwrap_or_default());
        Some(format!("{{ version = {version}{tlvs}{datagrams} }}"))
    }

    fn words(&self) -> String {
        "`\"v1\"`, `\"v2\"`, `\"off\"`, or a table of `version`, `tlvs` and `datagrams` (`each` or `first`)".to_owned()
    }

    fn schema(&self) -> Json {
        let tlvs: Vec<_> = TlvWord::WORDS.iter().map(|(word, _)| *word).collect();
        json!({ "anyOf": [
            { "enum": ["v1", "v2", "off"] },
            {
                "type": "object",
                "properties": {
                    "version": { "enum": ["v1", "v2"] },
                    "tlvs": { "type": "array", "items": { "enum": tlvs } },
                    "datagrams": { "enum": ["each", "first"] },
                },
                "additionalProperties": false,
            },
        ]})
    }
}

fn read_table(key: &str, node: &Node, report: &mut Report) -> Option<SendProxy> {
    let mut table = TableReader::open(node, format!("`{key}`"), report)?;
    let version = read_key(&mut table, "version", &choice::<Version>(), report);
    let mut send = SendProxy::of(version.unwrap_or(Version::V2));
    let datagrams = read_key(&mut table, "datagrams", &choice::<ProxyDatagrams>(), report);
    send.datagrams = datagrams.unwrap_or(ProxyDatagrams::Each);
    if let Some(node) = table.get("tlvs") {
        let one = std::slice::from_ref(node);
        let nodes = match &node.value {
            Value::Array(nodes) => nodes,
            _ => one,
        };
        for node in nodes {
            match values::choice(node, TlvWord::WORDS) {
                Ok(tlv) => send.add(tlv),
                Err(fault) => report.error(&node.span, fault.of_key("tlvs")),
            }
        }
        if send.version == Version::V1 && !nodes.is_empty() {
            let fault = Fault::new("`tlvs`: a header of version 1 is one line of text without any");
            report.error(
                &node.span,
                fault.remedy("write version = \"v2\", or remove them"),
            );
        }
    }
    table.close(report, &[]);
    Some(send)
}
