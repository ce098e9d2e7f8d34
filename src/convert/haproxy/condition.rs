//! ACLs and conditions: those that a route, a rule of `access` or a limit can be.

use std::collections::HashMap;

use ipnet::IpNet;

use super::lexer::Line;

/// What a session is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// Names, `*.suffix` among them.
    ServerName(Vec<String>),
    Alpn(Vec<String>),
    Client(Vec<String>),
    /// A file of networks.
    ClientFile(String),
    ListenerPort(Vec<String>),
    Protocol(Vec<&'static str>),
    /// Holds always: such as WAIT_END.
    Always,
    Never,
    /// More new connections of a client than so many in the time of the table.
    RateAbove(u64),
    /// More connections of a client at a time.
    ConnectionsAbove(u64),
}

const NOT_TLS: [&str; 4] = ["http", "ssh", "proxy", "other"];

impl Test {
    /// The opposite, where it can be said.
    pub(super) fn negated(&self) -> Option<Self> {
        match self {
            Self::Protocol(kinds) if *kinds == ["tls"] => Some(Self::Protocol(NOT_TLS.to_vec())),
            Self::Always => Some(Self::Never),
            Self::Never => Some(Self::Always),
            _ => None,
        }
    }
}

/// A test, or its opposite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) test: Test,
    pub(super) negated: bool,
}

/// Any of these, of each all.
pub(super) type Condition = Vec<Vec<Term>>;

/// ACLs by their name: several of one name are any of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Acls(HashMap<String, Vec<Result<Test, &'static str>>>);

impl Acls {
    /// Takes note of `acl NAME …`; the error says why it can be no condition here.
    pub(super) fn add(&mut self, line: &Line) -> Result<(), &'static str> {
        let test = test(line.from(2));
        let told = test.as_ref().map(|_| ()).map_err(|why| *why);
        self.0
            .entry(line.word(1).to_owned())
            .or_default()
            .push(test);
        told
    }

    /// Reads what stands behind `if` or `unless`.
    pub(super) fn condition(&self, words: &[String]) -> Result<Condition, &'static str> {
        let (unless, words) = match words.split_first() {
            None => return Ok(vec![Vec::new()]),
            Some((word, rest)) if word == "if" => (false, rest),
            Some((word, rest)) if word == "unless" => (true, rest),
            Some(_) => return Err("not understood"),
        };
        let mut any = Condition::new();
        // The alternatives since the last `or`.
        let mut group: Condition = vec![Vec::new()];
        let mut at = 0;
        while at < words.len() {
            let word = words[at].as_str();
            at += 1;
            if word == "or" || word == "||" {
                any.append(&mut group);
                group.push(Vec::new());
                continue;
            }
            let (negated, mut name) = match word.strip_prefix('!') {
                Some(name) => (true, name),
                None => (false, word),
            };
            if negated && name.is_empty() {
                name = words.get(at).map_or("", String::as_str);
                at += 1;
            }
            let tests = if name == "{" {
                let end = words[at..].iter().position(|word| word == "}");
                let end = at + end.ok_or("a { has no }")?;
                let test = test(&words[at..end]);
                at = end + 1;
                vec![test]
            } else {
                self.named(name)?
            };
            group = combined(&group, tests, negated)?;
        }
        any.append(&mut group);
        if unless { opposite(&any) } else { Ok(any) }
    }

    fn named(&self, name: &str) -> Result<Vec<Result<Test, &'static str>>, &'static str> {
        if let Some(tests) = self.0.get(name) {
            return Ok(tests.clone());
        }
        Ok(vec![match name {
            "TRUE" | "WAIT_END" | "REQ_CONTENT" => Ok(Test::Always),
            "FALSE" => Ok(Test::Never),
            "LOCALHOST" => Ok(Test::Client(vec!["127.0.0.0/8".into(), "::1".into()])),
            "HTTP" => Ok(Test::Protocol(vec!["http"])),
            _ => return Err("an ACL that is not there"),
        }])
    }
}

