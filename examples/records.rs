//! The record of each session as it ends, read as a stream.
//!
//!     cargo run --example records
#![allow(clippy::print_stdout, reason = "what an example shows")]

use std::error::Error;
use std::net::{SocketAddr, TcpListener, TcpStream};

use hyper::Method;
use thalweg::admin::client::Client;
use thalweg::config::Config;
use thalweg::control;
use thalweg::net::address::Endpoint;

/// Runs it.
pub fn main() -> Result<(), Box<dyn Error>> {
    let server = TcpListener::bind("127.0.0.1:0")?;
    let socket = std::env::temp_dir().join(format!("thalweg-records-{}.sock", std::process::id()));
    // Records are those of the log; they are told at the admin endpoint too.
    let forwarder = control::start(&Config::parse(&format!(
        r#"
        [admin]
        listen = "unix:{}"

        [log]
        format = "json"
        sessions = "close"

        [[forward]]
        name = "web"
        listen = "127.0.0.1:0"
        upstream = "{}"
        "#,
        socket.display(),
        server.local_addr()?
    ))?)?;
    let Some((_, Endpoint::Inet(at))) = forwarder.listeners().into_iter().next() else {
        return Err("it does not listen on TCP".into());
    };

    let mut session = None;
    let mut told = Vec::new();
    Client::at_socket(&socket)?.stream(Method::GET, "/v1/events", None, |bytes| {
        // A first line comes before any record: from now on none is missed.
        if session.is_none() {
            session = Some(a_session(at, &server));
        }
        told.extend_from_slice(bytes);
        // `false` ends the stream: here, once a record is there.
        let text = String::from_utf8_lossy(&told);
        match text
            .split_once("data: ")
            .and_then(|(_, data)| data.split_once('\n'))
        {
            Some((record, _)) => {
                println!("{record}");
                false
            }
            None => true,
        }
    })?;
    session.ok_or("nothing was told")??;
    forwarder.stop()?;
    Ok(())
}

/// One that ends at once.
fn a_session(at: SocketAddr, server: &TcpListener) -> std::io::Result<()> {
    let client = TcpStream::connect(at)?;
    let (upstream, _) = server.accept()?;
    drop((client, upstream));
    Ok(())
}
