//! A configuration read again: of a text of which little differs from the one before, only
//! that little is parsed and checked.
//!
//! ```text
//!   text ─► pieces ──┬── as before ────────────► the forwards that it gave before
//!                    └── another, or names a ──► a small text ─► load ─► forwards
//!                        pool that is another     with all that is no forward
//! ```
//! It never says what is wrong. Whatever is unusual, does not fit, or could be an error makes
//! it give up, and the whole text is read instead: errors and their places are those of
//! [`load`] alone. Invariant: where it does not give up the result is that of [`load`], which
//! properties of random edits check (`tests/again.rs`).
//!
//! What a `[[forward]]` means hangs on its own text, on the rest (`[defaults]`, `[profile]`),
//! on the pools it names, on variables, and on the other forwards in that names and
//! addresses are unique. The first four must be as they were; the last is looked at anew.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::alike::middle;
use super::forward::Forward;
use super::inputs::{FileText, Inputs, Override};
use super::load::load;
use super::model::Config;
use super::pool::Pool;
use super::raw::{ChunkKind, chunks};
use super::remembered::{File, Include, Recollection, Text};
use super::report::ConfigErrors;
use super::surroundings::Surroundings;
use super::whole::{is_as_whole, is_whole};

impl Config {
    /// As [`Self::load_in`], with a memory of what it was read from; with that of `before`
    /// what has not changed since is not read again.
    pub fn load_again(
        inputs: &Inputs,
        around: &dyn Surroundings,
        before: Option<&Self>,
    ) -> Result<Self, ConfigErrors> {
        let heard = Overheard::new(around);
        if let Some(config) = before.and_then(|it| in_part(inputs, &heard, it)) {
            return Ok(config);
        }
        let (mut config, made) = load(inputs, &heard)?;
        config.remembered = Recollection(heard.into_text(inputs, made).map(Arc::new));
        Ok(config)
    }
}

/// What was asked of the surroundings. Nothing is asked twice, so that who gives up and who
/// begins again see the same files.
struct Overheard<'a> {
    around: &'a dyn Surroundings,
    includes: RefCell<Vec<Inclusion>>,
    variables: RefCell<BTreeMap<String, Option<String>>>,
}

struct Inclusion {
    from: String,
    pattern: String,
    files: Result<Vec<FileText>, String>,
}

impl<'a> Overheard<'a> {
    fn new(around: &'a dyn Surroundings) -> Self {
        Self {
            around,
            includes: RefCell::default(),
            variables: RefCell::default(),
        }
    }

    /// What an accepted configuration is remembered by, if its pieces are known.
    fn into_text(self, inputs: &Inputs, made: Vec<usize>) -> Option<Text> {
        if !inputs.pairs.is_empty() || !inputs.overrides.iter().all(spares_forwards) {
            return None;
        }
        let answers = self.includes.into_inner();
        let mut files = Vec::new();
        add_file(inputs.file.as_ref()?, &answers, &mut files)?;
        let pieces = files.iter().flat_map(|it| &it.chunks);
        let forwards = pieces.filter(|it| it.what == ChunkKind::Forward).count();
        // Else some are written in another way.
        (forwards == made.len()).then_some(())?;
        let includes = answers.into_iter().filter_map(|it| {
            let names = it.files.ok()?.into_iter().map(|it| it.name);
            Some(Include {
                from: it.from,
                pattern: it.pattern,
                names: names.collect(),
            })
        });
        Some(Text {
            overrides: inputs.overrides.clone(),
            variables: self.variables.into_inner(),
            includes: includes.collect(),
            files,
            made,
        })
    }
}

impl Surroundings for Overheard<'_> {
    fn include(&self, from: &str, pattern: &str) -> Result<Vec<FileText>, String> {
        let mut includes = self.includes.borrow_mut();
        let known = |it: &&Inclusion| it.from == from && it.pattern == pattern;
        if let Some(known) = includes.iter().find(known) {
            return known.files.clone();
        }
        let files = self.around.include(from, pattern);
        includes.push(Inclusion {
            from: from.to_owned(),
            pattern: pattern.to_owned(),
            files: files.clone(),
        });
        files
    }

    fn variable(&self, name: &str) -> Option<String> {
        let mut variables = self.variables.borrow_mut();
        let known = variables.entry(name.to_owned());
        known.or_insert_with(|| self.around.variable(name)).clone()
    }
}

