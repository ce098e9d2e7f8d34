//! Where a session goes by a variable: `map` of what TLS asks for, `geo`, `split_clients`.
//!
//! Each becomes routes. A variable whose value is another variable becomes that one's routes,
//! with the conditions of both.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::Stream;
use super::lexer::Directive;
use crate::convert::finding::Origin;
use crate::convert::model::{Keys, Route, Target};

/// Variables in variables at the most.
const DEPTH_MAX: usize = 8;

/// What decides the value of a variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    ServerName,
    Alpn,
    Protocol,
    Client,
    Share,
}

/// A variable that a block defines.
#[derive(Debug)]
pub(super) struct Variable<'a> {
    pub(super) by: By,
    /// Keys of a route and where it goes, in the order that decides.
    pub(super) cases: Vec<Case<'a>>,
    pub(super) default: Option<&'a str>,
}

/// One value of a variable.
#[derive(Debug)]
pub(super) struct Case<'a> {
    pub(super) place: &'a Origin,
    pub(super) keys: Keys,
    pub(super) value: &'a str,
}

impl<'a> Stream<'a> {
    /// Takes note of a `map`, `geo` or `split_clients`.
    pub(super) fn variable(&mut self, directive: &'a Directive) {
        let (place, shown) = (&directive.place, directive.shown());
        let block = directive.block.as_deref().unwrap_or_default();
        let (source, name) = match (directive.name.as_str(), directive.args.as_slice()) {
            ("geo", [name]) => ("$remote_addr", name),
            (_, [source, name]) => (source.as_str(), name),
            _ => return self.findings.left(place, &shown, "not understood"),
        };
        let Some(name) = name.strip_prefix('$') else {
            return self.findings.left(place, &shown, "defines no variable");
        };
        let source = source.replace(['{', '}'], "");
        let variable = match directive.name.as_str() {
            "geo" if source == "$remote_addr" => self.geo(block),
            "split_clients" if source.contains("$remote_addr") => self.split(block),
            "split_clients" | "geo" => {
                let why = "only the client's address can decide (`share`, `client` of a route)";
                return self.findings.left(place, &shown, why);
            }
            _ => match source.as_str() {
                "$ssl_preread_server_name" => self.map(block, By::ServerName),
                "$ssl_preread_alpn_protocols" => self.map(block, By::Alpn),
                "$ssl_preread_protocol" => self.map(block, By::Protocol),
                _ => {
                    let why = format!("a route cannot go by {source}");
                    return self.findings.left(place, &shown, why);
                }
            },
        };
        self.findings.same(place, &shown);
        self.variables.insert(name, variable);
    }

