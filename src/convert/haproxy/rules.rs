//! `tcp-request` and `use_backend`: who may come in, and where he goes.

use std::time::Duration;

use super::condition::{Acls, Term, Test};
use super::lexer::Line;
use crate::convert::finding::{Findings, Origin};
use crate::convert::model::{Keys, Target, Value};
use crate::convert::time;

/// A rule in the order in which it stands.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    /// `allow …` or `deny …`.
    Access(String),
    /// A route.
    Route {
        place: Origin,
        shown: String,
        keys: Keys,
        to: Target,
    },
}

/// What a section says of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate {
    pub(super) acls: Acls,
    pub(super) rules: Vec<Rule>,
    /// Keys of the forward.
    pub(super) keys: Keys,
    /// A rule about who may come in could not be converted: the section must not be written.
    pub(super) withheld: bool,
    /// Its last rule of access turns away all but some.
    closed: bool,
    /// The time that rates of the stick table are over.
    pub(super) rate_over: Option<Duration>,
}

impl Gate {
    /// How many limits of a client it has.
    fn limits(&self) -> usize {
        let limits = ["max_per_client", "connect_rate"];
        limits.iter().filter(|key| self.keys.has(key)).count()
    }

    /// Whether a rule lets some in, past all rules behind it.
    fn lets_some_in(&self) -> bool {
        let allows = |rule: &Rule| matches!(rule, Rule::Access(text) if text.starts_with("allow "));
        self.rules.iter().any(allows)
    }
}

/// Takes such a line.
pub(super) fn read(line: &Line, backend: bool, gate: &mut Gate, findings: &mut Findings) {
    let (place, shown) = (&line.place, line.shown());
    let limits = gate.limits();
    let told = match (line.word(0), line.word(1), line.word(2)) {
        ("use_backend", name, _) if name.contains("%[") => {
            Err("a backend whose name is computed cannot be known here")
        }
        ("use_backend", name, _) => {
            let to = Target::Pool(name.to_owned());
            routes(line, gate, 2, &to)
        }
        ("use-server", ..) => Err("a route leads to a pool; make one of this server"),
        (_, "inspect-delay", time) => match time::parse(time, 1) {
            Some(time) => {
                gate.keys.set("sniff_timeout", time::timeout(time));
                Ok(())
            }
            None => Err("no time"),
        },
        _ if backend => Err("who may come in is said at a frontend"),
        (_, "connection" | "session", _) => connection(line, gate),
        (_, "content", _) => content(line, gate),
        _ => Err("not known here"),
    };
    match told {
        Ok(()) if gate.limits() > limits && gate.lets_some_in() => findings.differs(
            place,
            &shown,
            "who an earlier `accept` lets in is counted and limited here too",
        ),
        Ok(()) => findings.same(place, &shown),
        Err(why) => {
            findings.left(place, &shown, why);
            gate.withheld |= line.word(0) == "tcp-request";
        }
    }
}

type Told = Result<(), &'static str>;

fn connection(line: &Line, gate: &mut Gate) -> Told {
    match line.word(2) {
        "accept" => access(line, gate, "allow"),
        "reject" | "silent-drop" => {
            if line.word(2) == "silent-drop" {
                gate.keys.set("on_deny", "drop");
            }
            access(line, gate, "deny")
        }
        "expect-proxy" => {
            let condition = gate.acls.condition(line.from(4))?;
            let [all] = condition.as_slice() else {
                return Err("one list of networks may send headers");
            };
            let value = match all.as_slice() {
                [] => Value::Bool(true),
                [
                    Term {
                        test: Test::Client(networks),
                        negated: false,
                    },
                ] => Value::List(networks.clone()),
                _ => return Err("one list of networks may send headers"),
            };
            gate.keys.set("accept_proxy", value);
            Ok(())
        }
        "track-sc0" | "track-sc1" | "track-sc2" if line.word(3) == "src" => Ok(()),
        _ => Err("not known at layer 4"),
    }
}

fn content(line: &Line, gate: &mut Gate) -> Told {
    match line.word(2) {
        // Of a hello there is waited for anyway.
        "accept" => {
            let condition = gate.acls.condition(line.from(3))?;
            let waits = |term: &Term| matches!(term.test, Test::Always | Test::Protocol(_));
            if condition.iter().flatten().all(waits) {
                Ok(())
            } else {
                Err("who is accepted would pass by the rules behind")
            }
        }
        "reject" | "silent-drop" => {
            let condition = gate.acls.condition(line.from(3))?;
            let by_client = |term: &Term| {
                matches!(
                    term.test,
                    Test::Client(_)
                        | Test::ClientFile(_)
                        | Test::RateAbove(_)
                        | Test::ConnectionsAbove(_)
                )
            };
            if condition
                .iter()
                .all(|all| !all.is_empty() && all.iter().all(by_client))
            {
                return access(line, gate, "deny");
            }
            routes(line, gate, 3, &Target::Reject)
        }
        "track-sc0" | "track-sc1" | "track-sc2" if line.word(3) == "src" => Ok(()),
        _ => Err("not known at layer 4"),
    }
}