/// Whether it changes neither a forward nor a pool.
fn spares_forwards(change: &Override) -> bool {
    let key = change.key.as_ref().unwrap_or(&change.text);
    ["global.", "log.", "admin.", "metrics.", "defaults."]
        .iter()
        .any(|section| key.starts_with(section))
}

/// A file and, after it, those that it includes: the order in which they were read.
fn add_file(file: &FileText, answers: &[Inclusion], files: &mut Vec<Arc<File>>) -> Option<()> {
    files.push(Arc::new(in_pieces(file)?));
    for answer in answers.iter().filter(|it| it.from == file.name) {
        for file in answer.files.as_ref().ok()? {
            add_file(file, answers, files)?;
        }
    }
    Some(())
}

fn in_pieces(file: &FileText) -> Option<File> {
    let text = std::str::from_utf8(&file.bytes).ok()?;
    Some(File {
        name: file.name.clone(),
        text: text.to_owned(),
        chunks: chunks(text)?,
    })
}

/// The configuration, if little of its text is another than that of `before`.
fn in_part(inputs: &Inputs, heard: &Overheard<'_>, before: &Config) -> Option<Config> {
    let old = before.remembered.0.as_deref()?;
    let is_same = |(name, value): (&String, &Option<String>)| heard.variable(name) == *value;
    let same_world = inputs.pairs.is_empty()
        && inputs.overrides == old.overrides
        && old.variables.iter().all(is_same);
    same_world.then_some(())?;
    let files = files_again(inputs, heard, old)?;
    let pools = ChangedPools::between(&old.files, &files)?;
    let forwards = ForwardPieces::match_up(&files, before, old, &pools);
    let (config, made) = match forwards.again() {
        // Nothing that a forward has: is it the same altogether?
        0 if pools.0.is_empty() => (before.clone(), Vec::new()),
        // It does not pay, or there would be nothing to forward.
        0 => return None,
        again if again > forwards.0.len().div_ceil(2) => return None,
        _ => {
            let small = SmallText::of(&files, &forwards, &pools);
            let around = SmallWorld {
                heard,
                texts: &small.0,
            };
            let file = inputs.file.as_ref()?;
            let inputs = Inputs {
                file: Some(around.instead_of(file.clone())),
                ..inputs.clone()
            };
            load(&inputs, &around).ok()?
        }
    };
    let (mut config, made) = forwards.merge(config, &made, before)?;
    (is_as_whole(&config, before) || is_whole(&config)).then_some(())?;
    let names = |it: &Include| Include {
        from: it.from.clone(),
        pattern: it.pattern.clone(),
        names: it.names.clone(),
    };
    config.remembered = Recollection(Some(Arc::new(Text {
        overrides: old.overrides.clone(),
        variables: heard.variables.borrow().clone(),
        includes: old.includes.iter().map(names).collect(),
        files,
        made,
    })));
    Some(config)
}

/// All files as they are now, if the rest of each is as it was, so that they are the very
/// same ones. Nothing is read that the text does not include any more.
fn files_again(inputs: &Inputs, heard: &Overheard<'_>, old: &Text) -> Option<Vec<Arc<File>>> {
    let known: HashMap<&str, &Arc<File>> = old.files.iter().map(|it| (&*it.name, it)).collect();
    let rest = |file: &File| -> String {
        let pieces = file.pieces();
        let rest = pieces.filter(|(_, it)| it.what == ChunkKind::Rest);
        rest.map(|(text, _)| text).collect()
    };
    let again = |file: &FileText| {
        let known = known.get(&*file.name)?;
        if known.text.as_bytes() == file.bytes {
            return Some((*known).clone());
        }
        let new = in_pieces(file)?;
        (rest(known) == rest(&new)).then(|| Arc::new(new))
    };
    let main = again(inputs.file.as_ref()?)?;
    let mut new = HashMap::from([(main.name.clone(), main)]);
    for include in &old.includes {
        let files = heard.include(&include.from, &include.pattern).ok()?;
        let names = files.iter().map(|it| &it.name);
        names.eq(&include.names).then_some(())?;
        for file in &files {
            new.insert(file.name.clone(), again(file)?);
        }
    }
    old.files.iter().map(|it| new.remove(&it.name)).collect()
}

