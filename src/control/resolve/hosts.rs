//! The hosts file, of which no more is held than where a name stands in it: eight bytes
//! for each name. Lists of a hundred thousand names to block are common.
//!
//! ```text
//! hash of a name ─► lines that may have it ─► read again, and compared
//! ```
//! Invariant: what is said was read from the file as it was when it was indexed, or it is
//! said that the file has changed.

use std::hash::{DefaultHasher, Hasher as _};
use std::io::{self, BufRead, BufReader, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use super::files::{Stamp, open_regular};

/// Bytes of the file that are read.
const FILE_MAX: u64 = 64 << 20;

/// Bytes of a line that are read; names further on are not known.
const LINE_MAX: usize = 16 << 10;

/// Where names stand in a file.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    /// The file as it was when it was indexed; `None`: there are no names.
    file: Option<(PathBuf, Stamp)>,
    index: Index,
}

/// The hash of a name, and where the line begins that has it; sorted.
#[derive(Debug, Default)]
pub(super) struct Index(Box<[(u32, u32)]>);

/// The file was written while it was read.
#[derive(Debug)]
pub(super) struct Changed;

impl Hosts {
    /// Indexes the file. A device, such as `/dev/null`, has no names.
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let Some(file) = open_regular(path)? else {
            return Ok(Self::default());
        };
        let stamp = Stamp::of_open(&file);
        let index = Index::of(BufReader::new((&file).take(FILE_MAX)))?;
        Ok(Self {
            file: Some((path.to_owned(), stamp)),
            index,
        })
    }

    /// The addresses of a name, in the order of the file.
    pub(super) fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Changed> {
        let mut lines = self.index.lines(name).peekable();
        let Some((path, stamp)) = self.file.as_ref().filter(|_| lines.peek().is_some()) else {
            return Ok(Vec::new());
        };
        let file = open_regular(path).ok().flatten().ok_or(Changed)?;
        let mut found = Vec::new();
        let mut line = [0; LINE_MAX];
        for offset in lines {
            let len = file.read_at(&mut line, u64::from(offset));
            found.extend(address_in(&line[..len.map_err(|_| Changed)?], name));
        }
        // Looked at last: what was read before is of the file as it was.
        if Stamp::of_open(&file) == *stamp {
            Ok(found)
        } else {
            Err(Changed)
        }
    }
}

impl Index {
    /// Reads lines to the end, or to an error.
    pub(super) fn of(mut reader: impl BufRead) -> io::Result<Self> {
        let mut entries = Vec::new();
        let mut line = Vec::new();
        let mut offset = 0_u64;
        loop {
            line.clear();
            let len = (&mut reader)
                .take(LINE_MAX as u64)
                .read_until(b'\n', &mut line)?;
            if len == 0 {
                break;
            }
            let whole = line.ends_with(b"\n") || len < LINE_MAX;
            if !whole {
                // Its last name may be cut.
                let names = line.iter().rposition(u8::is_ascii_whitespace);
                line.truncate(names.unwrap_or(0));
            }
            for name in names_in(&line).into_iter().flatten() {
                entries.push((hash(name), offset as u32));
            }
            offset += len as u64;
            if !whole {
                offset += skip_line(&mut reader)?;
            }
        }
        entries.sort_unstable();
        entries.dedup();
        Ok(Self(entries.into()))
    }

    /// Lines that may have this name.
    fn lines(&self, name: &str) -> impl Iterator<Item = u32> {
        let wanted = hash(without_dot(name.as_bytes()));
        let first = self.0.partition_point(|(hash, _)| *hash < wanted);
        let same = self.0[first..]
            .iter()
            .take_while(move |(hash, _)| *hash == wanted);
        same.map(|(_, offset)| *offset)
    }
}

/// The bytes up to the end of the line.
fn skip_line(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let held = reader.fill_buf()?;
        let end = held.iter().position(|byte| *byte == b'\n');
        let len = end.map_or(held.len(), |end| end + 1);
        reader.consume(len);
        skipped += len as u64;
        if end.is_some() || len == 0 {
            return Ok(skipped);
        }
    }
}

/// The names of a line whose address is one.
fn names_in(line: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    words(line).map(|(_, names)| names)
}

