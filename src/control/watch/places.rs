//! Where it is decided which file a path means: the folder of its last name, and those of
//! every symbolic link on the way.
//!
//! ```text
//!   /etc/app/thalweg.toml -> ..data/thalweg.toml       /etc/app: thalweg.toml, ..data
//!   /etc/app/..data       -> ..2026_01                 /etc/app/..2026_01: thalweg.toml
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

/// As the kernel: more links than that are a circle.
const LINKS_MAX: usize = 40;

/// Folders, and the names in them that matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WatchedPlaces(pub(super) BTreeMap<PathBuf, Names>);

/// Names in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Names {
    /// Any: another one may be a file of the configuration.
    All,
    These(BTreeSet<OsString>),
}

impl Names {
    pub(super) fn has(&self, name: &OsStr) -> bool {
        match self {
            Self::All => true,
            Self::These(names) => names.contains(name),
        }
    }
}

impl WatchedPlaces {
    /// Of these files, and of folders as a whole.
    pub(super) fn of(files: &[PathBuf], folders: &[PathBuf]) -> Self {
        let mut places = Self::default();
        for file in files {
            places.follow(file);
        }
        for folder in folders {
            if let Some(folder) = places.follow(folder) {
                places.0.insert(folder, Names::All);
            }
        }
        places
    }

    fn add(&mut self, folder: &Path, name: &OsStr) {
        let folder = if folder.as_os_str().is_empty() {
            Path::new(".")
        } else {
            folder
        };
        let names = self.0.entry(folder.to_owned());
        let names = names.or_insert_with(|| Names::These(BTreeSet::new()));
        if let Names::These(names) = names {
            names.insert(name.to_owned());
        }
    }

    /// Goes the way of a path, and where it ends; `None` where something is missing, which
    /// is then the last that is watched for.
    fn follow(&mut self, path: &Path) -> Option<PathBuf> {
        let mut left: Vec<OsString> = parts(path);
        let mut at = PathBuf::new();
        let mut links = 0;
        while let Some(part) = left.pop() {
            let next = at.join(&part);
            let is_name = !matches!(part.to_str(), Some("/" | "." | ".."));
            let Ok(found) = std::fs::symlink_metadata(&next) else {
                self.add(&at, &part);
                return None;
            };
            if is_name && (left.is_empty() || found.is_symlink()) {
                self.add(&at, &part);
            }
            if !found.is_symlink() {
                at = next;
                continue;
            }
            links += 1;
            if links > LINKS_MAX {
                return None;
            }
            let target = std::fs::read_link(&next).ok()?;
            if target.is_absolute() {
                at = PathBuf::new();
            }
            left.extend(parts(&target));
        }
        Some(at)
    }
}

/// The parts of a path, the first one last.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().map(Component::as_os_str);
    parts.rev().map(OsStr::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("thalweg-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a folder");
            Self(path.canonicalize().expect("its path"))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn names(of: &[&str]) -> Names {
        Names::These(of.iter().map(OsString::from).collect())
    }

    #[test]
    fn every_link_on_the_way_and_the_folder_at_its_end_are_watched() {
        let folder = Folder::new("places");
        let at = |path: &str| folder.0.join(path);
        std::fs::create_dir(at("..2026")).expect("a folder");
        std::fs::write(at("..2026/a.toml"), "").expect("a file");
        symlink("..2026", at("..data")).expect("a link");
        symlink("..data/a.toml", at("a.toml")).expect("a link");
        let places = WatchedPlaces::of(&[at("a.toml")], &[]);
        let expected = [
            (folder.0.clone(), names(&["..data", "a.toml"])),
            (at("..2026"), names(&["a.toml"])),
        ];
        assert_eq!(places, WatchedPlaces(expected.into()));
        // What is not there is waited for; a folder as a whole goes before names in it.
        symlink("circle", at("circle")).expect("a link");
        let places = WatchedPlaces::of(&[at("no/b.toml"), at("circle/x")], &[at("..data")]);
        let expected = [
            (
                folder.0.clone(),
                names(&["..2026", "..data", "circle", "no"]),
            ),
            (at("..2026"), Names::All),
        ];
        assert_eq!(places, WatchedPlaces(expected.into()));
    }
}
