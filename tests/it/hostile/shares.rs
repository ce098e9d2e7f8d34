//! One client, or very many, that take every place there is.

use super::*;

/// Places of the process, small enough for a test and large enough to be shared out.
const PLACES: usize = 330;

/// One address takes all that it can get of all forwards, and holds on to it; with a byte
/// in each session, or without one.
#[test]
fn one_address_that_takes_every_place_leaves_some_for_others() {
    on_every_engine(|case| {
        for speaks in [false, true] {
            let echo = Echo::start();
            let forwarder = Setup::new(echo.address)
                .and("127.0.0.1:0", echo.address)
                .case(case)
                .set("global.max_connections", PLACES)
                .start();
            let addresses: Vec<SocketAddr> = forwarder
                .addresses()
                .iter()
                .map(|it| it.parse().unwrap())
                .collect();
            let bystander = Bystander::of(addresses[0]);
            let mut taken = Vec::new();
            for n in 0..2 * PLACES {
                // Whoever is turned away may learn of it at once.
                if let Ok(mut stream) = connect_from([0, 66], addresses[n % 2]) {
                    if speaks {
                        let _ = stream.write_all(b"?");
                    }
                    taken.push(stream);
                }
            }
            wait_until("it is kept from the last places", PATIENCE, || {
                forwarder.counters().of("denied_share") > 0
            });
            let used = forwarder.counters().of("live");
            assert!(used > 9 * PLACES as u64 / 10, "only {used} were used");
            for _ in 0..3 {
                bystander.goes_on();
                bystander.comes_in();
                comes_in_at(addresses[1]);
            }
            let line = forwarder.wait_for_line("turned away");
            assert_eq!((line.code(), line.cause()), ("PR", "share"));
            assert_eq!(forwarder.counters().of("made_room"), 0, "there was room");
            drop((taken, bystander));
            forwarder.check_idle();
        }
    });
}

/// Very many have filled a forward, one of them with connections on which it says nothing:
/// these make room, and nobody else does.
#[test]
fn who_never_said_a_byte_makes_room_when_no_place_is_left() {
    on_every_engine(|case| {
        let echo = Echo::start();
        let forwarder = Setup::new(echo.address)
            .case(case)
            .set("defaults.max_connections", 100)
            .start();
        let to = forwarder.address();
        let bystander = Bystander::of(to);
        let silent: Vec<TcpStream> = (0..60).map(|_| connect_from([2, 1], to).unwrap()).collect();
        let spoken: Vec<TcpStream> = (1..40)
            .map(|n| connect_from([1, n], to).unwrap())
            .inspect(|stream| answers(stream, PATIENCE).unwrap())
            .collect();
        assert_eq!(forwarder.counters().of("live"), 100);
        bystander.comes_in();
        bystander.goes_on();
        for stream in &spoken {
            answers(stream, PATIENCE).unwrap();
        }
        let made_room = forwarder.counters().of("made_room");
        assert!((1..10).contains(&made_room), "{made_room}");
        let sessions = forwarder.sessions();
        let made = sessions.iter().find(|it| it.cause() == "made_room");
        assert_eq!(made.unwrap().code(), "RD");
        drop((silent, spoken, bystander));
        forwarder.check_idle();
    });
}

/// A limit that is too small to be shared out: its last place is for somebody who has none,
/// whether the others say something or not.
#[test]
fn one_address_leaves_the_last_place_of_a_small_limit() {
    on_every_engine(|case| {
        for speaks in [false, true] {
            let echo = Echo::start();
            let forwarder = Setup::new(echo.address)
                .case(case)
                .set("defaults.max_connections", 16)
                .start();
            let to = forwarder.address();
            let mut taken = Vec::new();
            for _ in 0..30 {
                // Whoever is turned away may learn of it at once.
                if let Ok(mut stream) = connect_from([0, 66], to) {
                    if speaks {
                        let _ = stream.write_all(b"?");
                    }
                    taken.push(stream);
                }
            }
            wait_until("it is kept from the last place", PATIENCE, || {
                forwarder.counters().of("denied_share") > 0
            });
            assert_eq!(forwarder.counters().of("live"), 15);
            // One place: who comes in again has gone before.
            for _ in 0..3 {
                comes_in_at(to);
                wait_until("it is gone", PATIENCE, || {
                    forwarder.counters().of("live") == 15
                });
            }
            assert_eq!(forwarder.counters().of("made_room"), 0, "there was room");
            drop(taken);
            forwarder.check_idle();
        }
    });
}

