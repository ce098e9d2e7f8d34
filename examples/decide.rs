//! A forwarder inside another program, which decides itself where each session goes.
//!
//!     cargo run --example decide
//!
//! What a configuration can say (routes, access lists, pools) stays there. This is for what only the program
//! knows: here a table of tenants, which changes while it runs.
#![allow(clippy::print_stdout, reason = "what an example shows")]

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;

use thalweg::config::Config;
use thalweg::control::{self, Given};
use thalweg::net::address::Endpoint;
use thalweg::reactor::{Caller, Course, Decide, Pilot};

/// Where each tenant is, by the name that its clients ask for.
#[derive(Clone, Default)]
struct Tenants(Arc<RwLock<HashMap<String, Course>>>);

impl Tenants {
    fn put(&self, name: &str, course: Course) {
        let mut table = self.0.write().unwrap_or_else(PoisonError::into_inner);
        table.insert(name.to_owned(), course);
    }
}

impl Decide for Tenants {
    // On a reactor's thread: from memory, and at once.
    fn decide(&self, caller: &Caller<'_>) -> Course {
        let table = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let asked = caller.server_name.or(caller.host);
        let known = asked.and_then(|name| table.get(name));
        known.cloned().unwrap_or(Course::Refuse)
    }

    // The names are in what clients say first.
    fn looks(&self, _forward: &str) -> bool {
        true
    }
}

/// Runs it.
pub fn main() -> Result<(), Box<dyn Error>> {
    let [blue, green, red] = [server("blue")?, server("green")?, server("red")?];
    let config = Config::parse(&format!(
        r#"
        [admin]
        listen = "off"

        [log]
        level = "error"
        sessions = "off"

        [upstream.blue]
        servers = ["{blue}"]

        [upstream.green]
        servers = ["{green}"]

        [[forward]]
        name = "web"
        listen = "127.0.0.1:0"
        upstream = "blue"

        [[forward]]
        name = "api"
        listen = "127.0.0.1:0"
        upstream = "green"
        "#
    ))?;
    let tenants = Tenants::default();
    tenants.put("a.example", Course::AsConfigured);
    tenants.put("b.example", Course::Pool("green".into()));
    // A server that no configuration knows.
    tenants.put("c.example", Course::Addresses(vec![red]));
    let given = Given {
        pilot: Some(Pilot::new(tenants.clone())),
        ..Given::default()
    };
    let forwarder = control::start_with(&config, given)?;
    let Some((_, Endpoint::Inet(at))) = forwarder.listeners().into_iter().next() else {
        return Err("it does not listen on TCP".into());
    };

    for (name, expected) in [
        ("a.example", "blue"),
        ("b.example", "green"),
        ("c.example", "red"),
        ("d.example", ""),
    ] {
        let answer = ask(at, name)?;
        println!("{name}: {answer:?}");
        if answer != expected {
            return Err(format!("{name} reached {answer:?}").into());
        }
    }
    // From now on; sessions that run stay where they are.
    tenants.put("d.example", Course::Pool("blue".into()));
    println!("d.example: {:?}", ask(at, "d.example")?);
    forwarder.stop()?;
    Ok(())
}

/// The line that a client gets who asks for this name; none if it is turned away.
fn ask(at: SocketAddr, name: &str) -> std::io::Result<String> {
    let mut client = TcpStream::connect(at)?;
    write!(client, "GET / HTTP/1.1\r\nHost: {name}\r\n\r\n")?;
    let mut answer = String::new();
    // Who is turned away is reset: that is no answer.
    let _ = BufReader::new(client).read_line(&mut answer);
    Ok(answer.trim_end().to_owned())
}

/// A server that says its name to everybody.
fn server(name: &'static str) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let at = listener.local_addr()?;
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let mut client = BufReader::new(client);
            let mut line = String::new();
            // All of the request is read: what is unread at a close resets it.
            while client.read_line(&mut line).is_ok_and(|count| count > 2) {
                line.clear();
            }
            let _ = writeln!(client.get_mut(), "{name}");
        }
    });
    Ok(at)
}
