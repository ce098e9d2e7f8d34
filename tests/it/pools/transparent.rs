//! Connecting from the client's own address (`transparent`): a client in a network
//! namespace of its own, the forwarder and its server in another, and routes that
//! bring the server's answers back to the forwarder.

use std::net::IpAddr;

use nix::unistd::geteuid;

use super::pool::{Pool, Visit};
use crate::kit::namespace::{ip, run};
use crate::kit::shortage::Nobody;
use crate::kit::*;

const CLIENT: [u8; 4] = [10, 77, 0, 2];
const SERVER: [u8; 4] = [10, 78, 0, 1];

/// Here the forwarder and its server, there the client. `None`: skipped, aloud.
fn networks() -> Option<(Namespace, Namespace)> {
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    let made = here.run(|| {
        let peer = there.path();
        let link = ["link", "add", "v0", "type", "veth", "peer", "name", "v1"];
        run("ip", &[link.as_slice(), &["netns", peer.as_str()]].concat())?;
        ip("addr add 10.77.0.1/24 dev v0");
        ip("link set v0 up");
        ip("addr add 10.78.0.1/32 dev lo");
        // What the server sends to the client is the forwarder's.
        ip("rule add from 10.78.0.1 lookup 100");
        ip("route add local 0.0.0.0/0 dev lo table 100");
        Ok::<_, String>(())
    });
    if let Err(why) = made {
        skip(&test_name(), &why);
        return None;
    }
    there.run(|| {
        ip("addr add 10.77.0.2/24 dev v1");
        ip("link set v1 up");
    });
    Some((here, there))
}

#[test]
fn a_server_sees_the_address_of_the_client() {
    on_every_engine(|case| {
        let Some((here, there)) = networks() else {
            return;
        };
        here.run(|| {
            let servers = [Listener::on(SERVER.into())];
            let pool = Pool::of(&[servers[0].address()]).key("transparent", true);
            let forwarder = pool.setup_at("10.77.0.1:0", case).start();
            let to = forwarder.address();
            for _ in 0..3 {
                let client = there.run(|| Peer::connect(to));
                let visit = Visit::of(client, &servers);
                assert_eq!(visit.upstream.remote().ip(), IpAddr::from(CLIENT));
                visit.end();
            }
            let records = forwarder.wait_for_sessions(3);
            assert!(records.iter().all(|record| record.code() == "--"));
            forwarder.check_idle();
        });
    });
}

#[test]
fn without_the_capability_it_does_not_start_and_says_what_to_do() {
    if !geteuid().is_root() {
        // Then this process is one without it.
        let setup = Pool::of(&[([127, 0, 0, 1], 1).into()]).key("transparent", true);
        let case = Case {
            engine: "epoll",
            path: "auto",
        };
        return names_the_remedy(&setup.setup(case));
    }
    on_every_engine(|case| {
        let Some(nobody) = Nobody::new() else { return };
        let pool = Pool::of(&[([127, 0, 0, 1], 1).into()]).key("transparent", true);
        names_the_remedy(&nobody.runs(pool.setup(case)));
    });
}

#[track_caller]
fn names_the_remedy(setup: &Setup) {
    let why = setup
        .try_start()
        .expect_err("it starts without the capability");
    for word in ["transparent", "CAP_NET_ADMIN", "setcap"] {
        assert!(why.contains(word), "{word} is not in: {why}");
    }
}