/// Each alternative, and in addition any of `tests`, or none of them.
fn combined(
    group: &Condition,
    tests: Vec<Result<Test, &'static str>>,
    negated: bool,
) -> Result<Condition, &'static str> {
    let mut tests = tests.into_iter().collect::<Result<Vec<_>, _>>()?;
    if negated {
        let none: Vec<Term> = tests.into_iter().map(negate).collect();
        return Ok(group
            .iter()
            .map(|all| [all.as_slice(), &none].concat())
            .collect());
    }
    merge(&mut tests);
    let mut any = Condition::new();
    for all in group {
        for test in &tests {
            let term = Term {
                test: test.clone(),
                negated: false,
            };
            any.push([all.as_slice(), &[term]].concat());
        }
    }
    Ok(any)
}

fn negate(test: Test) -> Term {
    match test.negated() {
        Some(opposite) => Term {
            test: opposite,
            negated: false,
        },
        None => Term {
            test,
            negated: true,
        },
    }
}

/// Several of one kind are one with more values.
fn merge(tests: &mut Vec<Test>) {
    let mut merged: Vec<Test> = Vec::new();
    for test in tests.drain(..) {
        match (merged.last_mut(), test) {
            (Some(Test::ServerName(all)), Test::ServerName(more))
            | (Some(Test::Alpn(all)), Test::Alpn(more))
            | (Some(Test::Client(all)), Test::Client(more))
            | (Some(Test::ListenerPort(all)), Test::ListenerPort(more)) => all.extend(more),
            (_, test) => merged.push(test),
        }
    }
    *tests = merged;
}

/// Not (a and b or c), where it is one test.
fn opposite(any: &Condition) -> Result<Condition, &'static str> {
    match any.as_slice() {
        [all] => match all.as_slice() {
            [
                Term {
                    test,
                    negated: false,
                },
            ] => Ok(vec![vec![negate(test.clone())]]),
            [
                Term {
                    test,
                    negated: true,
                },
            ] => Ok(vec![vec![Term {
                test: test.clone(),
                negated: false,
            }]]),
            _ => Err("`unless` of more than one test"),
        },
        _ => Err("`unless` of more than one test"),
    }
}

/// A fetch, its flags and its values.
fn test(words: &[String]) -> Result<Test, &'static str> {
    let Some((fetch, rest)) = words.split_first() else {
        return Err("it asks nothing");
    };
    let mut method = "";
    let mut file = None;
    let mut values = Vec::new();
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            "-i" | "-n" => {}
            "--" => values.extend(rest.by_ref().cloned()),
            "-m" => method = rest.next().map_or("", String::as_str),
            "-f" => file = rest.next().cloned(),
            "-M" | "-u" => return Err("maps are not read"),
            _ => values.push(word.clone()),
        }
    }
    let (fetch, converters) = fetch.split_once(',').unwrap_or((fetch, ""));
    if !matches!(converters, "" | "lower") {
        return Err("its converter is not known here");
    }
    match fetch {
        "src" => match file {
            Some(file) if values.is_empty() => Ok(Test::ClientFile(file)),
            Some(_) => Err("a file and networks at once"),
            None => networks(&values).map(Test::Client),
        },
        _ if file.is_some() => Err("values of a file can be networks only (`src -f`)"),
        "req.ssl_sni" | "req_ssl_sni" => names(&values, method).map(Test::ServerName),
        "req.ssl_alpn" if matches!(method, "" | "str" | "sub") => Ok(Test::Alpn(values)),
        "req.ssl_hello_type" | "req_ssl_hello_type" if values == ["1"] => {
            Ok(Test::Protocol(vec!["tls"]))
        }
        "req.len" | "req_len" => Ok(Test::Always),
        "always_true" => Ok(Test::Always),
        "always_false" => Ok(Test::Never),
        "req.proto_http" | "req_proto_http" => Ok(Test::Protocol(vec!["http"])),
        "dst_port" if method.is_empty() => Ok(Test::ListenerPort(values)),
        _ if starts_as_ssh(fetch, method, &values) => Ok(Test::Protocol(vec!["ssh"])),
        _ => counter(fetch, &values),
    }
}

