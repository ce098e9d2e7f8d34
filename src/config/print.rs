//! A [`Config`] as TOML, every default filled in, readable again as the same value.

mod pool;

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::choices::{self, word};
use super::http_connect::{HttpConnect, Mode, ModeWord};
use super::units::{format_duration, format_rate, format_size, format_timeout};
use super::{Config, Forward, Global, Log, LogTarget, Reactors, Tap, TapTarget};
use crate::net::options::{Keepalive, SocketOptions};
use crate::policy::access::Rule;

pub(super) fn to_toml(config: &Config) -> String {
    let mut out = Out::default();
    global(&mut out, &config.global);
    log(&mut out, &config.log);
    for (name, options) in &config.profiles {
        profile(&mut out, name, options);
    }
    for forward in &config.forwards {
        write_forward(&mut out, forward);
    }
    out.text
}

#[derive(Default)]
struct Out {
    text: String,
}

impl Out {
    fn header(&mut self, header: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.text.push_str(header);
        self.text.push('\n');
    }

    /// A value that stands as it is: a number, true, a list.
    fn bare(&mut self, key: &str, value: impl std::fmt::Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{key} = {value}");
    }

    fn quoted(&mut self, key: &str, value: &str) {
        self.bare(key, quote(value));
    }

    fn comment(&mut self, text: &str) {
        let _ = writeln!(self.text, "# {text}");
    }
}

/// A TOML basic string. (The library's own writer chooses among four spellings,
/// two of which cannot be keys.)
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A list, one line if it is short.
fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.map(|item| quote(&item)).collect();
    match items.len() {
        0..=4 => format!("[{}]", items.join(", ")),
        _ => format!("[\n    {},\n]", items.join(",\n    ")),
    }
}

fn global(out: &mut Out, global: &Global) {
    out.header("[global]");
    match global.reactors {
        Reactors::Auto => out.quoted("reactors", "auto"),
        Reactors::Count(count) => out.bare("reactors", count),
    }
    out.quoted("engine", word(choices::ENGINES, &global.engine));
    connections(out, global.max_connections);
    out.quoted("scratch_buffer", &format_size(global.scratch_buffer.into()));
    out.quoted("pipe_size", &format_size(global.pipe_size.into()));
    out.quoted("buffer_limit", &format_size(global.buffer_limit));
    out.quoted("busy_poll", &format_duration(global.busy_poll));
    let names = &global.names;
    let servers = names.dns_servers.iter().map(SocketAddr::to_string);
    out.bare("dns_servers", list(servers));
    // Read from a text or a constant, so UTF-8.
    out.quoted("resolv_conf", &names.resolv_conf.to_string_lossy());
    out.quoted("hosts", &names.hosts.to_string_lossy());
}

fn connections(out: &mut Out, connections: Option<u32>) {
    out.bare("max_connections", limit(connections));
}

fn limit(limit: Option<u32>) -> String {
    limit.map_or_else(|| quote("auto"), |limit| limit.to_string())
}

fn log(out: &mut Out, log: &Log) {
    out.header("[log]");
    out.quoted("level", word(choices::LOG_LEVELS, &log.level));
    out.quoted("format", word(choices::LOG_FORMATS, &log.format));
    out.quoted("sessions", word(choices::SESSION_LOGS, &log.sessions));
    match &log.to {
        LogTarget::Stdout => out.quoted("to", "stdout"),
        LogTarget::Stderr => out.quoted("to", "stderr"),
        // A path from a configuration is UTF-8.
        LogTarget::File(path) => out.quoted("to", &path.to_string_lossy()),
    }
}

fn profile(out: &mut Out, name: &str, options: &SocketOptions) {
    out.header(&format!("[profile.{}]", key(name)));
    let numbers = [
        ("mss", options.mss.map(u64::from)),
        ("syn_retries", options.syn_retries.map(u64::from)),
        ("fastopen_queue", options.fastopen_queue.map(u64::from)),
        ("tos", options.tos.map(u64::from)),
        ("mark", options.mark.map(u64::from)),
        ("priority", options.priority.map(u64::from)),
        ("backlog", options.backlog.map(u64::from)),
    ];
    let switches = [
        ("nodelay", options.nodelay),
        ("quickack", options.quickack),
        ("fastopen_connect", options.fastopen_connect),
        ("incoming_cpu", options.incoming_cpu),
        ("free_bind", options.free_bind),
        ("mptcp", options.mptcp),
    ];
    let texts = [
        (
            "send_buffer",
            options.send_buffer.map(|b| format_size(b.into())),
        ),
        (
            "receive_buffer",
            options.receive_buffer.map(|b| format_size(b.into())),
        ),
        (
            "window_clamp",
            options.window_clamp.map(|b| format_size(b.into())),
        ),
        (
            "notsent_lowat",
            options.notsent_lowat.map(|b| format_size(b.into())),
        ),
        ("congestion", options.congestion.clone()),
        ("user_timeout", options.user_timeout.map(format_duration)),
        ("defer_accept", options.defer_accept.map(format_duration)),
        ("busy_poll", options.busy_poll.map(format_duration)),
        ("linger", options.linger.map(format_duration)),
        ("max_pacing_rate", options.max_pacing_rate.map(format_rate)),
        ("source", options.source.map(|source| source.to_string())),
        ("interface", options.interface.clone()),
    ];
    for (key, value) in switches {
        if let Some(value) = value {
            out.bare(key, value);
        }
    }
    if options.quickack.is_none() {
        out.comment("quickack is not set: off before a connect, else the kernel's choice");
    }
    for (key, value) in numbers {
        if let Some(value) = value {
            out.bare(key, value);
        }
    }
    for (key, value) in texts {
        if let Some(value) = value {
            out.quoted(key, &value);
        }
    }
    if let Some(alive) = options.keepalive {
        out.bare("keepalive", keepalive(alive));
    }
    if !options.raw.is_empty() {
        let raw = options.raw.iter().map(|raw| {
            let (level, name, value) = (raw.level, raw.name, raw.value);
            format!("{{ level = {level}, name = {name}, value = {value} }}")
        });
        out.bare("raw", format!("[{}]", raw.collect::<Vec<_>>().join(", ")));
    }
}