/// A limit of a few places, all of which one address has and says nothing: half of them are
/// many, and need not be waited for ten seconds.
#[test]
fn half_of_a_few_places_that_say_nothing_make_room_soon() {
    on_every_engine(|case| {
        let echo = Echo::start();
        let forwarder = Setup::new(echo.address)
            .case(case)
            .set("defaults.max_connections", 4)
            .start();
        let to = forwarder.address();
        let bystander = Bystander::of(to);
        let silent: Vec<TcpStream> = (0..3).map(|_| connect_from([0, 66], to).unwrap()).collect();
        wait_until("it has all that are left", PATIENCE, || {
            forwarder.counters().of("live") == 4
        });
        bystander.comes_in();
        bystander.goes_on();
        let made_room = forwarder.counters().of("made_room");
        assert!((1..=3).contains(&made_room), "{made_room}");
        drop((silent, bystander));
        forwarder.check_idle();
    });
}

/// A limit of so few places that none of them can be kept for others is a hard one: one
/// address may have all of it for as long as it says something. Who waits is turned away by
/// nobody and is served as soon as a place is free; `max_per_client` is what keeps one.
#[test]
fn a_limit_of_a_few_places_is_a_hard_one_unless_clients_have_limits() {
    const PLACES: u64 = 4;
    on_every_engine(|case| {
        let echo = Echo::start();
        let limited = |setup: Setup| setup.set("defaults.max_connections", PLACES);
        let forwarder = limited(Setup::new(echo.address).case(case)).start();
        let to = forwarder.address();
        let mut taken: Vec<TcpStream> = (0..PLACES)
            .map(|_| connect_from([0, 66], to).unwrap())
            .inspect(|stream| answers(stream, PATIENCE).unwrap())
            .collect();
        let waiting = TcpStream::connect_timeout(&to, PATIENCE).unwrap();
        // The next of the crowd stands behind it.
        let behind = connect_from([0, 66], to).unwrap();
        let asked = (&waiting).write_all(b"?");
        assert!(asked.is_ok(), "{asked:?}");
        forwarder.wait_for_line("max_connections");
        for stream in &taken {
            answers(stream, PATIENCE).unwrap();
        }
        let counters = forwarder.counters();
        assert_eq!(counters.of("live"), PLACES);
        assert_eq!(
            (counters.of("made_room"), counters.of("denied_share")),
            (0, 0)
        );
        drop(taken.pop());
        waiting.set_read_timeout(Some(PATIENCE)).unwrap();
        (&waiting).read_exact(&mut [0]).unwrap();
        drop((taken, waiting, behind));
        forwarder.check_idle();
        // One address may have some of them.
        let forwarder = limited(Setup::new(echo.address).case(case))
            .set("defaults.max_per_client", PLACES - 1)
            .start();
        let to = forwarder.address();
        let taken: Vec<TcpStream> = (0..2 * PLACES)
            .filter_map(|_| connect_from([0, 66], to).ok())
            .collect();
        let speaks = |stream: &&TcpStream| answers(stream, PATIENCE).is_ok();
        let spoken = taken.iter().filter(speaks).count();
        assert_eq!(spoken as u64, PLACES - 1);
        for _ in 0..3 {
            comes_in_at(to);
            wait_until("it is gone", PATIENCE, || {
                forwarder.counters().of("live") == PLACES - 1
            });
        }
        drop(taken);
        forwarder.check_idle();
    });
}
