//! `thalweg` forwards TCP between clients and upstreams: one reactor per core,
//! adaptive zero-copy lanes, every socket option that matters for transfer
//! speed, and the harness that measures what each of them does.
//!
//! Most people want the program, `thalweg`. This crate is all of it, and a forwarder can run inside of another program:
//!
//! ```
//! use std::io::{Read, Write};
//! use std::net::{TcpListener, TcpStream};
//! use thalweg::{config::Config, control, net::address::Endpoint};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = TcpListener::bind("127.0.0.1:0")?;
//! let config = Config::parse(&format!(
//!     r#"
//!     [admin]
//!     listen = "off"
//!
//!     [log]
//!     level = "error"
//!
//!     [[forward]]
//!     name = "web"
//!     listen = "127.0.0.1:0"
//!     upstream = "{}"
//!     "#,
//!     server.local_addr()?
//! ))?;
//! // Threads of its own, and no signal: those are the program's.
//! let forwarder = control::start(&config)?;
//! let Some((_, Endpoint::Inet(at))) = forwarder.listeners().into_iter().next() else {
//!     panic!("it listens on TCP");
//! };
//!
//! let mut client = TcpStream::connect(at)?;
//! let (mut upstream, _) = server.accept()?;
//! client.write_all(b"along the valley")?;
//! let mut bytes = [0; 16];
//! upstream.read_exact(&mut bytes)?;
//! assert_eq!(&bytes, b"along the valley");
//!
//! drop((client, upstream));
//! // Lets nobody in any more, and waits for the sessions that are left.
//! forwarder.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! - A configuration is text ([`config::Config::parse`]), as in a file, all errors at once with their places.
//! - [`control::Handle`] counts, reloads, drains, and ends the forwarder when it is dropped.
//! - What a session was like is a record; they come as a stream from the admin endpoint ([`admin::client::Client`]).
//! - [`bench`](mod@bench) has the far end of measurements, to which commands of one's own can be added.
//!
//! `examples/` has a program for each. What a program cannot do is decide about a session in code of its own: who may come in and
//! where a session goes is the configuration's (access lists, routes, pools), which can be replaced while it runs.
//!
//! # Rooms
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
