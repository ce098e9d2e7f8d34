//! Who gets a session: behaviour 32. What policies do by themselves is in
//! `src/balance`.

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};

use super::pool::{Pool, Visit, addresses, servers, shares, turned_away, visits};
use crate::kit::peer::Refusing;
use crate::kit::*;

#[test]
fn b32_round_robin_is_exact_and_smooth() {
    on_every_engine(|case| {
        let servers = servers::<2>();
        let at = addresses(&servers);
        let forwarder = Pool::of(&at).start(case);
        let even = visits(&forwarder, &servers, 30);
        assert_eq!(shares(&even), [15, 15], "{even:?}");
        assert!(even.windows(2).all(|pair| pair[0] != pair[1]), "{even:?}");

        let forwarder = Pool::default()
            .server(at[0], "weight = 1")
            .server(at[1], "weight = 2")
            .start(case);
        let uneven = visits(&forwarder, &servers, 30);
        assert_eq!(shares(&uneven), [10, 20], "{uneven:?}");
        // Not in bursts: each third of three sessions is the first server's.
        for three in uneven.chunks(3) {
            assert_eq!(shares(three), [1, 2], "{uneven:?}");
        }
    });
}

#[test]
fn b32_a_weight_of_zero_and_a_backup_get_nothing_while_others_can_be() {
    on_every_engine(|case| {
        let servers = servers::<3>();
        let at = addresses(&servers);
        for balance in [
            "round_robin",
            "least_conn",
            "p2c",
            "random",
            "hash_address",
            "first",
        ] {
            let forwarder = Pool::default()
                .server(at[0], "weight = 0")
                .server(at[1], "backup = true")
                .server(at[2], "")
                .text("balance", balance)
                .start(case);
            assert_eq!(visits(&forwarder, &servers, 6), [2; 6], "{balance}");
        }
    });
}

#[test]
fn b32_backups_are_used_while_no_other_server_can_be() {
    on_every_engine(|case| {
        let port = Refusing::new();
        let backup = [Listener::new()];
        let forwarder = Pool::of(&[port.address()])
            .server(backup[0].address(), "backup = true")
            .text("fail_timeout", "400ms")
            .start(case);
        assert_eq!(visits(&forwarder, &backup, 5), [0; 5]);
        let records = forwarder.wait_for_sessions(5);
        assert_eq!(records[0].attempts(), 2);
        // The first is back: it is tried when its mark has run out, and stays.
        let [backup] = backup;
        let both = [Listener::with(port.address(), 16, None), backup];
        wait_until("it is tried", PATIENCE, || {
            let visit = Visit::new(&forwarder, &both);
            let server = visit.server;
            visit.end();
            server == 0
        });
        assert_eq!(visits(&forwarder, &both, 5), [0; 5]);
    });
}

#[test]
fn b32_least_conn_goes_where_the_fewest_are() {
    on_every_engine(|case| {
        let servers = servers::<3>();
        let at = addresses(&servers);
        let forwarder = Pool::default()
            .server(at[0], "weight = 1")
            .server(at[1], "weight = 1")
            .server(at[2], "weight = 2")
            .text("balance", "least_conn")
            .start(case);
        let visit = |_| Visit::new(&forwarder, &servers);
        let mut held: Vec<Visit> = (0..16).map(visit).collect();
        let on: Vec<_> = held.iter().map(|visit| visit.server).collect();
        assert_eq!(shares(&on), [4, 4, 8], "{on:?}");
        // Three leave the first server: the next three go there.
        for _ in 0..3 {
            let at = held.iter().position(|visit| visit.server == 0).unwrap();
            held.swap_remove(at).end();
        }
        forwarder.wait_for_sessions(3);
        let next: Vec<Visit> = (0..3).map(visit).collect();
        assert!(next.iter().all(|visit| visit.server == 0), "{next:?}");
    });
}

#[test]
fn b32_with_every_server_saturated_every_policy_ends() {
    on_every_engine(|case| {
        let servers = servers::<3>();
        for balance in [
            "least_conn",
            "round_robin",
            "p2c",
            "random",
            "hash_address",
            "first",
        ] {
            let pool = addresses(&servers)
                .into_iter()
                .fold(Pool::default(), |pool, at| {
                    pool.server(at, "max_connections = 1")
                });
            let forwarder = pool.text("balance", balance).key("queue", 0).start(case);
            let held: Vec<_> = (0..3).map(|_| Visit::new(&forwarder, &servers)).collect();
            for _ in 0..5 {
                assert_eq!(turned_away(&forwarder), End::Reset, "{balance}");
            }
            for record in forwarder.wait_for_sessions(5) {
                assert_eq!(record.cause(), "queue_full", "{balance}");
            }
            forwarder.check_quiet();
            drop(held);
        }
    });
}

#[test]
fn b32_first_fills_in_order() {
    on_every_engine(|case| {
        let servers = servers::<3>();
        let pool = addresses(&servers)
            .into_iter()
            .fold(Pool::default(), |pool, at| {
                pool.server(at, "max_connections = 2")
            });
        let forwarder = pool.text("balance", "first").start(case);
        let held: Vec<_> = (0..5).map(|_| Visit::new(&forwarder, &servers)).collect();
        let on: Vec<_> = held.iter().map(|visit| visit.server).collect();
        assert_eq!(on, [0, 0, 1, 1, 2]);
    });
}

