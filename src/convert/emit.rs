//! The model as TOML: each part behind the place it came from.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::guess::Kind;
use super::model::{Forward, Keys, Model, Pool, Target, Value};

/// Writes all of it. Pools that no forward uses are written too: they were there.
pub(super) fn toml(kind: Kind, model: &Model) -> String {
    let mut names = PoolNames::default();
    let mut profiles = Profiles::default();
    let mut forwards = String::new();
    let pools: HashSet<&str> = model.pools.iter().map(|pool| pool.name.as_str()).collect();
    for forward in &model.forwards {
        write_forward(&mut forwards, forward, &pools, &mut names, &mut profiles);
    }
    for pool in &model.pools {
        if !names.uses(&pool.name) {
            names.name(&pool.name, &Keys::default());
        }
    }
    let mut text = format!("# Converted from {kind} by `thalweg convert`.\n");
    section(&mut text, "global", &model.global);
    section(&mut text, "log", &model.log);
    section(&mut text, "defaults", &model.defaults);
    section(&mut text, "defaults.upstream", &model.pool_defaults);
    text.push_str(&forwards);
    for (name, pool, over) in names.written(model) {
        write_pool(&mut text, name, &pool, over);
    }
    for (name, keys) in &profiles.0 {
        section(&mut text, &format!("profile.{}", key(name)), keys);
    }
    text
}

fn section(text: &mut String, name: &str, keys: &Keys) {
    if !keys.is_empty() {
        let _ = writeln!(text, "\n[{name}]");
        write_keys(text, keys);
    }
}

fn write_keys(text: &mut String, keys: &Keys) {
    for key in keys.iter() {
        let _ = write!(text, "{} = {}", key.name, value(&key.value));
        match key.remark {
            Some(remark) => {
                let _ = writeln!(text, "  # {remark}");
            }
            None => text.push('\n'),
        }
    }
}

fn write_forward(
    text: &mut String,
    forward: &Forward,
    pools: &HashSet<&str>,
    names: &mut PoolNames,
    profiles: &mut Profiles,
) {
    let _ = writeln!(text, "\n# {}\n[[forward]]", forward.origin);
    if let Some(name) = &forward.name {
        let _ = writeln!(text, "name = {}", quoted(name));
    }
    let listen = match forward.listen.as_slice() {
        [one] => Value::Text(one.clone()),
        more => Value::List(more.to_vec()),
    };
    let _ = writeln!(text, "listen = {}", value(&listen));
    // A target of one address has no section of its own where nothing is said of the pool.
    let mut target = |text: &mut String, to: &Target| match to {
        Target::Reject => text.push_str("reject = true\n"),
        Target::Pool(name) if pools.contains(name.as_str()) => {
            let name = names.name(name, &forward.pool_keys);
            let _ = writeln!(text, "upstream = {}", quoted(name));
        }
        Target::Pool(address) | Target::Address(address) if forward.pool_keys.is_empty() => {
            let _ = writeln!(text, "upstream = {}", quoted(address));
        }
        Target::Pool(address) | Target::Address(address) => {
            if !names.uses(address) {
                names.addresses.push(address.clone());
            }
            let name = names.name(address, &forward.pool_keys);
            let _ = writeln!(text, "upstream = {}", quoted(name));
        }
    };
    if let Some(to) = &forward.to {
        target(text, to);
    }
    write_keys(text, &forward.keys);
    for (key, side, options) in [
        ("client_profile", "client", &forward.client_options),
        ("upstream_profile", "upstream", &forward.upstream_options),
    ] {
        if !options.is_empty() {
            let _ = writeln!(text, "{key} = {}", quoted(&profiles.name(side, options)));
        }
    }
    for route in &forward.routes {
        let _ = writeln!(text, "\n# {}\n[[forward.route]]", route.origin);
        write_keys(text, &route.keys);
        target(text, &route.to);
    }
}

