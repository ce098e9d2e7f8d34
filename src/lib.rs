//! `thalweg` forwards TCP and UDP between clients and upstreams: one reactor per core,
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
//! # What a program can do with it
//!
//! | | by | example |
//! | --- | --- | --- |
//! | configure it: text as in a file, all errors at once with their places | [`config::Config::parse`] | `embed` |
//! | start it beside whatever else it does, and end it | [`control::start`], [`control::Handle`] | `embed` |
//! | replace the configuration; sockets and sessions stay | [`control::Handle::reload`] | `embed` |
//! | decide itself where each session goes | [`reactor::Decide`], [`control::start_with`] | `decide` |
//! | read the record of each session as a stream | [`admin::client::Client::stream`] | `records` |
//! | add commands to the far end of measurements | [`bench::origin::Handlers`] | `origin` |
//!
//! A decision is a closure, or a type that keeps what it decides by:
//!
//! ```
//! use std::net::SocketAddr;
//! use thalweg::config::Config;
//! use thalweg::control::{self, Given};
//! use thalweg::reactor::{Caller, Course, Pilot};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let config = Config::parse(
//! #     "[admin]\nlisten = \"off\"\n[log]\nlevel = \"error\"\n[[forward]]\nlisten = \"127.0.0.1:0\"\nupstream = \"127.0.0.1:9\"\n",
//! # )?;
//! let spare: SocketAddr = "192.0.2.7:443".parse()?;
//! let given = Given {
//!     pilot: Some(Pilot::new(move |caller: &Caller<'_>| match caller.forward {
//!         "web" => Course::AsConfigured,
//!         "batch" => Course::Addresses(vec![spare]),
//!         _ => Course::Refuse,
//!     })),
//!     ..Given::default()
//! };
//! let forwarder = control::start_with(&config, given)?;
//! # forwarder.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! It is asked once a session or flow, on the thread of a reactor, and answers from memory. Who decides nothing pays nothing for it.
//! What configurations can say (access lists, routes, pools) is better said there: it can be replaced while it runs.
//!
//! # What it promises
//!
//! - **Threads.** One for control, one for each reactor, and some that wait for others (names, checks, the log, the admin endpoint). None is left
//!   when [`control::Handle::join`] has returned; dropping the handle ends all sessions and waits.
//! - **Signals** are the program's, but for SIGPIPE, which is ignored. [`control::run`] is for a program that is a forwarder and
//!   nothing else: it takes them.
//! - **Failures** of the start are a [`control::StartError`] that names the address, the file or the line. Later ones are told in
//!   the log and in counters; nothing that a peer sends makes it panic.
//! - **Features**: `uring` adds the engine on `io_uring`. There is no other that a program needs.
//! - **Versions** below 1.0: what is documented here can change with the second number.
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
