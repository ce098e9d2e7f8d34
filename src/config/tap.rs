//! `tap`: what of the traffic is shown, to whom, and how much of it.
//!
//! A table of `[defaults]` and of each `[[forward]]`. A forward takes the keys that
//! it does not write from `[defaults]`; `tap = "off"` taps nothing there.

use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;
use serde_json::{Value as Json, json};

use super::kind::{
    Compared, Composite, Kind, Optional, Special, Switch, choice, file_mode, int, one_or_list,
    reference, size, text_schema,
};
use super::raw::{Node, TableReader, Value};
use super::report::{Fault, Report, Span, nearest};
use super::row::{Applies, KeyChange, Pairs, Row};
use super::section::{Section, section, table};
use super::text::{inline, list, quote};
use super::values;
use super::words::words;
use crate::net::network;
use crate::proto::secrets::NAME_MAX;
use crate::relay::Direction;

section! {
    /// What of a forward's traffic is shown, with every default filled in.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Tap, TapKeys {
        keys {
            /// How it looks.
            format: TapFormat = TapFormat::Hex, choice(), Live,
                shown "required", example "\"http\"";
            /// Where it goes; text is appended to a file, packets begin it anew; a path needs a
            /// slash, packets a file.
            to: TapTarget = TapTarget::Stderr, tap_target(), Live,
                example "\"/var/log/thalweg.tap\"";
            /// Shown of each session, both directions together; from then on it may splice.
            max_bytes_per_session: u64 = 64 << 10, size(1..=1 << 50), Live;
            /// Whose sessions, and which way.
            filter: TapFilter = TapFilter::default(), table("filter"), Live,
                shown "all of it";
            /// The mode of a file that is made, less the umask.
            mode: u32 = 0o600, file_mode(), Live;
            /// When a file is begun anew.
            rotate: Option<Rotate> = None, RotateKey, Live, shown "never";
            /// Headers, and parameters of a query, whose values `text` and `http` mask besides
            /// those that they do anyway ([tap](tap.md#what-is-masked)).
            mask: Vec<String> = Vec::new(), mask(), Live,
                shown "`[]`", example "[\"X-Session\", \"ticket\"]";
            /// Whether `text` and `http` mask nothing.
            unmask: bool = false, Switch, Live;
        }
    }
}

words! {
    /// `format =`.
    pub enum TapFormat {
        /// Hexadecimal and ASCII, 16 bytes a line.
        Hex = "hex",
        /// Lines of text, with what is not printable escaped.
        Text = "text",
        /// HTTP/1, HTTP/2, gRPC and TLS records, decoded.
        Http = "http",
        /// Packets for Wireshark, made up from the streams.
        Pcapng = "pcapng",
    }
}

/// `to =`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TapTarget {
    /// Standard error.
    Stderr,
    /// Appended to a file; begun anew for [`TapFormat::Pcapng`].
    File(PathBuf),
}

impl fmt::Display for TapTarget {
    /// Control bytes of a path are escaped.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stderr => f.write_str("stderr"),
            Self::File(path) => path.as_os_str().as_encoded_bytes().escape_ascii().fmt(f),
        }
    }
}

section! {
    /// `filter =`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct TapFilter, FilterKeys {
        keys {
            /// Clients whose sessions are tapped, an IPv4-mapped address as IPv4; a unix socket
            /// is in no network.
            client: Vec<IpNet> = Vec::new(), clients(), Live,
                shown "everybody", example "[\"10.0.0.0/8\", \"2001:db8::/32\"]";
            /// From clients, to clients.
            direction: TapDirection = TapDirection::Both, choice(), Live;
            /// Of so many sessions of a reactor so many, evenly; always the first.
            sample: Sample = Sample { part: 1, of: 1 }, sample_key(), Live, example "\"1/100\"";
        }
    }
}

words! {
    /// `direction =`.
    pub enum TapDirection {
        /// From clients to upstreams.
        Up = "up",
        /// From upstreams to clients.
        Down = "down",
        /// Both ways.
        Both = "both",
    }
}

impl TapDirection {
    /// Whether bytes that go this way are shown.
    pub const fn takes(self, direction: Direction) -> bool {
        matches!(
            (self, direction),
            (Self::Both, _) | (Self::Up, Direction::Up) | (Self::Down, Direction::Down)
        )
    }
}