/// Rules of `access`, and limits.
fn access(line: &Line, gate: &mut Gate, verb: &str) -> Told {
    let condition = gate.acls.condition(line.from(3))?;
    let mut rules = Vec::new();
    for all in &condition {
        match all.as_slice() {
            []
            | [
                Term {
                    test: Test::Always,
                    negated: false,
                },
            ] => rules.push(format!("{verb} all")),
            [
                Term {
                    test: Test::Client(networks),
                    negated: false,
                },
            ] => {
                rules.extend(networks.iter().map(|network| format!("{verb} {network}")));
            }
            [
                Term {
                    test: Test::ClientFile(path),
                    negated: false,
                },
            ] => {
                rules.push(format!("{verb} @{path}"));
            }
            // Everybody else is turned away: these are not, by this rule or a later one.
            [
                Term {
                    test: Test::Client(networks),
                    negated: true,
                },
            ] if verb == "deny" => {
                rules.extend(networks.iter().map(|network| format!("allow {network}")));
                rules.push("deny all".to_owned());
            }
            [
                Term {
                    test: Test::ClientFile(path),
                    negated: true,
                },
            ] if verb == "deny" => {
                rules.extend([format!("allow @{path}"), "deny all".to_owned()]);
            }
            [
                Term {
                    test: Test::ConnectionsAbove(most),
                    negated: false,
                },
            ] if verb == "deny" => {
                gate.keys.set("max_per_client", *most);
            }
            [
                Term {
                    test: Test::RateAbove(most),
                    negated: false,
                },
            ] if verb == "deny" => {
                rate(gate, *most)?;
            }
            _ => return Err("who may come in goes by the client's address, alone"),
        }
    }
    // `reject unless` has turned away all others, and let nobody pass by what stands behind it.
    if gate.closed && !rules.is_empty() {
        return Err("rules behind one that turns away all but some cannot be converted");
    }
    gate.closed |= condition.iter().flatten().any(|term| term.negated);
    gate.rules.extend(rules.into_iter().map(Rule::Access));
    Ok(())
}

/// So many in the time of the table, as a rate and what may come at once.
fn rate(gate: &mut Gate, most: u64) -> Told {
    let over = gate.rate_over.ok_or("its table has no rate")?;
    let seconds = over.as_secs().max(1);
    let rate = [("s", 1), ("m", 60), ("h", 3600)]
        .into_iter()
        .find_map(|(unit, length)| {
            let count = most * length;
            (count.is_multiple_of(seconds) && count > 0)
                .then(|| format!("{}/{unit}", count / seconds))
        })
        .ok_or("no whole number in an hour")?;
    gate.keys.set("connect_rate", rate);
    gate.keys.set("connect_burst", most.max(1));
    Ok(())
}

/// A route for each alternative.
fn routes(line: &Line, gate: &mut Gate, from: usize, to: &Target) -> Told {
    let condition = gate.acls.condition(line.from(from))?;
    let mut all_routes = Vec::new();
    for all in &condition {
        let mut keys = Keys::default();
        let mut never = false;
        for Term { test, negated } in all {
            if *negated {
                return Err("the opposite of this can be no condition of a route");
            }
            let (key, value) = match test {
                Test::ServerName(names) => ("sni", one_or_list(names)),
                Test::Alpn(protocols) => ("alpn", one_or_list(protocols)),
                Test::Client(networks) => ("client", one_or_list(networks)),
                Test::ListenerPort(ports) => {
                    let ports: Vec<String> = ports.iter().map(|port| format!(":{port}")).collect();
                    ("listener", one_or_list(&ports))
                }
                Test::Protocol(kinds) => {
                    let kinds: Vec<String> = kinds.iter().map(|&kind| kind.to_owned()).collect();
                    ("protocol", one_or_list(&kinds))
                }
                Test::Always => continue,
                Test::Never => {
                    never = true;
                    continue;
                }
                Test::ClientFile(_) => {
                    return Err("networks of a route are written, not in a file");
                }
                Test::RateAbove(_) | Test::ConnectionsAbove(_) => {
                    return Err("limits turn away, they do not route");
                }
            };
            if keys.has(key) {
                return Err("two conditions of one kind at once");
            }
            keys.set(key, value);
        }
        if !never {
            all_routes.push(keys);
        }
    }
    for keys in all_routes {
        let (place, shown) = (line.place.clone(), line.shown());
        gate.rules.push(Rule::Route {
            place,
            shown,
            keys,
            to: to.clone(),
        });
    }
    Ok(())
}

/// Whether a route goes before an earlier one here, and both may be about the same session.
pub(super) fn overtakes(earlier: &Keys, later: &Keys) -> bool {
    let names = |keys: &Keys| match keys.get("sni") {
        Some(Value::Text(name)) => vec![name.clone()],
        Some(Value::List(names)) => names.clone(),
        _ => Vec::new(),
    };
    let kinds = match earlier.get("protocol") {
        Some(Value::Text(kind)) => vec![kind.clone()],
        Some(Value::List(kinds)) => kinds.clone(),
        _ => Vec::new(),
    };
    let (first, second) = (names(earlier), names(later));
    if second.is_empty() || (!kinds.is_empty() && !kinds.iter().any(|kind| kind == "tls")) {
        return false;
    }
    if first.is_empty() {
        return true;
    }
    let suffixes = || first.iter().filter_map(|name| name.strip_prefix('*'));
    second.iter().any(|name| {
        let name = name.strip_prefix('*').unwrap_or(name);
        suffixes().any(|suffix| name.len() > suffix.len() && name.ends_with(suffix))
    })
}

fn one_or_list(values: &[String]) -> Value {
    match values {
        [one] => Value::Text(one.clone()),
        more => Value::List(more.to_vec()),
    }
}
