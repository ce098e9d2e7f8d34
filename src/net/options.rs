//! Every TCP and socket option that matters for a transfer, as one struct per
//! leg: read from the configuration, applied to sockets, and read back.
//!
//! | file | what it does |
//! | --- | --- |
//! | `table` | the table of options, with the struct that it makes |
//! | `leg` | which sockets an option is for |
//! | [`plan`] | compiles it once into what each socket is given, and replays that |
//! | [`readback`] | at start: what the kernel granted, and which sysctl to change |
//! | [`advice`] | what an option costs although the kernel granted it |
//!
//! What happens to an option that is not set: thalweg turns Nagle off
//! (`TCP_NODELAY`) on both legs, because it forwards whole writes and must not
//! hold the tail of one back, and turns quick ACKs off before it connects
//! upstream (see [`plan`]). Everything else is left to the kernel. An explicit
//! value always wins.

pub mod advice;
mod leg;
pub mod plan;
pub mod readback;
mod table;

pub use advice::Advice;
pub use leg::{Family, Leg};
pub use plan::{OptionPlan, Refusal};
pub use readback::Shortfall;
pub use table::{
    KEEPALIVE_MAX, Keepalive, Legs, OPTIONS, OptionKind, OptionName, OptionRow, RawOption, Setting,
    SocketOptions,
};

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
