//! Another configuration for a process at work, on the real binary: behaviours 66 to 68
//! and 111 to 122.

mod identity;
mod kept;
pub(crate) mod kit;
mod load;
mod refused;
mod steered;
mod watched;