/// `sample = "1/100"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// So many, at least 1 …
    pub part: u32,
    /// … of so many.
    pub of: u32,
}

impl Sample {
    /// Whether the `n`-th session of a reactor, counted from 1, is among them. They
    /// are spread evenly, and the first one always is: a tap that shows nothing at
    /// first looks broken.
    pub const fn takes(self, n: u64) -> bool {
        let (part, of) = (self.part as u64, self.of as u64);
        (n.wrapping_sub(1) % of) * part % of < part
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.part, self.of)
    }
}

section! {
    /// `rotate =`.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Rotate, RotateKeys {
        keys {
            /// No file grows beyond it, but for a chunk that is larger by itself.
            size: u64 = 1 << 50, size(4 << 10..=1 << 50), Live,
                shown "required", example "\"100MiB\"";
            /// Files that are kept: `FILE.1` is the latest.
            keep: u16 = 5, int(1..=1000), Live;
        }
    }
}

/// A `tap` as written.
#[derive(Debug, Clone)]
pub(super) struct TapSettings {
    off: bool,
    /// Something in it was reported already: what does not fit together may be its
    /// echo.
    broken: bool,
    keys: TapKeys,
    span: Span,
}

impl TapSettings {
    /// The `tap` of a table, if it has one.
    pub(super) fn read(t: &mut TableReader<'_>, report: &mut Report) -> Option<Self> {
        let node = t.get("tap")?;
        let off = Self {
            off: true,
            broken: false,
            keys: TapKeys::default(),
            span: node.span.clone(),
        };
        match &node.value {
            Value::Boolean(false) => return Some(off),
            Value::String(text) if text == "off" => return Some(off),
            Value::Table(_) => {}
            _ => {
                let fault = Fault::new(format!("`tap` must be a table, not {}", node.kind()));
                let remedy = "such as tap = { format = \"hex\" }, or tap = \"off\"";
                report.error(&node.span, fault.remedy(remedy));
                return None;
            }
        }
        let mut table = TableReader::open(node, "`tap`", report)?;
        let keys = Tap::read(&mut table, report);
        let broken = keys.format.is_none() && table.get("format").is_some()
            || keys.to.is_none() && table.get("to").is_some();
        table.close(report, &[]);
        Some(Self {
            off: false,
            broken,
            keys,
            ..off
        })
    }

    /// What is written here, or else in `defaults`.
    pub(super) fn or(self, defaults: Option<&Self>) -> Self {
        let Some(defaults) = defaults else {
            return self;
        };
        Self {
            off: self.off,
            broken: self.broken || defaults.broken,
            keys: Tap::merge(self.keys, &defaults.keys),
            span: self.span,
        }
    }

    /// The tap that it is, if all of it fits together.
    fn finish(&self, report: &mut Report) -> Option<Tap> {
        let tap = Tap::fill(self.keys.clone());
        if self.keys.format.is_none() {
            let fault = Fault::new("this tap has no `format`");
            let remedy = "write format = \"hex\", \"text\", \"http\" or \"pcapng\"";
            report.consequence(&self.span, fault.remedy(remedy));
            return None;
        }
        if tap.to == TapTarget::Stderr {
            let fault = match (tap.format, tap.rotate) {
                (TapFormat::Pcapng, _) => {
                    Fault::new("a tap with format \"pcapng\" is no text: it needs a file")
                        .remedy("add to = \"./tap.pcapng\"")
                }
                (_, Some(_)) => Fault::new("standard error cannot be rotated")
                    .remedy("add to = \"./tap.log\", or remove `rotate`"),
                _ => return Some(tap),
            };
            report.consequence(&self.span, fault);
            return None;
        }
        Some(tap)
    }
}

/// The taps of all forwards so far: those that share a file must agree on it.
#[derive(Debug, Default)]
pub(super) struct Taps {
    done: Vec<(Tap, Span)>,
    /// Of those that were reported: one in `[defaults]` is every forward's.
    refused: Vec<Span>,
}

