//! rinetd.conf: a line is a forward, or a rule about who may come in.

use std::net::IpAddr;

use ipnet::IpNet;

use super::finding::Findings;
use super::model::{Forward, Keys, Model, Target};
use super::source::Text;
use super::time;

/// Fills the model from rinetd.conf.
pub(super) fn translate(text: &Text, model: &mut Model, findings: &mut Findings) {
    defaults(model);
    let mut common = Rules::default();
    let mut own: Option<Rules> = None;
    for (index, line) in text.text.lines().enumerate() {
        let place = text.place(index + 1);
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        let shown = words.join(" ");
        match words.as_slice() {
            [] => {}
            [verb @ ("allow" | "deny"), pattern] => {
                if let Some(network) = network(pattern) {
                    let rules = own.as_mut().unwrap_or(&mut common);
                    let list = if *verb == "allow" {
                        &mut rules.allow
                    } else {
                        &mut rules.deny
                    };
                    list.push(network);
                    findings.same(&place, &shown);
                } else {
                    findings.left(&place, &shown, "a pattern that is no network");
                    own.as_mut().unwrap_or(&mut common).withheld = true;
                }
            }
            ["logfile", path] => {
                if path.starts_with('/') {
                    model.log.set("to", *path);
                }
                findings.differs(&place, &shown, "lines have a form of their own");
            }
            ["logcommon" | "pidlogfile", ..] => {
                findings.needless(
                    &place,
                    &shown,
                    "nothing that is forwarded depends on it here",
                );
            }
            [from, from_port, to, to_port, options @ ..] => {
                apply(&mut own, &common, model, findings);
                let mut forward = Forward::new(place.clone());
                match forward_of(&mut forward, [from, from_port, to, to_port], options) {
                    Ok(differs) => {
                        findings.same(&place, &shown);
                        if let Some(why) = differs {
                            findings.differs(&place, &shown, why);
                        }
                        model.forwards.push(forward);
                        own = Some(Rules::default());
                    }
                    Err(why) => findings.left(&place, &shown, why),
                }
            }
            _ => findings.left(&place, &shown, "not understood"),
        }
    }
    apply(&mut own, &common, model, findings);
}

/// What rinetd does, and we do not.
fn defaults(model: &mut Model) {
    let defaults = &mut model.defaults;
    defaults.set_because("connect_timeout", "off", "rinetd has none; ours is 5s");
    defaults.set_because("idle_timeout", "off", "rinetd has none; ours is 10m");
    defaults.set_because("half_close_timeout", "off", "rinetd has none; ours is 1m");
    defaults.set_because("write_stall_timeout", "off", "rinetd has none; ours is 10m");
    defaults.set_because("on_no_server", "close", "as rinetd; ours is a reset");
}

#[derive(Debug, Default)]
struct Rules {
    allow: Vec<String>,
    deny: Vec<String>,
    /// One could not be converted: a forward must not let in whom it keeps out.
    withheld: bool,
}

/// Who is let in matches an `allow`, if there is one, and no `deny`: first the common rules,
/// then those behind the forward. Denials go first, so that the order here is the same.
fn apply(own: &mut Option<Rules>, common: &Rules, model: &mut Model, findings: &mut Findings) {
    let (Some(own), Some(forward)) = (own.take(), model.forwards.last_mut()) else {
        return;
    };
    if own.withheld || common.withheld {
        let why = "it is not written: it would let in whom rinetd turns away";
        findings.left(
            &forward.origin,
            &format!("the forward of {}", forward.listen.join(" ")),
            why,
        );
        model.forwards.pop();
        return;
    }
    let deny = common
        .deny
        .iter()
        .chain(&own.deny)
        .map(|network| format!("deny {network}"));
    let mut rules: Vec<String> = deny.collect();
    let allow = both(&common.allow, &own.allow);
    rules.extend(allow.iter().map(|network| format!("allow {network}")));
    if !common.allow.is_empty() || !own.allow.is_empty() {
        rules.push("deny all".to_owned());
    }
    if !rules.is_empty() {
        forward.keys.set("access", rules);
        forward.keys.set("on_deny", "close");
    }
}

/// Whom both lists allow; one without an entry allows everybody.
fn both(one: &[String], other: &[String]) -> Vec<String> {
    if one.is_empty() || other.is_empty() {
        return [one, other].concat();
    }
    let network = |text: &str| match text.parse::<IpAddr>() {
        Ok(address) => Some(IpNet::from(address)),
        Err(_) => text.parse::<IpNet>().ok(),
    };
    let mut all = Vec::new();
    for one in one {
        for other in other {
            // Of two networks one is in the other, or they have nothing in common; `all` is none.
            let narrower = match (network(one), network(other)) {
                (None, _) => Some(other),
                (_, None) => Some(one),
                (Some(a), Some(b)) if a.contains(&b) => Some(other),
                (Some(a), Some(b)) if b.contains(&a) => Some(one),
                _ => None,
            };
            all.extend(narrower.cloned());
        }
    }
    all
}

