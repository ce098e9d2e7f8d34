//! Imports between the files of a room, and cycles of them.
//!
//! A file imports another when a path in it leads there; a name that is re-exported
//! counts as that of the file which has it, so that no cycle hides behind a facade. What
//! does not count:
//!
//! - from a file to the `mod.rs` above it: the parts of a directory may see what its
//!   `mod.rs` has, which is one idea with them;
//! - a re-export of what lies below: a facade uses nothing of it;
//! - what is compiled for tests only.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Source;
use super::paths::{items, mark, word};
use super::tokens::{Token, tokens};

/// A name is followed through so many re-exports.
const REEXPORTS_MAX: usize = 8;

/// A module's names from the crate's root down.
type Path = Vec<String>;

/// Files that import each other, all the way round.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cycle {
    /// The innermost directory with all of them.
    pub(super) directory: String,
    /// One of the ways round, an import a line.
    pub(super) way: String,
}

/// Every set of files that import each other.
pub(super) fn cycles(files: &[Source]) -> Vec<Cycle> {
    let graph = Graph::of(files);
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for file in graph.imports.keys() {
        if seen.contains(file) {
            continue;
        }
        let Some(way) = graph.way_round(file) else {
            continue;
        };
        let ahead = graph.reachable(file);
        let together = ahead
            .into_iter()
            .filter(|it| graph.reachable(it).contains(file));
        let together: BTreeSet<_> = together.collect();
        found.push(Cycle {
            directory: common_directory(&together),
            way: way.join("\n    "),
        });
        seen.extend(together);
    }
    found
}

/// Names of types that several files define, with those files. An alias counts, an
/// associated type does not.
pub(super) fn types_defined_twice<'a>(files: &[&'a Source]) -> BTreeMap<String, BTreeSet<&'a str>> {
    let mut found: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    let tests = test_modules(files.iter().copied());
    for file in files {
        if tests.iter().any(|test| file.module().starts_with(test)) {
            continue;
        }
        let (tokens, _) = without_tests(tokens(&file.text));
        let mut braces = 0;
        for at in 0..tokens.len() {
            let defines = match word(&tokens, at) {
                Some("struct" | "enum" | "union" | "trait") => true,
                Some("type") => braces == 0,
                _ => false,
            };
            if let Some(name) = word(&tokens, at + 1).filter(|_| defines) {
                found.entry(name.to_owned()).or_default().insert(&file.path);
            }
            match mark(&tokens, at) {
                Some('{') => braces += 1,
                Some('}') => braces -= 1,
                _ => {}
            }
        }
    }
    found.retain(|_, files| files.len() > 1);
    found
}

/// Which file imports which, within rooms.
struct Graph<'a> {
    /// For each file, those that it imports, with how.
    imports: BTreeMap<&'a str, BTreeMap<&'a str, String>>,
}

impl<'a> Graph<'a> {
    fn of(files: &'a [Source]) -> Self {
        let tests = test_modules(files.iter());
        let used = files.iter().filter(|file| {
            let module = file.module();
            file.room().is_some() && !tests.iter().any(|test| module.starts_with(test))
        });
        let used: Vec<&Source> = used.collect();
        let modules: BTreeMap<Path, &str> = used
            .iter()
            .map(|file| (file.module(), &*file.path))
            .collect();
        let known = |path: &[String]| modules.contains_key(path);
        let paths: Vec<(Path, Vec<Found>)> = used
            .iter()
            .map(|file| {
                let (tokens, _) = without_tests(tokens(&file.text));
                (file.module(), paths_of(&tokens, &file.module(), &known))
            })
            .collect();
        let names = names_of(&paths);

        let mut imports = BTreeMap::new();
        for (module, found) in &paths {
            let from = modules[module];
            let to: &mut BTreeMap<&str, String> = imports.entry(from).or_default();
            for it in found {
                let Some(target) = resolve(&it.path, &known, &names, REEXPORTS_MAX) else {
                    continue;
                };
                let above = module.starts_with(&target);
                let facade = it.public && target.starts_with(module);
                if above || facade || target[0] != module[0] {
                    continue;
                }
                let how = || format!("{from}:{} imports crate::{}", it.line, it.path.join("::"));
                to.entry(modules[&target]).or_insert_with(how);
            }
        }
        Self { imports }
    }

    /// The shortest way from a file to itself.
    fn way_round(&self, file: &'a str) -> Option<Vec<&str>> {
        let mut came: BTreeMap<&str, &str> = BTreeMap::new();
        let mut open = VecDeque::from([file]);
        while let Some(next) = open.pop_front() {
            for to in self.imports[next].keys() {
                if *to == file {
                    let mut way = vec![self.imports[next][to].as_str()];
                    let mut at = next;
                    while at != file {
                        way.push(&self.imports[came[at]][at]);
                        at = came[at];
                    }
                    way.reverse();
                    return Some(way);
                }
                if !came.contains_key(to) {
                    came.insert(to, next);
                    open.push_back(to);
                }
            }
        }
        None
    }

