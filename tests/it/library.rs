//! The crate inside of another program: its examples, and a decision of the program's own about each session.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use thalweg::config::Config;
use thalweg::control::{self, Given, Handle};
use thalweg::net::address::Endpoint;
use thalweg::reactor::{Caller, Course, Decide, Pilot};

use crate::kit::*;

#[allow(unreachable_pub, dead_code)]
#[path = "../../examples/decide.rs"]
mod decide;
#[allow(unreachable_pub, dead_code)]
#[path = "../../examples/embed.rs"]
mod embed;
#[allow(unreachable_pub, dead_code)]
#[path = "../../examples/origin.rs"]
mod origin;
#[allow(unreachable_pub, dead_code)]
#[path = "../../examples/records.rs"]
mod records;

/// Each is a program of its own, built by the gate; here it is run.
#[test]
fn the_examples_of_the_library_do_what_they_say() {
    for (name, main) in [
        ("decide", decide::main as fn() -> Result<(), _>),
        ("embed", embed::main),
        ("origin", origin::main),
        ("records", records::main),
    ] {
        let done = main();
        assert!(done.is_ok(), "{name}: {done:?}");
    }
}

/// A server that says who it is.
fn server(name: u8) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        while let Ok((mut client, _)) = listener.accept() {
            let _ = client.write_all(&[name]);
        }
    });
    at
}

/// Who serves a client that says nothing; `None`: it is turned away.
fn served_by(at: SocketAddr) -> Option<u8> {
    let mut client = TcpStream::connect(at).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut name = [0];
    client.read_exact(&mut name).ok().map(|()| name[0])
}

fn configured(case: Case, servers: &[SocketAddr], extra: &str) -> Config {
    let [own, other, ..] = servers else {
        panic!("two servers")
    };
    let text = format!(
        "[global]\nreactors = 2\nengine = \"{}\"\n\
         [admin]\nlisten = \"off\"\n\
         [log]\nlevel = \"error\"\nsessions = \"off\"\n\
         [upstream.own]\nservers = [\"{own}\"]\n\
         [upstream.other]\nservers = [\"{other}\"]\n\
         [[forward]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\nupstream = \"own\"\n{extra}\
         [[forward]]\nname = \"b\"\nlisten = \"127.0.0.1:0\"\nupstream = \"other\"\n",
        case.engine
    );
    Config::parse(&text).unwrap()
}

fn start(config: &Config, decide: impl Decide + 'static) -> Handle {
    let given = Given {
        pilot: Some(Pilot::new(decide)),
        ..Given::default()
    };
    control::start_with(config, given).unwrap()
}

fn address(handle: &Handle, forward: &str) -> SocketAddr {
    let mut listeners = handle.listeners().into_iter();
    match listeners.find(|(name, _)| &**name == forward) {
        Some((_, Endpoint::Inet(address))) => address,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_program_decides_where_each_session_goes() {
    on_every_engine(|case| {
        let servers = [server(b'0'), server(b'1'), server(b'2')];
        // Nobody listens there: the next one is dialled.
        let dead = SocketAddr::from(([127, 0, 0, 1], 1));
        let course = Arc::new(Mutex::new((Course::AsConfigured, 0)));
        let asked = course.clone();
        let handle = start(
            &configured(case, &servers, ""),
            move |caller: &Caller<'_>| {
                assert_eq!(caller.forward, "a");
                assert!(caller.client.to_string().starts_with("127.0.0.1:"));
                let mut asked = asked.lock().unwrap();
                asked.1 += 1;
                asked.0.clone()
            },
        );
        let at = address(&handle, "a");
        for (answer, expected) in [
            (Course::AsConfigured, Some(b'0')),
            (Course::Pool("other".into()), Some(b'1')),
            (Course::Pool("own".into()), Some(b'0')),
            (Course::Addresses(vec![servers[2]]), Some(b'2')),
            (Course::Addresses(vec![dead, servers[2]]), Some(b'2')),
            // Never to the forward's own servers instead.
            (Course::Addresses(vec![dead]), None),
            (Course::Addresses(Vec::new()), None),
            (Course::Pool("nowhere".into()), None),
            (Course::Refuse, None),
        ] {
            *course.lock().unwrap() = (answer.clone(), 0);
            assert_eq!(served_by(at), expected, "{answer:?}");
            assert_eq!(
                course.lock().unwrap().1,
                1,
                "{answer:?}: asked once a session"
            );
        }
        handle.stop().unwrap();
    });
}

#[test]
fn what_a_program_decides_outlives_a_reload_and_comes_before_routes() {
    let servers = [server(b'0'), server(b'1')];
    let case = Case {
        engine: engines()[0],
        path: "auto",
    };
    let before = configured(case, &servers, "");
    // All clients of `a` would go to the other pool.
    let route =
        "[[forward.route]]\nname = \"all\"\nclient = [\"127.0.0.0/8\"]\nupstream = \"other\"\n";
    let after = configured(case, &servers, route);
    let handle = start(&before, |caller: &Caller<'_>| match caller.forward {
        "a" => Course::Pool("own".into()),
        _ => Course::AsConfigured,
    });
    let (a, b) = (address(&handle, "a"), address(&handle, "b"));
    assert_eq!((served_by(a), served_by(b)), (Some(b'0'), Some(b'1')));
    let request = control::ReloadRequest {
        config: Some(Arc::new(after)),
        dry_run: false,
        confirm: None,
    };
    let done = handle.reload(request).unwrap();
    assert!(!done.changes.is_empty(), "{done:?}");
    assert_eq!((served_by(a), served_by(b)), (Some(b'0'), Some(b'1')));
    handle.stop().unwrap();
}

