//! Datagrams that come to another reactor than the one that has their flow: noted, passed, taken.

use super::Flows;
use super::announced;
use super::homes::{FlowName, Strayed};
use super::opening::FirstLook;
use super::why::Why;
use crate::engine::Datagrams;
use crate::net::datagram::Lost;
use crate::reactor::context::Ctx;
use crate::reactor::upstream::Pools;
use crate::relay::id::ListenerId;

impl Flows {
    /// The sockets of these addresses are about to be others, or others': who has flows there stays
    /// their home.
    pub(in crate::reactor) fn note_homes(&self, listeners: &[ListenerId]) {
        let names = self.table.names();
        let these = names.filter(|name| listeners.contains(&name.listener));
        self.homes.note(these.copied(), self.reactor);
    }

    /// Another reactor has sent something.
    pub(super) fn has_mail(&self) -> bool {
        self.mailbox.as_ref().is_some_and(|it| !it.is_empty())
    }

    /// The flow of that name has ended.
    pub(super) fn forget_home(&self, name: &FlowName) {
        if self.homes.knows_any() {
            self.homes.forget(name, self.reactor);
        }
    }

    /// Passes a train of a client without a flow here to the reactor that has it, if one has.
    pub(super) fn pass_home<E: Datagrams>(
        &self,
        ctx: &Ctx<E>,
        name: &FlowName,
        index: usize,
    ) -> bool {
        if !self.homes.knows_any() {
            return false;
        }
        let Some(home) = self.homes.elsewhere(name, self.reactor) else {
            return false;
        };
        let size = match usize::from(ctx.engine.train(index).segment) {
            0 => usize::MAX,
            segment => segment,
        };
        let payload = ctx.engine.payload(index);
        // An empty one is a datagram, too.
        let empty = payload.is_empty().then_some(payload);
        let pieces = payload.chunks(size.min(payload.len()).max(1));
        for piece in empty.into_iter().chain(pieces) {
            if !self.homes.pass(home, *name, piece.to_vec()) {
                Why::Lost(Lost::SendQueue).count(&ctx.counters, 1);
            }
        }
        true
    }

    /// What other reactors got for flows of this one.
    pub(super) fn take_mail<E: Datagrams>(&mut self, ctx: &mut Ctx<E>, pools: &mut Pools) {
        let mail = self.mailbox.as_ref().map(|it| it.take());
        for strayed in mail.unwrap_or_default() {
            if let Err(why) = self.take_strayed(ctx, pools, strayed) {
                why.count(&ctx.counters, 1);
            }
        }
    }

    fn take_strayed<E: Datagrams>(
        &mut self,
        ctx: &mut Ctx<E>,
        pools: &mut Pools,
        strayed: Strayed,
    ) -> Result<(), Why> {
        let Strayed { name, payload } = strayed;
        // It ended while this was on its way.
        let slot = self.table.find(&name).ok_or(Why::Draining)?;
        let entry = self.table.get(slot).ok_or(Why::Draining)?;
        let (at, port, client) = (entry.at.clone(), entry.port, entry.announced.as_deref());
        let (said, skip) = if at.forward.announced {
            let (said, skip) = announced::read(&at, &name, &payload)?;
            (Some(said), skip)
        } else {
            (None, 0)
        };
        let is_its_own = client == said.as_ref();
        self.look_at_server(ctx, pools, slot);
        let may_ask = self.table.get(slot).is_some_and(|entry| {
            let rules = entry.at.forward.datagrams.as_ref();
            rules.is_some_and(|rules| entry.flow.may_ask(&rules.flow) > 0)
        });
        if is_its_own && may_ask {
            // In their order: what was posted before leaves before.
            self.flush(ctx);
            self.send_up(ctx, slot, &payload[skip..]);
            return Ok(());
        }
        // One that has had all its requests, or whose server is gone: the next one begins here, too.
        let opened = FirstLook {
            at,
            client: said,
            server: None,
            kept: vec![payload[skip..].to_vec()],
            permit: None,
        };
        self.begin(ctx, pools, port, name, opened).map(drop)
    }
}
