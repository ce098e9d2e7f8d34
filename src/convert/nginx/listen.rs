//! `listen`: an address, and what stands behind it.

use super::lexer::Directive;
use crate::convert::finding::Findings;
use crate::convert::model::{Keys, Value};
use crate::convert::time;

/// One `listen`.
#[derive(Debug, Clone)]
pub(super) struct Listen {
    pub(super) address: String,
    pub(super) kind: Kind,
}

/// What makes listeners forwards of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) udp: bool,
    pub(super) proxy_protocol: bool,
    pub(super) options: Keys,
}

/// Reads it; none if it cannot be listened on here.
pub(super) fn read(directive: &Directive, findings: &mut Findings) -> Option<Listen> {
    let (place, shown) = (&directive.place, directive.shown());
    let Some((address, parameters)) = directive.args.split_first() else {
        findings.left(place, &shown, "no address");
        return None;
    };
    let mut kind = Kind {
        udp: false,
        proxy_protocol: false,
        options: Keys::default(),
    };
    let mut both_families = false;
    let mut refused = None;
    for parameter in parameters {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let options = &mut kind.options;
        let taken = match (name, value) {
            ("udp", "") => {
                kind.udp = true;
                true
            }
            ("proxy_protocol", "") => {
                kind.proxy_protocol = true;
                true
            }
            ("ipv6only", "off") => {
                both_families = true;
                true
            }
            // One socket for each reactor is what there is; the address is always bound.
            ("ipv6only", "on") | ("reuseport" | "bind", "") => true,
            ("backlog", count) => number(options, "backlog", count.parse().ok()),
            ("fastopen", count) => number(options, "fastopen_queue", count.parse().ok()),
            ("rcvbuf", size) => number(options, "receive_buffer", time::size(size)),
            ("sndbuf", size) => number(options, "send_buffer", time::size(size)),
            ("so_keepalive", spec) => keepalive(options, spec),
            ("ssl", _) => {
                refused = Some("TLS is not terminated here; forward it, or end it in front");
                true
            }
            _ => false,
        };
        if !taken {
            findings.left(place, &shown, format!("`{parameter}` has no counterpart"));
        }
    }
    if let Some(why) = refused {
        findings.left(place, &shown, why);
        return None;
    }
    findings.same(place, &shown);
    Some(Listen {
        address: of(address, both_families),
        kind,
    })
}

/// A port alone and `*` are IPv4 for nginx.
fn of(address: &str, both_families: bool) -> String {
    if address.starts_with("unix:") || address.is_empty() {
        return address.to_owned();
    }
    if address.starts_with(|c: char| c.is_ascii_digit()) && !address.contains([':', '.']) {
        return format!("0.0.0.0:{address}");
    }
    match address.rsplit_once(':') {
        Some(("*", port)) => format!("0.0.0.0:{port}"),
        Some(("[::]", port)) if both_families => format!(":{port}"),
        _ => address.to_owned(),
    }
}

fn number(options: &mut Keys, key: &'static str, value: Option<u64>) -> bool {
    value.is_some_and(|value| {
        options.set(key, value);
        true
    })
}

/// `on`, `off`, or `IDLE:INTERVAL:COUNT`, each of which may be missing.
fn keepalive(options: &mut Keys, spec: &str) -> bool {
    match spec {
        "on" => options.set("keepalive", true),
        "off" => {}
        spec => {
            let mut parts = spec.split(':');
            let mut table = Vec::new();
            for key in ["idle", "interval"] {
                match parts.next() {
                    None | Some("") => {}
                    Some(text) => match time::parse(text, 1000) {
                        Some(time) => table.push((key, Value::Text(time::timeout(time)))),
                        None => return false,
                    },
                }
            }
            match parts.next().map(str::parse::<u64>) {
                None => {}
                Some(Ok(count)) => table.push(("probes", Value::Number(count))),
                Some(Err(_)) if spec.ends_with(':') => {}
                Some(Err(_)) => return false,
            }
            options.set("keepalive", Value::Table(table));
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_ipv4() {
        assert_eq!(of("443", false), "0.0.0.0:443");
        assert_eq!(of("5000-5009", false), "0.0.0.0:5000-5009");
        assert_eq!(of("*:443", false), "0.0.0.0:443");
        assert_eq!(of("[::]:443", false), "[::]:443");
        assert_eq!(of("[::]:443", true), ":443");
        assert_eq!(of("127.0.0.1:443", false), "127.0.0.1:443");
        assert_eq!(of("unix:/run/x.sock", false), "unix:/run/x.sock");
    }
}
