//! Values as TOML text.

use std::fmt::Write as _;

/// A value as a TOML basic string, in which no variable stands.
pub(super) fn quote(text: &str) -> String {
    basic(&text.replace("${", "$${"))
}

/// A TOML basic string. (The library's own writer chooses among four spellings,
/// two of which cannot be keys.)
fn basic(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A name as a TOML key: in quotes where it needs them.
pub(super) fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) {
        name.to_owned()
    } else {
        basic(name)
    }
}

/// A list of strings, one line if it is short.
pub(super) fn list(items: impl IntoIterator<Item = String>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| quote(&item)).collect();
    match items.len() {
        0..=4 => format!("[{}]", items.join(", ")),
        _ => format!("[\n    {},\n]", items.join(",\n    ")),
    }
}

/// `key = value` pairs as an inline table.
pub(super) fn inline<K: AsRef<str>>(pairs: &[(K, String)]) -> String {
    let pairs = pairs
        .iter()
        .map(|(key, value)| format!("{} = {value}", key.as_ref()));
    format!("{{ {} }}", pairs.collect::<Vec<_>>().join(", "))
}
