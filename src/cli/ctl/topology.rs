//! Forwards, pools, names and listeners as tables.

use super::table::{Table, bytes, maybe, p99, time};
use crate::admin::view::{Forward, Listener, Name, Pool, Rates, Refusal};

/// With what keeps a forward from serving right behind its state.
pub(super) fn forwards(forwards: &[Forward]) -> String {
    let mut table = Table::new(&[
        "name",
        "state",
        "listen",
        "pool",
        ">sessions",
        ">max",
        ">total",
        ">new/s",
        ">up",
        ">down",
        ">up/s",
        ">down/s",
        ">connect p99",
        ">first byte p99",
        "why not served",
    ]);
    for it in forwards {
        table.row([
            it.name.clone(),
            state(it),
            it.listen.join(","),
            pool(it),
            it.sessions.to_string(),
            maybe(it.sessions_max, |max| max.to_string()),
            it.sessions_total.to_string(),
            maybe(it.session_rate, pace),
            bytes(it.bytes.up as f64),
            bytes(it.bytes.down as f64),
            up(it.rate.as_ref()),
            down(it.rate.as_ref()),
            p99(&it.connect),
            p99(&it.first_byte),
            it.why.clone().unwrap_or_default(),
        ]);
    }
    table.text()
}

/// A line for each.
pub(super) fn pools(pools: &[Pool]) -> String {
    let mut table = Table::new(&[
        "name",
        "balance",
        ">up",
        ">servers",
        ">sessions",
        ">connects/s",
        ">up/s",
        ">down/s",
        "forwards",
        "why not up",
    ]);
    for it in pools {
        table.row([
            it.name.clone(),
            it.balance.clone(),
            it.up.to_string(),
            it.servers.to_string(),
            it.sessions.to_string(),
            maybe(it.connect_rate, pace),
            up(it.rate.as_ref()),
            down(it.rate.as_ref()),
            it.forwards.join(","),
            it.why.clone().unwrap_or_default(),
        ]);
    }
    table.text()
}

/// A line for each.
pub(super) fn names(names: &[Name]) -> String {
    let mut table = Table::new(&["name", "pool", ">age", "addresses"]);
    for it in names {
        table.row([
            it.name.clone(),
            it.pool.clone(),
            maybe(it.age_seconds, time),
            it.addresses.join(","),
        ]);
    }
    table.text()
}

/// A line for each.
pub(super) fn listeners(listeners: &[Listener]) -> String {
    let mut table = Table::new(&[
        "address", "protocol", "forward", ">sockets", ">queue", ">backlog", ">dropped",
    ]);
    for it in listeners {
        table.row([
            it.address.clone(),
            it.protocol.clone(),
            it.forward.clone(),
            it.sockets.to_string(),
            maybe(it.queue, |n| n.to_string()),
            maybe(it.backlog, |n| n.to_string()),
            maybe(it.dropped, |n| n.to_string()),
        ]);
    }
    table.text()
}

/// What refused, and how often.
pub(super) fn refused(all: &[Refusal]) -> String {
    let mut table = Table::new(&["forward", "refused by", ">times"]);
    for it in all {
        let forward = Some(it.forward.clone()).filter(|it| !it.is_empty());
        table.row([maybe(forward, |it| it), it.by.clone(), it.count.to_string()]);
    }
    table.text()
}

/// With how long it has been draining.
fn state(forward: &Forward) -> String {
    let since = forward.state_seconds.map(time);
    since.map_or_else(
        || forward.state.clone(),
        |it| format!("{} {it}", forward.state),
    )
}

/// Where it goes; clients of some say so themselves.
fn pool(forward: &Forward) -> String {
    if forward.mode == "http-connect" {
        return "(as clients ask)".to_owned();
    }
    forward.pool.clone()
}

fn pace(per_second: f64) -> String {
    format!("{per_second:.0}")
}

fn up(rate: Option<&Rates>) -> String {
    maybe(rate, |it| bytes(it.up))
}

fn down(rate: Option<&Rates>) -> String {
    maybe(rate, |it| bytes(it.down))
}
