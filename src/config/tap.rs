//! `tap`: what of the traffic is shown, to whom, and how much of it.
//!
//! A table of `[defaults]` and of each `[[forward]]`. A forward takes the keys that
//! it does not write from `[defaults]`; `tap = "off"` taps nothing there.

use std::fmt;
use std::path::PathBuf;

use ipnet::IpNet;

use super::choices::{TAP_DIRECTIONS, TAP_FORMATS};
use super::raw::{Node, TableReader, Value};
use super::report::{Fault, Report, Span, nearest};
use super::values;
use crate::net::network;
use crate::relay::Direction;

/// A tap with every default filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tap {
    /// How chunks look.
    pub format: TapFormat,
    /// Where they go.
    pub to: TapTarget,
    /// Bytes shown of each session, both directions together; 64 KiB by default.
    /// From then on the session may splice again.
    pub max_bytes_per_session: u64,
    /// Which sessions, and which of their directions.
    pub filter: TapFilter,
    /// When a file is begun anew; `None`: never.
    pub rotate: Option<Rotate>,
    /// Whether values of `Authorization`, `Cookie` and their like are shown.
    pub unmask: bool,
}

/// `format =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapFormat {
    /// Hexadecimal and ASCII, 16 bytes a line.
    Hex,
    /// Lines of text, with what is not printable escaped.
    Text,
    /// HTTP/1, HTTP/2, gRPC and TLS records, decoded.
    Http,
    /// Packets for Wireshark, made up from the streams.
    Pcapng,
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

/// `filter =`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapFilter {
    /// Clients whose sessions are tapped, an IPv4-mapped address as IPv4; empty: all
    /// of them.
    pub client: Vec<IpNet>,
    /// Which way.
    pub direction: TapDirection,
    /// Of so many sessions, so many.
    pub sample: Sample,
}

impl Default for TapFilter {
    fn default() -> Self {
        Self {
            client: Vec::new(),
            direction: TapDirection::Both,
            sample: Sample { part: 1, of: 1 },
        }
    }
}

/// `direction =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TapDirection {
    /// From clients to upstreams.
    Up,
    /// From upstreams to clients.
    Down,
    /// Both ways.
    Both,
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

/// `rotate =`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotate {
    /// A file that has reached this many bytes is renamed, and a new one begun.
    pub size: u64,
    /// Renamed files that are kept: `FILE.1` is the latest.
    pub keep: u16,
}

const MAX_BYTES_DEFAULT: u64 = 64 << 10;
const KEEP_DEFAULT: u16 = 5;

/// A `tap` as written; `None` is not written.
#[derive(Debug, Clone)]
pub(super) struct TapSettings {
    off: bool,
    /// Something in it was reported already: what does not fit together may be its
    /// echo.
    broken: bool,
    format: Option<TapFormat>,
    to: Option<TapTarget>,
    max_bytes_per_session: Option<u64>,
    filter: Option<TapFilter>,
    rotate: Option<Rotate>,
    unmask: Option<bool>,
    span: Span,
}

impl TapSettings {
    /// The `tap` of a table, if it has one.
    pub(super) fn read(t: &mut TableReader<'_>, report: &mut Report) -> Option<Self> {
        let node = t.get("tap")?;
        let nothing = Self {
            off: true,
            broken: false,
            format: None,
            to: None,
            max_bytes_per_session: None,
            filter: None,
            rotate: None,
            unmask: None,
            span: node.span.clone(),
        };
        match &node.value {
            Value::Boolean(false) => return Some(nothing),
            Value::String(text) if text == "off" => return Some(nothing),
            Value::Table(_) => {}
            _ => {
                let fault = Fault::new(format!("`tap` must be a table, not {}", node.kind()));
                let remedy = "such as tap = { format = \"hex\" }, or tap = \"off\"";
                report.error(&node.span, fault.remedy(remedy));
                return None;
            }
        }
        let mut table = TableReader::open(node, "`tap`", report)?;
        let t = &mut table;
        let format = t.read("format", report, |n| values::choice(n, TAP_FORMATS));
        let to = t.read("to", report, target);
        let broken =
            format.is_none() && t.get("format").is_some() || to.is_none() && t.get("to").is_some();
        let settings = Self {
            off: false,
            broken,
            format,
            to,
            max_bytes_per_session: t.read("max_bytes_per_session", report, |n| {
                values::size(n, 1..=1 << 50)
            }),
            filter: t.get("filter").and_then(|node| filter(node, report)),
            rotate: t.get("rotate").and_then(|node| rotate(node, report)),
            unmask: t.read("unmask", report, values::boolean),
            ..nothing
        };
        table.close(report, &[]);
        Some(settings)
    }