impl Taps {
    /// The tap of one more forward.
    pub(super) fn finish(
        &mut self,
        settings: Option<&TapSettings>,
        report: &mut Report,
    ) -> Option<Tap> {
        let settings = settings.filter(|tap| !self.refused.contains(&tap.span))?;
        if settings.off || settings.broken {
            return None;
        }
        let tap = settings.finish(report);
        if tap.is_none() {
            self.refused.push(settings.span.clone());
        }
        let tap = tap?;
        let same_file = |other: &&(Tap, Span)| other.0.to == tap.to && tap.to != TapTarget::Stderr;
        let earlier = self.done.iter().find(same_file);
        if let Some((other, span)) = earlier
            && (other.format, other.rotate) != (tap.format, tap.rotate)
        {
            let place = report.describe(span, &settings.span);
            let fault = Fault::new(format!(
                "another tap writes {} with another `format` or `rotate` ({place})",
                tap.to
            ));
            report.error(&settings.span, fault.remedy("give this one another file"));
            return None;
        }
        self.done.push((tap.clone(), settings.span.clone()));
        Some(tap)
    }
}

/// `stderr` or a path. A path needs a slash, so that a misspelt word does not
/// become a file.
fn target(node: &Node) -> Result<TapTarget, Fault> {
    match values::string(node)? {
        "stderr" => Ok(TapTarget::Stderr),
        "stdout" => Err(Fault::new("standard output is the log's")
            .remedy("write \"stderr\", or a file with a slash")),
        path if path.contains('\0') => Err(Fault::new("a path cannot contain a NUL byte")),
        path if path.ends_with('/') => Err(Fault::new("this is a directory, not a file")
            .remedy(format!("write \"{path}tap.log\""))),
        path if path.contains('/') => Ok(TapTarget::File(PathBuf::from(path))),
        word => {
            let fault = Fault::new("this is neither \"stderr\" nor a path");
            Err(match nearest(word, ["stderr"]) {
                Some(known) => fault.remedy(format!("did you mean \"{known}\"?")),
                None => fault.remedy(format!("write a file with a slash: \"./{word}\"")),
            })
        }
    }
}

fn tap_target() -> Special<TapTarget> {
    Special {
        read: target,
        write: |to| match to {
            TapTarget::Stderr => quote("stderr"),
            // A path from a configuration is UTF-8.
            TapTarget::File(path) => quote(&path.to_string_lossy()),
        },
        words: "`\"stderr\"`, a path",
        schema: text_schema,
    }
}

fn clients() -> Composite<Vec<IpNet>> {
    Composite {
        read: |_, node, report| Some(networks(node, report)),
        write: |networks| {
            let list = list(networks.iter().map(ToString::to_string));
            // An empty one would tap nobody.
            (!networks.is_empty()).then_some(list)
        },
        words: "network or list, such as `\"10.0.0.0/8\"`",
        schema: || one_or_list(&text_schema()),
    }
}

fn mask() -> Composite<Vec<String>> {
    Composite {
        read: |_, node, report| Some(names(node, report)),
        write: |names| Some(list(names.iter().cloned())),
        words: "name or list",
        schema: || one_or_list(&text_schema()),
    }
}

pub(super) fn sample_key() -> Special<Sample> {
    Special {
        read: sample,
        write: |sample| quote(&sample.to_string()),
        words: "part, such as `\"1/100\"`",
        schema: || json!({ "type": "string", "pattern": "^[0-9]+/[0-9]+$" }),
    }
}

/// One network or a list of them; every wrong one is reported.
fn networks(node: &Node, report: &mut Report) -> Vec<IpNet> {
    let nodes = match &node.value {
        Value::Array(nodes) if nodes.is_empty() => {
            let fault = Fault::new("`client`: the list is empty: nobody would be tapped");
            report.error(
                &node.span,
                fault.remedy("remove the key to tap every client"),
            );
            &[][..]
        }
        Value::Array(nodes) => nodes,
        _ => std::slice::from_ref(node),
    };
    let mut found = Vec::new();
    for node in nodes {
        match network(node) {
            Ok(network) => found.push(network),
            Err(fault) => report.error(&node.span, fault.of_key("client")),
        }
    }
    found
}

