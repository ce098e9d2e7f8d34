//! The tables of metrics: what each reactor counts, and what is told of the process and
//! of each server. A row here is all it takes; docs/operations.md says what each means.

use crate::observe::metrics::metrics;
use crate::observe::metrics::table::{Table, Value};

metrics! {
    /// The counters of one reactor, written by it alone. Cache-line aligned: two
    /// reactors never write to the same line.
    pub cells Counters;
    /// Counters at one moment; adds up over reactors.
    pub snapshot Snapshot;

    /// Connections accepted from clients.
    counter "accepted" { accepted }
    /// Sessions that ended, well or not.
    counter "ended" { ended }
    /// Sessions in which both sides ended in good order.
    counter "ended_well" { ended_well }
    /// Connections that the kernel lost before they could be accepted.
    counter "accept_lost" { accept_lost }
    /// Pauses of accepting for want of descriptors or memory.
    counter "accept_pauses" { accept_pauses }
    /// Pauses of accepting because `max_connections` was reached.
    counter "limit_pauses" { limit_pauses }
    /// Connections turned away after the accept (registering them failed).
    counter "refused" { refused }
    /// Clients that were not let in, by what turned them away; counted in a dry run too.
    counter "clients_denied" by reason {
        denied_access = "access",
        denied_max_per_client = "max_per_client",
        denied_connect_rate = "connect_rate",
        denied_client_table = "client_table",
    }
    /// Attempts to connect upstream.
    counter "connects" { connects }
    /// Attempts that failed, timed out ones included.
    counter "connect_failures" { connect_failures }
    /// Attempts that failed for want of a local port, descriptor or memory here.
    counter "connect_shortages" { connect_shortages }
    /// Sessions that waited for a server with room.
    counter "queued" { queued }
    /// Sessions that were turned away because too many waited already.
    counter "queue_full" { queue_full }
    /// Requests of http-connect forwards, by the status that answered them; 200 is a
    /// tunnel.
    counter "http_connect" by status {
        http_connect_200 = "200",
        http_connect_400 = "400",
        http_connect_403 = "403",
        http_connect_405 = "405",
        http_connect_407 = "407",
        http_connect_408 = "408",
        http_connect_431 = "431",
        http_connect_502 = "502",
        http_connect_503 = "503",
        http_connect_504 = "504",
    }
    /// Socket options that the kernel refused at run time.
    counter "options_refused" { options_refused }
    /// Bytes read, from clients and upstreams: those written, lost and held.
    counter "read" [Bytes] { bytes_read }
    /// Bytes written, up to upstreams and down to clients.
    counter "written" [Bytes] by direction { bytes_up = "up", bytes_down = "down" }
    /// Bytes read and never written because the receiver failed.
    counter "lost" [Bytes] { bytes_lost }
    /// Sessions with a lane that spliced.
    counter "sessions_spliced" { sessions_spliced }
    /// Lanes that wanted to splice and had to copy.
    counter "splice_fallbacks" { splice_fallbacks }
    /// Sessions that a tap shows.
    counter "tap_sessions" { tap_sessions }
    /// Bytes that taps should have shown and that their targets did not get.
    counter "tap_dropped" [Bytes] { tap_dropped_bytes }
    /// Events of sessions that were gone already.
    counter "stale_events" { stale_events }
    /// Pumps that ended with their budget and were queued again.
    counter "budget_ends" { budget_ends }
    /// Turns of the loop.
    counter "turns" { turns }
    /// Timers that fired.
    counter "timers_fired" { timers_fired }
    /// Sessions now.
    gauge "live_sessions" { live }
    /// Bytes of tails and pipes now.
    gauge "held" [Bytes] { held_bytes }
    /// Pipes that lanes hold now.
    gauge "pipes" { pipes }
    /// Connections the kernel dropped because an accept queue was full.
    counter "accept_overflows" { accept_overflows }
}

metrics! {
    /// What is told of the process as a whole.
    pub snapshot ProcessSnapshot;

    /// Entries of the log that were lost, because its target was too slow or failed.
    counter "log_dropped" { log_dropped }
}

metrics! {
    /// What is told of a server, summed over reactors.
    pub snapshot ServerSnapshot;

    /// Whether a server is used, and if not, why.
    states "server_state" ["up", "marked", "down", "drain", "maintenance"] { state }
    /// Sessions on a server now, and those being connected to it.
    gauge "server_active_sessions" { active }
    /// Attempts to connect to a server.
    counter "server_connects" { connects }
    /// Those that failed, and resets right after one, by cause.
    counter "server_failures" by cause {
        failures_refused = "refused",
        failures_unreachable = "unreachable",
        failures_timeout = "timeout",
        failures_reset = "reset",
        failures_other = "other",
    }
    /// Bytes of sessions that ended, up to a server and down from it.
    counter "server_written" [Bytes] by direction { bytes_up = "up", bytes_down = "down" }
    /// Connections made ahead that were handed to clients.
    counter "server_warm_used" { warm_used }
    /// Connections made ahead that were thrown away: ended by the server, or too old.
    counter "server_warm_stale" { warm_stale }
    /// Time that connects to a server took.
    histogram<26> "server_connect" [Seconds] { connect }
}

impl Snapshot {
    /// Every counter and gauge by its name in the log, in the order of the table.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let members = Self::FAMILIES.iter().flat_map(|family| family.members);
        let keys: Vec<&'static str> = members.map(|member| member.key).collect();
        let numbers: Vec<u64> = self.values().into_iter().filter_map(number).collect();
        keys.into_iter().zip(numbers)
    }
}

fn number(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Number(number) => Some(number),
        Value::Distribution { .. } | Value::State(_) => None,
    }
}