/// The names of pools that are new, gone, or written in another way.
struct ChangedPools(HashSet<String>);

impl ChangedPools {
    fn between(old: &[Arc<File>], new: &[Arc<File>]) -> Option<Self> {
        if is_same_text(old, new) {
            return Some(Self(HashSet::new()));
        }
        let (old, new) = (pools_of(old)?, pools_of(new)?);
        let names = old.keys().chain(new.keys());
        let changed = names.filter(|name| old.get(*name) != new.get(*name));
        Some(Self(changed.map(|it| (*it).to_owned()).collect()))
    }

    /// Whether a forward has one, or one of its own that is called so.
    fn concern(&self, forward: &Forward) -> bool {
        let named = |pool: &Arc<Pool>| pool.name.as_ref().is_some_and(|it| self.0.contains(it));
        !self.0.is_empty() && forward.pools().any(named)
    }
}

/// Pools by name; one that is in two pieces is unusual.
fn pools_of(files: &[Arc<File>]) -> Option<HashMap<&str, &str>> {
    let mut pools = HashMap::new();
    for (text, chunk) in files.iter().flat_map(|it| it.pieces()) {
        if let ChunkKind::Pool(name) = &chunk.what
            && pools.insert(name.as_str(), text).is_some()
        {
            return None;
        }
    }
    Some(pools)
}

/// Each `[[forward]]`, and which of the forwards before it gave; `None`: it is read again.
struct ForwardPieces(Vec<Option<std::ops::Range<usize>>>);

impl ForwardPieces {
    fn match_up(new: &[Arc<File>], before: &Config, old: &Text, pools: &ChangedPools) -> Self {
        let mut end = 0;
        let made = old.made.iter().map(|count| {
            let begin = end;
            end += count;
            let forwards = before.forwards.get(begin..end).unwrap_or_default();
            let stays = !forwards.is_empty() && !forwards.iter().any(|it| pools.concern(it));
            stays.then_some(begin..end)
        });
        let made: Vec<_> = made.collect();
        if is_same_text(&old.files, new) {
            return Self(made);
        }
        // Most stand where they stood, before or after the one that is another.
        let old: Vec<&str> = forwards_of(&old.files).collect();
        let new: Vec<&str> = forwards_of(new).collect();
        let (old_middle, new_middle) = middle(&old, &new, PartialEq::eq);
        let after = made.get(old_middle.end..).unwrap_or_default().iter();
        let between = old_middle.clone();
        let between = between.filter_map(|at| Some((old[at], made.get(at)?.clone()?)));
        let mut known: HashMap<&str, std::ops::Range<usize>> = between.collect();
        let begin = made.get(..old_middle.start).unwrap_or_default().iter();
        // Each of them once: another one like it is another forward.
        let between = new[new_middle].iter().map(|text| known.remove(text));
        Self(
            begin
                .cloned()
                .chain(between)
                .chain(after.cloned())
                .collect(),
        )
    }

    /// How many are to be read again.
    fn again(&self) -> usize {
        self.0.iter().filter(|it| it.is_none()).count()
    }

    /// The forwards of all, those of `config` where they were read again; and how many came
    /// of each.
    fn merge(
        &self,
        mut config: Config,
        made: &[usize],
        before: &Config,
    ) -> Option<(Config, Vec<usize>)> {
        (made.len() == self.again()).then_some(())?;
        let mut fresh = std::mem::take(&mut config.forwards).into_iter();
        let mut counts = made.iter();
        let (mut forwards, mut made, mut anew) = (Vec::new(), Vec::new(), Vec::new());
        for piece in &self.0 {
            let begin = forwards.len();
            if let Some(range) = piece {
                forwards.extend_from_slice(before.forwards.get(range.clone())?);
            } else {
                forwards.extend(fresh.by_ref().take(*counts.next()?));
                anew.extend(begin..forwards.len());
            }
            made.push(forwards.len() - begin);
        }
        share(&mut forwards, &anew);
        config.forwards = forwards;
        Some((config, made))
    }
}

