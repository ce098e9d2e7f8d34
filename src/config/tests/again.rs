//! A configuration that is read again in part is the one that is read as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;

use crate::config::*;

/// Files beside the main one, and a variable.
struct Beside<'a>(&'a [String]);

impl Surroundings for Beside<'_> {
    fn include(&self, _: &str, pattern: &str) -> Result<Vec<FileText>, String> {
        let files = self.0.iter().enumerate().map(|(at, text)| FileText {
            name: format!("{pattern}/{at}"),
            bytes: text.as_bytes().to_vec(),
        });
        Ok(files.collect())
    }

    fn variable(&self, name: &str) -> Option<String> {
        (name == "SERVER").then(|| "10.9.9.9:9".to_owned())
    }
}

/// A main file, and those that it includes.
type Texts = (String, Vec<String>);

fn inputs(text: &str, overrides: &[(&str, &str)]) -> Inputs {
    let overrides = overrides.iter().map(|(key, text)| Override {
        flag: "--set".to_owned(),
        key: Some((*key).to_owned()),
        text: (*text).to_owned(),
    });
    Inputs {
        file: Some(FileText {
            name: "main.toml".to_owned(),
            bytes: text.as_bytes().to_vec(),
        }),
        overrides: overrides.collect(),
        ..Inputs::default()
    }
}

fn again(texts: &Texts, before: Option<&Config>) -> Result<Config, ConfigErrors> {
    Config::load_again(&inputs(&texts.0, &[]), &Beside(&texts.1), before)
}

fn whole(texts: &Texts) -> Result<Config, ConfigErrors> {
    Config::load_in(&inputs(&texts.0, &[]), &Beside(&texts.1))
}

/// Which forwards have the same pool.
fn sharing(config: &Config) -> Vec<usize> {
    let mut seen = HashMap::new();
    let pools = config.forwards.iter().flat_map(|it| it.pools());
    pools
        .map(|pool| {
            let next = seen.len();
            *seen.entry(Arc::as_ptr(pool)).or_insert(next)
        })
        .collect()
}

const MAIN: &str = r#"include = "more"
# The rest.
[global]
reactors = 2
[profile.wan]
mss = 1400
[defaults]
idle_timeout = "5m"
[upstream.web]
servers = ["10.0.0.1:80", { address = "10.0.0.2:80", weight = 2 }]
[upstream.web.check]
type = "tcp"
[upstream.idle]
servers = "10.0.0.9:1"
[[forward]]
name = "a"
listen = ":8001"
upstream = "web"
client_profile = "wan"

# The next one.
[[forward]]
name = "b"
listen = [
  "127.0.0.1:8002", # with a comment ]
]
[forward.upstream]
servers = ["10.0.1.1:80", "10.0.1.2:80"]
name = "own"
[[forward.route]]
sni = "a.example"
upstream = "web"
[admin]
listen = "127.0.0.1:9900"
"#;

const MORE: [&str; 2] = [
    "[[forward]]\nlisten = \"127.0.0.1:0\"\nupstream = \"${SERVER}\"\n\
     [[forward]]\nlisten = \"127.0.0.1:8004\"\nupstream = 'web'\n",
    "[[forward]]\nname = \"range\"\nlisten = \":9000-9003\"\nupstream = \"10.0.0.4:7000-7003\"\n\
     [[forward]]\nname = \"d\"\nlisten = \":8005\"\nupstream = \"\\u0077eb\"\n\
     tap = { format = \"hex\", to = \"./tap\" }\n",
];

fn texts() -> Texts {
    (MAIN.to_owned(), MORE.map(str::to_owned).to_vec())
}

/// A word, and what stands there instead.
const WORDS: [(&str, &str); 24] = [
    ("10.0.1.1:80", "10.0.1.7:80"),
    ("weight = 2", "weight = 3"),
    ("weight", "wieght"),
    (":8001", ":8002"),
    (":8001", ":9001"),
    ("127.0.0.1:8004", "127.0.0.1:0"),
    ("127.0.0.1:0", "127.0.0.1:8005"),
    ("\"a\"", "\"b\""),
    ("\"own\"", "\"web\""),
    ("\"web\"", "\"idle\""),
    ("[upstream.idle]", "[upstream.own]"),
    ("[upstream.idle]", "[upstream.'10.0.0.3']"),
    ("[[forward]]", "[forward]"),
    ("[forward.upstream]", "[upstream.b]"),
    ("type = \"tcp\"", "type = \"tcp\"\ninterval = \"9s\""),
    ("idle_timeout = \"5m\"", "idle_timeout = \"6m\""),
    ("reactors = 2", "reactors = 0"),
    ("127.0.0.1:9900", "127.0.0.1:8001"),
    ("${SERVER}", "${NOBODY}"),
    ("./tap\" }", "./tap\", rotate = { size = \"1MiB\" } }"),
    (":9000-9003", ":9000-9001"),
    ("7000-7003", "7001-7004"),
    ("\n", "\r\n"),
    ("]", "]\n'''"),
];

