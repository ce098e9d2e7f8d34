//! `upstream`: a pool.

use super::lexer::Directive;
use super::resolver;
use crate::convert::finding::Findings;
use crate::convert::model::{Keys, Model, Pool, Server};
use crate::convert::time;

/// Adds the pool of an `upstream` block.
pub(super) fn pool(upstream: &Directive, model: &mut Model, findings: &mut Findings) {
    let (Some(name), Some(block)) = (upstream.only(), &upstream.block) else {
        findings.left(&upstream.place, &upstream.shown(), "no upstream");
        return;
    };
    let mut pool = Pool {
        origin: upstream.place.clone(),
        name: name.to_owned(),
        keys: Keys::default(),
        servers: Vec::new(),
    };
    findings.same(&upstream.place, &upstream.shown());
    for directive in block {
        match directive.name.as_str() {
            "server" => server(directive, &mut pool, findings),
            "resolver" => resolver(directive, &mut model.global, findings),
            _ => balance(directive, &mut pool.keys, findings),
        }
    }
    model.pools.push(pool);
}

fn balance(directive: &Directive, keys: &mut Keys, findings: &mut Findings) {
    const OTHER_SERVER: &str =
        "a client's server is found by another hash than nginx's, so it may be another one";
    let (place, shown) = (&directive.place, directive.shown());
    let args: Vec<&str> = directive.args.iter().map(String::as_str).collect();
    match (directive.name.as_str(), args.as_slice()) {
        ("least_conn", []) => {
            keys.set("balance", "least_conn");
            findings.same(place, &shown);
        }
        ("random", []) => {
            keys.set("balance", "random");
            findings.same(place, &shown);
        }
        ("random", ["two"] | ["two", "least_conn"]) => {
            keys.set("balance", "p2c");
            findings.same(place, &shown);
        }
        (
            "hash",
            ["$remote_addr" | "$binary_remote_addr"]
            | ["$remote_addr" | "$binary_remote_addr", "consistent"],
        ) => {
            keys.set("balance", "hash_address");
            findings.differs(place, &shown, OTHER_SERVER);
        }
        (
            "hash",
            ["$remote_addr:$remote_port" | "$remote_addr$remote_port"]
            | [
                "$remote_addr:$remote_port" | "$remote_addr$remote_port",
                "consistent",
            ],
        ) => {
            keys.set("balance", "hash_address_port");
            findings.differs(place, &shown, OTHER_SERVER);
        }
        ("hash", _) => {
            let why = "sessions can be spread by the client's address only (`balance = \"hash_address\"`)";
            findings.left(place, &shown, why);
        }
        ("least_time", _) | ("random", ["two", ..]) => {
            keys.set("balance", "least_conn");
            findings.differs(
                place,
                &shown,
                "least_conn is nearest: times are not weighed",
            );
        }
        ("zone", _) => findings.needless(place, &shown, "all reactors know the same of a server"),
        ("resolver_timeout", _) => {
            findings.needless(
                place,
                &shown,
                "lookups are bounded by resolv.conf's options",
            );
        }
        _ => findings.left(place, &shown, "not known here"),
    }
}

fn server(directive: &Directive, pool: &mut Pool, findings: &mut Findings) {
    let (place, shown) = (&directive.place, directive.shown());
    let Some((address, parameters)) = directive.args.split_first() else {
        findings.left(place, &shown, "no address");
        return;
    };
    let mut keys = Keys::default();
    let mut address = address.clone();
    let mut service = None;
    for parameter in parameters {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let count = value.parse::<u64>().ok();
        let duration = time::parse(value, 1000);
        let taken = match (name, count, duration) {
            ("weight", Some(weight), _) => set(&mut keys, "weight", weight),
            ("max_conns", Some(0), _) => true,
            ("max_conns", Some(most), _) => set(&mut keys, "max_connections", most),
            ("max_fails", Some(most), _) => set(&mut keys, "max_fails", most),
            ("fail_timeout", _, Some(time)) => {
                set(&mut keys, "fail_timeout", time::at_least(time, MILLISECOND))
            }
            ("slow_start", _, Some(time)) => set(&mut pool.keys, "slow_start", time::timeout(time)),
            ("backup", ..) => set(&mut keys, "backup", true),
            ("down", ..) => set(&mut keys, "state", "maintenance"),
            ("resolve", ..) => true,
            ("service", ..) => {
                service = Some(value.to_owned());
                true
            }
            _ => false,
        };
        if !taken {
            findings.left(place, &shown, format!("`{parameter}` has no counterpart"));
        }
    }
    if let Some(service) = service {
        address = if service.contains('.') {
            format!("srv:{service}.{address}")
        } else {
            format!("srv:_{service}._tcp.{address}")
        };
    }
    if address.starts_with("unix:")
        || !is_name(&address)
        || parameters.iter().any(|p| p == "resolve")
    {
        findings.same(place, &shown);
    } else {
        findings.differs(place, &shown, super::server::KEPT_RESOLVED);
    }
    pool.servers.push(Server { address, keys });
}

const MILLISECOND: std::time::Duration = std::time::Duration::from_millis(1);

fn set(
    keys: &mut Keys,
    name: &'static str,
    value: impl Into<crate::convert::model::Value>,
) -> bool {
    keys.set(name, value);
    true
}

/// Whether the host of an address is a name.
pub(in crate::convert) fn is_name(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    !host.starts_with('[') && host.parse::<std::net::IpAddr>().is_err()
}
