//! Who may come in, who may go where, and how fast bytes flow: what an operator has
//! written down, compiled so that asking costs the same however much that is.
//!
//! Pure: addresses and names are parameters, nothing is looked up. The only
//! dependencies are types of networks and a trie over them (ipnet, prefix-trie), which
//! are pure themselves. Text is read by `config`; names are resolved by `control`.

pub mod access;
pub mod client;
pub mod clients;
pub mod connect_rate;
pub mod holders;
pub mod meter;
pub mod networks;
pub mod ports;
pub mod public;
pub mod route;
pub mod shares;
pub mod taken;
pub mod trust;
