//! Metrics: what is counted, as one table for each kind of subject.
//!
//! ```text
//! metrics! { rows } ─► cells, one set a reactor ─read, summed─► Snapshot ─► render
//! ```
//! A row says all there is to say of a metric: kind, name, unit, help, labels, and its
//! name in the log. From it come the cell that a reactor writes ([`cell`]), the field of
//! the snapshot, and how it is shown ([`render`]). What is kept elsewhere, like a
//! server's tally, has a table without cells: its snapshot is filled by whoever keeps it.
//!
//! Invariants: a cell has one writer. Values of labels come from the table or from the
//! configuration, never from a peer: their number is bounded.

pub mod cell;
pub mod render;
pub mod table;

/// Declares a table: see the module's documentation, and `observe::counters` for
/// examples.
///
/// ```text
/// metrics! {
///     /// Documentation.
///     pub cells Counters;          (left out: no cells, only a snapshot)
///     /// Documentation.
///     pub snapshot Snapshot;
///
///     /// Help.
///     counter "family" { field }
///     /// Help of the family.
///     counter "family" [Bytes] by direction { up = "up", down = "down" }
///     /// Help.
///     gauge "family" { field }
///     /// Help.
///     histogram<26> "family" [Seconds] { field }
///     /// Help.
///     states "family" ["one", "other"] { field }
/// }
/// ```
macro_rules! metrics {
    (
        $(#[$cells_doc:meta])* pub cells $Cells:ident;
        $(#[$doc:meta])* pub snapshot $Snapshot:ident;
        $($rows:tt)+
    ) => {
        $crate::observe::metrics::metrics!(@rows cells [$(#[$cells_doc])*] $Cells $Snapshot $($rows)+);
        $crate::observe::metrics::metrics!(@rows snapshot [$(#[$doc])*] $Snapshot $Snapshot $($rows)+);
    };
    ($(#[$doc:meta])* pub snapshot $Snapshot:ident; $($rows:tt)+) => {
        $crate::observe::metrics::metrics!(@rows snapshot [$(#[$doc])*] $Snapshot $Snapshot $($rows)+);
    };

    // What is the same for all members of a family, as one token tree each: so it can
    // be repeated for each member.
    (@rows $what:ident $docs:tt $Name:ident $Snapshot:ident $(
        $(#[doc = $help:literal])+
        $kind:ident $(<$buckets:literal>)? $family:literal $([$($unit:tt)+])? $(by $label:ident)? {
            $($field:ident $(= $value:literal)?),+ $(,)?
        }
    )+) => {
        $crate::observe::metrics::metrics!(@$what $docs $Name $Snapshot $({
            [$($help)+] [$kind $($buckets)?] [$kind $($($unit)+)?] $family [$($label)?]
            $($field [$($value)?])+
        })+);
    };

    (@cells [$(#[$doc:meta])*] $Cells:ident $Snapshot:ident $({
        $help:tt $kind:tt $unit:tt $family:literal $label:tt $($field:ident $value:tt)+
    })+) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct $Cells {
            $($(
                #[doc = $crate::observe::metrics::metrics!(@help $help)]
                pub $field: $crate::observe::metrics::metrics!(@cell $kind),
            )+)+
        }

        impl $Cells {
            /// The values now.
            pub fn snapshot(&self) -> $Snapshot {
                $Snapshot { $($($field: self.$field.get(),)+)+ }
            }

            /// What somebody else has counted is counted here from now on; gauges are as
            /// they are. Only ever called by the one writer.
            #[allow(dead_code, reason = "not every table moves between processes")]
            pub fn absorb(&self, more: &$Snapshot) {
                $($($crate::observe::metrics::metrics!(
                    @absorb $kind self.$field, more.$field
                );)+)+
            }
        }

        impl $Snapshot {
            /// The sum with another reactor's.
            #[must_use]
            pub fn plus(self, other: Self) -> Self {
                Self {
                    $($($field: $crate::observe::metrics::metrics!(
                        @plus $kind self.$field, other.$field
                    ),)+)+
                }
            }

            /// Of totals that were told by name; one that was not told is zero, and so are
            /// gauges.
            #[allow(dead_code, reason = "likewise")]
            pub fn of_totals(totals: &$crate::observe::metrics::table::Totals) -> Self {
                Self {
                    $($($field: $crate::observe::metrics::metrics!(
                        @of $kind totals, stringify!($field)
                    ),)+)+
                }
            }
        }
    };

    (@snapshot [$(#[$doc:meta])*] $Snapshot:ident $Same:ident $({
        $help:tt $kind:tt $unit:tt $family:literal $label:tt $($field:ident $value:tt)+
    })+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct $Snapshot {
            $($(
                #[doc = $crate::observe::metrics::metrics!(@help $help)]
                pub $field: $crate::observe::metrics::metrics!(@value $kind),
            )+)+
        }

        impl $crate::observe::metrics::table::Table for $Snapshot {
            const FAMILIES: &'static [$crate::observe::metrics::table::Family] = &[$(
                $crate::observe::metrics::table::Family {
                    name: $family,
                    kind: $crate::observe::metrics::metrics!(@kind $kind),
                    unit: $crate::observe::metrics::metrics!(@unit $unit),
                    help: $crate::observe::metrics::metrics!(@help $help),
                    label: $crate::observe::metrics::metrics!(@label $label),
                    members: &[$($crate::observe::metrics::table::Member {
                        key: stringify!($field),
                        label: $crate::observe::metrics::metrics!(@help $value),
                    },)+],
                    states: $crate::observe::metrics::metrics!(@states $unit),
                },
            )+];

            fn values(&self) -> Vec<$crate::observe::metrics::table::Value<'_>> {
                vec![$($($crate::observe::metrics::metrics!(@read $kind self.$field),)+)+]
            }
        }
    };

    (@help [$($text:literal)*]) => { concat!($($text),*) };

    (@cell [counter]) => { $crate::observe::metrics::cell::Counter };
    (@cell [gauge]) => { $crate::observe::metrics::cell::Gauge };
    (@cell [histogram $buckets:literal]) => {
        $crate::observe::metrics::cell::Histogram<$buckets>
    };

    (@value [counter]) => { u64 };
    (@value [gauge]) => { u64 };
    (@value [histogram $buckets:literal]) => {
        $crate::observe::metrics::table::Distribution<$buckets>
    };
    (@value [states]) => { &'static str };

    (@plus [counter] $one:expr, $other:expr) => { $one.wrapping_add($other) };
    (@plus [gauge] $one:expr, $other:expr) => { $one + $other };
    (@plus [histogram $buckets:literal] $one:expr, $other:expr) => { $one.plus($other) };

    (@absorb [counter] $cell:expr, $more:expr) => { $cell.add($more) };
    (@absorb [gauge] $cell:expr, $more:expr) => { let _ = (&$cell, &$more); };
    (@absorb [histogram $buckets:literal] $cell:expr, $more:expr) => { $cell.absorb(&$more) };

    (@of [counter] $totals:ident, $key:expr) => {
        $crate::observe::metrics::table::total($totals, $key)
    };
    (@of [gauge] $totals:ident, $key:expr) => { 0 };
    (@of [histogram $buckets:literal] $totals:ident, $key:expr) => {
        $crate::observe::metrics::table::Distribution::of_totals($totals, $key)
    };

    (@kind [counter]) => { $crate::observe::metrics::table::Kind::Counter };
    (@kind [gauge]) => { $crate::observe::metrics::table::Kind::Gauge };
    (@kind [histogram $buckets:literal]) => { $crate::observe::metrics::table::Kind::Histogram };
    (@kind [states]) => { $crate::observe::metrics::table::Kind::States };

    (@unit [states $($state:tt)+]) => { $crate::observe::metrics::table::Unit::Each };
    (@unit [$kind:ident $unit:ident]) => { $crate::observe::metrics::table::Unit::$unit };
    (@unit [$kind:ident]) => { $crate::observe::metrics::table::Unit::Each };

    (@states [states $($state:literal),+]) => { &[$($state),+] };
    (@states $other:tt) => { &[] };

    (@label [$label:ident]) => { Some(stringify!($label)) };
    (@label []) => { None };

    (@read [histogram $buckets:literal] $value:expr) => { $value.value() };
    (@read [states] $value:expr) => { $crate::observe::metrics::table::Value::State($value) };
    (@read $kind:tt $value:expr) => { $crate::observe::metrics::table::Value::Number($value) };
}

pub(crate) use metrics;
