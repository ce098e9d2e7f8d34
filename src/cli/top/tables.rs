//! What `top` shows, as rows under columns: pure.

use std::collections::HashMap;

use super::fit::{Column, Grid, Kind};
use super::picture::Picture;
use super::tab::Tab;
use crate::admin::view::{Forward, Server, Session};
use crate::cli::ctl::table::{bytes, printable, time};

/// A row, by what it is known: it stays chosen wherever it moves.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) key: String,
    pub(super) cells: Vec<String>,
    /// By which it stands, the highest first.
    weight: f64,
}

const fn column(name: &'static str, rank: u8, kind: Kind) -> Column {
    Column { name, rank, kind }
}

const SESSIONS: &[Column] = &[
    column("session", 5, Kind::Word),
    column("client", 0, Kind::Word),
    column("server", 4, Kind::Word),
    column("forward", 8, Kind::Word),
    column("age", 6, Kind::Number),
    column("up/s", 3, Kind::Number),
    column("down/s", 2, Kind::Number),
    column("rtt", 7, Kind::Number),
    column("resent", 9, Kind::Number),
    column("held back by", 1, Kind::Prose),
];

const SERVERS: &[Column] = &[
    column("server", 0, Kind::Word),
    column("state", 1, Kind::Word),
    column("since", 4, Kind::Number),
    column("sessions", 3, Kind::Number),
    column("conn/s", 5, Kind::Number),
    column("failed", 6, Kind::Number),
    column("up/s", 8, Kind::Number),
    column("down/s", 7, Kind::Number),
    column("p99", 9, Kind::Number),
    column("weight", 10, Kind::Number),
    column("why", 2, Kind::Prose),
];

const FORWARDS: &[Column] = &[
    column("forward", 0, Kind::Word),
    column("state", 1, Kind::Word),
    column("sessions", 3, Kind::Number),
    column("new/s", 4, Kind::Number),
    column("up/s", 6, Kind::Number),
    column("down/s", 5, Kind::Number),
    column("connect p99", 7, Kind::Number),
    column("first byte p99", 8, Kind::Number),
    column("total", 9, Kind::Number),
    column("why not served", 2, Kind::Prose),
];

const ENDINGS: &[Column] = &[
    column("forward", 0, Kind::Word),
    column("code", 4, Kind::Word),
    column("cause", 1, Kind::Prose),
    column("a second", 2, Kind::Number),
    column("in all", 3, Kind::Number),
];

const REFUSED: &[Column] = &[
    column("forward", 3, Kind::Word),
    column("refused by", 0, Kind::Word),
    column("a second", 1, Kind::Number),
    column("in all", 2, Kind::Number),
];

impl Tab {
    pub(super) const fn columns(self) -> &'static [Column] {
        match self {
            Self::Sessions => SESSIONS,
            Self::Servers => SERVERS,
            Self::Forwards => FORWARDS,
            Self::Endings => ENDINGS,
            Self::Refused => REFUSED,
        }
    }

    /// All that there is, in that order.
    pub(super) fn lines(self, now: &Picture, then: Option<&Picture>, order: &str) -> Vec<Line> {
        let seconds = then.map_or(0.0, |it| (now.at - it.at).as_secs_f64());
        let look = Look {
            then,
            seconds,
            order,
        };
        let mut lines: Vec<Line> = match self {
            // Sorted by whoever was asked for them.
            Self::Sessions => return now.sessions.iter().map(session).collect(),
            Self::Servers => look.servers(&now.servers),
            Self::Forwards => look.forwards(&now.forwards),
            Self::Endings => look.endings(&now.forwards),
            Self::Refused => look.refused(now),
        };
        if order == "name" {
            lines.sort_by(|one, other| one.cells[0].cmp(&other.cells[0]));
        } else {
            lines.sort_by(|one, other| other.weight.total_cmp(&one.weight));
        }
        lines
    }

    pub(super) fn grid(self, lines: &[Line]) -> Grid {
        Grid {
            columns: self.columns(),
            rows: lines.iter().map(|it| it.cells.clone()).collect(),
        }
    }
}

fn line(key: String, weight: f64, cells: impl IntoIterator<Item = String>) -> Line {
    let cells = cells.into_iter().map(|it| printable(&it)).collect();
    Line { key, cells, weight }
}

fn session(it: &Session) -> Line {
    let legs = [&it.client_tcp, &it.upstream_tcp].into_iter().flatten();
    let rtt = it.client_tcp.as_ref().map(|leg| time(leg.rtt_seconds));
    let server = it.server.as_ref().or(it.target.as_ref());
    let cells = [
        it.id.clone(),
        it.client.clone(),
        server.cloned().unwrap_or_default(),
        it.forward.clone(),
        time(it.age_seconds),
        bytes(it.up.rate),
        bytes(it.down.rate),
        rtt.unwrap_or_default(),
        legs.map(|leg| leg.retransmits).sum::<u32>().to_string(),
        it.verdict.replace('_', " "),
    ];
    line(it.id.clone(), 0.0, cells)
}

/// Two pictures, and how to sort.
struct Look<'a> {
    then: Option<&'a Picture>,
    seconds: f64,
    order: &'a str,
}

