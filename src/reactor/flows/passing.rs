//! Datagrams on their way: from clients to the servers of their flows, and back.

use super::Flows;
use super::announced;
use super::homes::FlowName;
use super::opening::Part;

use super::why::Why;
use crate::engine::datagrams::{Post, Received};
use crate::engine::{DatagramKey, Datagrams};
use crate::net::datagram::Lost;
use crate::net::datagram::batch::Train;
use crate::observe::notice::{Kind, Notice, Subject};
use crate::reactor::context::Ctx;
use crate::reactor::metered;
use crate::reactor::setup::Listener;
use crate::reactor::upstream::Pools;
use crate::reactor::upstream::server::add;
use crate::reactor::verdict;
use crate::relay::Direction;
use crate::relay::ending::{Cause, Ending, Stage, Who};
use crate::relay::flow::Answers;

impl Flows {
    /// What clients have sent to a port.
    pub(super) fn read_port<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
        port: DatagramKey,
        most: usize,
    ) -> Received {
        let received = ctx.engine.receive(port, most);
        let Some(its) = self.owners.port_mut(port) else {
            return received;
        };
        let at = its.at.clone();
        let (listener, announced) = (at.id, at.forward.announced);
        let mut looked_at = None;
        for index in received.first..received.first + received.count {
            let train = *ctx.engine.train(index);
            ctx.counters
                .udp_received_up
                .add(u64::from(train.datagrams()));
            let name = FlowName {
                listener,
                client: train.from,
                local: train.to,
            };
            if train.is_cut {
                Why::Lost(Lost::TooBig).count(&ctx.counters, 1);
                continue;
            }
            let known = match self.last {
                Some((last, slot)) if last == name => Some(slot),
                _ => self.table.find(&name),
            };
            if known.is_none() && self.pass_home(ctx, &name, index) {
                continue;
            }
            if announced {
                self.up_announced(ctx, pools, (port, &at), name, index);
                continue;
            }
            if let Some(slot) = known
                && looked_at != Some(slot)
            {
                looked_at = Some(slot);
                self.look_at_server(ctx, pools, slot);
            }
            if let Err((why, datagrams)) = self.up(ctx, pools, port, name, known, index) {
                why.count(&ctx.counters, datagrams);
            }
        }
        received
    }

    /// A flow whose server is gone goes to another one; without another one it stays, and
    /// what it sends is dropped.
    pub(super) fn look_at_server<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
        slot: u32,
    ) {
        if self.keeps_its_server(ctx, pools, slot) {
            return;
        }
        let moves = self.table.get(slot).is_some_and(|entry| {
            let rules = entry.at.forward.datagrams.as_ref();
            rules.is_some_and(|rules| rules.moves)
        });
        if moves && self.relocate(ctx, pools, slot).is_err() {
            self.flush(ctx);
            self.end(
                ctx,
                slot,
                Ending {
                    who: Who::Forwarder,
                    stage: Stage::Data,
                    cause: Cause::ServerDown,
                },
            );
        }
    }

    /// Passes a train of a client on, by its flow or by a new one; the datagrams that are
    /// not passed, and why.
    fn up<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
        port: DatagramKey,
        name: FlowName,
        known: Option<u32>,
        index: usize,
    ) -> Result<(), (Why, u32)> {
        let train = *ctx.engine.train(index);
        let mut slot = known;
        let mut left = train.datagrams();
        let mut skip = 0;
        while left > 0 {
            let open = slot.and_then(|slot| {
                let entry = self.table.get_mut(slot)?;
                let rules = entry.at.forward.datagrams.as_ref()?;
                let some = entry.flow.may_ask(&rules.flow).min(left);
                (some > 0).then_some((slot, some))
            });
            let Some((at, some)) = open else {
                // None so far, or one that has had all its requests.
                let whole = Part::whole(index, &train);
                let opened = self.look(ctx, port, &name, &whole);
                let Some(opened) = opened.map_err(|why| (why, left))? else {
                    return Ok(());
                };
                let begun = self.begin(ctx, pools, port, name, opened);
                slot = Some(begun.map_err(|why| (why, left))?);
                continue;
            };
            if self.table.get(at).is_none() {
                return Err((Why::NoServer, left));
            }
            let len = part(&train, some, skip);
            self.post_up(ctx, at, (index, skip, len), some);
            skip += len;
            left -= some;
        }
        self.last = slot.map(|slot| (name, slot));
        Ok(())
    }

    /// Sends what came before a flow began, before anything else of it.
    pub(super) fn send_kept<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        slot: u32,
        kept: &[Vec<u8>],
    ) {
        for datagram in kept {
            self.send_up(ctx, slot, datagram);
        }
    }

    /// Likewise of a proxy that says in each datagram whom it is for. One that does not is dropped alone.
    fn up_announced<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
        (port, at): (DatagramKey, &Listener),
        name: FlowName,
        index: usize,
    ) {
        let train = *ctx.engine.train(index);
        let mut start = 0;
        for _ in 0..train.datagrams() {
            let len = part(&train, 1, start);
            let (from, end) = (start as usize, (start + len) as usize);
            start += len;
            let read = announced::read(at, &name, &ctx.engine.payload(index)[from..end]);
            let passed = read.and_then(|(client, skip)| {
                let known = self.table.find(&name).filter(|slot| {
                    let entry = self.table.get(*slot);
                    entry.is_some_and(|it| it.announced.as_deref() == Some(&client))
                });
                if let Some(slot) = known {
                    self.look_at_server(ctx, pools, slot);
                }
                let said = Part {
                    index,
                    range: from + skip..end,
                    client: Some(client),
                };
                self.up_part(ctx, pools, (port, name), known, &said)
            });
            if let Err(why) = passed {
                why.count(&ctx.counters, 1);
            }
        }
    }

    /// Passes one datagram on.
    fn up_part<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
        (port, name): (DatagramKey, FlowName),
        known: Option<u32>,
        said: &Part,
    ) -> Result<(), Why> {
        let may_ask = |flows: &Self, slot: u32| {
            let entry = flows.table.get(slot);
            let rules = entry.and_then(|it| Some((it, it.at.forward.datagrams.as_ref()?)));
            rules.is_some_and(|(it, rules)| it.flow.may_ask(&rules.flow) > 0)
        };
        let slot = if let Some(slot) = known.filter(|slot| may_ask(self, *slot)) {
            slot
        } else {
            let Some(opened) = self.look(ctx, port, &name, said)? else {
                return Ok(());
            };
            self.begin(ctx, pools, port, name, opened)?
        };
        self.post_up(
            ctx,
            slot,
            (said.index, said.range.start as u32, said.range.len() as u32),
            1,
        );
        Ok(())
    }

    /// Has datagrams of a flow sent, so many from there on: with what was posted, or at once if they are
    /// to have a header.
    fn post_up<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        slot: u32,
        (index, skip, len): (usize, u32, u32),
        datagrams: u32,
    ) {
        let now = ctx.now();
        let Some((len, datagrams)) = self.may_pass(ctx, slot, (index, skip, len), datagrams) else {
            return;
        };
        let mut left = (skip, len, datagrams);
        while left.2 > 0 && self.has_heading(slot) {
            let train = *ctx.engine.train(index);
            let one = if left.2 == 1 {
                left.1
            } else {
                part(&train, 1, left.0).min(left.1)
            };
            let (from, end) = (left.0 as usize, (left.0 + one) as usize);
            let datagram = ctx.engine.payload(index)[from..end].to_vec();
            self.send_up(ctx, slot, &datagram);
            left = (left.0 + one, left.1 - one, left.2 - 1);
        }
        let Some(entry) = self.table.get_mut(slot) else {
            return;
        };
        if left.2 > 0 {
            entry.flow.asks(left.2, u64::from(left.1), now);
            ctx.engine.post(Post {
                socket: entry.socket,
                train: index as u16,
                tag: tag(slot, Direction::Up),
                to: None,
                joined: !entry.singly[0],
                skip: left.0,
                len: left.1,
            });
        }
        let rules = entry.at.forward.datagrams.as_ref();
        if rules.is_some_and(|rules| entry.flow.is_complete(&rules.flow)) {
            self.complete.push(slot);
        }
    }

    /// How much of that a flow may pass on by its rates; the rest is dropped and counted. `None`: nothing.
    fn may_pass<E: Datagrams>(
        &mut self,
        ctx: &Ctx<E>,
        slot: u32,
        (index, skip, len): (usize, u32, u32),
        datagrams: u32,
    ) -> Option<(u32, u32)> {
        let entry = self.table.get_mut(slot)?;
        let train = ctx.engine.train(index);
        let sizes = sizes(train, len);
        let (grant, now) = (entry.permit.as_deref(), ctx.now());
        let pass = metered::datagrams(grant, Direction::Up, sizes, now, &ctx.counters);
        if pass >= datagrams {
            return Some((len, datagrams));
        }
        Why::Rate.count(&ctx.counters, datagrams - pass);
        entry.flow.lost(Direction::Up, datagrams - pass);
        (pass > 0).then(|| (part(train, pass, skip), pass))
    }

    /// What the server of a flow has sent.
    pub(super) fn read_flow<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
        (socket, slot): (DatagramKey, u32),
        most: usize,
    ) -> Received {
        let received = ctx.engine.receive(socket, most);
        for index in received.first..received.first + received.count {
            let train = *ctx.engine.train(index);
            let datagrams = train.datagrams();
            ctx.counters.udp_received_down.add(u64::from(datagrams));
            if let Err((why, dropped)) = self.down(ctx, slot, &train, index) {
                why.count(&ctx.counters, dropped);
                if let Some(entry) = self.table.get_mut(slot) {
                    entry.flow.lost(Direction::Down, dropped);
                }
            }
        }
        if received.refusals > 0 {
            self.is_refused(ctx, pools, slot, received.refusals);
        }
        received
    }

    fn down<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        slot: u32,
        train: &Train,
        index: usize,
    ) -> Result<(), (Why, u32)> {
        let datagrams = train.datagrams();
        if train.is_cut {
            return Err((Why::Lost(Lost::TooBig), datagrams));
        }
        let now = ctx.now();
        self.learn(ctx, slot, index);
        let Some(entry) = self.table.get_mut(slot) else {
            return Err((Why::Late, datagrams));
        };
        let Some(rules) = entry.at.forward.datagrams.as_ref().map(|it| it.flow) else {
            return Err((Why::Late, datagrams));
        };
        let bytes = u64::from(train.len);
        let pass = match entry.flow.answers(datagrams, bytes, now, &rules) {
            Answers::Pass(pass) => pass,
            Answers::Unearned => return Err((Why::Unearned, datagrams)),
        };
        let (grant, sizes) = (entry.permit.as_deref(), sizes(train, train.len));
        let sizes = sizes.take(pass as usize);
        let at_rate = metered::datagrams(grant, Direction::Down, sizes, now, &ctx.counters);
        let (answered, pass) = (pass, pass.min(at_rate));
        if pass < answered {
            Why::Rate.count(&ctx.counters, answered - pass);
            entry.flow.lost(Direction::Down, answered - pass);
        }
        if pass > 0 {
            let len = part(train, pass, 0);
            ctx.engine.post(Post {
                socket: entry.port,
                train: index as u16,
                tag: tag(slot, Direction::Down),
                to: Some((entry.name.client, entry.name.local)),
                joined: !entry.singly[1],
                skip: 0,
                len,
            });
        }
        if entry.flow.is_complete(&rules) {
            self.complete.push(slot);
        }
        if !entry.proven {
            entry.proven = true;
            let (server, admission) = (entry.server.clone(), entry.admission);
            // The time of silence is another one now, and may be shorter.
            let deadline = entry.flow.deadline(&rules);
            self.arm(slot, deadline, now);
            self.crowd.leave(slot);
            verdict::praise(ctx, &server, admission);
        }
        if answered < datagrams {
            return Err((Why::Unexpected, datagrams - answered));
        }
        Ok(())
    }

    /// ICMP said that the server does not listen. Once may be forged; often enough in a row,
    /// and the flow goes elsewhere, if there is an elsewhere.
    fn is_refused<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
        slot: u32,
        times: u32,
    ) {
        let Some(entry) = self.table.get_mut(slot) else {
            return;
        };
        ctx.counters.udp_refusals.add(u64::from(times));
        if !entry.flow.is_refused(times) {
            return;
        }
        let (server, admission) = (entry.server.clone(), entry.admission);
        server.tally.failed(Cause::Refused);
        verdict::blame(ctx, &server, admission, Cause::Refused);
        // Without another one it stays: this one may come back.
        let _ = self.relocate(ctx, pools, slot);
    }

    /// Sends what was posted, and notes what came of it.
    pub(super) fn flush<E: Datagrams>(&mut self, ctx: &mut Ctx<E>) {
        let mut outcomes = std::mem::take(&mut self.outcomes);
        outcomes.clear();
        ctx.engine.send_posts(&mut outcomes);
        for outcome in &outcomes {
            let (slot, direction) = untag(outcome.tag);
            let (datagrams, bytes) = (outcome.sent, outcome.bytes);
            let counters = &ctx.counters;
            match direction {
                Direction::Up => {
                    counters.udp_sent_up.add(u64::from(datagrams));
                    counters.bytes_up.add(bytes);
                }
                Direction::Down => {
                    counters.udp_sent_down.add(u64::from(datagrams));
                    counters.bytes_down.add(bytes);
                }
            }
            counters.bytes_read.add(bytes);
            if let Some((lost, datagrams)) = outcome.lost {
                Why::Lost(lost).count(counters, datagrams);
            }
            let Some(entry) = self.table.get_mut(slot) else {
                continue;
            };
            entry.flow.sent(direction, datagrams, bytes);
            let cells = &entry.at.forward.books.of(ctx.reactor).cells;
            let tally = &entry.server.tally;
            match direction {
                Direction::Up => {
                    cells.bytes_up.add(bytes);
                    add(&tally.bytes_up, bytes);
                }
                Direction::Down => {
                    cells.bytes_down.add(bytes);
                    add(&tally.bytes_down, bytes);
                }
            }
            if let Some((_, lost)) = outcome.lost {
                entry.flow.lost(direction, lost);
            }
            if outcome.singly {
                entry.singly[direction.index()] = true;
                let (forward, id) = (entry.at.forward.name.clone(), entry.at.forward.id);
                ctx.complain(Kind::SentSingly, Subject::Forward(id), || {
                    Notice::SentSingly { forward }
                });
            }
        }
        self.outcomes = outcomes;
        let mut complete = std::mem::take(&mut self.complete);
        for slot in complete.drain(..) {
            self.end_if_complete(ctx, slot);
        }
        self.complete = complete;
    }

    /// Likewise, and makes room for what comes next. Not while a batch is looked at: what of it is
    /// still to be posted lies where the next one would.
    pub(super) fn flush_all<E: Datagrams>(&mut self, ctx: &mut Ctx<E>) {
        self.flush(ctx);
        ctx.engine.forget_trains();
    }

    fn end_if_complete<E: Datagrams>(&mut self, ctx: &mut Ctx<E>, slot: u32) {
        let is_complete = self.table.get(slot).is_some_and(|entry| {
            let rules = entry.at.forward.datagrams.as_ref();
            rules.is_some_and(|rules| entry.flow.is_complete(&rules.flow))
        });
        if is_complete {
            self.end(
                ctx,
                slot,
                Ending {
                    who: Who::Both,
                    stage: Stage::Data,
                    cause: Cause::Finished,
                },
            );
        }
    }
}

/// Bytes of so many datagrams of a train, behind those that are left out.
fn part(train: &Train, datagrams: u32, skip: u32) -> u32 {
    let rest = train.len - skip;
    match u32::from(train.segment) {
        0 => rest,
        segment => rest.min(segment * datagrams),
    }
}

/// Bytes of each datagram in so many of a train.
fn sizes(train: &Train, len: u32) -> impl Iterator<Item = u32> + use<> {
    let segment = match u32::from(train.segment) {
        0 => len.max(1),
        segment => segment,
    };
    // One without a byte is one.
    let count = len.div_ceil(segment).max(1);
    (0..count).map(move |at| segment.min(len - at * segment))
}

const fn tag(slot: u32, direction: Direction) -> u32 {
    slot << 1 | direction.index() as u32
}

const fn untag(tag: u32) -> (u32, Direction) {
    let direction = if tag & 1 == 0 {
        Direction::Up
    } else {
        Direction::Down
    };
    (tag >> 1, direction)
}
