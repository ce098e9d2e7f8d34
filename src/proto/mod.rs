//! What a stream is: parsers over `&[u8]`, and a [`conversation`] that follows both
//! directions of a session with them.
//!
//! Purpose: name requests, responses, calls and handshakes for people who look at
//! traffic, and read what a client says before its payload ([`opening`], [`connect`],
//! [`proxy`]), or look at its first bytes ([`sniff`], [`hello`]) or datagrams ([`quic`]). Never alters a byte, never
//! decides where one goes.
//!
//! Pure: no descriptor, no clock, no chance; the only dependencies are parsers
//! (httparse, loona-hpack), a checksum (crc), and the ciphers of [`quic`] (aes-gcm, hkdf, sha2).
//!
//! Invariants, fuzzed: any bytes in any pieces are taken without a panic; what is
//! kept of a session is bounded ([`http1::HEAD_MAX`], [`http2::BLOCK_MAX`],
//! [`http2::TABLE_MAX`], [`http2::STREAMS_MAX`], [`tls::HELLO_MAX`], [`hello::STREAM_MAX`],
//! [`proxy::V2_MAX`]), and so is what is told of it ([`tell`]: a small multiple of what was
//! fed); what is not understood is said to be so and followed no further, never guessed.

pub mod body;
pub mod connect;
pub mod conversation;
pub mod grpc;
pub mod hello;
pub mod host;
pub mod http1;
pub mod http2;
pub mod notes;
pub mod opening;
pub mod prelude;
pub mod proxy;
pub mod quic;
pub mod secrets;
pub mod sniff;
pub mod steps;
pub mod target;
pub mod tell;
pub mod tls;

/// What a parser makes of the bytes so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parse<T> {
    /// They may become one: more are needed.
    More,
    /// Found, in so many bytes.
    Found(T, usize),
    /// They are none, whatever follows.
    Invalid,
}