/// A server of datagrams that says who it is.
fn datagram_server(name: u8) -> SocketAddr {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&[name], client);
        }
    });
    at
}

/// Of a new client, who answers its datagrams.
fn answered_by(at: SocketAddr) -> u8 {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(at).unwrap();
    socket.send(b"x").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut name = [0];
    socket.recv(&mut name).unwrap();
    name[0]
}

#[test]
fn a_program_decides_where_each_flow_of_datagrams_goes() {
    on_every_engine(|case| {
        let [own, other] = [b'0', b'1'].map(datagram_server);
        let text = format!(
            "[global]\nengine = \"{}\"\nreactors = 1\n[admin]\nlisten = \"off\"\n\
             [log]\nlevel = \"error\"\nsessions = \"off\"\n\
             [upstream.own]\nservers = [\"{own}\"]\n[upstream.other]\nservers = [\"{other}\"]\n\
             [[forward]]\nname = \"a\"\nprotocol = \"udp\"\nlisten = \"127.0.0.1:0\"\nupstream = \"own\"\n\
             [[forward]]\nname = \"b\"\nprotocol = \"udp\"\nlisten = \"127.0.0.1:0\"\nupstream = \"other\"\n",
            case.engine
        );
        let config = Config::parse(&text).unwrap();
        let course = Arc::new(Mutex::new((Course::AsConfigured, 0)));
        let asked = course.clone();
        let handle = start(&config, move |caller: &Caller<'_>| {
            assert_eq!(caller.forward, "a");
            let mut asked = asked.lock().unwrap();
            asked.1 += 1;
            asked.0.clone()
        });
        let at = address(&handle, "a");
        for (answer, expected) in [
            (Course::AsConfigured, b'0'),
            (Course::Pool("other".into()), b'1'),
            (Course::Pool("own".into()), b'0'),
        ] {
            *course.lock().unwrap() = (answer.clone(), 0);
            assert_eq!(answered_by(at), expected, "{answer:?}");
            assert_eq!(course.lock().unwrap().1, 1, "{answer:?}: asked once a flow");
        }
        for answer in [
            Course::Refuse,
            Course::Pool("none".into()),
            Course::Addresses(vec![other]),
        ] {
            *course.lock().unwrap() = (answer.clone(), 0);
            let away = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            away.connect(at).unwrap();
            away.send(b"x").unwrap();
            wait_until("it is decided about", PATIENCE, || {
                course.lock().unwrap().1 > 0
            });
            // Whoever comes behind it is answered; it is not.
            course.lock().unwrap().0 = Course::AsConfigured;
            assert_eq!(answered_by(at), b'0');
            away.set_nonblocking(true).unwrap();
            assert!(away.recv(&mut [0]).is_err(), "{answer:?}");
        }
        handle.stop().unwrap();
    });
}