    fn map(&mut self, block: &'a [Directive], by: By) -> Variable<'a> {
        let mut variable = Variable {
            by,
            cases: Vec::new(),
            default: None,
        };
        let hostnames = block.iter().any(|entry| entry.name == "hostnames");
        let mut empty = None;
        for entry in block {
            let (place, shown) = (&entry.place, entry.shown());
            let Some(value) = entry.only() else {
                match entry.name.as_str() {
                    "hostnames" | "volatile" => self.findings.same(place, &shown),
                    _ => self.findings.left(place, &shown, "not understood"),
                }
                continue;
            };
            let pattern = entry.name.strip_prefix('\\').unwrap_or(&entry.name);
            if entry.name == "default" {
                variable.default = Some(value);
                self.findings.same(place, &shown);
                continue;
            }
            let mut keys = Keys::default();
            let found = match by {
                By::ServerName if pattern.is_empty() => {
                    keys.set("no_sni", true);
                    empty = Some((place, value));
                    Ok(())
                }
                By::ServerName => names(pattern, hostnames).map(|names| keys.set("sni", names)),
                By::Alpn => alpn(pattern).map(|name| keys.set("alpn", name)),
                By::Protocol if pattern.is_empty() => {
                    keys.set("protocol", not_tls());
                    Ok(())
                }
                By::Protocol if pattern.starts_with("TLSv1") => {
                    // Versions are not told apart: one route for all of them.
                    keys.set("protocol", "tls");
                    if variable
                        .cases
                        .iter()
                        .any(|case| case.keys == keys && case.value != value)
                    {
                        Err("versions of TLS are not told apart")
                    } else {
                        Ok(())
                    }
                }
                By::Protocol | By::Client | By::Share => Err("no version of TLS"),
            };
            match found {
                Ok(()) => {
                    self.findings.same(place, &shown);
                    // Versions of TLS, of which there are few, are one route.
                    let again =
                        by == By::Protocol && variable.cases.iter().any(|case| case.keys == keys);
                    if !again {
                        variable.cases.push(Case { place, keys, value });
                    }
                }
                Err(why) => self.findings.left(place, &shown, why),
            }
        }
        // For nginx no name and no TLS are the same empty text.
        if let Some((place, value)) = empty {
            let mut keys = Keys::default();
            keys.set("protocol", not_tls());
            variable.cases.push(Case { place, keys, value });
        }
        variable
    }

    /// The longest prefix decides, so the routes go from long to short.
    fn geo(&mut self, block: &'a [Directive]) -> Variable<'a> {
        let mut variable = Variable {
            by: By::Client,
            cases: Vec::new(),
            default: None,
        };
        let mut networks: Vec<(IpNet, &'a Directive, &'a str)> = Vec::new();
        for entry in block {
            let (place, shown) = (&entry.place, entry.shown());
            match (entry.name.as_str(), entry.only()) {
                ("default", Some(value)) => variable.default = Some(value),
                (network, Some(value)) => {
                    if let Some(network) = parse_network(network) {
                        networks.push((network, entry, value));
                    } else {
                        self.findings.left(place, &shown, "no network");
                        continue;
                    }
                }
                _ => {
                    self.findings.left(place, &shown, "not understood");
                    continue;
                }
            }
            self.findings.same(place, &shown);
        }
        networks.sort_by_key(|(network, ..)| std::cmp::Reverse(network.prefix_len()));
        for (network, entry, value) in networks {
            let mut keys = Keys::default();
            keys.set("client", network.to_string());
            variable.cases.push(Case {
                place: &entry.place,
                keys,
                value,
            });
        }
        variable
    }

    fn split(&mut self, block: &'a [Directive]) -> Variable<'a> {
        let mut variable = Variable {
            by: By::Share,
            cases: Vec::new(),
            default: None,
        };
        let mut sum = 0.0_f64;
        for entry in block {
            let (place, shown) = (&entry.place, entry.shown());
            let share = entry
                .name
                .strip_suffix('%')
                .and_then(|share| share.parse::<f64>().ok());
            match (entry.name.as_str(), entry.only(), share) {
                ("*", Some(value), _) => {
                    variable.default = Some(value);
                    self.findings.same(place, &shown);
                }
                (_, Some(value), Some(share)) if (0.0..=100.0).contains(&share) => {
                    sum += share;
                    let whole = sum.round().min(100.0);
                    let mut why = "other clients than nginx chose, as many of them".to_owned();
                    if (whole - sum).abs() > 1e-9 {
                        let _ = write!(why, "; up to whole percents ({whole} for {sum})");
                    }
                    self.findings.differs(place, &shown, why);
                    let mut keys = Keys::default();
                    keys.set("share", format!("{whole}%"));
                    variable.cases.push(Case { place, keys, value });
                }
                _ => self.findings.left(place, &shown, "no share"),
            }
        }
        variable
    }

    /// The routes of what `proxy_pass` names, and where everything else goes.
    pub(super) fn routes(&mut self, pass: &'a Directive, name: &'a str) -> Option<Routes> {
        let mut routes = Routes::default();
        let known = self.collect(pass, name, &Keys::default(), 0, &mut routes);
        known.then_some(routes)
    }

    fn collect(
        &mut self,
        pass: &'a Directive,
        name: &'a str,
        over: &Keys,
        depth: usize,
        routes: &mut Routes,
    ) -> bool {
        // Taken out, so that what refers to itself ends.
        let Some(variable) = self.variables.remove(name) else {
            return false;
        };
        routes.sniffs |= matches!(variable.by, By::ServerName | By::Alpn | By::Protocol);
        let cases = variable
            .cases
            .iter()
            .map(|case| (case.place, over.with(&case.keys), case.value));
        let default = variable
            .default
            .map(|value| (&pass.place, over.clone(), value));
        for (place, keys, value) in cases.chain(default) {
            if let Some(inner) = value.strip_prefix('$') {
                if depth >= DEPTH_MAX || !self.collect(pass, inner, &keys, depth + 1, routes) {
                    let why = format!("{value} cannot be known here");
                    self.findings.left(place, &format!("value {value}"), why);
                }
                continue;
            }
            let to = match value {
                "" => Target::Reject,
                value => self.target(place, value),
            };
            if keys.is_empty() {
                routes.default = Some(to);
            } else {
                routes.all.push(Route {
                    origin: place.clone(),
                    keys,
                    to,
                });
            }
        }
        self.variables.insert(name, variable);
        true
    }

    /// A pool, or an address.
    pub(super) fn target(&mut self, place: &Origin, value: &str) -> Target {
        if self.upstreams.contains(value) {
            return Target::Pool(value.to_owned());
        }
        if let Some(path) = value.strip_prefix("unix:") {
            return Target::Address(format!("unix:{}", path.trim_end_matches(':')));
        }
        if super::upstream::is_name(value) {
            let what = format!("the name in {value}");
            self.findings
                .differs(place, &what, super::server::KEPT_RESOLVED);
        }
        Target::Address(value.to_owned())
    }
}

/// What `proxy_pass` with a variable comes to.
#[derive(Debug, Default)]
pub(super) struct Routes {
    pub(super) all: Vec<Route>,
    pub(super) default: Option<Target>,
    /// Whether the client's first bytes are needed.
    pub(super) sniffs: bool,
}

fn not_tls() -> Vec<String> {
    ["http", "ssh", "proxy", "other"]
        .map(str::to_owned)
        .to_vec()
}

fn parse_network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().ok();
    let address = || text.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    network.or_else(address).map(|network| network.trunc())
}

/// Names that a pattern of a map stands for.
fn names(pattern: &str, hostnames: bool) -> Result<Vec<String>, &'static str> {
    const REGEX: &str = "of regular expressions only a whole name and a suffix can be routes";
    if let Some(regex) = pattern.strip_prefix('~') {
        let regex = regex.strip_prefix('*').unwrap_or(regex);
        let regex = regex.strip_suffix('$').ok_or(REGEX)?;
        let (exact, literal) = match regex.strip_prefix('^') {
            Some(literal) => match literal.strip_prefix(".*").or(literal.strip_prefix(".+")) {
                Some(suffix) => (false, suffix),
                None => (true, literal),
            },
            None => (false, regex),
        };
        let name = literal.replace("\\.", "\n").replace("\\-", "-");
        if name.contains(|c: char| !(c.is_ascii_alphanumeric() || "-_\n".contains(c))) {
            return Err(REGEX);
        }
        let name = name.replace('\n', ".");
        return match (exact, name.strip_prefix('.')) {
            (true, None) => Ok(vec![name]),
            (false, Some(suffix)) => Ok(vec![format!("*.{suffix}")]),
            _ => Err(REGEX),
        };
    }
    let pattern = pattern.to_ascii_lowercase();
    match (pattern.strip_prefix('.'), pattern.strip_suffix(".*")) {
        (Some(suffix), _) if hostnames => Ok(vec![suffix.to_owned(), format!("*.{suffix}")]),
        (_, Some(_)) => Err("names with an open end can be no route"),
        _ if pattern.starts_with("*.") && !hostnames => {
            Err("a name with `*`, literally: the map has no `hostnames`")
        }
        _ => Ok(vec![pattern]),
    }
}

/// The protocol that a pattern of a map looks for among those offered.
fn alpn(pattern: &str) -> Result<String, &'static str> {
    let regex = pattern.strip_prefix("~*").or(pattern.strip_prefix('~'));
    let literal = match regex {
        None => pattern,
        Some(regex) => {
            let regex = regex.strip_prefix("\\b").unwrap_or(regex);
            regex.strip_suffix("\\b").unwrap_or(regex)
        }
    };
    let literal = literal
        .replace("\\/", "/")
        .replace("\\.", ".")
        .replace("\\-", "-");
    let plain = |c: char| c.is_ascii_alphanumeric() || "-./_".contains(c);
    if literal.is_empty() || !literal.chars().all(plain) {
        return Err("of regular expressions only one protocol can be a route");
    }
    Ok(literal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_names_suffixes_or_left() {
        let of = |pattern: &str, hostnames| names(pattern, hostnames).ok().map(|n| n.join(" "));
        assert_eq!(of("A.example", false).as_deref(), Some("a.example"));
        assert_eq!(of("*.a.example", true).as_deref(), Some("*.a.example"));
        assert_eq!(of("*.a.example", false), None);
        assert_eq!(
            of(".a.example", true).as_deref(),
            Some("a.example *.a.example")
        );
        assert_eq!(of("a.*", true), None);
        assert_eq!(
            of(r"~^www\.a\.example$", false).as_deref(),
            Some("www.a.example")
        );
        assert_eq!(
            of(r"~*\.a\.example$", false).as_deref(),
            Some("*.a.example")
        );
        assert_eq!(
            of(r"~^.*\.a\.example$", false).as_deref(),
            Some("*.a.example")
        );
        assert_eq!(of(r"~^(a|b)\.example$", false), None);
        assert_eq!(of(r"~a\.example", false), None);
    }

    #[test]
    fn protocols_are_taken_out_of_simple_expressions() {
        assert_eq!(alpn("h2").as_deref(), Ok("h2"));
        assert_eq!(alpn(r"~\bh2\b").as_deref(), Ok("h2"));
        assert_eq!(alpn(r"~\bacme-tls/1\b").as_deref(), Ok("acme-tls/1"));
        assert!(alpn("~h2|h3").is_err());
    }
}
