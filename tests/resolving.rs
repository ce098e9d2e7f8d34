//! Names to addresses, against a name server of the test's own: what a failure
//! leaves, when a change arrives, what is asked and what is not.
#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

#[path = "resolving/bench.rs"]
mod bench;
mod kit;

use bench::{Bench, host};
use kit::{PATIENCE, Says};

#[test]
fn a_name_has_its_first_answer_when_first_returns() {
    let bench = Bench::new();
    bench.dns.set(
        "db.test",
        Says::addresses(300, &["192.0.2.1", "2001:db8::1"]),
    );
    let names = bench.keep(&[host("db.test", 5432)]);
    assert!(names.resolver.first(PATIENCE));
    assert_eq!(names.sorted(0), ["192.0.2.1:5432", "[2001:db8::1]:5432"]);
}
