//! What comes of the tables of keys: a key that is added to one appears in the reader,
//! the printer, the list of names, the documentation, the example, the schema and the
//! comparison; and the files that are made from them are not stale.

use std::path::Path;
use std::time::Duration;

use serde_json::Value as Json;

use crate::config::describe::{Described, markdown, sections};
use crate::config::kind::{Limit, Switch, choice, int, size, time};
use crate::config::raw::{TableReader, parse_file};
use crate::config::report::{Report, SourceKind};
use crate::config::row::{Applies, Pairs};
use crate::config::schema::object;
use crate::config::section::{Section, section, table};
use crate::config::words::words;
use crate::config::{Config, example, schema};

section! {
    /// A section that only this test has.
    #[derive(Debug, Clone, PartialEq)]
    pub(in crate::config) struct Toy, ToyKeys {
        parts {
            /// In the same table.
            wheels: Wheels;
        }
        keys {
            /// What it is painted in.
            colour: Colour = Colour::Red, choice(), Live;
            /// Pieces it can be taken into.
            pieces as "pieces_max": u32 = 12, int(1..=100), Rebind;
            /// Children at a time.
            children: Option<u32> = None, Limit, Live;
            /// Its box.
            carton: Carton = Carton::default(), table("carton"), Restart;
        }
    }
}

section! {
    /// What it runs on.
    #[derive(Debug, Clone, PartialEq)]
    pub(in crate::config) struct Wheels, WheelKeys {
        keys {
            /// Whether they turn.
            wheels_turn: bool = true, Switch, Restart;
        }
    }
}

section! {
    /// A table within it.
    #[derive(Debug, Clone, PartialEq)]
    pub(in crate::config) struct Carton, CartonKeys {
        keys {
            /// Room in it.
            room: u64 = 4096, size(1..=1 << 20), Live;
            /// Until it falls apart.
            lasts: Duration = Duration::from_secs(60),
                time(Duration::ZERO..=Duration::from_secs(3600)), Live;
        }
    }
}

words! {
    /// What a toy is painted in.
    pub(in crate::config) enum Colour {
        Red = "red",
        Blue = "blue",
    }
}

/// The toy of a text, and the errors of it.
fn read(text: &str) -> (Toy, String) {
    let mut report = Report::default();
    let source = report.add_source(SourceKind::File, "toy.toml", text);
    let root = parse_file(&mut report, source, text);
    let mut table = TableReader::open(&root, "[toy]", &mut report).expect("a table");
    let keys = Toy::read(&mut table, &mut report);
    table.close(&mut report, &[]);
    let errors = report.into_errors();
    (
        Toy::fill(keys),
        errors.map_or_else(String::new, |it| it.to_string()),
    )
}

const KEYS: [&str; 5] = ["colour", "pieces_max", "children", "carton", "wheels_turn"];

#[test]
fn a_key_of_the_table_is_read_and_its_errors_have_places_and_the_nearest_name() {
    let (toy, errors) = read("");
    assert_eq!((toy, errors.as_str()), (Toy::default(), ""));
    let (toy, errors) = read(
        "colour = \"blue\"\npieces_max = 3\nchildren = 2\nwheels_turn = false\n\
         carton = { room = \"1KiB\" }\n",
    );
    assert_eq!(errors, "");
    assert_eq!(
        (toy.colour, toy.pieces, toy.children),
        (Colour::Blue, 3, Some(2))
    );
    assert_eq!((toy.carton.room, toy.wheels.wheels_turn), (1024, false));
    assert_eq!(toy.carton.lasts, Duration::from_secs(60));
    let (toy, errors) =
        read("colour = \"reed\"\npieces_max = 0\npiece_max = 1\ncarton = { rom = 1 }\n");
    assert_eq!(toy, Toy::default());
    for words in [
        "toy.toml:1:10",
        "did you mean `red`?",
        "toy.toml:2:14",
        "from 1 to 100",
        "unknown key `piece_max` in [toy]",
        "did you mean `pieces_max`?",
        "did you mean `room`?",
    ] {
        assert!(errors.contains(words), "no `{words}` in\n{errors}");
    }
    assert_eq!(Toy::names(), KEYS);
}

#[test]
fn a_key_of_the_table_is_printed_as_it_is_read() {
    let toy = Toy {
        pieces: 99,
        ..Toy::default()
    };
    let mut pairs = Pairs::new();
    toy.write(&mut pairs);
    let keys: Vec<&str> = pairs.iter().map(|(key, _)| *key).collect();
    assert_eq!(keys, KEYS);
    let lines: Vec<String> = pairs
        .iter()
        .map(|(key, value)| format!("{key} = {value}\n"))
        .collect();
    let text = lines.concat();
    assert_eq!(read(&text), (toy, String::new()));
}

