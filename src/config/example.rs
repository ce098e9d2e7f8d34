//! A configuration with every key that there is, each with what it is for:
//! examples/thalweg.toml, and what `thalweg schema --format toml` prints.

use std::fmt::Write as _;

use super::describe::sections;
use super::row::Row;
use super::text::inline;

/// Columns of a comment.
const WIDTH: usize = 100;

const HEAD: &str = "\
Every key that thalweg knows, with a word on each. `thalweg check -c FILE` tells what a file \
means with all defaults filled in, and touches no network. A key that stands behind a # cannot \
stand beside the others here.

Durations carry a unit: \"500ms\", \"10s\", \"1m30s\", \"2h\"; a timeout of \"off\" or \"0s\" is none. \
Sizes: \"512B\", \"64KiB\" (1024s), \"1MB\" (1000s), or a number of bytes. Rates: \"100Mbit\", \
\"2Gbit\", \"10MB/s\". Any key can be overridden: --set defaults.idle_timeout=5s

include = [\"conf.d/*.toml\"] at the top of a file adds others to it; \"${NAME}\" in a value stands for a \
variable of the environment.

It is to copy from: as it stands it needs a file of users, /etc/thalweg/users, and means addresses and \
names that are nobody's; `thalweg doctor -c FILE` says which. examples/minimal.toml, examples/pools.toml \
and examples/http_connect.toml start as they stand.

This file is made from the tables of keys in src/config; docs/configuration.md has them, too.";

/// The text of a configuration with every key that there is.
pub fn example() -> String {
    let mut out = Example::default();
    out.comment(HEAD);
    out.table(
        "[global]",
        "What concerns the process as a whole.",
        "global",
        &[],
    );
    out.table("[log]", "", "log", &[]);
    out.table(
        "[admin]",
        "Where the process can be looked at and steered; see docs/admin.md.",
        "admin",
        &[],
    );
    out.table("[metrics]", "A port for Prometheus alone.", "metrics", &[]);
    out.table(
        "[defaults]",
        "What every [[forward]] starts from; each key can stand there, too.",
        "defaults",
        &["upstream", "client_profile"],
    );
    out.table(
        "[defaults.upstream]",
        "What every pool starts from: the keys of [upstream.NAME], below, but `servers`.",
        "",
        &[],
    );
    out.table(
        "[profile.wan]",
        "Socket options of a leg, by name. What is left out is left to the kernel, but for \
         `nodelay`, which is on, and `quickack`, which is off until the first bytes are written to a server. The \
         profile \"default\" exists without being defined. Nobody needs all of it.",
        "profile",
        &[],
    );
    out.table(
        "[[forward]]",
        "Clients that go to a pool.",
        "forward",
        &["connect", "route"],
    );
    out.line("client_profile = \"wan\"");
    out.table(
        "[forward.tap]",
        "What clients and servers say; see docs/tap.md.",
        "tap",
        &["filter", "rotate"],
    );
    out.table("[forward.tap.filter]", "", "filter", &[]);
    out.table("[forward.tap.rotate]", "", "rotate", &[]);
    out.table(
        "[[forward.route]]",
        "Sessions that go elsewhere, by what they ask for, who comes and where; see \
         docs/routing.md.",
        "route",
        &["mode", "connect"],
    );
    out.table(
        "[[forward]]",
        "Clients that say where to go; see docs/http_connect.md.",
        "",
        &[],
    );
    out.line("name = \"proxy\"");
    out.line("listen = \"127.0.0.1:3128\"");
    out.line("mode = \"http-connect\"");
    out.table("[forward.connect]", "", "connect", &[]);
    out.table(
        "[[forward]]",
        "Ports pair up one to one: 5000 to 6000, 5001 to 6001, and so on.",
        "",
        &[],
    );
    out.line("listen = \"127.0.0.1:5000-5009\"");
    out.line("upstream = \"10.0.0.7:6000-6009\"");
    out.table(
        "[[forward]]",
        "Unix sockets on either side; @ is the abstract namespace.",
        "",
        &[],
    );
    out.line("listen = \"[::1]:5432\"");
    out.line("upstream = \"unix:@postgres\"");
    out.table(
        "[upstream.web]",
        "A pool: servers with a name, and how sessions are spread over them. Each key can stand \
         in a forward, too: upstream = { servers = [\"a:1\"], balance = \"least_conn\" }. \
         examples/pools.toml shows what suits which case.",
        "pool",
        &["check", "servers"],
    );
    out.comment(
        "An address alone has every default; a name stands for each of its addresses, SRV records \
         for the hosts and ports that they list.",
    );
    out.line(
        "servers = [\"a.example:443\", \"[2001:db8::2]:443\", \"srv:_https._tcp.example.com\"]",
    );
    out.table(
        "[upstream.web.check]",
        "Or the type alone: check = \"tcp\".",
        "check",
        &[],
    );
    out.table("[upstream.one]", "A server with keys of its own.", "", &[]);
    out.line(&format!("servers = [{}]", server()));
    out.text
}

/// A server with every key.
fn server() -> String {
    let rows = rows("server");
    let pairs: Vec<_> = rows.iter().map(|row| (row.key, value(row))).collect();
    inline(&pairs)
}

fn rows(name: &str) -> Vec<Row> {
    let mut sections = sections().into_iter();
    let section = sections.find(|section| section.name == name);
    section.map_or_else(Vec::new, |section| section.rows)
}

/// A comment has no links: `[a proxy](proxy.md)` is `a proxy (docs/proxy.md)`, and one
/// within the documentation (`#…`) leads nowhere from here.
fn without_links(doc: &str) -> String {
    let mut text = String::new();
    let mut rest = doc;
    while let Some((before, after)) = rest.split_once("](") {
        let (Some((lead, words)), Some((to, behind))) =
            (before.rsplit_once('['), after.split_once(')'))
        else {
            break;
        };
        text.push_str(lead);
        // Writing to a String cannot fail.
        let _ = match to {
            within if within.starts_with('#') => write!(text, "{words}"),
            to if lead.ends_with('(') || words == to => write!(text, "docs/{to}"),
            to => write!(text, "{words} (docs/{to})"),
        };
        rest = behind;
    }
    text + rest
}

fn value(row: &Row) -> String {
    row.example
        .map_or_else(|| row.default.clone(), str::to_owned)
}

#[derive(Default)]
struct Example {
    text: String,
}

impl Example {
    /// A header, what it is about, and the keys of a section but those that are left out.
    fn table(&mut self, header: &str, about: &str, section: &str, without: &[&str]) {
        self.text.push_str("\n\n");
        self.comment(about);
        self.line(header);
        for row in rows(section) {
            if without.contains(&row.key) {
                continue;
            }
            self.text.push('\n');
            let words = row.words.replace('`', "");
            self.comment(&format!("{} Takes: {words}.", without_links(row.doc)));
            let (key, value) = (row.key, value(&row));
            match value.strip_prefix("# ") {
                Some(value) => self.line(&format!("# {key} = {value}")),
                None => self.line(&format!("{key} = {value}")),
            }
        }
    }

    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Text as comments of a readable width; an empty line begins a paragraph.
    fn comment(&mut self, text: &str) {
        for (index, paragraph) in text.split("\n\n").enumerate() {
            if index > 0 {
                self.line("#");
            }
            let mut column = 0;
            for word in paragraph.split_whitespace() {
                let len = word.chars().count();
                if column > 0 && column + 1 + len > WIDTH {
                    self.text.push('\n');
                    column = 0;
                }
                let lead = if column == 0 { "# " } else { " " };
                // Writing to a String cannot fail.
                let _ = write!(self.text, "{lead}{word}");
                column += lead.len() + len;
            }
            if column > 0 {
                self.text.push('\n');
            }
        }
    }
}