fn write_pool(text: &mut String, name: &str, pool: &WrittenPool<'_>, over: &Keys) {
    match pool {
        WrittenPool::Known(pool) => {
            let _ = writeln!(text, "\n# {}\n[upstream.{}]", pool.origin, key(name));
            write_keys(text, &pool.keys.with(over));
            text.push_str("servers = [\n");
            for server in &pool.servers {
                if server.keys.is_empty() {
                    let _ = writeln!(text, "  {},", quoted(&server.address));
                } else {
                    let _ = write!(text, "  {{ address = {}", quoted(&server.address));
                    for key in server.keys.iter() {
                        let _ = write!(text, ", {} = {}", key.name, value(&key.value));
                    }
                    text.push_str(" },\n");
                }
            }
            text.push_str("]\n");
        }
        WrittenPool::Address(address) => {
            let _ = writeln!(text, "\n[upstream.{}]", key(name));
            write_keys(text, over);
            let _ = writeln!(text, "servers = [{}]", quoted(address));
        }
    }
}

/// What is written as a pool.
#[derive(Clone, Copy)]
enum WrittenPool<'a> {
    Known(&'a Pool),
    Address(&'a str),
}

/// The names that pools have in the result: one for each pool and what its forwards say of it.
#[derive(Debug, Default)]
struct PoolNames {
    /// By the pool's name, in the order in which they were asked for.
    given: HashMap<String, Vec<(Keys, String)>>,
    /// Pools that are addresses alone, in that order.
    addresses: Vec<String>,
    taken: HashSet<String>,
}

impl PoolNames {
    fn uses(&self, pool: &str) -> bool {
        self.given.contains_key(pool)
    }

    fn name(&mut self, pool: &str, over: &Keys) -> &str {
        let variants = self.given.entry(pool.to_owned()).or_default();
        let known = variants.iter().position(|(keys, _)| keys == over);
        let index = known.unwrap_or_else(|| {
            let plain = plain(pool);
            let mut name = plain.clone();
            let mut number = 2;
            while !self.taken.insert(name.clone()) {
                name = format!("{plain}-{number}");
                number += 1;
            }
            variants.push((over.clone(), name));
            variants.len() - 1
        });
        &variants[index].1
    }

    /// In the order of the pools, those of addresses behind them.
    fn written<'a>(&'a self, model: &'a Model) -> Vec<(&'a str, WrittenPool<'a>, &'a Keys)> {
        let known = model
            .pools
            .iter()
            .map(|pool| (&pool.name, WrittenPool::Known(pool)));
        let addresses = self
            .addresses
            .iter()
            .map(|of| (of, WrittenPool::Address(of)));
        let mut written = HashSet::new();
        known
            .chain(addresses)
            .filter(|(of, _)| written.insert(*of))
            .flat_map(|(of, pool)| {
                let variants = self.given.get(of).into_iter().flatten();
                variants.map(move |(over, name)| (name.as_str(), pool, over))
            })
            .collect()
    }
}

/// Letters, digits, `-` and `_`, of which the first is no digit: it cannot be taken for an address.
fn plain(name: &str) -> String {
    let mut plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                c
            } else {
                '-'
            }
        })
        .collect();
    if !plain.starts_with(|c: char| c.is_ascii_alphabetic()) {
        plain.insert_str(0, "pool-");
    }
    plain
}

/// The profiles: equal options have one.
#[derive(Debug, Default)]
struct Profiles(Vec<(String, Keys)>);

impl Profiles {
    fn name(&mut self, side: &str, options: &Keys) -> String {
        if let Some((name, _)) = self
            .0
            .iter()
            .find(|(name, keys)| name.starts_with(side) && keys == options)
        {
            return name.clone();
        }
        let before = self
            .0
            .iter()
            .filter(|(name, _)| name.starts_with(side))
            .count();
        let name = match before {
            0 => side.to_owned(),
            more => format!("{side}-{}", more + 1),
        };
        self.0.push((name.clone(), options.clone()));
        name
    }
}

fn value(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Number(number) => number.to_string(),
        Value::Bool(truth) => truth.to_string(),
        Value::List(list) => {
            let items: Vec<String> = list.iter().map(|item| quoted(item)).collect();
            let one_line = format!("[{}]", items.join(", "));
            if one_line.len() <= 80 {
                one_line
            } else {
                format!("[\n  {},\n]", items.join(",\n  "))
            }
        }
        Value::Table(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(name, entry)| format!("{name} = {}", self::value(entry)))
                .collect();
            format!("{{ {} }}", entries.join(", "))
        }
    }
}

/// A basic string on one line: its escapes are those of JSON, but for DEL; `${` would be the
/// beginning of a variable.
fn quoted(text: &str) -> String {
    let text = text.replace("${", "$${");
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007F")
}

fn key(name: &str) -> String {
    toml_edit::Key::new(name).to_string()
}