fn forward_of(
    forward: &mut Forward,
    [from, from_port, to, to_port]: [&&str; 4],
    options: &[&str],
) -> Result<Option<&'static str>, &'static str> {
    let (listen_port, udp) = port(from_port)?;
    let (server_port, server_udp) = port(to_port)?;
    if udp != server_udp {
        return Err("datagrams on one side, a stream on the other");
    }
    let host = |host: &str| {
        if host.contains(':') && !host.starts_with('[') {
            format!("[{host}]")
        } else {
            host.to_owned()
        }
    };
    let listen = match *from {
        "*" => "0.0.0.0".to_owned(),
        from => host(from),
    };
    forward.listen = vec![format!("{listen}:{listen_port}")];
    forward.to = Some(Target::Address(format!("{}:{server_port}", host(to))));
    let mut keys = Keys::default();
    if udp {
        keys.set("protocol", "udp");
    }
    let options = options.join(" ");
    let options = options.trim_matches(['[', ']', ' ']);
    for option in options
        .split([',', ' '])
        .filter(|option| !option.is_empty())
    {
        match option.split_once('=') {
            Some(("timeout", value)) => {
                let time = time::parse(value, 1000).ok_or("no time")?;
                let key = if udp {
                    "udp_idle_timeout"
                } else {
                    "idle_timeout"
                };
                keys.set(key, time::timeout(time));
            }
            Some(("src", address)) => forward.pool_keys.set("source", address),
            Some(("keepalive", "off")) => {}
            _ => return Err("an option that is not known here"),
        }
    }
    forward.keys = keys;
    let name = super::nginx::is_name(&format!("{to}:1"));
    Ok(name.then_some("names are kept resolved here; rinetd looks them up once, at its start"))
}

/// A number or the name of a service, `/udp` behind it.
fn port(text: &str) -> Result<(u16, bool), &'static str> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let udp = match protocol {
        "tcp" => false,
        "udp" => true,
        _ => return Err("neither tcp nor udp"),
    };
    let services = [
        ("ftp", 21),
        ("ssh", 22),
        ("telnet", 23),
        ("smtp", 25),
        ("domain", 53),
        ("http", 80),
        ("pop3", 110),
        ("ntp", 123),
        ("imap", 143),
        ("snmp", 161),
        ("ldap", 389),
        ("https", 443),
        ("imaps", 993),
        ("pop3s", 995),
        ("mysql", 3306),
        ("postgresql", 5432),
    ];
    let named = || {
        services
            .iter()
            .find(|(name, _)| *name == port)
            .map(|(_, number)| *number)
    };
    let number = port.parse().ok().or_else(named);
    Ok((number.ok_or("no port that is known here")?, udp))
}

/// `192.0.2.*`, `10.*`, an address, as a network.
fn network(pattern: &str) -> Option<String> {
    if pattern == "*" || pattern == "*.*.*.*" {
        return Some("all".to_owned());
    }
    if pattern.parse::<std::net::IpAddr>().is_ok() {
        return Some(pattern.to_owned());
    }
    let parts: Vec<&str> = pattern.split('.').collect();
    let fixed = parts
        .iter()
        .take_while(|part| part.parse::<u8>().is_ok())
        .count();
    let open = parts[fixed..].iter().all(|part| *part == "*");
    if fixed == 0 || !open || parts.len() > 4 {
        return None;
    }
    let mut octets: Vec<&str> = parts[..fixed].to_vec();
    octets.resize(4, "0");
    Some(format!("{}/{}", octets.join("."), fixed * 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_let_in_is_in_both_lists() {
        let list = |text: &str| {
            text.split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let of = |one: &str, other: &str| both(&list(one), &list(other)).join(" ");
        assert_eq!(of("10.0.0.0/8", ""), "10.0.0.0/8");
        assert_eq!(of("10.0.0.0/8", "10.1.0.0/16 192.0.2.1"), "10.1.0.0/16");
        assert_eq!(of("10.1.0.0/16", "10.0.0.0/8"), "10.1.0.0/16");
        assert_eq!(of("all", "192.0.2.1"), "192.0.2.1");
        assert_eq!(of("10.1.2.3", "192.0.2.1"), "");
    }

    #[test]
    fn patterns_are_networks() {
        assert_eq!(network("192.0.2.*").as_deref(), Some("192.0.2.0/24"));
        assert_eq!(network("10.*").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(network("10.*.*.*").as_deref(), Some("10.0.0.0/8"));
        assert_eq!(network("10.1.2.3").as_deref(), Some("10.1.2.3"));
        assert_eq!(network("*").as_deref(), Some("all"));
        assert_eq!(network("1?.0.0.1"), None);
        assert_eq!(network("10.*.3.*"), None);
    }
}
