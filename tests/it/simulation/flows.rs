//! Flows of datagrams on the simulated engine: clients that ask from many ports and come back,
//! floods of senders that come once, servers that answer late, twice or never, refuse, go down;
//! datagrams that vanish and overtake each other; sends that fail.
//!
//! The engine itself sees that nobody gets what is another's, from an address that was not asked,
//! or by a socket of two clients at a time. Here the books must close.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thalweg::balance::health;
use thalweg::config::{AdminState, HashKey, LogFormat, LogLevel, LogTarget, Resolve, SessionLog};
use thalweg::engine::Engine;

use thalweg::engine::sim::{Dice, Letter, Manners, Sim};
use thalweg::net::address::{Endpoint, Transport};
use thalweg::net::options::{Leg, SocketOptions};
use thalweg::observe::books::ForwardBooks;
use thalweg::observe::counters::Counters;
use thalweg::observe::log::Log;
use thalweg::reactor::upstream::server::{
    Member, Server, ServerSet, ServerSettings, ServerTerms, SetRules,
};
use thalweg::reactor::{DatagramRules, Forward, Gate, Listener, Reactor, Setup, UpstreamSetup};
use thalweg::relay::flow::FlowRules;
use thalweg::relay::id::{ForwardId, ListenerId, PoolId, ServerId};
use thalweg::relay::lane::PathPolicy;
use thalweg::relay::session::{Close, Deadlines, Rules};
use thalweg::relay::time::Time;

const SEEDS: u64 = 30;
const SERVERS: usize = 3;
const FLOWS_MAX: u32 = 40;

fn servers() -> Vec<Arc<Server>> {
    let server = |index| {
        Arc::new(Server::new(ServerSettings {
            id: ServerId::new(index as u32),
            endpoint: Sim::server(index),
            host: None,
            pool: "sim".into(),
            terms: ServerTerms {
                max_connections: None,
                connect_rate: None,
                max_per_client: None,
                send_proxy: None,
                bytes: None,
                admin: AdminState::Active,
                max_fails: 3,
                fail_timeout: Duration::from_millis(500),
            },
        }))
    };
    (0..SERVERS).map(server).collect()
}

fn upstream(servers: &[Arc<Server>]) -> UpstreamSetup {
    let members = servers.iter().map(|server| Member {
        server: server.clone(),
        weight: 1,
        backup: false,
        family: None,
    });
    let rules = SetRules {
        policy: thalweg::balance::Policy::RoundRobin,
        resolve: Resolve::First,
        slow_start: Duration::ZERO,
    };
    UpstreamSetup {
        set: Arc::new(ServerSet::new(members.collect(), &rules, None, Time::ZERO)),
        options: Arc::new(SocketOptions::default().plan(Leg::Upstream)),
        hash: HashKey::Address,
        queue: 0,
        attempt_delay: Duration::from_millis(250),
        sources: [].into(),
        transparent: false,
        send_proxy: None,
        warm: 0,
        warm_max_age: Duration::from_secs(2),
        clients: None,
    }
}

/// The first forward is for whatever comes, the second for a question and an answer.
fn forward(id: u32) -> Arc<Forward> {
    let flow = FlowRules {
        idle: Duration::from_millis(900),
        unanswered: Duration::from_millis(300),
        requests: (id == 1).then_some(1),
        responses: (id == 1).then_some(1),
        reply_factor: None,
    };
    Arc::new(Forward {
        id: ForwardId::new(id),
        name: "sim".into(),
        rules: Rules {
            deadlines: Deadlines {
                connect: Duration::from_secs(1),
                idle: Duration::from_secs(1),
                half_close: Duration::from_secs(1),
                write_stall: Duration::from_secs(1),
            },
            attempts_max: 1,
            retry: Duration::from_secs(1),
            queue: Duration::ZERO,
            opening: None,
            path: PathPolicy::Copy,
            turn_away: Close::Reset,
            fill_limits: [256 * 1024; 2],
        },
        pool: PoolId::new(0),
        gate: None,
        clients: None,
        steps: [].into(),
        announced: false,
        request: [].into(),
        datagrams: Some(Arc::new(DatagramRules {
            flow,
            gate: Some(Arc::new(Gate::new(FLOWS_MAX))),
            never_fragment: false,
            moves: true,
            quic: None,
        })),
        routing: None,
        pilot: None,
        route: None,
        books: Arc::new(ForwardBooks::new(1)),
        generation: 0,
    })
}

