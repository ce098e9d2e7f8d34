#![allow(clippy::unwrap_used, reason = "tests")]

use std::net::Ipv4Addr;

use super::*;

const FORWARD: At = At::Forward(ForwardId::new(1));

fn table(entries_max: usize, full: Full) -> Arc<ClientTable> {
    Arc::new(ClientTable::new(TableSettings {
        entries_max,
        full,
        prefix_v4: 32,
        prefix_v6: 64,
    }))
}

fn client(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0000 + number).into()
}

fn connections(max: u32) -> Limits {
    Limits {
        connections: Some(max),
        rate: None,
        bytes: None,
    }
}

fn rate(interval: Duration, burst: u32) -> Limits {
    Limits {
        connections: None,
        rate: Some(ConnectRate { interval, burst }),
        bytes: None,
    }
}

#[test]
fn b79_the_next_is_turned_away_and_a_place_is_free_after_an_end() {
    let table = table(1000, Full::LetIn);
    let limits = connections(10);
    let now = Instant::now();
    let admit = |ip| ClientTable::admit(&table, FORWARD, ip, &limits, now);
    let mut held: Vec<_> = (0..10).map(|_| admit(client(1)).unwrap()).collect();
    assert_eq!(admit(client(1)).unwrap_err(), Denied::Connections);
    assert!(admit(client(2)).is_ok(), "another client");
    let other = ClientTable::admit(
        &table,
        At::Forward(ForwardId::new(2)),
        client(1),
        &limits,
        now,
    );
    assert!(other.unwrap().is_some(), "another forward");
    held.pop();
    held.push(admit(client(1)).unwrap());
    assert_eq!(admit(client(1)).unwrap_err(), Denied::Connections);
    drop(held);
    assert_eq!((table.connections(), table.len()), (0, 0));
}

#[test]
fn b80_an_ipv6_client_is_its_network() {
    let table = table(10_000, Full::LetIn);
    let limits = connections(5);
    let now = Instant::now();
    let admit = |ip: IpAddr| ClientTable::admit(&table, FORWARD, ip, &limits, now);
    let within = |n: u128| IpAddr::from(Ipv6Addr::from_bits(0x2001_0db8 << 96 | n));
    let admitted: Vec<_> = (0..1000).map(|n| admit(within(n << 40))).collect();
    assert_eq!(admitted.iter().filter(|it| it.is_ok()).count(), 5);
    assert!(admit(within(1 << 64)).is_ok(), "another /64");
    // A mapped address is its IPv4 client.
    let mapped: IpAddr = "::ffff:10.0.0.9".parse().unwrap();
    let held: Vec<_> = (0..5).map(|_| admit(mapped).unwrap()).collect();
    assert_eq!(
        admit("10.0.0.9".parse().unwrap()).unwrap_err(),
        Denied::Connections
    );
    drop(held);
    let whole = ClientTable::new(TableSettings {
        prefix_v4: 0,
        prefix_v6: 128,
        ..table.settings
    });
    assert_eq!(
        whole.network(client(7)),
        IpAddr::from(Ipv4Addr::UNSPECIFIED)
    );
    assert_eq!(whole.network(within(3)), within(3));
}

#[test]
fn b82_the_burst_and_no_more_than_the_rate_behind_it() {
    let table = table(1000, Full::LetIn);
    let limits = rate(Duration::from_millis(100), 20);
    let begin = Instant::now();
    let admit = |after: Duration| {
        ClientTable::admit(&table, FORWARD, client(1), &limits, begin + after).is_ok()
    };
    let in_a_second = (0..1000)
        .filter(|n| admit(Duration::from_millis(*n)))
        .count();
    assert!((29..=31).contains(&in_a_second), "{in_a_second}");
    // The burst has come back after two silent seconds, and no more of it after an hour.
    let at_once = |after| (0..100).filter(|_| admit(after)).count();
    assert_eq!(at_once(Duration::from_secs(3)), 20);
    assert_eq!(at_once(Duration::from_secs(3603)), 20);
}

