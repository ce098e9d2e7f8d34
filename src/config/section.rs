//! A section of the configuration as one table of keys.
//!
//! From one row of [`section!`] come the field of the struct, the reader with its
//! errors, what stands for a key that is not written, the printer, the list that the
//! nearest name is looked for in, the rows of the documentation, the example and the
//! schema, and the comparison of two configurations.
//!
//! ```text
//! section! {
//!     /// `[global]`: what concerns the process as a whole.
//!     pub struct Global, WrittenGlobal {
//!         parts { /// Where names are looked up. names: NameSources; }
//!         keys {
//!             /// Sessions over all forwards at the most.
//!             max_connections: Option<u32> = None, Limit, Live;
//!         }
//!     }
//! }
//! ```
//!
//! | group | what stands in it |
//! | --- | --- |
//! | `fields` | what the struct has that is not read from a key of its own |
//! | `hand` | the rows of keys that are read by hand (`Vec<Row>`) |
//! | `parts` | other sections whose keys stand in the same table |
//! | `keys` | field, key where it has another name (`as "key"`), type, default, kind, effect; `shown "…"` is said of a default that cannot be written, `example "…"` what the example file has |

use std::marker::PhantomData;

use serde_json::Value as Json;

use super::kind::{Compared, Kind, reference};
use super::raw::{Node, TableReader};
use super::report::Report;
use super::row::{KeyChange, Pairs, Row};
use super::text::inline;

/// What [`section!`] makes.
pub(super) trait Section: Sized {
    /// The keys as they are written: `None` for each that is not.
    type Keys: Clone + Default;

    /// Its rows, in the order of the documentation.
    fn rows() -> Vec<Row>;

    /// Reads every key; what is wrong is reported and left out.
    fn read(table: &mut TableReader<'_>, report: &mut Report) -> Self::Keys;

    /// What is written in `over`, or else in `base`.
    fn merge(over: Self::Keys, base: &Self::Keys) -> Self::Keys;

    /// With the default of each key that is not written.
    fn fill(written: Self::Keys) -> Self;

    /// Its keys and their values, every default filled in.
    fn write(&self, out: &mut Pairs);

    /// Which keys have another value in `new`; `path` stands before each.
    fn diff(&self, new: &Self, path: &str, out: &mut Vec<KeyChange>);

    /// The names of its keys. Asked for each table that is read, so the rows, which say
    /// much more, are made for them once only.
    fn names() -> &'static [&'static str];
}

/// A kind for a field of a type; says which, so that kinds can be generic.
pub(super) fn kind_of<T, K: Kind<Value = T>>(kind: K) -> K {
    kind
}

/// The value of a key of a table; `None` where it is not written or wrong, which has
/// been reported.
pub(super) fn read_key<K: Kind>(
    table: &mut TableReader<'_>,
    key: &'static str,
    kind: &K,
    report: &mut Report,
) -> Option<K::Value> {
    let node = table.get(key)?;
    kind.read(key, node, report)
}

/// A table with keys of its own, which it takes from a section.
pub(super) struct Table<S> {
    name: &'static str,
    of: PhantomData<S>,
}

/// `name` is that of the section: `tap.filter`.
pub(super) fn table<S>(name: &'static str) -> Table<S> {
    let of = PhantomData;
    Table { name, of }
}

impl<S: Section> Kind for Table<S> {
    type Value = S;

    fn read(&self, key: &str, node: &Node, report: &mut Report) -> Option<S> {
        let mut table = TableReader::open(node, format!("`{key}`"), report)?;
        let written = S::read(&mut table, report);
        table.close(report, &[]);
        Some(S::fill(written))
    }

    fn write(&self, value: &S) -> Option<String> {
        let mut pairs = Pairs::new();
        value.write(&mut pairs);
        Some(inline(&pairs))
    }

    fn words(&self) -> String {
        "table".to_owned()
    }

    fn schema(&self) -> Json {
        reference(self.name)
    }

    fn table(&self) -> Option<&'static str> {
        Some(self.name)
    }

    fn diff(&self, change: Compared, old: &S, new: &S, out: &mut Vec<KeyChange>) {
        old.diff(new, &format!("{}.", change.key), out);
    }
}

