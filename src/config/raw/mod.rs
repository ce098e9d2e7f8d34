//! From text to the tree of what was written ([`Node`]): reading TOML and merging the
//! sources. Which keys exist and what they mean is decided above.

mod arguments;
mod chunks;
mod environment;
mod include;
mod node;
mod table;
mod toml;

pub(super) use arguments::{add_override, add_pair};
pub(super) use chunks::{Chunk, ChunkKind, chunks};
pub(super) use include::{KEY as INCLUDE, read as read_file};
pub(super) use node::{KeyNode, Node, Value};
pub(super) use table::{Elsewhere, TableReader};
#[cfg(test)]
pub(super) use toml::parse_file;
