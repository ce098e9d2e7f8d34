//! Counters: one set a reactor, written by it alone, read by anyone.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number with one writer. Adding is a load and a store, not a locked
/// instruction: nobody else writes it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only ever called by the one writer.
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Replaces the value: for gauges.
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// The counters of one reactor. Cache-line aligned: two reactors never
        /// write to the same line.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            $($(#[doc = $doc])+ pub $name: Counter,)+
        }

        /// Counters at one moment; adds up over reactors.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Snapshot {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Counters {
            /// The values now.
            pub fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.get(),)+ }
            }
        }

        impl Snapshot {
            /// The sum with another reactor's.
            #[must_use]
            pub fn plus(self, other: Self) -> Self {
                Self { $($name: self.$name + other.$name,)+ }
            }

            /// Every counter by name, in the order of their declaration.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)+].into_iter()
            }
        }
    };
}

counters! {
    /// Connections accepted from clients.
    accepted,
    /// Sessions that ended, well or not.
    ended,
    /// Sessions in which both sides ended in good order.
    ended_well,
    /// Connections that the kernel lost before they could be accepted.
    accept_lost,
    /// Pauses of accepting for want of descriptors or memory.
    accept_pauses,
    /// Pauses of accepting because `max_connections` was reached.
    limit_pauses,
    /// Connections turned away after the accept (registering them failed).
    refused,
    /// Attempts to connect upstream.
    connects,
    /// Attempts that failed, timed out ones included.
    connect_failures,
    /// Attempts that failed for want of a local port, descriptor or memory here.
    connect_shortages,
    /// Sessions that waited for a server with room.
    queued,
    /// Sessions that were turned away because too many waited already.
    queue_full,
    /// Requests of http-connect forwards that were answered 200: tunnels.
    http_connect_200,
    /// Malformed requests.
    http_connect_400,
    /// Requests that the access list turned down.
    http_connect_403,
    /// Requests of another method than CONNECT.
    http_connect_405,
    /// Requests without valid credentials.
    http_connect_407,
    /// Requests that were not complete in time.
    http_connect_408,
    /// Requests with too large a header.
    http_connect_431,
    /// Targets that could not be reached or resolved.
    http_connect_502,
    /// Requests that were turned away for want of something here.
    http_connect_503,
    /// Targets or name servers that did not answer in time.
    http_connect_504,
    /// Gauge: socket options that the kernel refused at run time, so far.
    options_refused,
    /// Bytes read, from clients and upstreams: those written, lost and held.
    bytes_read,
    /// Bytes written to upstreams.
    bytes_up,
    /// Bytes written to clients.
    bytes_down,
    /// Bytes read and never written because the receiver failed.
    bytes_lost,
    /// Sessions with a lane that spliced.
    sessions_spliced,
    /// Lanes that wanted to splice and had to copy.
    splice_fallbacks,
    /// Sessions that a tap shows.
    tap_sessions,
    /// Gauge: bytes that taps should have shown and that their targets did not get,
    /// so far.
    tap_dropped_bytes,
    /// Events of sessions that were gone already.
    stale_events,
    /// Pumps that ended with their budget and were queued again.
    budget_ends,
    /// Turns of the loop.
    turns,
    /// Timers that fired.
    timers_fired,
    /// Gauge: sessions now.
    live,
    /// Gauge: bytes of tails and pipes now.
    held_bytes,
    /// Gauge: pipes that lanes hold now.
    pipes,
    /// Gauge: connections the kernel dropped because an accept queue was full.
    accept_overflows,
}
