//! What sessions and flows say of their servers: praise and blame, and what the log says of
//! it.

use super::context::Ctx;
use super::upstream::server::Server;
use crate::balance::health::{Admission, Change};
use crate::engine::Engine;
use crate::observe::notice::{Kind, Notice, Subject};
use crate::relay::ending::Cause;

/// A server failed: it is marked if that was one failure too many.
pub(super) fn blame<E: Engine>(
    ctx: &mut Ctx<E>,
    server: &Server,
    admission: Admission,
    cause: Cause,
) {
    let change = server.standing.failed(admission, ctx.engine.now());
    let settings = server.settings();
    if change == Some(Change::Down) {
        let terms = server.terms();
        ctx.log.notice(Notice::ServerMarked {
            server: server.name(),
            cause,
            fail_timeout: terms.fail_timeout,
            max_fails: terms.max_fails,
        });
    } else {
        let subject = Subject::Server(settings.id);
        ctx.complain(Kind::ConnectFailed, subject, || Notice::ConnectFailed {
            server: server.name(),
            cause,
        });
    }
}

/// A server was got through to: a mark that it was to try goes.
pub(super) fn praise<E: Engine>(ctx: &mut Ctx<E>, server: &Server, admission: Admission) {
    let now = ctx.engine.now();
    if server.standing.succeeded(admission, now) == Some(Change::Up) {
        ctx.log.notice(Notice::ServerUnmarked {
            server: server.name(),
        });
    }
}
