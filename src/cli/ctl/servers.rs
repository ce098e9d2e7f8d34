//! Servers as a table, each with the limits that it has.

use super::table::{Table, bytes, maybe, p99, time};
use crate::admin::view::Server;

const COLUMNS: [&str; 14] = [
    "server",
    "state",
    ">since",
    ">weight",
    ">sessions",
    ">max",
    ">connects",
    ">failed",
    ">up",
    ">down",
    ">up/s",
    ">down/s",
    ">connect p99",
    "why",
];

/// A line for each; beside the most sessions other limits where any server has some.
pub(super) fn table(servers: &[Server]) -> String {
    let has_limits = servers.iter().any(|it| !limits(it).is_empty());
    let mut columns = COLUMNS.to_vec();
    if has_limits {
        columns.insert(columns.len() - 1, "limits");
    }
    let mut table = Table::new(&columns);
    for it in servers {
        let failed = it.failures.total();
        let weight = if it.backup {
            format!("{} backup", it.weight)
        } else {
            it.weight.to_string()
        };
        let numbers = [
            format!("{}/{}", it.pool, it.address),
            it.state.clone(),
            time(it.state_seconds),
            weight,
            it.sessions.to_string(),
            maybe(it.max_connections, |max| max.to_string()),
            it.connects.to_string(),
            failed.to_string(),
            bytes(it.bytes.up as f64),
            bytes(it.bytes.down as f64),
            maybe(it.rate.as_ref(), |rate| bytes(rate.up)),
            maybe(it.rate.as_ref(), |rate| bytes(rate.down)),
            p99(&it.connect),
        ];
        let limits = has_limits.then(|| Some(limits(it)).filter(|it| !it.is_empty()));
        let limits = limits.map(|it| maybe(it, |it| it.join(", ")));
        let why = it.why.clone().unwrap_or_default();
        table.row(numbers.into_iter().chain(limits).chain([why]));
    }
    table.text()
}

/// What one is given at the most, beside sessions, in words.
fn limits(server: &Server) -> Vec<String> {
    let of_client = server.max_per_client;
    let connects = server.connect_limit.as_ref();
    let rate = server.rate_limit.as_ref();
    let ways = rate
        .iter()
        .flat_map(|it| [("up", it.up), ("down", it.down)]);
    let ways = ways.filter(|(_, rate)| *rate > 0);
    let ways = ways.map(|(way, rate)| format!("{}/s {way}", bytes(rate as f64)));
    of_client
        .map(|max| format!("{max} of a client"))
        .into_iter()
        .chain(connects.map(|it| format!("{} of {} at once", pace(it.per_second), it.burst)))
        .chain(ways)
        .collect()
}

/// New sessions in the time of which it is a plain number.
fn pace(per_second: f64) -> String {
    let (count, per) = match per_second {
        it if it >= 1.0 => (it, "s"),
        it if it * 60.0 >= 1.0 => (it * 60.0, "m"),
        it => (it * 3600.0, "h"),
    };
    let rounded = (count * 100.0).round() / 100.0;
    format!("{rounded}/{per}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::view::{ConnectLimit, RateLimit};

    fn server(address: &str) -> Server {
        Server {
            pool: "web".to_owned(),
            address: address.to_owned(),
            state: "up".to_owned(),
            ..Server::default()
        }
    }

    #[test]
    fn limits_stand_there_where_a_server_has_some() {
        let plain = server("10.0.0.1:80");
        let limited = Server {
            max_per_client: Some(10),
            connect_limit: Some(ConnectLimit {
                per_second: 100.0,
                burst: 20,
            }),
            rate_limit: Some(RateLimit {
                of: "server".to_owned(),
                up: 0,
                down: 1 << 20,
            }),
            ..server("10.0.0.2:80")
        };
        let alone = table(std::slice::from_ref(&plain));
        assert!(!alone.contains("LIMITS"), "{alone}");
        let both = table(&[plain, limited]);
        let lines: Vec<&str> = both.lines().collect();
        assert!(lines[0].contains("CONNECT P99  LIMITS"), "{both}");
        assert!(lines[1].ends_with("  -"), "{both}");
        let shown = "10 of a client, 100/s of 20 at once, 1.0 MiB/s down";
        assert!(lines[2].ends_with(shown), "{both}");
    }

    #[test]
    fn a_pace_is_told_in_the_time_that_it_was_written_in() {
        let shown = [100.0, 1.0, 1.0 / 6.0, 1.0 / 3600.0].map(pace);
        assert_eq!(shown, ["100/s", "1/s", "10/m", "1/h"]);
    }
}