fn words(line: &[u8]) -> Option<(IpAddr, impl Iterator<Item = &[u8]>)> {
    let line = line.split(|byte| matches!(byte, b'#' | b'\n')).next()?;
    let words = line.split(u8::is_ascii_whitespace);
    let mut words = words.filter(|word| !word.is_empty());
    let address = std::str::from_utf8(words.next()?).ok()?;
    // A link-local address may have its interface behind it; there is no other use for it
    // here than to leave it out.
    let address: IpAddr = address.parse().ok()?;
    Some((address.to_canonical(), words.map(without_dot)))
}

/// The address of the line at the beginning of these bytes, if it has this name.
pub(super) fn address_in(bytes: &[u8], name: &str) -> Option<IpAddr> {
    let name = without_dot(name.as_bytes());
    let (address, mut names) = words(bytes)?;
    names
        .any(|it| it.eq_ignore_ascii_case(name))
        .then_some(address)
}

/// The addresses that a text gives a name, by way of an index as for a file.
pub(super) fn addresses_in(text: &[u8], name: &str) -> Vec<IpAddr> {
    let index = Index::of(text).unwrap_or_default();
    let lines = index.lines(name).filter_map(|at| text.get(at as usize..));
    // As much of a line as is read of a file's.
    let lines = lines.map(|line| &line[..line.len().min(LINE_MAX)]);
    lines.filter_map(|line| address_in(line, name)).collect()
}

fn without_dot(name: &[u8]) -> &[u8] {
    name.strip_suffix(b".").unwrap_or(name)
}

/// The same for both cases. Names that share one cost a read, and nothing else.
fn hash(name: &[u8]) -> u32 {
    let mut hasher = DefaultHasher::new();
    for byte in name {
        hasher.write_u8(byte.to_ascii_lowercase());
    }
    hasher.finish() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str, name: &str) -> Vec<String> {
        let found = addresses_in(text.as_bytes(), name);
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn names_are_found_by_their_lines() {
        let text = "192.0.2.7\tBox.Test  box # a comment\n\n#192.0.2.1 box\nnonsense box\n\
                    2001:db8::7 box.test.\n::ffff:192.0.2.9 mapped\n192.0.2.8 last";
        assert_eq!(found(text, "box.test"), ["192.0.2.7", "2001:db8::7"]);
        assert_eq!(found(text, "BOX.test."), ["192.0.2.7", "2001:db8::7"]);
        assert_eq!(found(text, "box"), ["192.0.2.7"]);
        assert_eq!(found(text, "mapped"), ["192.0.2.9"]);
        assert_eq!(found(text, "last"), ["192.0.2.8"]);
        for no in ["a", "comment", "192.0.2.7", "test", ""] {
            assert_eq!(found(text, no), [""; 0], "{no}");
        }
    }

    #[test]
    fn a_line_without_an_end_hides_nothing_behind_it() {
        let long = format!(
            "192.0.2.1 first {} cut\n192.0.2.2 second\n",
            "x ".repeat(LINE_MAX)
        );
        assert_eq!(found(&long, "first"), ["192.0.2.1"]);
        assert_eq!(found(&long, "cut"), [""; 0]);
        assert_eq!(found(&long, "second"), ["192.0.2.2"]);
    }

    proptest! {
        #[test]
        fn a_name_has_the_addresses_of_the_lines_that_say_it(
            lines in prop::collection::vec((0..4_u8, prop::collection::vec("[a-cA-C]{1,2}", 0..4)), 0..12)
        ) {
            let text: String = lines.iter()
                .map(|(n, names)| format!("192.0.2.{n} {}\n", names.join(" ")))
                .collect::<Vec<_>>()
                .concat();
            for name in ["a", "b", "ab", "cc"] {
                let said = lines.iter().filter(|(_, names)| names.iter().any(|it| it.eq_ignore_ascii_case(name)));
                let said: Vec<String> = said.map(|(n, _)| format!("192.0.2.{n}")).collect();
                prop_assert_eq!(found(&text, name), said);
            }
        }

        #[test]
        fn any_bytes_can_be_read(bytes in prop::collection::vec(any::<u8>(), 0..400), name in ".{0,8}") {
            let index = Index::of(&bytes[..]).expect("memory can be read");
            for offset in index.lines(&name) {
                let _ = address_in(&bytes[offset as usize..], &name);
            }
        }
    }
}