/// `payload(0,7) -m bin 5353482d322e30` and its kin.
fn starts_as_ssh(fetch: &str, method: &str, values: &[String]) -> bool {
    let payload = ["payload(0,", "req.payload(0,"]
        .iter()
        .any(|start| fetch.starts_with(start));
    let [value] = values else { return false };
    let value = value.to_ascii_lowercase();
    payload
        && match method {
            "bin" => value.starts_with("535348"),
            "str" | "" => value.starts_with("ssh"),
            _ => false,
        }
}

/// `src_conn_rate gt 20`, `sc0_conn_cur ge 10`, `sc_conn_rate(0) gt 20`.
fn counter(fetch: &str, values: &[String]) -> Result<Test, &'static str> {
    const UNKNOWN: &str = "what it asks for is not known here";
    let fetch = fetch.split('(').next().unwrap_or(fetch);
    let which = ["src_", "sc0_", "sc1_", "sc2_", "sc_"];
    let kind = which
        .iter()
        .find_map(|which| fetch.strip_prefix(which))
        .ok_or(UNKNOWN)?;
    let most = match values {
        [op, number] => {
            let number: u64 = number.parse().map_err(|_| UNKNOWN)?;
            match op.as_str() {
                "gt" => number,
                "ge" => number.saturating_sub(1),
                _ => return Err(UNKNOWN),
            }
        }
        _ => return Err(UNKNOWN),
    };
    match kind {
        "conn_rate" | "sess_rate" => Ok(Test::RateAbove(most)),
        "conn_cur" => Ok(Test::ConnectionsAbove(most)),
        _ => Err(UNKNOWN),
    }
}

fn names(values: &[String], method: &str) -> Result<Vec<String>, &'static str> {
    let values = values.iter().map(|value| value.to_ascii_lowercase());
    match method {
        "" | "str" => Ok(values.collect()),
        "end" => values
            .map(|value| match value.strip_prefix('.') {
                Some(suffix) => Ok(format!("*.{suffix}")),
                None => Err("an end that is no whole part of a name (`-m end .example`)"),
            })
            .collect(),
        "found" => Err("that there is a name at all can be no condition"),
        _ => Err("names are whole or a suffix (`-m end`); no other way to compare"),
    }
}

fn networks(values: &[String]) -> Result<Vec<String>, &'static str> {
    values
        .iter()
        .map(|value| {
            let network = value
                .parse::<IpNet>()
                .ok()
                .map(|network| network.trunc().to_string());
            let address = || {
                value
                    .parse::<std::net::IpAddr>()
                    .ok()
                    .map(|a| a.to_string())
            };
            network.or_else(address).ok_or("no network")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn conditions_are_any_of_all() {
        let mut acls = Acls::default();
        let mut add = |text: &str| {
            let place = crate::convert::finding::Origin {
                file: "t".into(),
                line: 1,
            };
            acls.add(&Line {
                place,
                words: words(text),
            })
        };
        add("acl web req.ssl_sni -i a.example").unwrap();
        add("acl web req.ssl_sni -i -m end .b.example").unwrap();
        add("acl in src 10.0.0.0/8").unwrap();
        add("acl tls req.ssl_hello_type 1").unwrap();
        add("acl odd nbsrv(x) lt 1").unwrap_err();
        let names = Test::ServerName(vec!["a.example".into(), "*.b.example".into()]);
        let inside = Test::Client(vec!["10.0.0.0/8".into()]);
        let term = |test: &Test, negated| Term {
            test: test.clone(),
            negated,
        };
        let of = |text: &str| acls.condition(&words(text));
        assert_eq!(of("if web"), Ok(vec![vec![term(&names, false)]]));
        assert_eq!(
            of("if web in or !in"),
            Ok(vec![
                vec![term(&names, false), term(&inside, false)],
                vec![term(&inside, true)]
            ])
        );
        assert_eq!(of("unless in"), Ok(vec![vec![term(&inside, true)]]));
        let not_tls = Test::Protocol(NOT_TLS.to_vec());
        assert_eq!(of("if !tls"), Ok(vec![vec![term(&not_tls, false)]]));
        assert_eq!(
            of("if { src_conn_rate gt 20 }"),
            Ok(vec![vec![term(&Test::RateAbove(20), false)]])
        );
        assert!(of("if odd").is_err());
        assert!(of("if nobody").is_err());
    }
}
