//! The same script, played by a client and a server that are connected directly, and
//! by two that are connected through thalweg on each engine and data path: what each
//! end observes must be the same.
//!
//! A script comes from a seed. What an end observes: at each point where everything
//! under way may arrive, how many bytes it has (all of them compared with what was
//! sent) and whether it has seen an end; at last how the other's end looked, and
//! whether it is told that nobody takes its bytes any more.
//!
//! Exceptions, where a forwarder in the middle cannot do what one kernel does:
//!
//! 1. *A reset overtakes bytes.* One end resets while bytes of its own are not yet
//!    acknowledged, or while it has not read what was sent to it. Directly the kernel
//!    drops them; a forwarder may have some of them already. How many arrive is not
//!    compared (they are right, and no more than were sent), nor whether the end
//!    behind them is an end or a reset. That there is one, and that nobody takes
//!    further bytes, must hold both ways.
//! 2. *Timing* is not compared at all.
//!
//! `THALWEG_SEED=N cargo test --test it differential::` plays one script.

mod script;

use crate::duplex::{Chance, Pair};
use crate::kit::*;
use script::{Observed, Script};

/// Scripts that `cargo test` plays.
const SEEDS: u64 = 600;

fn seeds() -> Vec<u64> {
    match std::env::var("THALWEG_SEED") {
        Ok(seed) => vec![seed.parse().expect("THALWEG_SEED is a number")],
        Err(_) => (0..SEEDS).collect(),
    }
}

/// Plays a script between a client and a server that are connected to each other.
fn directly(script: &Script) -> Observed {
    let server = Listener::new();
    let client = Peer::connect(server.address());
    let server = server.accept();
    let streams = [client, server].map(|peer| peer.stream().try_clone().unwrap());
    let [client, server] = streams;
    script.play(Pair::new(client, server, script.seed))
}

fn through(forwarder: &Forwarder, server: &Listener, script: &Script) -> Observed {
    let client = forwarder.connect();
    // The forwarder holds its last ACK to the server back, for bytes to go with.
    let server = server.accept();
    let streams = [client, server].map(|peer| peer.stream().try_clone().unwrap());
    let [client, server] = streams;
    script.play(Pair::new(client, server, script.seed))
}

#[test]
fn both_ends_observe_the_same_directly_and_through_the_forwarder() {
    let seeds = seeds();
    let direct: Vec<Observed> = seeds
        .iter()
        .map(|seed| directly(&Script::new(*seed)))
        .collect();
    on_every_path(|case| {
        let server = Listener::new();
        let forwarder = Setup::new(server.address()).case(case).start();
        for (seed, expected) in seeds.iter().zip(&direct) {
            let script = Script::new(*seed);
            let played = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                through(&forwarder, &server, &script)
            }));
            let same = played.as_ref().is_ok_and(|observed| observed == expected);
            assert!(
                same,
                "{case:?}\n  {script:?}\n  directly: {expected:?}\n  through:  {played:?}\n\
                 replay: THALWEG_SEED={seed} cargo test --test it differential::"
            );
        }
        forwarder.wait_for_sessions(seeds.len());
        forwarder.check_idle();
    });
}

/// The scripts are worth something only if all of it happens in them.
#[test]
fn scripts_lead_to_every_ending() {
    let mut chances: Vec<String> = (0..SEEDS)
        .flat_map(|seed| Script::new(seed).kinds())
        .collect();
    chances.sort();
    chances.dedup();
    assert_eq!(chances, script::KINDS);
    // From one seed, one script.
    let text = |seed| format!("{:?}", Script::new(seed));
    assert_eq!(text(7), text(7));
    assert_ne!(text(7), text(8));
    assert_ne!(Chance::new(1).next(), Chance::new(2).next());
}