/// How much stands in the way of it being used: what is first at three in the morning.
fn trouble(state: &str) -> f64 {
    match state {
        "up" | "serving" => 0.0,
        "drain" | "draining" | "maintenance" => 1e12,
        _ => 2e12,
    }
}

impl Look<'_> {
    fn per_second(&self, now: u64, then: Option<u64>) -> f64 {
        match then {
            Some(then) if self.seconds > 0.0 => now.saturating_sub(then) as f64 / self.seconds,
            _ => 0.0,
        }
    }

    fn weight(&self, trouble: f64, sessions: f64, rate: f64) -> f64 {
        match self.order {
            "sessions" => sessions,
            "rate" => rate,
            _ => trouble + sessions,
        }
    }

    fn servers(&self, servers: &[Server]) -> Vec<Line> {
        let known = self.then.map(|it| &*it.servers).unwrap_or_default();
        let known: HashMap<u32, &Server> = known.iter().map(|it| (it.id, it)).collect();
        let each = servers.iter().map(|it| {
            let then = known.get(&it.id);
            let up = self.per_second(it.bytes.up, then.map(|it| it.bytes.up));
            let down = self.per_second(it.bytes.down, then.map(|it| it.bytes.down));
            let connects = self.per_second(it.connects, then.map(|it| it.connects));
            let cells = [
                format!("{}/{}", it.pool, it.address),
                it.state.clone(),
                time(it.state_seconds),
                it.sessions.to_string(),
                format!("{connects:.0}"),
                it.failures.total().to_string(),
                bytes(up),
                bytes(down),
                it.connect.p99_seconds.map(time).unwrap_or_default(),
                it.weight.to_string(),
                it.why.clone().unwrap_or_default(),
            ];
            let weight = self.weight(trouble(&it.state), it.sessions.into(), up + down);
            line(it.id.to_string(), weight, cells)
        });
        each.collect()
    }

    fn forwards(&self, forwards: &[Forward]) -> Vec<Line> {
        let known = self.then.map(|it| &*it.forwards).unwrap_or_default();
        let known: HashMap<&str, &Forward> = known.iter().map(|it| (&*it.name, it)).collect();
        let each = forwards.iter().map(|it| {
            let then = known.get(&*it.name);
            let up = self.per_second(it.bytes.up, then.map(|it| it.bytes.up));
            let down = self.per_second(it.bytes.down, then.map(|it| it.bytes.down));
            let new = self.per_second(it.sessions_total, then.map(|it| it.sessions_total));
            let state = match (&*it.state, &it.why) {
                ("serving", Some(_)) => "not served",
                (state, _) => state,
            };
            let p99 = |seconds: Option<f64>| seconds.map(time).unwrap_or_default();
            let cells = [
                it.name.clone(),
                state.to_owned(),
                it.sessions.to_string(),
                format!("{new:.0}"),
                bytes(up),
                bytes(down),
                p99(it.connect.p99_seconds),
                p99(it.first_byte.p99_seconds),
                it.sessions_total.to_string(),
                it.why.clone().unwrap_or_default(),
            ];
            let weight = self.weight(trouble(state), it.sessions as f64, up + down);
            line(it.name.clone(), weight, cells)
        });
        each.collect()
    }

    fn endings(&self, forwards: &[Forward]) -> Vec<Line> {
        let key = |forward: &Forward, code: &str, cause: &str| {
            format!("{}\n{code}\n{cause}", forward.name)
        };
        let known = self.then.map(|it| &*it.forwards).unwrap_or_default();
        let known = known.iter().flat_map(|forward| {
            let endings = forward.endings.iter();
            endings.map(move |it| (key(forward, &it.code, &it.cause), it.count))
        });
        let known: HashMap<String, u64> = known.collect();
        let each = forwards.iter().flat_map(|forward| {
            forward.endings.iter().map(|it| {
                let key = key(forward, &it.code, &it.cause);
                let rate = self.begun(it.count, known.get(&key).copied());
                let cells = [
                    forward.name.clone(),
                    it.code.clone(),
                    it.cause.replace('_', " "),
                    format!("{rate:.1}"),
                    it.count.to_string(),
                ];
                line(key, self.counted(rate, it.count), cells)
            })
        });
        each.collect()
    }

    fn refused(&self, now: &Picture) -> Vec<Line> {
        let known = self.then.map(|it| &*it.refused).unwrap_or_default();
        let key = |forward: &str, by: &str| format!("{forward}\n{by}");
        let known = known.iter().map(|it| (key(&it.forward, &it.by), it.count));
        let known: HashMap<String, u64> = known.collect();
        let each = now.refused.iter().map(|it| {
            let key = key(&it.forward, &it.by);
            let rate = self.begun(it.count, known.get(&key).copied());
            let cells = [
                it.forward.clone(),
                it.by.clone(),
                format!("{rate:.1}"),
                it.count.to_string(),
            ];
            line(key, self.counted(rate, it.count), cells)
        });
        each.collect()
    }

    /// What was not there at all in the picture before began at 0.
    fn begun(&self, now: u64, then: Option<u64>) -> f64 {
        self.per_second(now, self.then.map(|_| then.unwrap_or(0)))
    }

    /// Whatever happens now is before what only happened once.
    fn counted(&self, rate: f64, count: u64) -> f64 {
        match self.order {
            "count" => count as f64,
            _ => rate.mul_add(1e12, count as f64),
        }
    }
}