#[test]
fn a_key_that_is_not_written_is_taken_from_what_stands_behind() {
    let keys = |text: &str| {
        let mut report = Report::default();
        let source = report.add_source(SourceKind::File, "t", text);
        let root = parse_file(&mut report, source, text);
        let mut table = TableReader::open(&root, "t", &mut report).expect("a table");
        Toy::read(&mut table, &mut report)
    };
    let base = keys("colour = \"blue\"\npieces_max = 3\nwheels_turn = false\n");
    let toy = Toy::fill(Toy::merge(keys("pieces_max = 4\n"), &base));
    assert_eq!((toy.colour, toy.pieces), (Colour::Blue, 4));
    assert!(!toy.wheels.wheels_turn);
}

#[test]
fn a_key_of_the_table_is_in_the_documentation_and_the_schema() {
    let rows = Toy::rows();
    let documentation = markdown(&rows);
    for line in [
        "| `colour` | `\"red\"`, `\"blue\"` | `\"red\"` | live | What it is painted in. |",
        "| `pieces_max` | 1 to 100 | `12` | rebind | Pieces it can be taken into. |",
        "| `wheels_turn` | true, false | `true` | restart | Whether they turn. |",
    ] {
        assert!(documentation.contains(line), "{documentation}");
    }
    let schema = object(&rows, &[]);
    let keys: Vec<&String> = schema["properties"]
        .as_object()
        .expect("a table")
        .keys()
        .collect();
    let mut sorted = KEYS;
    sorted.sort_unstable();
    assert_eq!(keys, sorted.iter().collect::<Vec<_>>());
    let pieces = &schema["properties"]["pieces_max"];
    assert_eq!(
        (&pieces["maximum"], &pieces["default"]),
        (&100.into(), &12.into())
    );
}

#[test]
fn a_key_of_the_table_is_compared() {
    let (old, _) = read("");
    let (new, _) = read("pieces_max = 3\nwheels_turn = false\ncarton = { lasts = \"1s\" }\n");
    let mut changes = Vec::new();
    old.diff(&new, "toy.", &mut changes);
    let changes: Vec<_> = changes
        .iter()
        .map(|it| {
            (
                it.key.as_str(),
                it.old.as_deref(),
                it.new.as_deref(),
                it.effect,
            )
        })
        .collect();
    assert_eq!(
        changes,
        [
            ("toy.pieces_max", Some("12"), Some("3"), Applies::Rebind),
            (
                "toy.carton.lasts",
                Some("\"1m\""),
                Some("\"1s\""),
                Applies::Live
            ),
            (
                "toy.wheels_turn",
                Some("true"),
                Some("false"),
                Applies::Restart
            ),
        ]
    );
    let mut none = Vec::new();
    new.diff(&new, "", &mut none);
    assert_eq!(none, []);
}

// The files that are made from the tables.