    fn reachable(&self, file: &str) -> BTreeSet<&'a str> {
        let mut seen = BTreeSet::new();
        let mut open: Vec<&str> = self.imports[file].keys().copied().collect();
        while let Some(next) = open.pop() {
            if seen.insert(next) {
                open.extend(self.imports[next].keys());
            }
        }
        seen
    }
}

/// A path to somewhere in the crate.
#[derive(Debug)]
struct Found {
    line: usize,
    /// From the crate's root.
    path: Path,
    /// Under which name a `use` makes it known.
    name: Option<String>,
    /// It is a `pub use` of any kind.
    public: bool,
}

/// What each module's `use` declarations make known in it.
fn names_of(paths: &[(Path, Vec<Found>)]) -> BTreeMap<Path, BTreeMap<&str, &Path>> {
    let mut names: BTreeMap<Path, BTreeMap<&str, &Path>> = BTreeMap::new();
    for (module, found) in paths {
        let here = names.entry(module.clone()).or_default();
        let known_here = found
            .iter()
            .filter_map(|it| Some((it.name.as_deref()?, &it.path)));
        here.extend(known_here);
    }
    names
}

/// The module that has what a path names.
fn resolve(
    path: &[String],
    known: &impl Fn(&[String]) -> bool,
    names: &BTreeMap<Path, BTreeMap<&str, &Path>>,
    reexports: usize,
) -> Option<Path> {
    let length = (1..=path.len())
        .rev()
        .find(|length| known(&path[..*length]))?;
    let (module, rest) = path.split_at(length);
    if let (Some(next), 1..) = (rest.first(), reexports)
        && let Some(elsewhere) = names.get(module).and_then(|names| names.get(&**next))
    {
        let on = [elsewhere, &rest[1..]].concat();
        return resolve(&on, known, names, reexports - 1);
    }
    Some(module.to_vec())
}

/// Every path of a file that leads to a module of the crate.
fn paths_of(
    tokens: &[(usize, Token)],
    module: &[String],
    known: &impl Fn(&[String]) -> bool,
) -> Vec<Found> {
    let mut found = Vec::new();
    // Modules written out inside the file, each with the depth of its braces.
    let mut here = module.to_vec();
    let mut inside: Vec<usize> = Vec::new();
    let mut braces = 0;
    let mut used = 0;
    for at in 0..tokens.len() {
        match word(tokens, at) {
            Some("mod") if mark(tokens, at + 2) == Some('{') => {
                inside.push(braces);
                here.extend(word(tokens, at + 1).map(str::to_owned));
            }
            Some("use") if mark(tokens, at + 1) != Some('<') => {
                let before = at.checked_sub(1);
                let public = before.is_some_and(|at| {
                    word(tokens, at) == Some("pub") || mark(tokens, at) == Some(')')
                });
                let mut leaves = Vec::new();
                used = tree(tokens, at + 1, &[], &mut leaves);
                for (line, names, name) in leaves {
                    if let Some(path) = absolute(&here, &names, known) {
                        let name = Some(name);
                        found.push(Found {
                            line,
                            path,
                            name,
                            public,
                        });
                    }
                }
            }
            Some(_) if at >= used && begins_path(tokens, at) => {
                let mut names = Vec::new();
                let mut next = at;
                while let Some(name) = word(tokens, next) {
                    names.push(name.to_owned());
                    if tokens.get(next + 1).map(|(_, token)| token) != Some(&Token::Separator) {
                        break;
                    }
                    next += 2;
                }
                if let Some(path) = absolute(&here, &names, known) {
                    let line = tokens[at].0;
                    found.push(Found {
                        line,
                        path,
                        name: None,
                        public: false,
                    });
                }
            }
            _ => {}
        }
        match mark(tokens, at) {
            Some('{') => braces += 1,
            Some('}') => {
                braces -= 1;
                if inside.pop_if(|depth| *depth == braces).is_some() {
                    here.pop();
                }
            }
            _ => {}
        }
    }
    found
}

fn begins_path(tokens: &[(usize, Token)], at: usize) -> bool {
    let separator = |at: usize| matches!(tokens.get(at), Some((_, Token::Separator)));
    separator(at + 1) && !(at > 0 && separator(at - 1))
}

