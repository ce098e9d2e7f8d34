//! `spread = "least"`: clients are spread over reactors by how many sessions each has.

use std::io::Read as _;

use crate::kit::admin::Admin;
use crate::kit::directory::Directory;
use crate::kit::*;
use crate::reloading::kit::{Echo, Load, Reloadable, free_port};

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
