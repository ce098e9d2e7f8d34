//! `spread = "least"`: clients are spread over reactors by how many sessions each has; and
//! `rebalance = "auto"`: sessions that run are moved from a busy reactor to one that is not.

use std::io::Read as _;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::kit::admin::Admin;
use crate::kit::directory::Directory;
use crate::kit::peer::transfer;
use crate::kit::*;
use crate::reloading::kit::{Echo, Load, Reloadable};

fn text(port: u16, server: &Echo, spread: &str) -> String {
    format!(
        "[global]\nreactors = 2\nspread = \"{spread}\"\n\
         [[forward]]\nname = \"web\"\nlisten = \"127.0.0.1:{port}\"\nupstream = \"{}\"\n",
        server.address
    )
}

/// A client that has been served, and stays.
fn stays(port: u16) -> Peer {
    let client = Peer::connect(([127, 0, 0, 1], port).into());
    client.stream().read_exact(&mut [0]).unwrap();
    client
}

fn sessions(admin: &Directory) -> Vec<u64> {
    let reactors = Admin::at(&admin.join("admin.sock"))
        .get("/v1/reactors")
        .json();
    let each = reactors.as_array().unwrap().iter();
    each.map(|it| it["sessions"].as_u64().unwrap()).collect()
}

/// Wherever the kernel's hash leads them; and those that are passed on are whole.
#[test]
fn eight_long_connections_are_four_and_four() {
    on_every_engine(|case| {
        let (server, admin, port) = (Echo::new(b'a'), Directory::new(), free_port());
        let it = Reloadable::with(case, &text(port, &server, "least"), 1, None, |setup| {
            setup.admin(&admin)
        });
        let mut clients: Vec<Peer> = (0..8).map(|_| stays(port)).collect();
        assert_eq!(sessions(&admin), [4, 4]);
        for client in &mut clients {
            client.send(100_000);
        }
        // Whoever goes makes room where he was.
        drop(clients.drain(..6));
        wait_until("they are gone", PATIENCE, || {
            sessions(&admin).iter().sum::<u64>() == 2
        });
        clients.extend((0..10).map(|_| stays(port)));
        assert_eq!(sessions(&admin), [6, 6]);
        drop(clients);
        drop(it);
    });
}

/// It is turned on and off by a reload, under load; what was uneven evens out.
#[test]
fn a_reload_turns_it_on_and_off_and_loses_nobody() {
    on_every_engine(|case| {
        let (server, admin, port) = (Echo::new(b'a'), Directory::new(), free_port());
        let kernel = text(port, &server, "kernel");
        let least = text(port, &server, "least");
        let it = Reloadable::with(case, &kernel, 1, None, |setup| {
            setup.set("log.sessions", "off").admin(&admin)
        });
        let mut clients: Vec<Peer> = (0..8).map(|_| stays(port)).collect();
        it.reloads(&least);
        clients.extend((0..8).map(|_| stays(port)));
        assert_eq!(sessions(&admin), [8, 8]);
        let load = Load::begin(&[([127, 0, 0, 1], port).into()], 8);
        for turn in 0..10 {
            it.reloads([&kernel, &least][turn % 2]);
            it.reloads(&[&kernel, &least][turn % 2].replace("reactors = 2", "reactors = 3"));
            it.reloads(&[&kernel, &least][turn % 2].replace("reactors = 2", "reactors = 1"));
        }
        load.end();
        for client in &mut clients {
            client.send(100);
        }
    });
}

/// Two pairs of peers whose sessions are on the same reactor: of three connections two are.
fn on_one_reactor(it: &Forwarder, server: &Listener, admin: &Directory) -> [(Peer, Peer); 2] {
    let mut pairs: Vec<(Peer, Peer)> = (0..3)
        .map(|n| {
            let client = it.connect().numbered_client(n);
            (client, server.accept().numbered_server(n))
        })
        .collect();
    let listed = Admin::at(&admin.join("admin.sock"))
        .get("/v1/sessions")
        .json();
    let listed = listed["sessions"].as_array().unwrap().clone();
    let reactor_of = |client: &Peer| {
        let own = client.stream().local_addr().unwrap().to_string();
        let its = listed
            .iter()
            .find(|it| it["client"] == own.as_str())
            .unwrap();
        its["id"]
            .as_str()
            .unwrap()
            .split_once('-')
            .unwrap()
            .0
            .to_owned()
    };
    let on: Vec<String> = pairs.iter().map(|(client, _)| reactor_of(client)).collect();
    let odd = match on.as_slice() {
        [a, b, _] if a == b => 2,
        [a, _, c] if a == c => 1,
        _ => 0,
    };
    drop(pairs.remove(odd));
    let second = pairs.pop().unwrap();
    [pairs.pop().unwrap(), second]
}

/// Two flows at full speed that came to one reactor end up on both, byte by byte what was sent,
/// and stay there.
#[test]
fn two_bulk_flows_of_one_reactor_end_up_on_both() {
    on_every_engine(|case| {
        let (server, admin) = (Listener::new(), Directory::new());
        let it = Setup::new(server.address())
            .case(case)
            .reactors(2)
            .set("global.rebalance", "auto")
            .admin(&admin)
            .start();
        let pairs = on_one_reactor(&it, &server, &admin);
        wait_until("the third one is gone", PATIENCE, || {
            sessions(&admin).iter().sum::<u64>() == 2
        });
        let mut both = sessions(&admin);
        both.sort_unstable();
        assert_eq!(both, [0, 2]);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flows: Vec<_> = pairs
                .into_iter()
                .map(|(mut client, mut server)| {
                    let stop = &stop;
                    scope.spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            transfer(&mut client, &mut server, 8 * MIB);
                            transfer(&mut server, &mut client, 8 * MIB);
                        }
                        client.half_close();
                        server.expect_then_eof(0);
                        server.half_close();
                        client.expect_then_eof(0);
                    })
                })
                .collect();
            let moved = poll(PATIENCE, || (sessions(&admin) == [1, 1]).then_some(()));
            stop.store(true, Ordering::Relaxed);
            for flow in flows {
                flow.join().unwrap();
            }
            assert!(
                moved.is_some(),
                "they stay on one reactor: {:?}",
                it.records()
            );
        });
        // It is told at the next look.
        it.wait_for_line(" moved from reactor ");
        assert_eq!(it.lines_with(" moved from reactor ").len(), 1);
        let records = it.wait_for_sessions(3);
        let well = records.iter().filter(|it| it.code() == "--").count();
        assert!(well >= 2, "{records:?}");
    });
}