/// Follows the tree of a `use` from `at`. Each of its leaves is a line, the names that lead
/// there, and the name it gets. Returns where the tree ends.
fn tree(
    tokens: &[(usize, Token)],
    at: usize,
    above: &[String],
    leaves: &mut Vec<(usize, Path, String)>,
) -> usize {
    let mut names = above.to_vec();
    let mut at = at;
    loop {
        if mark(tokens, at) == Some('{') {
            let begins: Vec<usize> = items(tokens, at).collect();
            let mut end = at + 1;
            for item in begins {
                end = tree(tokens, item, &names, leaves);
            }
            while end < tokens.len() && mark(tokens, end) != Some('}') {
                end += 1;
            }
            return end + 1;
        }
        let Some(name) = word(tokens, at) else {
            // A glob takes everything; it gives no name.
            leaves.push((tokens.get(at).map_or(0, |it| it.0), names, String::new()));
            return at + 1;
        };
        if name != "self" || names.is_empty() {
            names.push(name.to_owned());
        }
        match tokens.get(at + 1) {
            Some((_, Token::Separator)) => at += 2,
            Some((line, Token::Word(word_as))) if word_as == "as" => {
                let alias = word(tokens, at + 2).unwrap_or("_").to_owned();
                leaves.push((*line, names, alias));
                return at + 3;
            }
            _ => {
                let name = names.last().cloned().unwrap_or_default();
                leaves.push((tokens[at].0, names, name));
                return at + 1;
            }
        }
    }
}

/// A path from the crate's root; `None` for one that leads elsewhere.
fn absolute(here: &[String], names: &[String], known: &impl Fn(&[String]) -> bool) -> Option<Path> {
    let mut from = here.to_vec();
    let mut names = names.iter().peekable();
    match names.peek()?.as_str() {
        "crate" => {
            from.clear();
            names.next();
        }
        "self" | "super" => {
            while let Some(step) = names.next_if(|name| matches!(name.as_str(), "self" | "super")) {
                if step == "super" {
                    from.pop();
                }
            }
        }
        // A module that this one declares.
        child => {
            from.push(child.to_owned());
            if !known(&from) {
                return None;
            }
            from.pop();
        }
    }
    from.extend(names.cloned());
    (!from.is_empty()).then_some(from)
}

/// Modules of files that are compiled for tests only.
fn test_modules<'a>(files: impl Iterator<Item = &'a Source>) -> Vec<Path> {
    let mut found = Vec::new();
    for file in files {
        let (_, names) = without_tests(tokens(&file.text));
        found.extend(names.into_iter().map(|name| {
            let mut module = file.module();
            module.push(name);
            module
        }));
    }
    found
}

/// The tokens without modules below `#[cfg(test)]`, and the names of those that are files.
fn without_tests(tokens: Vec<(usize, Token)>) -> (Vec<(usize, Token)>, Vec<String>) {
    let (mut kept, mut names) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < tokens.len() {
        if let Some((begin, name)) = test_module_at(&tokens, at) {
            if mark(&tokens, begin) == Some(';') {
                names.push(name.to_owned());
            }
            at = behind_braces(&tokens, begin);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    (kept, names)
}

/// Whether `#[cfg(test)] … mod name` is at `at`: what is behind the name, and the name.
fn test_module_at(tokens: &[(usize, Token)], at: usize) -> Option<(usize, &str)> {
    let is_test = mark(tokens, at) == Some('#')
        && word(tokens, at + 2) == Some("cfg")
        && word(tokens, at + 4) == Some("test")
        && mark(tokens, at + 5) == Some(')');
    if !is_test {
        return None;
    }
    let mut next = at;
    // Further attributes, and how visible it is.
    while !matches!(mark(tokens, next), Some(';' | '{')) {
        if word(tokens, next) == Some("mod") {
            return Some((next + 2, word(tokens, next + 1)?));
        }
        if matches!(word(tokens, next), Some("fn" | "use" | "struct" | "impl")) {
            return None;
        }
        next += 1;
        tokens.get(next)?;
    }
    None
}

/// The first token behind the `;` or the block at `at`.
fn behind_braces(tokens: &[(usize, Token)], at: usize) -> usize {
    let mut depth = 0;
    for next in at..tokens.len() {
        match mark(tokens, next) {
            Some('{') => depth += 1,
            Some('}') => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return next + 1;
        }
    }
    tokens.len()
}

fn common_directory(files: &BTreeSet<&str>) -> String {
    let mut files = files.iter();
    let mut common: Vec<&str> = files.next().map_or(vec![], |it| it.split('/').collect());
    common.pop();
    for file in files {
        let same = common
            .iter()
            .zip(file.split('/'))
            .take_while(|(a, b)| **a == *b);
        common.truncate(same.count());
    }
    common.join("/")
}
