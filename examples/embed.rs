//! A forwarder inside another program: started, replaced while it runs, and ended.
//!
//!     cargo run --example embed
#![allow(clippy::print_stdout, reason = "what an example shows")]

use std::error::Error;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use thalweg::config::Config;
use thalweg::control::{self, Handle, ReloadRequest};
use thalweg::net::address::Endpoint;

/// Runs it.
pub fn main() -> Result<(), Box<dyn Error>> {
    let server = TcpListener::bind("127.0.0.1:0")?;
    let upstream = server.local_addr()?;
    let forwarder = control::start(&Config::parse(&configuration(upstream, "10m"))?)?;
    let at = address(&forwarder).ok_or("it listens nowhere")?;

    let mut client = TcpStream::connect(at)?;
    let (mut upstream_end, _) = server.accept()?;
    client.write_all(b"hello")?;
    let mut bytes = [0; 5];
    upstream_end.read_exact(&mut bytes)?;
    println!("forwarded: {}", String::from_utf8_lossy(&bytes));

    // What a program decides goes into the configuration: sockets and sessions stay what they are.
    let request = ReloadRequest {
        config: Some(Arc::new(Config::parse(&configuration(upstream, "5s"))?)),
        dry_run: false,
        confirm: None,
    };
    println!("reloaded: {:?}", forwarder.reload(request)?);

    drop((client, upstream_end));
    // Lets nobody in any more, and waits for the sessions that are left.
    forwarder.stop()?;
    Ok(())
}

fn configuration(upstream: SocketAddr, idle: &str) -> String {
    format!(
        r#"
        [admin]
        listen = "off"

        [[forward]]
        name = "web"
        listen = "127.0.0.1:0"
        upstream = "{upstream}"
        idle_timeout = "{idle}"
        "#
    )
}

fn address(forwarder: &Handle) -> Option<SocketAddr> {
    let listeners = forwarder.listeners().into_iter();
    let mut addresses = listeners.filter_map(|(_, at)| match at {
        Endpoint::Inet(address) => Some(address),
        Endpoint::Unix(_) | Endpoint::Unnamed => None,
    });
    addresses.next()
}