/// Names of headers and of parameters; every wrong one is reported.
fn names(node: &Node, report: &mut Report) -> Vec<String> {
    let nodes = match &node.value {
        Value::Array(nodes) => nodes.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut found = Vec::new();
    for node in nodes {
        match name(node) {
            Ok(name) => found.push(name),
            Err(fault) => report.error(&node.span, fault.of_key("mask")),
        }
    }
    found
}

/// What the name of a header may have (RFC 9110, 5.6.2), which is more than a parameter's has
/// in practice.
fn name(node: &Node) -> Result<String, Fault> {
    let name = values::string(node)?;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(token) {
        let short: String = name.chars().take(60).flat_map(char::escape_debug).collect();
        let fault = Fault::new(format!("`{short}` is not the name of a header"));
        return Err(fault.remedy("write the name alone, such as \"X-Session\""));
    }
    Ok(name.to_owned())
}

fn network(node: &Node) -> Result<IpNet, Fault> {
    network::parse(values::string(node)?)
        .map_err(|error| Fault::new(error.problem).remedy(error.remedy))
}

fn sample(node: &Node) -> Result<Sample, Fault> {
    const FORM: &str = "write a part of the sessions, such as \"1/100\"";
    let text = values::string(node)?;
    let short: String = text.chars().take(60).collect();
    let no = || Fault::new(format!("`{short}` is not a part")).remedy(FORM);
    let (part, of) = text.split_once('/').ok_or_else(no)?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok()).flatten()
    };
    let (part, of) = (number(part).ok_or_else(no)?, number(of).ok_or_else(no)?);
    if part == 0 || part > of || of > SAMPLE_MAX {
        let fault = Fault::new(format!("`{short}` is out of range"));
        return Err(fault.remedy(format!(
            "write \"1/1\" for all sessions, \"1/{SAMPLE_MAX}\" for the fewest"
        )));
    }
    Ok(Sample { part, of })
}

/// One session in a million is few enough.
const SAMPLE_MAX: u32 = 1_000_000;

/// `rotate =`, a table that has no use without its `size`.
struct RotateKey;

impl Kind for RotateKey {
    type Value = Option<Rotate>;

    fn read(&self, _key: &str, node: &Node, report: &mut Report) -> Option<Option<Rotate>> {
        let mut table = TableReader::open(node, "`rotate`", report)?;
        let keys = Rotate::read(&mut table, report);
        let missing = table.get("size").is_none();
        table.close(report, &[]);
        if missing {
            let fault = Fault::new("`rotate` has no `size`");
            report.consequence(&node.span, fault.remedy("such as size = \"100MiB\""));
        }
        keys.size?;
        Some(Some(Rotate::fill(keys)))
    }

    fn write(&self, value: &Option<Rotate>) -> Option<String> {
        table::<Rotate>("rotate").write(value.as_ref()?)
    }

    fn words(&self) -> String {
        "table".to_owned()
    }

    fn schema(&self) -> Json {
        reference("rotate")
    }

    fn table(&self) -> Option<&'static str> {
        Some("rotate")
    }

    fn diff(
        &self,
        change: Compared,
        old: &Option<Rotate>,
        new: &Option<Rotate>,
        out: &mut Vec<KeyChange>,
    ) {
        Optional(table::<Rotate>("rotate")).diff(change, old, new, out);
    }
}

/// `tap =`: its row, and what differs; it is read by hand, because a forward takes the
/// keys that it does not write from `[defaults]`.
pub(super) struct TapKey;

impl TapKey {
    pub(super) fn row() -> Row {
        let mut row = Row::by_hand(
            "tap",
            "table, `\"off\"`",
            "",
            Applies::Live,
            "Shows what flows; see below and [tap.md](tap.md).",
            json!({ "anyOf": [{ "enum": ["off", false] }, reference("tap")] }),
        )
        .value("\"off\"");
        row.table = Some("tap");
        row
    }

    pub(super) fn write(tap: Option<&Tap>) -> String {
        let Some(tap) = tap else { return quote("off") };
        let mut pairs = Pairs::new();
        tap.write(&mut pairs);
        inline(&pairs)
    }

    pub(super) fn diff(old: Option<&Tap>, new: Option<&Tap>, out: &mut Vec<KeyChange>) {
        if let (Some(old), Some(new)) = (old, new) {
            return old.diff(new, "tap.", out);
        }
        let change = Compared {
            key: "tap".to_owned(),
            effect: Applies::Live,
        };
        change.texts(Some(Self::write(old)), Some(Self::write(new)), out);
    }
}