    /// What is written here, or else in `defaults`.
    pub(super) fn or(self, defaults: Option<&Self>) -> Self {
        let Some(defaults) = defaults else {
            return self;
        };
        Self {
            off: self.off,
            broken: self.broken || defaults.broken,
            format: self.format.or(defaults.format),
            to: self.to.or_else(|| defaults.to.clone()),
            max_bytes_per_session: self
                .max_bytes_per_session
                .or(defaults.max_bytes_per_session),
            filter: self.filter.or_else(|| defaults.filter.clone()),
            rotate: self.rotate.or(defaults.rotate),
            unmask: self.unmask.or(defaults.unmask),
            span: self.span,
        }
    }

    /// The tap that it is, if all of it fits together.
    fn finish(&self, report: &mut Report) -> Option<Tap> {
        let Some(format) = self.format else {
            let fault = Fault::new("this tap has no `format`");
            let remedy = "write format = \"hex\", \"text\", \"http\" or \"pcapng\"";
            report.consequence(&self.span, fault.remedy(remedy));
            return None;
        };
        let to = self.to.clone().unwrap_or(TapTarget::Stderr);
        if to == TapTarget::Stderr {
            let fault = match (format, self.rotate) {
                (TapFormat::Pcapng, _) => {
                    Fault::new("a tap with format \"pcapng\" is no text: it needs a file")
                        .remedy("add to = \"./tap.pcapng\"")
                }
                (_, Some(_)) => Fault::new("standard error cannot be rotated")
                    .remedy("add to = \"./tap.log\", or remove `rotate`"),
                _ => return Some(self.with(format, to)),
            };
            report.consequence(&self.span, fault);
            return None;
        }
        Some(self.with(format, to))
    }

    fn with(&self, format: TapFormat, to: TapTarget) -> Tap {
        Tap {
            format,
            to,
            max_bytes_per_session: self.max_bytes_per_session.unwrap_or(MAX_BYTES_DEFAULT),
            filter: self.filter.clone().unwrap_or_default(),
            rotate: self.rotate,
            unmask: self.unmask.unwrap_or(false),
        }
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
            let place = report.describe(span);
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

fn filter(node: &Node, report: &mut Report) -> Option<TapFilter> {
    let mut table = TableReader::open(node, "`filter`", report)?;
    let t = &mut table;
    let default = TapFilter::default();
    let filter = TapFilter {
        client: t
            .get("client")
            .map_or_else(Vec::new, |node| networks(node, report)),
        direction: t
            .read("direction", report, |n| values::choice(n, TAP_DIRECTIONS))
            .unwrap_or(default.direction),
        sample: t.read("sample", report, sample).unwrap_or(default.sample),
    };
    table.close(report, &[]);
    Some(filter)
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
            Err(mut fault) => {
                fault.message = format!("`client`: {}", fault.message);
                report.error(&node.span, fault);
            }
        }
    }
    found
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

fn rotate(node: &Node, report: &mut Report) -> Option<Rotate> {
    let mut table = TableReader::open(node, "`rotate`", report)?;
    let t = &mut table;
    let size = t.read("size", report, |n| values::size(n, 4 << 10..=1 << 50));
    let missing = t.get("size").is_none();
    let keep = t.read("keep", report, |n| values::integer(n, 1..=1000));
    table.close(report, &[]);
    if missing {
        let fault = Fault::new("`rotate` has no `size`");
        report.consequence(&node.span, fault.remedy("such as size = \"100MiB\""));
    }
    Some(Rotate {
        size: size?,
        keep: keep.unwrap_or(KEEP_DEFAULT),
    })
}
