//! temp
use std::sync::Arc;
use std::time::Duration;
use thalweg::config::*;
use thalweg::net::address::Address;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let ep = |s: &str| Address::Inet(s.parse().unwrap());
    let path = match a.get(3).map(String::as_str) {
        Some("copy") => DataPath::Copy,
        Some("splice") => DataPath::Splice,
        _ => DataPath::Auto,
    };
    let c = Config {
        global: Global {
            reactors: Reactors::Count(1),
            engine: EngineChoice::Auto,
            max_connections: None,
            scratch_buffer: 262144,
            pipe_size: 1 << 20,
            buffer_limit: 256 << 20,
            busy_poll: Duration::ZERO,
        },
        log: Log {
            level: LogLevel::Info,
            format: LogFormat::Text,
            sessions: if a.get(4).is_some() {
                SessionLog::Close
            } else {
                SessionLog::Off
            },
            to: LogTarget::Stdout,
        },
        forwards: vec![Arc::new(Forward {
            name: "x".into(),
            listen: vec![ep(&a[1])],
            servers: a[2].split(',').map(|s| Server { address: ep(s) }).collect(),
            max_connections: None,
            timeouts: Timeouts {
                connect: Duration::from_secs(5),
                idle: Duration::from_secs(600),
                half_close: Duration::from_secs(60),
                write_stall: Duration::from_secs(600),
                drain: Duration::from_secs(5),
            },
            data_path: path,
            client: Default::default(),
            upstream: Default::default(),
        })],
    };
    thalweg::control::run(&c).unwrap();
}
