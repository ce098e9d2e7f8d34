//! What the API tells, as JSON: the same types for those who answer and for those who ask.
//!
//! Times are seconds, sizes bytes, rates bytes a second. What is not known is left out.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! views {
    ($($(#[$meta:meta])* $Name:ident {
        $($(#[$field_meta:meta])* $field:ident: $Type:ty,)*
        $(? $(#[$maybe_meta:meta])* $maybe:ident: $Optional:ty,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
        pub struct $Name {
            $($(#[$field_meta])* pub $field: $Type,)*
            $(
                $(#[$maybe_meta])*
                #[serde(default, skip_serializing_if = "Option::is_none")]
                #[schema(nullable = false)]
                pub $maybe: Option<$Optional>,
            )*
        }
    )*};
}

views! {
    /// The process and the configuration in force.
    About {
        /// Of thalweg.
        version: String,
        /// Who waits for the kernel: `epoll` or `io_uring`.
        engine: String,
        /// Whose it is, and what the kernel denies it, in words.
        confinement: String,
        /// Of the process.
        pid: u32,
        /// When it was started, as RFC 3339.
        started: String,
        /// Since then.
        uptime_seconds: f64,
        /// `serving` or `draining`.
        phase: String,
        /// Why clients would not be served; empty if they are.
        unready: Vec<String>,
        /// Which configuration is in force, counted from 1.
        generation: u64,
        /// The same for equal configurations.
        config_hash: String,
        /// Since when it is in force, as RFC 3339.
        config_applied: String,
        /// Sessions now.
        sessions: u32,
        /// Sessions at the most.
        sessions_max: u32,
        /// Threads that forward.
        reactors: u16,
        /// The least that is worth a line of the log.
        log_level: String,
        /// Entries of the log that were lost.
        log_dropped: u64,
        /// What all reactors have counted since the start.
        #[serde(default)]
        #[schema(required = true)]
        totals: Sums,
    }

    /// What all reactors have counted, from which whoever looks twice makes rates.
    Sums {
        /// Clients that were accepted.
        accepted: u64,
        /// Sessions that ended.
        ended: u64,
        /// Connects that were started.
        connects: u64,
        /// Those that failed.
        failures: u64,
        /// Bytes written to upstreams.
        up: u64,
        /// Bytes written to clients.
        down: u64,
        /// Flows of datagrams that began.
        flows: u64,
    }

    /// What is refused, or lost before anybody could refuse it.
    Refusal {
        /// Whose it is: the name of a forward; empty if it is the process's.
        forward: String,
        /// What refuses: a rule as it is written, or a limit.
        by: String,
        /// How often, since the start.
        count: u64,
    }

    /// Bytes of both directions.
    Bytes {
        /// To upstreams.
        up: u64,
        /// To clients.
        down: u64,
    }

    /// Bytes a second of both directions.
    Rates {
        /// To upstreams.
        up: f64,
        /// To clients.
        down: f64,
    }

    /// How long something took.
    Times {
        /// How many there were.
        count: u64,
        ? /// Half of them took less.
        p50_seconds: f64,
        ? /// All but a hundredth took less.
        p99_seconds: f64,
    }

    /// How sessions ended.
    EndingCount {
        /// Two letters, as in the records.
        code: String,
        /// Why.
        cause: String,
        /// How many.
        count: u64,
    }

    /// Bytes a second, up and down; 0 is without a bound.
    RateLimit {
        /// Whose: `session`, `client`, `server` or `forward`; it is shared by all sessions of that.
        of: String,
        /// To upstreams.
        up: u64,
        /// To clients.
        down: u64,
    }

    /// A route of a forward.
    RouteCount {
        /// Its name, or its place.
        name: String,
        /// The pool it leads to; without one clients are turned away, or say themselves where to go.
        leads_to: String,
        /// Sessions and flows that took it.
        taken: u64,
    }

    /// A rule or limit that turns clients away.
    DeniedCount {
        /// A rule as it is written.
        rule: String,
        /// Clients that it turned away, or would have in a dry run.
        denied: u64,
    }

    /// A forward.
    Forward {
        /// Its name.
        name: String,
        /// Where it listens.
        listen: Vec<String>,
        /// Where it goes.
        pool: String,
        /// `tcp` or `http-connect`.
        mode: String,
        /// `serving` or `draining`.
        state: String,
        /// Sessions now.
        sessions: u64,
        /// Sessions that began.
        sessions_total: u64,
        /// Bytes written.
        bytes: Bytes,
        /// How its sessions ended.
        endings: Vec<EndingCount>,
        /// From accept to connected.
        connect: Times,
        /// From accept to the first byte for the client.
        first_byte: Times,
        /// From accept to the end.
        duration: Times,
        /// Its routes in their order.
        routes: Vec<RouteCount>,
        /// Its rules about clients in their order.
        access: Vec<DeniedCount>,
        /// What its bytes are held back by.
        rates: Vec<RateLimit>,
        ? /// Sessions at the most.
        sessions_max: u32,
        ? /// How long it has been draining.
        state_seconds: f64,
        ? /// Why its clients are not served.
        why: String,
        ? /// Bytes a second of both directions, over the interval that was asked for.
        rate: Rates,
        ? /// Sessions that begin a second, over that interval.
        session_rate: f64,
    }

    /// A pool.
    Pool {
        /// Its name, or that of the forward it is written in.
        name: String,
        /// How a server is chosen.
        balance: String,
        /// Forwards that go there.
        forwards: Vec<String>,
        /// Servers it has.
        servers: u32,
        /// Of them those that take sessions.
        up: u32,
        /// Sessions on its servers.
        sessions: u64,
        /// Connects that were started to the servers that it has now.
        #[serde(default)]
        #[schema(required = true)]
        connects: u64,
        /// Bytes written to these, and to their clients.
        #[serde(default)]
        #[schema(required = true)]
        bytes: Bytes,
        ? /// Why no server of it takes sessions.
        why: String,
        ? /// Bytes a second of both directions, over the interval that was asked for.
        rate: Rates,
        ? /// Connects a second, over that interval.
        connect_rate: f64,
    }

    /// Failures of a server, by cause.
    Failures {
        /// Connects that were refused.
        refused: u64,
        /// No way there.
        unreachable: u64,
        /// No answer in time.
        timeout: u64,
        /// Connections that were reset, and right after the connect.
        reset: u64,
        /// Others.
        other: u64,
    }

    /// A server.
    Server {
        /// A number that it keeps for the life of the process.
        id: u32,
        /// Its pool.
        pool: String,
        /// Where it is.
        address: String,
        /// `up`, `marked`, `down`, `drain` or `maintenance`.
        state: String,
        /// How long it has been in that state, as far as anybody looked.
        state_seconds: f64,
        /// Its share beside the others'.
        weight: u32,
        /// Used only while no other can be.
        backup: bool,
        /// Its pool has it still.
        listed: bool,
        /// Sessions now.
        sessions: u32,
        /// Connects that were started.
        connects: u64,
        /// Those that failed, and resets right after one.
        failures: Failures,
        /// Bytes written.
        bytes: Bytes,
        /// How long connects took.
        connect: Times,
        /// How often it was changed here; what `If-Match` names.
        version: u64,
        ? /// Bytes a second of both directions, over the interval that was asked for.
        rate: Rates,
        ? /// Connects a second, over that interval.
        connect_rate: f64,
        ? /// The host by which it is configured.
        host: String,
        ? /// Why it is in that state.
        why: String,
        ? /// Sessions at the most.
        max_connections: u32,
        ? /// Sessions of one client at the most.
        max_per_client: u32,
        ? /// New sessions that it is given in a time.
        connect_limit: ConnectLimit,
        ? /// What the bytes of all its sessions are held back by.
        rate_limit: RateLimit,
    }

    /// How fast new sessions may come.
    ConnectLimit {
        /// A second, in the long run.
        per_second: f64,
        /// So many at once, after a pause.
        burst: u32,
    }

    /// A name by which servers are found.
    Name {
        /// As it is written.
        name: String,
        /// Of which pool.
        pool: String,
        /// What it stands for.
        addresses: Vec<String>,
        ? /// How long ago that was answered.
        age_seconds: f64,
    }

    /// An address that is listened on.
    Listener {
        /// Whose it is.
        forward: String,
        /// Where it is.
        address: String,
        /// `tcp`, `udp` or `unix`.
        #[serde(default)]
        #[schema(required = true)]
        protocol: String,
        /// Sockets: one for each reactor.
        sockets: u32,
        ? /// Connections that wait to be accepted.
        queue: u32,
        ? /// How many may.
        backlog: u32,
        ? /// Connections, or datagrams, the kernel dropped because a queue was full.
        dropped: u64,
    }

    /// A thread that forwards.
    Reactor {
        /// From 0.
        number: u16,
        /// Whether its loop turns.
        turns: bool,
        /// Sessions now.
        sessions: u64,
        /// Connections accepted.
        accepted: u64,
        /// Its share of all that were accepted: 1 is the mean.
        spread: f64,
        /// Turns of its loop.
        turns_total: u64,
        /// Bytes held for slow receivers.
        held_bytes: u64,
        /// CPU time.
        cpu_seconds: f64,
        /// Time it was ready to run and did not.
        waited_seconds: f64,
        ? /// The share of the last moment that it was on a CPU.
        load: f64,
        ? /// CPU time that a turn of that moment took.
        turn_seconds: f64,
    }

    /// One direction of a session.
    Lane {
        /// Bytes written.
        bytes: u64,
        /// Bytes a second: over the interval that was asked for, else over its life.
        rate: f64,
        /// Bytes read and not written yet.
        held: u32,
        /// `copy` or `splice`.
        path: String,
        /// Its source has ended.
        ended: bool,
    }

    /// What the kernel knows of a side of a session.
    Leg {
        /// Round trip time.
        rtt_seconds: f64,
        /// Segments sent again.
        retransmits: u32,
        /// Bytes a second lately delivered to the peer.
        delivery_rate: u64,
        /// What held the sending back: `application`, `peer_window`, `send_buffer` or
        /// `network`.
        limited_by: String,
        ? /// The least round trip time lately.
        min_rtt_seconds: f64,
    }

    /// What a flow of datagrams has besides.
    FlowTraffic {
        /// Datagrams that were sent on, to upstreams.
        up: u64,
        /// To clients.
        down: u64,
        /// Datagrams that were not, to upstreams.
        dropped_up: u64,
        /// To clients.
        dropped_down: u64,
    }

    /// A live session, or a flow of datagrams.
    Session {
        /// Reactor and number: `0-17`, of a flow `0-u17`.
        id: String,
        /// `stream`, or `datagrams` of a flow.
        kind: String,
        /// Where it came in.
        forward: String,
        /// Which configuration of this process its forward came with: what it goes by until it ends.
        generation: u64,
        /// The listener.
        listener: String,
        /// Who came.
        client: String,
        /// What it is about.
        phase: String,
        /// Since the accept.
        age_seconds: f64,
        /// Client to upstream.
        up: Lane,
        /// Upstream to client.
        down: Lane,
        /// What holds it back: `idle`, `client_application`, `client_window`,
        /// `client_network`, `upstream_application`, `upstream_window`, `upstream_network`,
        /// `rate_limit` or `forwarder`.
        verdict: String,
        /// What its bytes are held back by.
        rates: Vec<RateLimit>,
        ? /// How long they were, both ways together.
        held_back_seconds: f64,
        ? /// The server it is or is being connected to.
        server: String,
        ? /// The pool of that.
        pool: String,
        ? /// Where its client asked to go.
        target: String,
        ? /// Who its client says it is.
        user: String,
        ? /// From accept to connected.
        connect_seconds: f64,
        ? /// From accept to the first byte for the client.
        first_byte_seconds: f64,
        ? /// The client's side.
        client_tcp: Leg,
        ? /// The upstream's side.
        upstream_tcp: Leg,
        ? /// Of a flow.
        datagrams: FlowTraffic,
        ? /// The route by which it goes.
        route: String,
        ? /// The server that TLS asked for.
        sni: String,
    }

    /// Some sessions.
    SessionPage {
        /// In the order that was asked for.
        sessions: Vec<Session>,
        ? /// What to ask for next, as `cursor`; left out behind the last one.
        next: String,
    }

    /// Sessions that were ended.
    Killed {
        /// How many.
        killed: u64,
        /// Those of the ids that were asked for that are not there.
        missing: Vec<String>,
    }

    /// What came of an upgrade.
    UpgradeView {
        /// The process that serves from now on.
        process: u32,
        /// Its version.
        version: String,
        /// Listening addresses that it took over.
        listeners: u64,
        /// Sessions that go on there.
        sessions_moved: u64,
        /// Flows of datagrams that go on there.
        flows_moved: u64,
        /// Sessions that run to their end in the former process.
        sessions_left: u64,
    }

    /// What a reload did; of a dry run, what it would do.
    ReloadView {
        /// Which configuration of this process runs now.
        generation: u64,
        /// It was only looked at.
        dry_run: bool,
        /// One line: `2 forwards added, 1 changed, 3 servers added, 0 sessions cut`.
        summary: String,
        /// Every difference in words.
        changes: Vec<String>,
        /// Addresses that are listened on from now on, and were not before.
        listeners_opened: Vec<String>,
        /// Addresses that are listened on as before, by the very same sockets.
        listeners_kept: u64,
        /// Addresses that are listened on no more.
        listeners_closed: Vec<String>,
        /// Forwards that were compared with those that ran before: those that are written
        /// otherwise, and those of a pool that is.
        forwards_compared: u64,
        /// Orders that reactors were given for it; none where nothing differs, and none in a
        /// dry run.
        orders: u64,
        /// Sessions whose forward is gone; they run to their end, or until its
        /// `drain_timeout`.
        sessions_left: u64,
        /// How long reading the files and checking what they say took.
        read_seconds: f64,
        /// How long comparing it with what runs took.
        compare_seconds: f64,
        /// How long acquiring what was missing and applying it took, until every reactor goes
        /// by it.
        apply_seconds: f64,
        ? /// Within this it has to be confirmed, or what was before is back.
        confirm_seconds: f64,
    }

    /// What became of a reload that was to be confirmed.
    SettledView {
        /// Whether one waited for that.
        waited: bool,
    }

    /// The log.
    LogView {
        /// The least that is worth a line: `error`, `warn`, `info` or `debug`.
        level: String,
        /// Entries that were lost.
        dropped: u64,
    }
}

impl Times {
    /// Of a distribution in microseconds.
    pub(super) fn of<const N: usize>(
        distribution: &crate::observe::metrics::table::Distribution<N>,
    ) -> Self {
        use crate::observe::metrics::table::percentile;
        let seconds = |percent| {
            let micros = percentile(&distribution.counts, percent)?;
            Some(micros as f64 / 1e6)
        };
        Self {
            count: distribution.counts.iter().sum(),
            p50_seconds: seconds(50),
            p99_seconds: seconds(99),
        }
    }
}

impl Failures {
    /// All of them together.
    pub(crate) const fn total(&self) -> u64 {
        self.refused + self.unreachable + self.timeout + self.reset + self.other
    }
}