/// Compares a file with what it should be; with `THALWEG_RENEW=1` writes it instead.
#[track_caller]
fn fresh(path: &str, wanted: impl FnOnce(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let wanted = wanted(&text);
    if std::env::var_os("THALWEG_RENEW").is_some() {
        std::fs::write(&path, &wanted).expect("the file can be written");
        return;
    }
    let line = text
        .lines()
        .zip(wanted.lines())
        .find(|(is, should)| is != should);
    assert!(
        text == wanted,
        "{} is not what the tables of keys make; first: {line:#?}\n\
         renew it: THALWEG_RENEW=1 cargo test --lib config::tests::tables",
        path.display()
    );
}

#[test]
fn the_tables_of_the_documentation_are_fresh() {
    fresh("docs/configuration.md", |text| {
        let mut text = text.to_owned();
        for Described { name, rows } in sections() {
            let begin = format!("<!-- keys: {name} -->\n");
            let at = text.find(&begin).unwrap_or_else(|| panic!("no `{begin}`"));
            let at = at + begin.len();
            let end = text[at..].find("<!-- end -->").expect("the end of a table");
            text.replace_range(at..at + end, &markdown(&rows));
        }
        text
    });
}

#[test]
fn the_example_with_every_key_is_fresh_and_has_every_key() {
    let example = example();
    for Described { name, rows } in sections() {
        for row in rows {
            // `mode` and `connect` stand there as the header of their table, too.
            let written = [format!("{} = ", row.key), format!(".{}]", row.key)];
            let found = written.iter().any(|it| example.contains(it.as_str()));
            assert!(found, "`{}` of {name} is not in the example", row.key);
        }
    }
    let config = Config::parse(&example).unwrap_or_else(|errors| panic!("{errors}\n{example}"));
    assert_eq!(config.forwards.len(), 13);
    fresh("examples/thalweg.toml", |_| example);
}

// The schema.

/// What a value has against a schema of the parts that are used here.
fn faults(root: &Json, schema: &Json, value: &Json, path: &str, out: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.strip_prefix("#/$defs/").expect("a definition");
        let definition = &root["$defs"][name];
        assert!(definition.is_object(), "no definition of {name}");
        return faults(root, definition, value, path, out);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let fits = |schema: &Json| {
            let mut faults_of = Vec::new();
            faults(root, schema, value, path, &mut faults_of);
            faults_of.is_empty()
        };
        if !any.iter().any(fits) {
            out.push(format!("{path}: {value} is none of the alternatives"));
        }
        return;
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        out.push(format!("{path}: {value} is not one of {words:?}"));
    }
    let kind = match value {
        Json::String(_) => "string",
        Json::Bool(_) => "boolean",
        Json::Number(_) => "integer",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
        Json::Null => "null",
    };
    if let Some(wanted) = schema["type"].as_str()
        && wanted != kind
    {
        out.push(format!("{path}: {value} is not a {wanted}"));
    }
    if let (Some(least), Some(number)) = (schema["minimum"].as_i64(), value.as_i64())
        && number < least
    {
        out.push(format!("{path}: {number} is less than {least}"));
    }
    if let (Some(most), Some(number)) = (schema["maximum"].as_u64(), value.as_u64())
        && number > most
    {
        out.push(format!("{path}: {number} is more than {most}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        faults(
            root,
            &schema["items"],
            item,
            &format!("{path}[{index}]"),
            out,
        );
    }
    for (key, item) in value.as_object().into_iter().flatten() {
        let path = format!("{path}.{key}");
        match (&schema["properties"][key], &schema["additionalProperties"]) {
            (Json::Null, Json::Bool(false)) => out.push(format!("{path}: no such key")),
            (Json::Null, other) => faults(root, other, item, &path, out),
            (property, _) => faults(root, property, item, &path, out),
        }
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        let key = key.as_str().expect("a key");
        if value.get(key).is_none() {
            out.push(format!("{path}.{key}: missing"));
        }
    }
}

fn faults_of(toml: &str) -> Vec<String> {
    let document: toml_edit::DocumentMut = toml.parse().expect("TOML");
    let mut out = Vec::new();
    let schema = schema();
    faults(&schema, &schema, &json_of(document.as_item()), "", &mut out);
    out
}

fn json_of(item: &toml_edit::Item) -> Json {
    use toml_edit::{Item, Value};
    match item {
        Item::None => Json::Null,
        Item::Value(Value::String(text)) => text.value().as_str().into(),
        Item::Value(Value::Integer(number)) => (*number.value()).into(),
        Item::Value(Value::Boolean(truth)) => (*truth.value()).into(),
        Item::Value(Value::Array(items)) => items
            .iter()
            .map(|it| json_of(&Item::Value(it.clone())))
            .collect(),
        Item::ArrayOfTables(tables) => tables
            .iter()
            .map(|it| json_of(&Item::Table(it.clone())))
            .collect(),
        Item::Value(other) if !other.is_inline_table() => panic!("{other}"),
        table => {
            let table = table.as_table_like().expect("a table");
            let entries = table
                .iter()
                .map(|(key, item)| (key.to_owned(), json_of(item)));
            Json::Object(entries.collect())
        }
    }
}

#[test]
fn the_schema_takes_what_thalweg_takes_and_knows_every_key() {
    let pools = include_str!("../../../examples/pools.toml");
    let proxy = include_str!("../../../examples/http_connect.toml");
    let minimal = include_str!("../../../examples/minimal.toml");
    let example = example();
    let printed = Config::parse(&example).expect("valid").to_toml();
    for text in [&example, pools, proxy, minimal, &printed] {
        assert_eq!(faults_of(text), [""; 0], "{text}");
    }
    let schema = schema();
    for Described { name, rows } in sections() {
        for row in rows {
            let property = &schema["$defs"][name]["properties"][row.key];
            assert!(property["description"].is_string(), "{name}.{}", row.key);
        }
    }
}

#[test]
fn the_schema_refuses_what_is_wrong_by_itself() {
    for (text, fault) in [
        ("[global]\nreactor = 2\n", ".global.reactor: no such key"),
        ("[global]\nreactors = 0\n", ".global.reactors: 0 is none"),
        (
            "[log]\nlevel = \"loud\"\n",
            ".log.level: \"loud\" is not one of",
        ),
        (
            "[[forward]]\nupstream = \"a:1\"\n",
            ".forward[0].listen: missing",
        ),
        (
            "[upstream.a]\nwarm = 2000\nservers = \"a:1\"\n",
            "2000 is more than 1024",
        ),
    ] {
        let faults = faults_of(text);
        assert!(
            faults.iter().any(|it| it.contains(fault)),
            "{text}: {faults:?}"
        );
    }
}