#[test]
fn b83_entries_without_connections_go_first_and_those_with_some_never() {
    let entries_max = 64 * SHARDS;
    let table = table(entries_max, Full::TurnAway);
    let limits = rate(Duration::from_secs(3600), 1);
    let now = Instant::now();
    let admit = |ip| ClientTable::admit(&table, FORWARD, ip, &limits, now);
    let held: Vec<_> = (0..SHARDS as u32)
        .map(|n| admit(client(n)).unwrap())
        .collect();
    for n in 0..200_000 {
        drop(admit(client(1000 + n)).unwrap());
        assert!(table.len() <= entries_max);
        if n % 50_000 == 0 {
            let shards = table.shards.iter();
            let lines = shards.map(|it| lock(it).idle.len());
            assert!(lines.sum::<usize>() <= 3 * entries_max, "the line grows");
        }
    }
    // None of them went: their rate is not paid for.
    for n in 0..SHARDS as u32 {
        assert_eq!(admit(client(n)).unwrap_err(), Denied::Rate);
    }
    drop(held);
    assert_eq!(table.connections(), 0);
}

#[test]
fn b83_a_full_table_fails_as_it_is_told() {
    for (full, let_in) in [(Full::LetIn, true), (Full::TurnAway, false)] {
        let table = table(SHARDS, full);
        let limits = connections(1);
        let now = Instant::now();
        let admit = |ip| ClientTable::admit(&table, FORWARD, ip, &limits, now);
        let admitted: Vec<_> = (0..1000).map(|n| admit(client(n))).collect();
        assert_eq!(table.len(), SHARDS);
        assert_eq!(admitted.iter().all(Result::is_ok), let_in);
        let counted = admitted.iter().filter(|it| matches!(it, Ok(Some(_))));
        assert_eq!(counted.count(), SHARDS);
        drop(admitted);
        assert_eq!((table.connections(), table.len()), (0, 0));
    }
}

#[test]
fn b84_who_has_paid_is_forgotten_when_others_come() {
    let table = table(100_000, Full::LetIn);
    let limits = rate(Duration::from_millis(1), 1);
    let begin = Instant::now();
    let admit = |n, now| drop(ClientTable::admit(&table, FORWARD, client(n), &limits, now));
    let far = begin + Duration::from_secs(3600);
    // As if all had come at one moment that is still ahead of the clock of their ends.
    for n in 0..65_536 {
        admit(n, far);
    }
    assert_eq!(table.len(), 65_536);
    // A client gives up a few of its shard's.
    for n in 0..20_000 {
        admit(100_000 + n, far + Duration::from_secs(1 + u64::from(n)));
    }
    assert!(table.len() < 25_000, "{}", table.len());
}

/// Reactors on threads of their own.
#[test]
fn b81_no_more_than_so_many_over_all_threads() {
    let table = table(1000, Full::LetIn);
    let limits = connections(100);
    for _ in 0..20 {
        let admitted: Vec<_> = std::thread::scope(|scope| {
            let admit = || {
                let mine = (0..250).filter_map(|_| {
                    ClientTable::admit(&table, FORWARD, client(1), &limits, Instant::now()).ok()
                });
                mine.collect::<Vec<_>>()
            };
            let both = [scope.spawn(admit), scope.spawn(admit)];
            both.into_iter().flat_map(|it| it.join().unwrap()).collect()
        });
        assert_eq!(admitted.len(), 100);
        assert_eq!(table.connections(), 100);
    }
    assert_eq!((table.connections(), table.len()), (0, 0));
}

/// Forgotten at once, it would have its burst again with each connection.
#[test]
fn a_byte_rate_is_remembered_until_its_burst_has_passed() {
    let table = table(1000, Full::LetIn);
    let burst = Duration::from_secs(60);
    let limits = Limits {
        connections: None,
        rate: None,
        bytes: Some(
            [crate::policy::meter::Rate {
                per_second: 1_000,
                burst,
            }; 2],
        ),
    };
    let now = Instant::now();
    let enter = || ClientTable::admit(&table, FORWARD, client(1), &limits, now);
    let buckets = |permit: &Option<ClientPermit>| permit.as_ref().and_then(ClientPermit::buckets);
    let (first, second) = (enter().expect("let in"), enter().expect("let in"));
    let shared = buckets(&first).expect("a rate");
    assert!(Arc::ptr_eq(&shared, &buckets(&second).expect("a rate")));
    drop((first, second));
    assert_eq!(table.len(), 1);
    let again = enter().expect("let in");
    assert!(Arc::ptr_eq(&shared, &buckets(&again).expect("a rate")));
}