fn reactor(seed: u64, servers: &[Arc<Server>], counters: &Arc<Counters>) -> Reactor<Sim> {
    let (log, _) =
        Log::start(LogLevel::Error, LogFormat::Text, &LogTarget::Stderr).expect("a thread");
    let sim = Sim::new(seed);
    let setup = Setup {
        reactor: 0,
        pools: [(PoolId::new(0), upstream(servers))].into(),
        gate: Arc::new(Gate::new(1000)),
        flows: Arc::new(Gate::new(u32::MAX)),
        homes: Arc::default(),
        own: Arc::default(),
        counters: counters.clone(),
        log,
        session_log: SessionLog::Off.into(),
        taps: BTreeMap::new(),
        decider: None,
    };
    let sockets = [0, 1].map(|at| sim.listener(at));
    let mut reactor = Reactor::new(sim, setup);
    for (index, socket) in (0..).zip(sockets) {
        let place = (ListenerId::new(index), 0, Transport::Udp);
        let at = Listener::of_socket(place, Endpoint::Unnamed, forward(index));
        reactor
            .add_listener(socket, at)
            .expect("simulated sockets listen");
    }
    reactor
}

fn client(number: u64) -> SocketAddr {
    let [.., high, low] = number.to_be_bytes();
    ([10, (number >> 16) as u8, high, low], 1000 + u16::from(low)).into()
}

fn letter(number: u64, from: u64, listener: usize) -> Letter {
    Letter {
        number,
        client: client(from),
        local: None,
        listener,
        len: 100,
        datagrams: 1,
    }
}

/// What a run came to: questions, answers that came back, flows, flows that moved.
fn run(seed: u64) -> [u64; 4] {
    let counters = Arc::new(Counters::default());
    let servers = servers();
    let mut dice = Dice::new(seed ^ 0x5eed);
    let mut reactor = reactor(seed, &servers, &counters);
    let share = |dice: &mut Dice, most| dice.between(0, most) * dice.between(0, 1);
    reactor.engine_mut().set_manners(Manners {
        answers: 100 - share(&mut dice, 40),
        twice: share(&mut dice, 40),
        refuses: share(&mut dice, 30),
        loses: share(&mut dice, 30),
        fails: share(&mut dice, 10),
        // Some when their flow is over, and its socket another one's.
        late: Duration::from_millis(dice.between(0, 400) * dice.between(1, 4)),
    });
    let floods = dice.percent(40);
    let mut number = 0;
    for _ in 0..150 {
        for _ in 0..dice.between(0, 6) {
            number += 1;
            let mut one = letter(number, dice.between(0, 30), dice.between(0, 1) as usize);
            one.datagrams = if dice.percent(20) {
                dice.between(2, 5) as u32
            } else {
                1
            };
            reactor.engine_mut().client_asks(one);
        }
        if floods && dice.percent(20) {
            for _ in 0..dice.between(50, 300) {
                number += 1;
                reactor
                    .engine_mut()
                    .client_asks(letter(number, 1000 + number, 0));
            }
        }
        if dice.percent(5) {
            let server = &servers[dice.between(0, SERVERS as u64 - 1) as usize];
            let change = if dice.percent(50) {
                health::Change::Down
            } else {
                health::Change::Up
            };
            server.standing.checked(change, reactor.engine().now());
        }
        reactor.turn().expect("simulated waits succeed");
        reactor.check_invariants();
        assert!(
            reactor.live() <= 2 * FLOWS_MAX as usize,
            "more flows than may be"
        );
    }
    let mut turns = 0;
    while reactor.live() > 0 || reactor.engine().unread_datagrams() > 0 {
        reactor.turn().expect("simulated waits succeed");
        turns += 1;
        assert!(turns < 100_000, "flows do not end");
    }
    reactor.stop_accepting();
    while reactor.engine().datagram_sockets() > 0 {
        reactor.turn().expect("simulated waits succeed");
        turns += 1;
        assert!(turns < 100_000, "sockets are not closed");
    }
    reactor.publish();
    books_close(&reactor, &counters, &servers);
    let end = counters.snapshot();
    let post = reactor.engine().post_tally();
    [post.asked, post.returned, end.udp_flows, end.udp_moved]
}

