//! Whether a client is let in, asked at the accept or once a PROXY header has said who it
//! is.

use super::clients::{ClientGrant, ClientPolicy, Denied, servers_notice, share_notice};
use super::context::Ctx;
use super::setup::Forward;
use crate::engine::Engine;
use crate::net::address::Endpoint;
use crate::observe::notice::{Kind, Subject};

/// Lets a client in at a forward, with its place among that client's connections and what
/// holds its bytes back; or counts that it is not, and says so. In a dry run everybody is
/// let in whom no shortage keeps out.
pub(super) fn let_in<E: Engine>(
    ctx: &mut Ctx<E>,
    forward: &Forward,
    client: &Endpoint,
) -> Result<Option<Box<ClientGrant>>, Denied> {
    let grant = by_policy(ctx, forward, client)?;
    share(ctx, forward, client).map(|()| grant)
}

/// Likewise, for a flow of datagrams: places of sessions are no matter of its own.
pub(super) fn by_policy<E: Engine>(
    ctx: &mut Ctx<E>,
    forward: &Forward,
    client: &Endpoint,
) -> Result<Option<Box<ClientGrant>>, Denied> {
    let Some(policy) = &forward.clients else {
        return Ok(None);
    };
    let ip = client.ip();
    let denied = match policy.admit(ip) {
        Ok(grant) => return Ok(grant),
        Err(denied) => denied,
    };
    match denied {
        Denied::Rule(_) => ctx.counters.denied_access.add(1),
        Denied::Connections => ctx.counters.denied_max_per_client.add(1),
        Denied::Rate => ctx.counters.denied_connect_rate.add(1),
        Denied::TableFull => ctx.counters.denied_client_table.add(1),
        Denied::Share => ctx.counters.denied_share.add(1),
        Denied::AtServers => ctx.counters.denied_server_max_per_client.add(1),
    }
    let subject = Subject::Rule(forward.id, ClientPolicy::subject(denied));
    ctx.complain(Kind::ClientDenied, subject, || {
        policy.notice(denied, client.clone())
    });
    if policy.dry_run {
        Ok(None)
    } else {
        Err(denied)
    }
}

/// A client has as many connections as it may at every server that it could go to: counted,
/// and said.
pub(super) fn denied_at_servers<E: Engine>(ctx: &mut Ctx<E>, forward: &Forward, client: &Endpoint) {
    ctx.counters.denied_server_max_per_client.add(1);
    let subject = Subject::Rule(forward.id, ClientPolicy::subject(Denied::AtServers));
    let dry_run = forward.is_dry_run();
    ctx.complain(Kind::ClientDenied, subject, || {
        servers_notice(forward.name.clone(), client.clone(), dry_run)
    });
}

/// While places run short a client has no more of them than its share.
fn share<E: Engine>(ctx: &mut Ctx<E>, forward: &Forward, client: &Endpoint) -> Result<(), Denied> {
    if ctx.shortage.may_enter(client, &ctx.gate, forward) {
        return Ok(());
    }
    ctx.counters.denied_share.add(1);
    let subject = Subject::Rule(forward.id, ClientPolicy::subject(Denied::Share));
    ctx.complain(Kind::ClientDenied, subject, || {
        share_notice(forward.name.clone(), client.clone())
    });
    Err(Denied::Share)
}
