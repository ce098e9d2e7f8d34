//! Which server a session goes to, and what makes a server up or down: pure, with
//! no clock, no descriptor and no randomness of its own.
//!
//! | file | what |
//! | --- | --- |
//! | [`policy`] | [`Balancer`]: picks a server by one of the policies, for all reactors |
//! | [`rules`] | what a pool is balanced by |
//! | `index` | which servers may be picked, kept so that no pick walks over them |
//! | [`standing`] | [`Standing`]: a server as policies know it |
//! | [`condition`] | whether sessions may go to a server, and how many are there |
//! | `maglev` | the table of consistent hashing |
//! | [`rivals`] | which addresses of a name are dialled beside the picked one |
//! | [`mod@line`] | who waits for a server with room |
//! | [`spares`] | how many connections are made ahead, and when not |
//! | [`agenda`] | what is to be looked at when |
//! | `hash` | [`client_key`]: hashes that are the same everywhere and for ever; [`Random`] |
//! | `tried` | [`Tried`]: the servers that a session tried |
//! | [`health`] | rise and fall, failures in passing, slow start |

pub mod agenda;
pub mod condition;
mod hash;
pub mod health;
mod index;
pub mod line;
mod maglev;
pub mod policy;
pub mod rivals;
pub mod rules;
pub mod spares;
pub mod standing;
mod tried;

pub use condition::{Condition, Terms};
pub use hash::{Random, client_key};
pub use policy::{Ask, Balancer, Choice, Member};
pub use rules::{Place, Policy, Rules};
pub use standing::Standing;
pub use tried::Tried;