/// Whether nothing was written since.
fn is_same_text(old: &[Arc<File>], new: &[Arc<File>]) -> bool {
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| Arc::ptr_eq(old, new))
}

/// The texts of all `[[forward]]`s.
fn forwards_of(files: &[Arc<File>]) -> impl Iterator<Item = &str> {
    let pieces = files.iter().flat_map(|it| it.pieces());
    let forwards = pieces.filter(|(_, it)| it.what == ChunkKind::Forward);
    forwards.map(|(text, _)| text)
}

/// Equal pools of one name are one, whoever has been read when.
fn share(forwards: &mut [Arc<Forward>], anew: &[usize]) {
    let anew: HashSet<usize> = anew.iter().copied().collect();
    let mut wanted: HashMap<String, Vec<Arc<Pool>>> = HashMap::new();
    let pools = anew.iter().flat_map(|at| forwards[*at].pools());
    for name in pools.filter_map(|it| it.name.clone()) {
        wanted.entry(name).or_default();
    }
    if wanted.is_empty() {
        return;
    }
    for (at, forward) in forwards.iter().enumerate() {
        for pool in forward.pools().filter(|_| !anew.contains(&at)) {
            let name = pool.name.as_ref().and_then(|it| wanted.get_mut(it));
            if let Some(known) = name.filter(|it| !it.iter().any(|it| Arc::ptr_eq(it, pool))) {
                known.push(pool.clone());
            }
        }
    }
    for at in anew {
        for pool in Arc::make_mut(&mut forwards[at]).pools_mut() {
            let known = pool.name.as_ref().and_then(|it| wanted.get(it));
            if let Some(same) = known.and_then(|it| it.iter().find(|it| *it == pool)) {
                *pool = same.clone();
            }
        }
    }
}

/// What is read instead of each file: all but the forwards that are as before, and the pools
/// that none of the others names.
struct SmallText(HashMap<String, String>);

impl SmallText {
    fn of(files: &[Arc<File>], forwards: &ForwardPieces, pools: &ChangedPools) -> Self {
        let texts = forwards_of(files).zip(&forwards.0);
        let again: Vec<&str> = texts
            .filter_map(|(text, before)| before.is_none().then_some(text))
            .collect();
        // Where a name may be written in another way than it reads.
        let is_obscure = |text: &&str| text.contains(['\\', '$']);
        let all = again.iter().any(is_obscure);
        let is_wanted = |name: &str| {
            all || pools.0.contains(name) || again.iter().any(|text| text.contains(name))
        };
        let mut matched = forwards.0.iter();
        let small = files.iter().map(|file| {
            let pieces = file.pieces().filter(|(_, chunk)| match &chunk.what {
                ChunkKind::Rest => true,
                ChunkKind::Forward => matched.next().is_some_and(Option::is_none),
                ChunkKind::Pool(name) => is_wanted(name),
            });
            let text = pieces.map(|(text, _)| text).collect();
            (file.name.clone(), text)
        });
        Self(small.collect())
    }
}

/// The surroundings of the small text.
struct SmallWorld<'a> {
    heard: &'a Overheard<'a>,
    texts: &'a HashMap<String, String>,
}

impl SmallWorld<'_> {
    fn instead_of(&self, mut file: FileText) -> FileText {
        if let Some(text) = self.texts.get(&file.name) {
            file.bytes = text.clone().into_bytes();
        }
        file
    }
}

impl Surroundings for SmallWorld<'_> {
    fn include(&self, from: &str, pattern: &str) -> Result<Vec<FileText>, String> {
        let files = self.heard.include(from, pattern)?;
        Ok(files.into_iter().map(|it| self.instead_of(it)).collect())
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.heard.variable(name)
    }
}
