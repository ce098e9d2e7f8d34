//! What a stream says: parsers over `&[u8]`.
//!
//! Purpose: read what peers send ahead of or beside their payload, within bounds.
//! Never alters a byte, never decides where one goes.
//!
//! Pure: no descriptor, no clock, no chance; the only dependencies are parsers
//! (httparse).
//!
//! Invariant, fuzzed: any bytes in any pieces are taken without a panic.

pub mod connect;
pub mod host;
