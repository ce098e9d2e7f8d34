//! The configuration as JSON Schema (draft 2020-12), for editors and for whoever makes
//! configurations with a program: `thalweg schema` prints it.
//!
//! It is what can be said of each key by itself. What depends on more than one (two
//! listeners on one address, a timeout longer than its interval) only
//! `thalweg check` knows.

use serde_json::{Map, Value as Json, json};

use super::describe::{Described, sections};
use super::kind::reference;
use super::row::Row;

/// The schema of a whole configuration file.
pub fn schema() -> Json {
    let mut definitions = Map::new();
    for Described { name, rows } in sections() {
        definitions.insert(name.to_owned(), object(&rows, required(name)));
    }
    add_forward(&mut definitions);
    add_pools(&mut definitions);
    let named = |name: &str| {
        json!({
            "type": "object",
            "additionalProperties": reference(name),
        })
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "thalweg configuration",
        "type": "object",
        "properties": {
            "include": {
                "description": "Other files whose keys join these, by path or by a pattern for their \
                                names; relative to this file.",
                "anyOf": [
                    { "type": "string" },
                    { "type": "array", "items": { "type": "string" } },
                ],
            },
            "global": reference("global"),
            "log": reference("log"),
            "admin": reference("admin"),
            "metrics": reference("metrics"),
            "defaults": reference("defaults"),
            "profile": named("profile"),
            "upstream": named("pool"),
            "forward": { "type": "array", "items": reference("forward") },
        },
        "additionalProperties": false,
        "$defs": definitions,
    })
}

/// A table with these keys and no other.
pub(super) fn object(rows: &[Row], required: &[&str]) -> Json {
    let properties: Map<String, Json> = rows
        .iter()
        .map(|row| (row.key.to_owned(), property(row)))
        .collect();
    let mut object = json!({
        "type": "object",
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    object
}

fn property(row: &Row) -> Json {
    let mut schema = row.schema.clone();
    schema["description"] = json!(format!(
        "{} A change takes effect: {}.",
        row.doc, row.effect
    ));
    if row.has_default
        && let Some(default) = json_of(&row.default)
    {
        schema["default"] = default;
    }
    schema
}

/// A value of a configuration as JSON, which of simple ones is the same text.
fn json_of(toml: &str) -> Option<Json> {
    serde_json::from_str(toml).ok()
}

/// Keys that a table cannot do without.
fn required(section: &str) -> &'static [&'static str] {
    match section {
        "forward" => &["listen"],
        "pool" => &["servers"],
        "server" => &["address"],
        "check" => &["type"],
        "rotate" => &["size"],
        "raw" => &["level", "name", "value"],
        _ => &[],
    }
}

/// A forward has the keys of `[defaults]`, too, but for `upstream`, which is its own.
fn add_forward(definitions: &mut Map<String, Json>) {
    let defaults = definitions["defaults"]["properties"].clone();
    let Some(own) = definitions["forward"]["properties"].as_object_mut() else {
        return;
    };
    for (key, value) in defaults.as_object().into_iter().flatten() {
        own.entry(key.clone()).or_insert_with(|| value.clone());
    }
}

/// A pool in `[defaults]`, which has no servers, and one in a forward, which may have a
/// name.
fn add_pools(definitions: &mut Map<String, Json>) {
    let pool = definitions["pool"].clone();
    let mut defaults = pool.clone();
    if let Some(properties) = defaults["properties"].as_object_mut() {
        properties.remove("servers");
    }
    if let Some(table) = defaults.as_object_mut() {
        table.remove("required");
    }
    definitions.insert("pool_defaults".to_owned(), defaults);
    let mut inline = pool;
    inline["properties"]["name"] = json!({
        "type": "string",
        "description": "What `thalweg check` calls a pool of its own table.",
    });
    definitions.insert("pool_of_forward".to_owned(), inline);
}