/// What is done to one of the files.
#[derive(Debug, Clone)]
enum Edit {
    Word((&'static str, &'static str)),
    /// Some lines go to another place, or are there twice.
    Lines {
        from: usize,
        count: usize,
        to: usize,
        stay: bool,
    },
    Remove {
        from: usize,
        count: usize,
    },
    Insert(usize, &'static str),
}

const SNIPPETS: [&str; 12] = [
    "\"",
    "[",
    "]",
    "#",
    "'''\n",
    "\"\"\"",
    "\n[[forward]]\nname = \"new\"\nlisten = \":7001\"\nupstream = \"web\"\n",
    "\n[[forward]]\nlisten = \"127.0.0.1:0\"\nupstream = \"web\"\n",
    "\n[[forward]]\nlisten = \":7002\"\nupstream = \"${SERVER}\"\ntap = { format = \"text\", to = \"./tap\" }\n",
    "\n[upstream.new]\nservers = \"10.0.0.8:8\"\n",
    "\n[defaults.upstream]\nmax_fails = 3\n",
    "\\",
];

impl Edit {
    fn of(&self, text: &str) -> String {
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let some = |from: usize, count: usize| {
            let from = from % (lines.len() + 1);
            from..(from + count).min(lines.len())
        };
        match self {
            Self::Word((old, new)) => text.replacen(old, new, 1),
            Self::Remove { from, count } => {
                let range = some(*from, *count);
                [&lines[..range.start], &lines[range.end..]]
                    .concat()
                    .concat()
            }
            Self::Lines {
                from,
                count,
                to,
                stay,
            } => {
                let range = some(*from, *count);
                let taken = lines[range.clone()].concat();
                let mut left = lines.clone();
                if !stay {
                    left.drain(range);
                }
                left.insert(to % (left.len() + 1), &taken);
                left.concat()
            }
            Self::Insert(at, snippet) => {
                let mut at = at % (text.len() + 1);
                while !text.is_char_boundary(at) {
                    at -= 1;
                }
                format!("{}{snippet}{}", &text[..at], &text[at..])
            }
        }
    }
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let lines = (any::<usize>(), 1_usize..8, any::<usize>(), any::<bool>());
    prop_oneof![
        4 => select(WORDS.to_vec()).prop_map(Edit::Word),
        2 => lines.prop_map(|(from, count, to, stay)| Edit::Lines { from, count, to, stay }),
        1 => (any::<usize>(), 1_usize..8).prop_map(|(from, count)| Edit::Remove { from, count }),
        2 => (any::<usize>(), select(SNIPPETS.to_vec())).prop_map(|(at, it)| Edit::Insert(at, it)),
    ]
}

proptest! {
    /// One edit after the other: what is accepted is where the next one begins.
    #[test]
    fn b119_what_is_read_again_in_part_is_what_is_read_as_a_whole(
        edits in proptest::collection::vec((0_usize..3, any_edit()), 1..12),
    ) {
        let mut before = again(&texts(), None).expect("a configuration");
        let mut accepted = texts();
        for (file, edit) in edits {
            let mut texts = accepted.clone();
            match file {
                0 => texts.0 = edit.of(&texts.0),
                at => texts.1[at - 1] = edit.of(&texts.1[at - 1]),
            }
            let (part, whole) = (again(&texts, Some(&before)), whole(&texts));
            prop_assert_eq!(&part, &whole, "{:?}", edit);
            if let (Ok(part), Ok(whole)) = (part, whole) {
                prop_assert_eq!(sharing(&part), sharing(&whole), "{:?}", edit);
                before = part;
                accepted = texts;
            }
        }
    }
}

/// What is the very same after a word of `file` is another one: the forwards by their names.
fn kept(file: usize, old: &str, new: &str) -> Vec<String> {
    let before = again(&texts(), None).expect("a configuration");
    let mut texts = texts();
    let text = match file {
        0 => &mut texts.0,
        at => &mut texts.1[at - 1],
    };
    assert!(text.contains(old), "{old}");
    *text = text.replacen(old, new, 1);
    let config = again(&texts, Some(&before)).expect("a configuration");
    assert_eq!(config, whole(&texts).expect("a configuration"));
    let is_kept = |it: &&Arc<Forward>| before.forwards.iter().any(|old| Arc::ptr_eq(old, it));
    let kept = config.forwards.iter().filter(is_kept);
    kept.map(|it| it.name.clone()).collect()
}

#[test]
fn b119_only_what_differs_is_read_again() {
    let range = ["range:9000", "range:9001", "range:9002", "range:9003"];
    let all = [
        &["a", "b", "127.0.0.1:0", "127.0.0.1:8004"],
        &range[..],
        &["d"],
    ]
    .concat();
    assert_eq!(kept(0, "# The rest.", "# The rest."), all);
    let without = |gone: &[&str]| -> Vec<&str> {
        let all = all.iter().copied();
        all.filter(|it| !gone.contains(it)).collect()
    };
    assert_eq!(kept(0, "10.0.1.1:80", "10.0.1.9:80"), without(&["b"]));
    assert_eq!(kept(2, "7000-7003", "7001-7004"), without(&range));
    // Nobody has it.
    assert_eq!(kept(0, "10.0.0.9:1", "10.0.0.9:2"), [""; 0]);
    // Too many have it: all is read.
    assert_eq!(kept(0, "weight = 2", "weight = 3"), [""; 0]);
    // It may matter to each.
    assert_eq!(kept(0, "\"5m\"", "\"6m\""), [""; 0]);
}

#[test]
fn what_the_command_line_says_of_forwards_is_read_as_a_whole() {
    let texts = texts();
    let load = |overrides: &[(&str, &str)], before: Option<&Config>| {
        let inputs = inputs(&texts.0, overrides);
        Config::load_again(&inputs, &Beside(&texts.1), before).expect("a configuration")
    };
    let kept = |overrides: &[(&str, &str)]| {
        let before = load(overrides, None);
        let config = load(overrides, Some(&before));
        Arc::ptr_eq(&config.forwards[0], &before.forwards[0])
    };
    assert!(kept(&[("log.sessions", "off")]));
    assert!(!kept(&[("forward.a.idle_timeout", "9s")]));
    assert!(!kept(&[("upstream.web.max_fails", "9")]));
    let before = load(&[("defaults.idle_timeout", "9s")], None);
    let config = load(&[("defaults.idle_timeout", "8s")], Some(&before));
    assert_eq!(config.forwards[0].timeouts.idle.as_secs(), 8);
}
