//! `mode = "http-connect"` and `[forward.connect]`: a forward whose clients say by an
//! HTTP CONNECT request where to go.

mod access;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::kind::{
    Compared, Optional, Special, choice, one_or_list, reference, row_of, size, text_schema,
    time_in_steps,
};
use super::raw::{Node, TableReader, Value};
use super::report::{Fault, ListFile, Report};
use super::row::{Applies, KeyChange, Pairs, Row};
use super::section::{Section, read_key, section};
use super::text::{list, quote};
use super::values;
use super::words::{Words, words};

pub use access::AccessRules;
use access::RuleError;

/// What a forward does with a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// It connects it to a server of its pool; the default.
    Tcp,
    /// It awaits a CONNECT request, and connects to the target of that.
    HttpConnect(Arc<HttpConnect>),
}

words! {
    /// The word of `mode =`.
    pub(super) enum ModeWord {
        Tcp = "tcp",
        HttpConnect = "http-connect",
    }
}

section! {
    /// `[forward.connect]`.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct HttpConnect, ConnectKeys {
        fields {
            /// Where requests may go.
            access: AccessRules = AccessRules::default();
        }
        hand vec![
            Row::by_hand(
                "access",
                "list of rules",
                "",
                Applies::Live,
                "Where requests may go, in place of `allow` and `deny`: rules, of which the first that is \
                 about a request decides; without one it is denied. After `deny` or `allow` stands `all`, \
                 a rule as in those lists, or `@` and a file of such, a line each.",
                json!({ "type": "array", "items": {
                    "type": "string", "pattern": "^(allow|deny) .+$",
                }}),
            )
            .value("[]")
            .example("# [\"deny 10.9.0.0/16\", \"allow 10.0.0.0/8:22\", \"allow :443\"]"),
            Row::by_hand(
                "allow",
                "rule or list",
                "",
                Applies::Live,
                "Where requests may go: a port for public addresses (`\":443\"`), names \
                 (`\"*.example.com:443\"`), networks (`\"10.0.0.0/8:22\"`); without a port a rule is \
                 for 443.",
                one_or_list(&text_schema()),
            )
            .value("[\":443\"]")
            .example("[\":443\", \"10.0.0.0/8:22\"]"),
            Row::by_hand(
                "deny",
                "rule or list",
                "",
                Applies::Live,
                "Where they may not, whatever `allow` says; without a port a rule is for every port.",
                one_or_list(&text_schema()),
            )
            .value("[]")
            .example("[\"*.internal.example\"]"),
        ];
        keys {
            /// A file of `USER:HASH` lines (bcrypt or SHA-crypt); without it nobody is asked who
            /// he is.
            users: Option<PathBuf> = None, Optional(users()), Live,
                shown "–", example "\"/etc/thalweg/users\"";
            /// What the credentials are said to be for.
            realm: String = "thalweg".to_owned(), realm_key(), Live;
            /// For the whole request, from the accept on.
            header_timeout: Duration = Duration::from_secs(10),
                time_in_steps(HEADER_TIMEOUTS, Duration::from_millis(1)), Live;
            /// Bytes of the request's header at the most.
            header_max: u32 = 8 << 10, size(256..=64 << 10), Live;
        }
    }
}

const HEADER_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(3600);

/// Rules of one list at the most: more than a list of a continent's networks has. How
/// many there are does not slow a request down.
const RULES_MAX: usize = 1 << 17;

/// Bytes of a realm.
const REALM_MAX: usize = 200;

/// The rows of `mode` and `connect`.
pub(super) fn rows() -> [Row; 2] {
    let mode = choice::<ModeWord>();
    let doc = "http-connect makes it a [forward proxy](http_connect.md): its clients say by an HTTP \
               CONNECT request where to go.";
    let mode = row_of("mode", &mode, &ModeWord::Tcp, doc, Applies::Live);
    let mut connect = Row::by_hand(
        "connect",
        "table",
        "",
        Applies::Live,
        "Of such a proxy: below.",
        reference("connect"),
    )
    .value("{}");
    connect.table = Some("connect");
    [mode, connect]
}

/// Reads `mode` and `connect` of a `[[forward]]`.
pub(super) fn read(table: &mut TableReader<'_>, report: &mut Report) -> Mode {
    let word = read_key(table, "mode", &choice::<ModeWord>(), report);
    let node = table.get("connect");
    match (word, node) {
        (Some(ModeWord::HttpConnect), Some(node)) => {
            Mode::HttpConnect(Arc::new(read_connect(node, report)))
        }
        (Some(ModeWord::HttpConnect), None) => Mode::HttpConnect(Arc::default()),
        (_, Some(node)) => {
            let fault = Fault::new("`connect` belongs to a forward of another mode");
            report.error(&node.span, fault.remedy("add mode = \"http-connect\""));
            Mode::Tcp
        }
        (_, None) => Mode::Tcp,
    }
}

fn read_connect(node: &Node, report: &mut Report) -> HttpConnect {
    let Some(mut t) = TableReader::open(node, "[forward.connect]", report) else {
        return HttpConnect::default();
    };
    let access = read_access(&mut t, report);
    let keys = HttpConnect::read(&mut t, report);
    t.close(report, &[]);
    HttpConnect {
        access,
        ..HttpConnect::fill(keys)
    }
}