fn books_close(reactor: &Reactor<Sim>, counters: &Counters, servers: &[Arc<Server>]) {
    let (end, post) = (counters.snapshot(), reactor.engine().post_tally());
    assert_eq!(end.udp_flows, end.udp_flows_ended);
    assert!(
        servers.iter().all(|it| it.active() == 0),
        "a flow is still counted"
    );
    // From clients: taken or lost in a queue; sent on, or dropped for a reason.
    assert_eq!(
        post.asked,
        end.udp_received_up + end.udp_dropped_receive_queue
    );
    assert_eq!(post.overflown, end.udp_dropped_receive_queue);
    let refused_up = end.udp_dropped_max_flows
        + end.udp_dropped_no_server
        + end.udp_dropped_shortage
        + end.udp_dropped_draining;
    let refused_down = end.udp_dropped_late + end.udp_dropped_unexpected;
    let failed = end.udp_dropped_send_queue + end.udp_dropped_no_buffers + end.udp_dropped_too_big;
    assert_eq!(
        end.udp_received_up + end.udp_received_down,
        end.udp_sent_up + end.udp_sent_down + refused_up + refused_down + failed
    );
    assert_eq!(failed, post.failed);
    // To clients: what came back is what was sent down.
    assert_eq!(post.returned, end.udp_sent_down);
    assert!(end.udp_sent_down + refused_down <= end.udp_received_down);
}

#[test]
fn flows_close_their_books_whatever_servers_and_networks_do() {
    let mut total = [0; 4];
    for seed in 0..SEEDS {
        let one = std::panic::catch_unwind(|| run(seed));
        let Ok(one) = one else {
            panic!("seed {seed} failed");
        };
        for (total, one) in total.iter_mut().zip(one) {
            *total += one;
        }
    }
    println!("{total:?}");
    assert!(total.iter().all(|count| *count > SEEDS), "{total:?}");
}

/// Behaviour 104, where time is not the machine's: a question of somebody else reaches its server in
/// the turn that finds it, however much a flood has sent before, and its answer likewise.
#[test]
fn b104_a_question_passes_a_flood_in_its_turn() {
    let counters = Arc::new(Counters::default());
    let servers = servers();
    let mut reactor = reactor(1, &servers, &counters);
    reactor.engine_mut().set_manners(Manners {
        answers: 100,
        ..Manners::default()
    });
    let mut number = 0;
    for round in 0..200 {
        for _ in 0..300 {
            number += 1;
            reactor.engine_mut().client_asks(letter(number, 5000, 0));
        }
        number += 1;
        let (question, returned) = (number, reactor.engine().post_tally().returned);
        reactor
            .engine_mut()
            .client_asks(letter(question, 6000 + round, 1));
        let mut turns = 0;
        while !reactor.engine().has_arrived(question) {
            reactor.turn().expect("simulated waits succeed");
            turns += 1;
            assert!(turns <= 2, "it waits behind the flood");
        }
        assert!(reactor.engine().post_tally().returned >= returned);
    }
    // Alone, it waits for no batch to fill.
    while reactor.live() > 0 || reactor.engine().unread_datagrams() > 0 {
        reactor.turn().expect("simulated waits succeed");
    }
    for lone in 0..20 {
        number += 1;
        reactor
            .engine_mut()
            .client_asks(letter(number, 7000 + lone, 1));
        reactor.turn().expect("simulated waits succeed");
        assert!(reactor.engine().has_arrived(number), "it waits for others");
    }
}
