//! Which server a session goes to, and what makes a server up or down: pure, with
//! no clock, no descriptor and no randomness of its own.
//!
//! | file | what |
//! | --- | --- |
//! | [`policy`] | [`Balancer`]: picks a server by one of the policies |
//! | `maglev` | the table of consistent hashing |
//! | `hash` | [`client_key`]: hashes that are the same everywhere and for ever; [`Random`] |
//! | `tried` | [`Tried`]: the servers that a session tried |
//! | [`health`] | rise and fall, failures in passing, slow start |

mod hash;
pub mod health;
mod maglev;
pub mod policy;
mod tried;

pub use hash::{Random, client_key};
pub use policy::{Balancer, Policy, View};
pub use tried::Tried;
