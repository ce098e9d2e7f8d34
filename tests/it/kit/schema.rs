//! Whether a JSON document is what its schema says: as much of JSON Schema as the
//! schemas in docs/ use.

use serde_json::Value;

/// Panics with the place of the first difference.
#[track_caller]
pub(crate) fn assert_conforms(document: &Value, schema: &Value) {
    if let Err(error) = check(document, schema, schema, "$") {
        panic!("{error}");
    }
}

fn check(value: &Value, schema: &Value, root: &Value, place: &str) -> Result<(), String> {
    if let Some(name) = schema["$ref"].as_str() {
        let target = root.pointer(name.trim_start_matches('#')).unwrap();
        check(value, target, root, place)?;
    }
    if let Some(constant) = schema.get("const")
        && constant != value
    {
        return Err(format!("{place}: {value} is not {constant}"));
    }
    if let Some(known) = schema["enum"].as_array()
        && !known.contains(value)
    {
        return Err(format!("{place}: {value} is none of {known:?}"));
    }
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(some) => some.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|kind| is_of(value, kind)) {
        return Err(format!("{place}: {value} is not {types:?}"));
    }
    for (word, exactly) in [("anyOf", false), ("oneOf", true)] {
        let Some(choices) = schema[word].as_array() else {
            continue;
        };
        let results = choices.iter().map(|it| check(value, it, root, place));
        let results: Vec<Result<(), String>> = results.collect();
        let fits = results.iter().filter(|it| it.is_ok()).count();
        if fits == 0 || (exactly && fits > 1) {
            return Err(format!("{place}: {fits} of {word} fit: {results:?}"));
        }
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        check(value, part, root, place)?;
    }
    if let Value::Object(members) = value {
        for key in schema["required"].as_array().into_iter().flatten() {
            let key = key.as_str().unwrap();
            if !members.contains_key(key) {
                return Err(format!("{place}: no {key}"));
            }
        }
        for (key, member) in members {
            if let Some(schema) = schema["properties"].get(key) {
                check(member, schema, root, &format!("{place}.{key}"))?;
            }
        }
    }
    if let Value::Array(items) = value {
        for (at, item) in items.iter().enumerate() {
            let prefix = schema["prefixItems"].get(at);
            if let Some(schema) = prefix.or(schema.get("items")) {
                check(item, schema, root, &format!("{place}[{at}]"))?;
            }
        }
    }
    Ok(())
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type of JSON: {other}"),
    }
}