#[test]
fn b32_random_and_two_choices_use_everybody() {
    on_every_engine(|case| {
        let servers = servers::<2>();
        let at = addresses(&servers);
        for balance in ["random", "p2c"] {
            let forwarder = Pool::default()
                .server(at[0], "weight = 1")
                .server(at[1], "weight = 3")
                .text("balance", balance)
                .start(case);
            // A server that has a quarter is never drawn in 60 once in 30 million.
            let shares: [usize; 2] = shares(&visits(&forwarder, &servers, 60));
            assert!(
                shares.iter().all(|share| *share > 0),
                "{balance}: {shares:?}"
            );
        }
    });
}

/// A client at an address of its own.
fn client(host: u8, to: SocketAddr) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let local = SocketAddr::from(([127, 0, 32, host], 0));
    socket.bind(&local.into()).unwrap();
    socket.connect_timeout(&to.into(), PATIENCE).unwrap();
    Peer::client(socket.into())
}

/// Where each of the clients goes.
fn homes(forwarder: &Forwarder, servers: &[Listener]) -> Vec<SocketAddr> {
    let home = |host| {
        let visit = Visit::of(client(host, forwarder.address()), servers);
        let server = servers[visit.server].address();
        visit.end();
        server
    };
    (1..=60).map(home).collect()
}

#[test]
fn b32_a_client_keeps_its_server_and_a_removed_one_moves_only_its_share() {
    on_every_engine(|case| {
        let servers = servers::<3>();
        let at = addresses(&servers);
        let pool = |at: &[SocketAddr]| Pool::of(at).text("balance", "hash_address");
        let one = pool(&at).start(case);
        let before = homes(&one, &servers);
        assert_eq!(
            homes(&one, &servers),
            before,
            "the same client, the same server"
        );
        // Another forwarder of the fleet, with another order and more reactors.
        let other = pool(&[at[2], at[0], at[1]]).setup(case).reactors(2).start();
        assert_eq!(
            homes(&other, &servers),
            before,
            "the same in every forwarder"
        );
        for server in &at {
            assert!(
                before.contains(server),
                "nobody goes to {server}: {before:?}"
            );
        }

        let fewer = pool(&at[..2]).start(case);
        let after = homes(&fewer, &servers);
        let stayed = before
            .iter()
            .zip(&after)
            .filter(|(before, _)| **before != at[2]);
        let moved = stayed.filter(|(before, after)| before != after).count();
        // Below 1 % of them: of 40, more than 4 about once in ten million.
        assert!(moved <= 4, "{moved} of other servers' clients moved");
        assert!(!after.contains(&at[2]));
    });
}

#[test]
fn b32_by_address_and_port_one_host_is_spread() {
    on_every_engine(|case| {
        let servers = servers::<2>();
        let forwarder = Pool::of(&addresses(&servers))
            .text("balance", "hash_address_port")
            .start(case);
        let shares: [usize; 2] = shares(&visits(&forwarder, &servers, 40));
        assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    });
}

/// A server that is back begins with a 16th of its weight.
#[test]
fn b32_slow_start_gives_a_server_that_is_back_a_small_share() {
    on_every_engine(|case| {
        for (slow_start, least, most) in [("1h", 1, 8), ("0s", 16, 18)] {
            let port = Refusing::new();
            let other = Listener::new();
            let forwarder = Pool::of(&[port.address(), other.address()])
                .text("fail_timeout", "200ms")
                .text("slow_start", slow_start)
                .start(case);
            let mut servers = vec![other];
            visits(&forwarder, &servers, 2);
            servers.push(Listener::with(port.address(), 64, None));
            wait_until("it is tried", PATIENCE, || {
                let visit = Visit::new(&forwarder, &servers);
                let server = visit.server;
                visit.end();
                server == 1
            });
            forwarder.wait_for_line("is used again");
            // Half of them with all of its weight, two with a 16th.
            let share = shares::<2>(&visits(&forwarder, &servers, 34))[1];
            assert!(
                (least..=most).contains(&share),
                "{slow_start}: {share} of 34"
            );
        }
    });
}

/// Round robin is one sequence, whichever reactor a client comes to.
#[test]
fn b32_shares_are_exact_over_reactors() {
    on_every_engine(|case| {
        let servers = servers::<3>();
        let at = addresses(&servers);
        let forwarder = Pool::of(&at).setup(case).reactors(2).start();
        let even = visits(&forwarder, &servers, 60);
        assert_eq!(shares(&even), [20, 20, 20], "{even:?}");

        let forwarder = Pool::default()
            .server(at[0], "weight = 1")
            .server(at[1], "weight = 2")
            .server(at[2], "weight = 3")
            .setup(case)
            .reactors(2)
            .start();
        let uneven = visits(&forwarder, &servers, 36);
        assert_eq!(shares(&uneven), [6, 12, 18], "{uneven:?}");
        // As nginx has it, in every round.
        for round in uneven.chunks(6) {
            assert_eq!(round, [2, 1, 0, 2, 1, 2], "{uneven:?}");
        }
    });
}