/// One ordered list, or the two.
fn read_access(t: &mut TableReader<'_>, report: &mut Report) -> AccessRules {
    let (ordered, allow, deny) = (t.get("access"), t.get("allow"), t.get("deny"));
    let Some(node) = ordered else {
        let AccessRules::Lists {
            allow: default,
            deny: none,
        } = AccessRules::default()
        else {
            return AccessRules::default();
        };
        return AccessRules::Lists {
            allow: allow.map_or(default, |node| rules("allow", node, report)),
            deny: deny.map_or(none, |node| rules("deny", node, report)),
        };
    };
    for (key, node) in [("allow", allow), ("deny", deny)] {
        if let Some(node) = node {
            let fault = Fault::new(format!("`{key}` does not go together with `access`"));
            let remedy = format!("write its entries as rules of `access`, behind `{key}`");
            report.error(&node.span, fault.remedy(remedy));
        }
    }
    let access = AccessRules::Ordered(rules("access", node, report));
    for path in access.files() {
        report.names_list(ListFile::Targets(path.to_owned()));
    }
    access
}

impl Mode {
    fn word(&self) -> ModeWord {
        match self {
            Self::Tcp => ModeWord::Tcp,
            Self::HttpConnect(_) => ModeWord::HttpConnect,
        }
    }

    /// `mode =`, as TOML.
    pub(super) fn write(&self) -> String {
        quote(self.word().word())
    }

    /// What differs in `mode` and `connect`.
    pub(super) fn diff(&self, new: &Self, out: &mut Vec<KeyChange>) {
        let change = |key: &str| Compared {
            key: key.to_owned(),
            effect: Applies::Live,
        };
        change("mode").texts(Some(self.write()), Some(new.write()), out);
        if let (Self::HttpConnect(old), Self::HttpConnect(new)) = (self, new) {
            let (old_lists, new_lists) = (old.lists(), new.lists());
            for (key, at) in [("access", 0), ("allow", 1), ("deny", 2)] {
                let (old, new) = (old_lists[at].clone(), new_lists[at].clone());
                change(&format!("connect.{key}")).texts(old, new, out);
            }
            Section::diff(&**old, new, "connect.", out);
        }
    }
}

impl HttpConnect {
    /// `access`, `allow` and `deny`, as TOML: those that are written.
    fn lists(&self) -> [Option<String>; 3] {
        fn all(rules: &[impl ToString]) -> String {
            list(rules.iter().map(ToString::to_string))
        }
        match &self.access {
            AccessRules::Lists { allow, deny } => [None, Some(all(allow)), Some(all(deny))],
            AccessRules::Ordered(rules) => [Some(all(rules)), None, None],
        }
    }

    /// Every key and its value.
    pub(super) fn pairs(&self) -> Pairs {
        let lists = ["access", "allow", "deny"].into_iter().zip(self.lists());
        let written = lists.filter_map(|(key, value)| Some((key, value?)));
        let mut pairs: Pairs = written.collect();
        self.write(&mut pairs);
        pairs
    }
}

fn users() -> Special<PathBuf> {
    Special {
        read: path,
        // A path from a configuration is UTF-8.
        write: |path| quote(&path.to_string_lossy()),
        words: "path",
        schema: text_schema,
    }
}

fn realm_key() -> Special<String> {
    Special {
        read: realm,
        write: |realm| quote(realm),
        words: "text, up to 200 characters",
        schema: || json!({ "type": "string", "maxLength": REALM_MAX }),
    }
}

fn rules<T>(key: &str, node: &Node, report: &mut Report) -> Vec<T>
where
    T: FromStr<Err = RuleError>,
{
    let one = std::slice::from_ref(node);
    let nodes = match &node.value {
        Value::Array(nodes) => nodes,
        _ => one,
    };
    if nodes.len() > RULES_MAX {
        let fault = Fault::new(format!("`{key}` has more than {RULES_MAX} entries"));
        report.error(&node.span, fault.remedy("gather them into fewer networks"));
        return Vec::new();
    }
    let mut rules = Vec::new();
    for node in nodes {
        match values::string(node).and_then(|text| text.parse::<T>().map_err(Fault::from)) {
            Ok(rule) => rules.push(rule),
            Err(fault) => report.error(&node.span, fault.of_key(key)),
        }
    }
    rules
}

fn path(node: &Node) -> Result<PathBuf, Fault> {
    let text = values::string(node)?;
    if text.is_empty() || text.contains('\0') {
        let fault = Fault::new("this is not the path of a file");
        return Err(fault.remedy("such as \"/etc/thalweg/users\""));
    }
    Ok(text.into())
}

/// What stands between quotes in a header.
fn realm(node: &Node) -> Result<String, Fault> {
    let text = values::string(node)?;
    if text.len() > REALM_MAX || !text.bytes().all(|b| b == b' ' || b.is_ascii_graphic()) {
        let fault = Fault::new("a realm is a line of visible ASCII");
        return Err(fault.remedy(format!("of at most {REALM_MAX} characters")));
    }
    Ok(text.to_owned())
}
