//! `thalweg` forwards TCP between clients and upstreams: one reactor per core,
//! adaptive zero-copy lanes, every socket option that matters for transfer
//! speed, and the harness that measures what each of them does.
//!
//! The rooms, lowest first. A room imports only from rooms above it in this
//! table; `tests/it/architecture` reads the table and checks that.
//!
//! | room | what lives there |
//! | --- | --- |
//! | [`relay`] | pure: one direction ([`relay::lane`]), one connection ([`relay::session`]) |
//! | [`policy`] | pure: who may go where |
//! | [`balance`] | pure: which server is tried next |
//! | [`proto`] | pure: what a stream is: CONNECT, HTTP/1, HTTP/2, TLS |
//! | [`net`] | addresses, socket options, listeners, pipes, TCP_INFO, errno |
//! | [`config`] | text to a validated, immutable configuration |
//! | [`observe`] | metrics, notices, session records, the log that never blocks |
//! | [`engine`] | who waits for the kernel and owns the bytes meanwhile |
//! | [`reactor`] | the loop of one core |
//! | [`admin`] | HTTP on a thread of its own: metrics, health, the API |
//! | [`control`] | start-up, signals, drain; names, checks, what limits the machine |
//! | [`mod@bench`] | origin, load generator, emulated path, statistics |
//! | [`tune`] | the search for the options that make a path fast |
//! | [`convert`] | configurations of other forwarders, as one of ours |
//! | [`cli`] | argv to a command |

pub mod admin;
pub mod balance;
pub mod bench;
pub mod cli;
pub mod config;
pub mod control;
pub mod convert;
pub mod engine;
pub mod net;
pub mod observe;
pub mod policy;
pub mod proto;
pub mod reactor;
pub mod relay;
pub mod tune;
