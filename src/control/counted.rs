//! What was counted goes on in the next process: nothing falls on /metrics because another
//! one answers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::admin::once;
use crate::observe::books::EndingKind;
use crate::observe::counters::{ForwardSnapshot, Snapshot};
use crate::observe::metrics::table::{Totals, totals};
use crate::relay::id::ForwardId;

use super::running::Running;
use super::upgrade::tables::{Counted, CountedForward, ENDED};

/// Clients that are told of, at the most: some megabytes.
const OWED_MAX: usize = 100_000;

/// How long a reactor may take to be visited.
const VISIT_PATIENCE: Duration = Duration::from_secs(2);

impl Running {
    /// All that was counted here.
    pub(super) fn counted(&self) -> Counted {
        let mut reactors: Vec<(u16, Totals)> = self
            .reactors
            .iter()
            .map(|(number, it)| (*number, totals(&it.counters().snapshot())))
            .collect();
        // Those that have ended count as one more.
        reactors.push((ENDED, totals(&self.ended)));
        let forwards = self.forwards.values().map(|it| {
            let (sum, ended) = it.forward.books.read();
            let ended = ended.into_iter();
            CountedForward {
                name: it.forward.name.to_string(),
                totals: totals(&sum),
                ended: ended
                    .map(|(kind, count)| (kind.code.to_owned(), kind.cause.to_owned(), count))
                    .collect(),
            }
        });
        Counted {
            reactors,
            forwards: forwards.collect(),
            servers: self.upstreams.counted(),
        }
    }

    /// Clients that have connected as fast as they may, by the name of the forward.
    pub(super) fn owed(&self) -> Vec<(String, IpAddr, u64)> {
        let owed = self.held.clients.iter().flat_map(|table| table.owed());
        let named = owed.filter_map(|(forward, client, ahead)| {
            let name = self.forwards.get(&forward)?.forward.name.to_string();
            Some((name, client, ahead.as_micros() as u64))
        });
        named.take(OWED_MAX).collect()
    }

    /// Clients of the process before are as far ahead here.
    pub(super) fn owe(&self, told: &[(String, IpAddr, u64)]) {
        let Some(table) = &self.held.clients else {
            return;
        };
        let names = self
            .forwards
            .iter()
            .map(|(id, it)| (&*it.forward.name, *id));
        let names: HashMap<&str, ForwardId> = names.collect();
        for (name, client, ahead) in told {
            if let Some(forward) = names.get(name.as_str()) {
                table.owe(*forward, *client, Duration::from_micros(*ahead));
            }
        }
    }

    /// Goes on counting from there. What a reactor writes it is made to write itself, on a
    /// visit.
    pub(super) fn absorb(&self, told: &Counted) {
        self.upstreams.absorb(&told.servers);
        let first = self.active.first().copied().unwrap_or(0);
        let (done, all) = channel::<()>();
        for (number, totals) in &told.reactors {
            let known = self.reactors.get(number);
            let Some(reactor) = known.or_else(|| self.reactors.get(&first)) else {
                continue;
            };
            let (counters, done) = (reactor.counters().clone(), done.clone());
            let more = Snapshot::of_totals(totals);
            reactor.wire().visit(once(move |_| {
                counters.absorb(&more);
                drop(done);
            }));
        }
        for it in &told.forwards {
            let mut known = self.forwards.values();
            let known = known.find(|known| *known.forward.name == *it.name);
            let (Some(known), Some(reactor)) = (known, self.reactors.get(&first)) else {
                continue;
            };
            let (books, done) = (known.forward.books.clone(), done.clone());
            let more = ForwardSnapshot::of_totals(&it.totals);
            let ended = it.ended.iter();
            let ended: Vec<(EndingKind, u64)> = ended
                .map(|(code, cause, count)| (EndingKind::told(code, cause), *count))
                .collect();
            reactor.wire().visit(once(move |_| {
                books.of(first).absorb(&more, &ended);
                drop(done);
            }));
        }
        drop(done);
        // Until all of it is there.
        let _ = all.recv_timeout(VISIT_PATIENCE);
    }
}
