//! Paths in a token stream: what each reaches at the root of the crate.

use super::tokens::Token;

/// A path that leads to the crate's root and on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reference {
    /// The line its first step beyond the root is on.
    pub(crate) line: usize,
    /// The name it goes on with; `*` or `self` when it takes the root itself.
    pub(crate) name: String,
}

/// Every such path of a file that is the module `module`.
pub(crate) fn references(tokens: &[(usize, Token)], module: &[String]) -> Vec<Reference> {
    let mut found = Vec::new();
    // Modules written out inside the file, each with the depth of its braces.
    let mut inside: Vec<usize> = Vec::new();
    let mut braces = 0;
    for at in 0..tokens.len() {
        match word(tokens, at) {
            Some("mod") if mark(tokens, at + 2) == Some('{') => inside.push(braces),
            Some("extern") if word(tokens, at + 2) == Some("self") => {
                found.push(root_taken(tokens, at));
            }
            Some("crate" | "self" | "super") if !follows_separator(tokens, at) => {
                let depth = module.len() + inside.len();
                walk(tokens, at, depth, &mut found);
            }
            _ => {}
        }
        match mark(tokens, at) {
            Some('{') => braces += 1,
            Some('}') => {
                braces -= 1;
                inside.pop_if(|depth| *depth == braces);
            }
            _ => {}
        }
    }
    found
}

/// The first names of the path or group that begins at `at`.
pub(crate) fn members(tokens: &[(usize, Token)], at: usize) -> Vec<(usize, &str)> {
    if let Some(name) = word(tokens, at) {
        return vec![(tokens[at].0, name)];
    }
    items(tokens, at)
        .filter_map(|at| Some((tokens[at].0, word(tokens, at)?)))
        .collect()
}

/// Whether the attribute that the token at `at` is part of stands before a `mod`.
pub(crate) fn gates_a_module(tokens: &[(usize, Token)], at: usize) -> bool {
    let mut next = at;
    loop {
        // To the end of this attribute; what it is on may have more of them.
        let mut depth = 1;
        while depth > 0 && next < tokens.len() {
            match mark(tokens, next) {
                Some('[') => depth += 1,
                Some(']') => depth -= 1,
                // Not an attribute: a `cfg!` in the middle of code.
                Some(';' | '{') => return false,
                _ => {}
            }
            next += 1;
        }
        if mark(tokens, next) != Some('#') {
            break;
        }
        next += 2;
    }
    if word(tokens, next) == Some("pub") {
        next += 1;
        if mark(tokens, next) == Some('(') {
            while next < tokens.len() && mark(tokens, next) != Some(')') {
                next += 1;
            }
            next += 1;
        }
    }
    word(tokens, next) == Some("mod")
}

/// Follows a path from `at`, in a module `depth` levels below the root.
fn walk(tokens: &[(usize, Token)], at: usize, depth: usize, found: &mut Vec<Reference>) {
    let depth = match word(tokens, at) {
        Some("crate") => 0,
        Some("super") => depth.saturating_sub(1),
        Some("self") if depth > 0 => depth,
        Some(name) if depth == 0 => {
            found.push(Reference {
                line: tokens[at].0,
                name: name.to_owned(),
            });
            return;
        }
        None if depth == 0 && mark(tokens, at) == Some('*') => {
            found.push(root_taken(tokens, at));
            return;
        }
        // A name inside the room.
        _ => return,
    };
    match tokens.get(at + 1).map(|(_, token)| token) {
        Some(Token::Separator) if mark(tokens, at + 2) == Some('{') => {
            for item in items(tokens, at + 2) {
                walk(tokens, item, depth, found);
            }
        }
        Some(Token::Separator) => walk(tokens, at + 2, depth, found),
        Some(Token::Word(word)) if word == "as" && depth == 0 => {
            found.push(root_taken(tokens, at));
        }
        _ => {}
    }
}

fn root_taken(tokens: &[(usize, Token)], at: usize) -> Reference {
    Reference {
        line: tokens[at].0,
        name: "*".to_owned(),
    }
}

/// Where each item of the group that opens at `at` begins.
pub(crate) fn items(tokens: &[(usize, Token)], at: usize) -> impl Iterator<Item = usize> + '_ {
    let mut depth = 0;
    let mut fresh = false;
    (at..tokens.len())
        .map_while(move |at| {
            let begins = std::mem::take(&mut fresh) && depth == 1;
            match mark(tokens, at) {
                Some('{') => depth += 1,
                Some('}') => depth -= 1,
                _ => {}
            }
            fresh = matches!(mark(tokens, at), Some('{' | ','));
            (depth > 0).then_some((at, begins))
        })
        .filter_map(|(at, begins)| begins.then_some(at))
}

fn follows_separator(tokens: &[(usize, Token)], at: usize) -> bool {
    at > 0 && tokens[at - 1].1 == Token::Separator
}

pub(crate) fn word(tokens: &[(usize, Token)], at: usize) -> Option<&str> {
    match tokens.get(at) {
        Some((_, Token::Word(word))) => Some(word),
        _ => None,
    }
}

pub(crate) fn mark(tokens: &[(usize, Token)], at: usize) -> Option<char> {
    match tokens.get(at) {
        Some((_, Token::Mark(mark))) => Some(*mark),
        _ => None,
    }
}