macro_rules! section {
    (@key $field:ident) => { stringify!($field) };
    (@key $field:ident $key:literal) => { $key };
    (
        $(#[$attr:meta])*
        $vis:vis struct $name:ident, $written:ident {
            $(fields { $( $(#[$fattr:meta])* $ffield:ident : $fty:ty = $fdefault:expr; )* })?
            $(hand $hand:expr;)?
            $(parts { $( $(#[$pattr:meta])* $part:ident : $pty:ty; )* })?
            keys { $(
                $(#[doc = $doc:literal])+
                $field:ident $(as $key:literal)? : $ty:ty = $default:expr, $kind:expr, $effect:ident
                    $(, shown $shown:literal)? $(, example $example:literal)? ;
            )* }
        }
    ) => {
        $(#[$attr])*
        $vis struct $name {
            $($( $(#[$fattr])* pub $ffield: $fty, )*)?
            $( $(#[doc = $doc])+ pub $field: $ty, )*
            $($( $(#[$pattr])* pub $part: $pty, )*)?
        }

        #[doc = concat!("The keys of [`", stringify!($name), "`] as written; `None` is not.")]
        #[derive(Debug, Clone, Default)]
        pub(in crate::config) struct $written {
            $( pub(in crate::config) $field: Option<$ty>, )*
            $($( pub(in crate::config) $part: <$pty as $crate::config::section::Section>::Keys, )*)?
        }

        impl Default for $name {
            fn default() -> Self {
                <Self as $crate::config::section::Section>::fill($written::default())
            }
        }

        impl $crate::config::section::Section for $name {
            type Keys = $written;

            fn rows() -> Vec<$crate::config::row::Row> {
                let groups: Vec<Vec<$crate::config::row::Row>> = vec![
                    $( $hand, )?
                    vec![ $(
                        $crate::config::kind::row_of(
                            section!(@key $field $($key)?),
                            &$crate::config::section::kind_of::<$ty, _>($kind),
                            &$default,
                            concat!($($doc),+).trim_ascii_start(),
                            $crate::config::row::Applies::$effect,
                        )
                        $( .shown($shown) )?
                        $( .example($example) )?,
                    )* ],
                    $($( <$pty as $crate::config::section::Section>::rows(), )*)?
                ];
                groups.into_iter().flatten().collect()
            }

            fn names() -> &'static [&'static str] {
                static NAMES: std::sync::OnceLock<Vec<&'static str>> = std::sync::OnceLock::new();
                NAMES.get_or_init(|| Self::rows().into_iter().map(|row| row.key).collect())
            }

            fn read(
                table: &mut $crate::config::raw::TableReader<'_>,
                report: &mut $crate::config::report::Report,
            ) -> $written {
                $written {
                    $( $field: $crate::config::section::read_key(
                        table,
                        section!(@key $field $($key)?),
                        &$crate::config::section::kind_of::<$ty, _>($kind),
                        report,
                    ), )*
                    $($( $part: <$pty as $crate::config::section::Section>::read(table, report), )*)?
                }
            }

            fn merge(over: $written, base: &$written) -> $written {
                $written {
                    $( $field: over.$field.or_else(|| base.$field.clone()), )*
                    $($( $part: <$pty as $crate::config::section::Section>::merge(over.$part, &base.$part), )*)?
                }
            }

            fn fill(written: $written) -> Self {
                Self {
                    $($( $ffield: $fdefault, )*)?
                    $( $field: written.$field.unwrap_or_else(|| $default), )*
                    $($( $part: <$pty as $crate::config::section::Section>::fill(written.$part), )*)?
                }
            }

            fn write(&self, out: &mut $crate::config::row::Pairs) {
                $( {
                    use $crate::config::kind::Kind as _;
                    let kind = $crate::config::section::kind_of::<$ty, _>($kind);
                    if let Some(text) = kind.write(&self.$field) {
                        out.push((section!(@key $field $($key)?), text));
                    }
                } )*
                $($( $crate::config::section::Section::write(&self.$part, out); )*)?
            }

            fn diff(&self, new: &Self, path: &str, out: &mut Vec<$crate::config::row::KeyChange>) {
                $( {
                    use $crate::config::kind::Kind as _;
                    let kind = $crate::config::section::kind_of::<$ty, _>($kind);
                    let key = section!(@key $field $($key)?);
                    let change = $crate::config::kind::Compared {
                        key: format!("{path}{key}"),
                        effect: $crate::config::row::Applies::$effect,
                    };
                    kind.diff(change, &self.$field, &new.$field, out);
                } )*
                $($( $crate::config::section::Section::diff(&self.$part, &new.$part, path, out); )*)?
            }
        }
    };
}

pub(super) use section;