fn keepalive(keepalive: Keepalive) -> String {
    let seconds = |time| quote(&format_duration(time));
    let parts = [
        ("idle", keepalive.idle.map(seconds)),
        ("interval", keepalive.interval.map(seconds)),
        ("probes", keepalive.probes.map(|probes| probes.to_string())),
    ];
    let parts = parts
        .into_iter()
        .filter_map(|(key, value)| value.map(|value| format!("{key} = {value}")));
    match parts.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "true".to_owned(),
        parts => format!("{{ {parts} }}"),
    }
}

/// A name as a TOML key: in quotes where it needs them.
fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) {
        name.to_owned()
    } else {
        quote(name)
    }
}

fn write_forward(out: &mut Out, forward: &Forward) {
    out.header("[[forward]]");
    out.quoted("name", &forward.name);
    out.bare(
        "listen",
        list(forward.listen.iter().map(ToString::to_string)),
    );
    connections(out, forward.max_connections);
    let timeouts = &forward.timeouts;
    out.quoted("connect_timeout", &format_timeout(timeouts.connect));
    out.quoted("idle_timeout", &format_timeout(timeouts.idle));
    out.quoted("half_close_timeout", &format_timeout(timeouts.half_close));
    out.quoted("write_stall_timeout", &format_timeout(timeouts.write_stall));
    out.quoted("drain_timeout", &format_timeout(timeouts.drain));
    out.quoted("data_path", word(choices::DATA_PATHS, &forward.data_path));
    out.quoted("client_profile", &forward.client_profile);
    out.quoted("upstream_profile", &forward.upstream_profile);
    match &forward.tap {
        Some(of_forward) => out.bare("tap", tap(of_forward)),
        None => out.quoted("tap", "off"),
    }
    match &forward.mode {
        Mode::Tcp => pool::write(out, &forward.pool),
        Mode::HttpConnect(connect) => write_connect(out, connect),
    }
}

fn tap(tap: &Tap) -> String {
    let to = match &tap.to {
        TapTarget::Stderr => "stderr".to_owned(),
        // A path from a configuration is UTF-8.
        TapTarget::File(path) => path.to_string_lossy().into_owned(),
    };
    let mut filter = String::new();
    if !tap.filter.client.is_empty() {
        let client = tap.filter.client.iter().map(|it| quote(&it.to_string()));
        let client = client.collect::<Vec<_>>().join(", ");
        let _ = write!(filter, "client = [{client}], ");
    }
    let direction = word(choices::TAP_DIRECTIONS, &tap.filter.direction);
    let _ = write!(
        filter,
        "direction = \"{direction}\", sample = \"{}\"",
        tap.filter.sample
    );
    let mut parts = vec![
        format!(
            "format = {}",
            quote(word(choices::TAP_FORMATS, &tap.format))
        ),
        format!("to = {}", quote(&to)),
        format!(
            "max_bytes_per_session = {}",
            quote(&format_size(tap.max_bytes_per_session))
        ),
        format!("filter = {{ {filter} }}"),
    ];
    if let Some(rotate) = tap.rotate {
        let size = quote(&format_size(rotate.size));
        parts.push(format!(
            "rotate = {{ size = {size}, keep = {} }}",
            rotate.keep
        ));
    }
    parts.push(format!("unmask = {}", tap.unmask));
    format!("{{ {} }}", parts.join(", "))
}

fn write_connect(out: &mut Out, connect: &HttpConnect) {
    out.quoted("mode", word(choices::MODES, &ModeWord::HttpConnect));
    out.header("[forward.connect]");
    let rules = |rules: &[Rule]| list(rules.iter().map(ToString::to_string));
    out.bare("allow", rules(&connect.access.allow));
    out.bare("deny", rules(&connect.access.deny));
    if let Some(users) = &connect.users {
        // A path from a configuration is UTF-8.
        out.quoted("users", &users.to_string_lossy());
    }
    out.quoted("realm", &connect.realm);
    out.quoted("header_timeout", &format_duration(connect.header_timeout));
    out.quoted("header_max", &format_size(connect.header_max.into()));
}
