//! The configuration in force as JSON, for programs.

use serde_json::{Map, Value};
use toml_edit::{DocumentMut, Item, TableLike};

use crate::admin::client::AskError;

/// The same keys and values; durations, sizes and the like stay the texts that they are.
pub(super) fn as_json(text: &str) -> Result<Value, AskError> {
    let parsed: DocumentMut = text.parse().map_err(|error| {
        AskError::NotFound(format!("the configuration cannot be understood: {error}"))
    })?;
    Ok(table(parsed.as_table()))
}

fn table(of: &dyn TableLike) -> Value {
    let entries = of.iter().map(|(key, it)| (key.to_owned(), item(it)));
    Value::Object(entries.collect::<Map<String, Value>>())
}

fn item(of: &Item) -> Value {
    match of {
        Item::None => Value::Null,
        Item::Value(it) => value(it),
        Item::Table(it) => table(it),
        Item::ArrayOfTables(all) => Value::Array(all.iter().map(|it| table(it)).collect()),
    }
}

fn value(of: &toml_edit::Value) -> Value {
    match of {
        toml_edit::Value::String(it) => it.value().as_str().into(),
        toml_edit::Value::Integer(it) => (*it.value()).into(),
        toml_edit::Value::Float(it) => (*it.value()).into(),
        toml_edit::Value::Boolean(it) => (*it.value()).into(),
        toml_edit::Value::Datetime(it) => it.value().to_string().into(),
        toml_edit::Value::Array(all) => Value::Array(all.iter().map(value).collect()),
        toml_edit::Value::InlineTable(it) => table(it),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn tables_lists_and_values_are_there_under_their_keys() {
        let text = "[log]\nlevel = \"info\"\n[[forward]]\nname = \"a\"\nmax = 3\n\
                    upstream = { servers = [\"b:1\", { address = \"c:2\", backup = true }] }\n";
        let json = as_json(text).unwrap();
        assert_eq!(json["log"]["level"], "info");
        assert_eq!(json["forward"][0]["max"], 3);
        let servers = &json["forward"][0]["upstream"]["servers"];
        assert_eq!(servers[0], "b:1");
        assert_eq!(servers[1]["backup"], true);
        assert!(as_json("[").is_err());
    }
}
