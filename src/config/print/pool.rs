//! `[forward.upstream]`: the pool of the forward above, every default filled in.

use std::fmt::Write as _;

use super::super::check::{Check, CheckKind};
use super::super::choices::{self, word};
use super::super::pool::Pool;
use super::super::server::Server;
use super::super::units::{format_duration, format_percent, format_timeout};
use super::{Out, limit, list, quote};

pub(super) fn write(out: &mut Out, pool: &Pool) {
    out.header("[forward.upstream]");
    if let Some(name) = &pool.name {
        out.quoted("name", name);
    }
    let servers: Vec<String> = pool.servers.iter().map(server).collect();
    out.bare("servers", format!("[\n    {},\n]", servers.join(",\n    ")));
    out.quoted("balance", word(choices::BALANCES, &pool.balance));
    match pool.retries {
        Some(retries) => out.bare("retries", retries),
        None => out.quoted("retries", "all"),
    }
    out.quoted("retry_timeout", &format_timeout(pool.retry_timeout));
    out.bare("max_fails", pool.max_fails);
    out.quoted("fail_timeout", &format_duration(pool.fail_timeout));
    out.quoted("slow_start", &format_duration(pool.slow_start));
    out.bare("queue", pool.queue);
    out.quoted("queue_timeout", &format_duration(pool.queue_timeout));
    match &pool.check {
        Some(check) => out.bare("check", write_check(check)),
        None => out.quoted("check", "off"),
    }
    out.quoted("resolve", word(choices::RESOLVES, &pool.resolve));
    out.quoted("resolve_ttl_min", &format_duration(pool.ttl_min));
    out.quoted("resolve_ttl_max", &format_duration(pool.ttl_max));
    out.quoted("attempt_delay", &format_duration(pool.attempt_delay));
    let sources = pool.sources.iter().map(ToString::to_string);
    out.bare("source", list(sources));
    if let Some(interface) = &pool.interface {
        out.quoted("interface", interface);
    }
    out.bare("transparent", pool.transparent);
    out.bare("warm", pool.warm);
    out.quoted("warm_max_age", &format_duration(pool.warm_max_age));
}

/// `key = value` pairs as an inline table.
fn inline(pairs: &[(&str, Option<String>)]) -> String {
    let pairs = pairs
        .iter()
        .filter_map(|(key, value)| value.as_ref().map(|value| format!("{key} = {value}")));
    format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
}

fn server(server: &Server) -> String {
    let state = word(choices::ADMIN_STATES, &server.state);
    let fail_timeout = server.fail_timeout.map(format_duration);
    inline(&[
        ("address", Some(quote(&server.address.to_string()))),
        ("weight", Some(server.weight.to_string())),
        ("backup", Some(server.backup.to_string())),
        ("max_connections", Some(limit(server.max_connections))),
        ("state", Some(quote(state))),
        ("max_fails", server.max_fails.map(|fails| fails.to_string())),
        ("fail_timeout", fail_timeout.as_deref().map(quote)),
    ])
}

fn write_check(check: &Check) -> String {
    let mut pairs = vec![("type", Some(quote(check.kind.word())))];
    match &check.kind {
        CheckKind::Tcp => {}
        CheckKind::Exchange { send, expect } => {
            pairs.push(("send", Some(bytes(send))));
            pairs.push(("expect", Some(bytes(expect))));
        }
        CheckKind::Http {
            path,
            host,
            statuses,
        } => {
            let statuses: Vec<String> = statuses
                .iter()
                .map(|range| format!("{}-{}", range.start(), range.end()))
                .collect();
            pairs.push(("path", Some(quote(path))));
            pairs.push(("host", host.as_deref().map(quote)));
            pairs.push(("status", Some(quote(&statuses.join(",")))));
        }
        CheckKind::Tls { server_name } => {
            pairs.push(("server_name", server_name.as_deref().map(quote)));
        }
        CheckKind::Command { argv } => {
            let words: Vec<String> = argv.iter().map(|word| quote(word)).collect();
            pairs.push(("command", Some(format!("[{}]", words.join(", ")))));
        }
    }
    let time = |time| Some(quote(&format_duration(time)));
    pairs.extend([
        ("interval", time(check.interval)),
        ("fast_interval", check.fast_interval.and_then(time)),
        ("timeout", time(check.timeout)),
        ("rise", Some(check.rise.to_string())),
        ("fall", Some(check.fall.to_string())),
        ("jitter", Some(quote(&format_percent(check.jitter)))),
        (
            "on_down",
            Some(quote(word(choices::ON_DOWNS, &check.on_down))),
        ),
        ("port", check.port.map(|port| port.to_string())),
    ]);
    inline(&pairs)
}

/// As text where it is text, so that a person can read it.
fn bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.starts_with("hex:") => quote(text),
        _ => {
            let mut text = String::from("hex:");
            for byte in bytes {
                // Writing to a String cannot fail.
                let _ = write!(text, "{byte:02x}");
            }
            quote(&text)
        }
    }
}
