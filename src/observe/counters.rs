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
    /// Sessions that left for another reactor or another process.
    counter "sessions_released" { released }
    /// Sessions that came from another process.
    counter "sessions_adopted" { adopted }
    /// Clients that were passed on to a reactor with fewer sessions, right after the accept.
    counter "passed_on" { passed_on }
    /// Sessions that came from another reactor of this process, or came back.
    counter "sessions_moved_in" { moved_in }
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
        denied_server_max_per_client = "server_max_per_client",
        denied_client_table = "client_table",
        denied_share = "share",
    }
    /// Sessions whose client had never said anything, ended because no place was left.
    counter "made_room" { made_room }
    /// How often a lane was held back by a byte rate, by whose it was; in a dry run, how
    /// often it would have been.
    counter "held_back" by rate {
        held_back_session = "session",
        held_back_client = "client",
        held_back_server = "server",
        held_back_forward = "forward",
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
    /// Clients that were turned away for what they said first, by the reason.
    counter "opening_refused" by cause {
        opening_no_proxy_header = "no_proxy_header",
        opening_bad_proxy_header = "bad_proxy_header",
        opening_untrusted_proxy = "untrusted_proxy",
        opening_bad_hello = "bad_hello",
        opening_rejected = "rejected",
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
    /// Flows of datagrams that began.
    counter "udp_flows" { udp_flows }
    /// Flows of datagrams that ended.
    counter "udp_flows_ended" { udp_flows_ended }
    /// Flows that went to another server, because theirs was gone or did not listen.
    counter "udp_moved" { udp_moved }
    /// What ICMP said to flows: that nobody listens, or no way there.
    counter "udp_refusals" { udp_refusals }
    /// Datagrams that came, from clients and from servers.
    counter "udp_received" by direction { udp_received_up = "up", udp_received_down = "down" }
    /// Datagrams that were sent on.
    counter "udp_sent" by direction { udp_sent_up = "up", udp_sent_down = "down" }
    /// Datagrams that were not, by why.
    counter "udp_dropped" by why {
        udp_dropped_receive_queue = "receive_queue",
        udp_dropped_send_queue = "send_queue",
        udp_dropped_no_buffers = "no_buffers",
        udp_dropped_too_big = "too_big",
        udp_dropped_refused = "refused",
        udp_dropped_unreachable = "unreachable",
        udp_dropped_failed = "failed",
        udp_dropped_denied = "denied",
        udp_dropped_rate = "rate",
        udp_dropped_max_flows = "max_flows",
        udp_dropped_limit = "limit",
        udp_dropped_no_server = "no_server",
        udp_dropped_shortage = "shortage",
        udp_dropped_bad_source = "bad_source",
        udp_dropped_loop = "loop",
        udp_dropped_late = "late",
        udp_dropped_unexpected = "unexpected",
        udp_dropped_unearned = "unearned",
        udp_dropped_proxy_header = "proxy_header",
        udp_dropped_no_hello = "no_hello",
        udp_dropped_draining = "draining",
    }
    /// Flows of datagrams now.
    gauge "udp_live_flows" { udp_live }
    /// Events of sessions that were gone already.
    counter "stale_events" { stale_events }
    /// Pumps that ended with their budget and were queued again.
    counter "budget_ends" { budget_ends }
    /// Turns of the loop.
    counter "turns" { turns }
    /// Timers that fired.
    counter "timers_fired" { timers_fired }
    /// CPU time of visits: of whoever lists, counts or ends sessions, one in a turn at the most.
    histogram<16> "visit_cpu" [Seconds] { visit_cpu }
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
    /// Panics of threads beside the reactors, each of which went on.
    counter "helper_panics" { helper_panics }
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
    /// Sessions that a server was not given, because their clients had as many there as
    /// `max_per_client` lets them; counted in a dry run too.
    counter "server_over_limit" { over_limit }
    /// How often a server was given all sessions that its `connect_rate` lets come at once.
    counter "server_connect_rate_reached" { connect_rate_reached }
    /// Connections made ahead that were handed to clients.
    counter "server_warm_used" { warm_used }
    /// Connections made ahead that were thrown away: ended by the server, or too old.
    counter "server_warm_stale" { warm_stale }
    /// Time that connects to a server took.
    histogram<26> "server_connect" [Seconds] { connect }
}

metrics! {
    /// What is known of the process, by the names that Prometheus has for it.
    pub snapshot ProcessFigures;

    /// CPU time of all threads, in user and kernel mode.
    counter "process_cpu" [Seconds] { cpu_micros }
    /// Memory that is in RAM.
    gauge "process_resident_memory" [Bytes] { resident_bytes }
    /// Memory that is mapped.
    gauge "process_virtual_memory" [Bytes] { virtual_bytes }
    /// Descriptors that are open.
    gauge "process_open_fds" { descriptors }
    /// Descriptors that may be open.
    gauge "process_max_fds" { descriptors_max }
    /// Threads.
    gauge "process_threads" { threads }
    /// When it was started, since the epoch.
    gauge "process_start_time" [Seconds] { started_micros }
}

metrics! {
    /// The build that runs.
    pub snapshot BuildInfo;

    /// Always 1; its labels say what runs.
    gauge "build_info" { build }
}

metrics! {
    /// The configuration in force.
    pub snapshot ConfigInfo;

    /// Always 1; its label is the hash of the configuration in force.
    gauge "config_info" { config }
}

metrics! {
    /// The configuration in force, as numbers.
    pub snapshot ConfigFigures;

    /// Which configuration is in force, counted from 1, the one of the start.
    gauge "config_generation" { generation }
    /// When it came into force, since the epoch.
    gauge "config_applied" [Seconds] { applied_micros }
}

metrics! {
    /// What is known of a reactor's thread.
    pub snapshot ReactorFigures;

    /// CPU time of the reactor's thread.
    counter "reactor_cpu" [Seconds] { cpu_micros }
    /// Time the reactor's thread was ready to run and did not.
    counter "reactor_cpu_wait" [Seconds] { wait_micros }
    /// Whether its loop runs.
    gauge "reactor_up" { up }
}

metrics! {
    /// What is counted of a listener.
    pub snapshot ListenerFigures;

    /// Connections that wait to be accepted.
    gauge "listener_queue" { queued }
    /// Connections that may wait.
    gauge "listener_backlog" { backlog }
    /// Connections the kernel dropped because a queue was full.
    counter "listener_overflows" { dropped }
}

metrics! {
    /// What is told of a pool.
    pub snapshot PoolFigures;

    /// Servers that take sessions now.
    gauge "pool_servers_up" { up }
    /// Servers that it has.
    gauge "pool_servers" { servers }
}

metrics! {
    /// What one reactor counts of one forward: see [`crate::observe::books`].
    pub cells ForwardCells;
    /// What is counted of a forward; adds up over reactors.
    pub snapshot ForwardSnapshot;

    /// Sessions of a forward that have begun.
    counter "forward_sessions" { started }
    /// Bytes written by the sessions of a forward, up to upstreams and down to clients.
    counter "forward_written" [Bytes] by direction { bytes_up = "up", bytes_down = "down" }
    /// Time from accept to connected, of sessions that ended.
    histogram<28> "forward_connect" [Seconds] { connect }
    /// Time from accept to the first byte for the client, of sessions that ended.
    histogram<28> "forward_first_byte" [Seconds] { first_byte }
    /// How long sessions of a forward lasted.
    histogram<40> "forward_session_duration" [Seconds] { length }
    /// Bytes that a session of a forward wrote, up and down.
    histogram<40> "forward_session_size" [Bytes] by direction { size_up = "up", size_down = "down" }
}

metrics! {
    /// What is derived from the books of a forward.
    pub snapshot ForwardState;

    /// Sessions of a forward now.
    gauge "forward_live_sessions" { live }
    /// Sessions of a forward at the most; 0 is without a limit of its own.
    gauge "forward_sessions_limit" { limit }
}

metrics! {
    /// Sessions of a forward that ended in one way.
    pub snapshot ForwardEnded;

    /// Sessions of a forward that ended, by the two-letter code and the cause of their
    /// records.
    counter "forward_ended" { ended }
}

metrics! {
    /// What is told of a route of a forward.
    pub snapshot RouteFigures;

    /// Sessions and flows that took a route.
    counter "forward_routed" { taken }
}

metrics! {
    /// What is told of a rule about the clients of a forward.
    pub snapshot RuleFigures;

    /// Clients that a rule of `access` turned away, or would have in a dry run.
    counter "forward_denied" { denied }
}

impl Snapshot {
    /// Every counter and gauge by its name in the log, in the order of the table.
    pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let members = Self::FAMILIES.iter().flat_map(|family| family.members);
        let told = members.zip(self.values());
        let numbers = told.filter_map(|(member, value)| Some((member.key, number(value)?)));
        numbers.collect::<Vec<_>>().into_iter()
    }
}

fn number(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Number(number) => Some(number),
        Value::Distribution { .. } | Value::State(_) => None,
    }
}
