//! What holds a session back: pure.
//!
//! The direction that moved more is judged. If its sink was kept from taking more, by its
//! window, by the network or by too small a buffer of ours, that is it; else there was
//! nothing to send, and the source is judged: bytes that wait in the kernel to be read are
//! the forwarder's fault, none are its application's.
//!
//! Before all that come our own byte rates: whoever is made to wait by one is not read from,
//! and in the kernel's accounts looks like an application that says nothing.

use std::time::Duration;

use crate::net::tcp_info::{LimitedBy, TcpInfo};
use crate::reactor::inspect::SessionView;
use crate::relay::{Direction, Side};

/// Bytes that went over a leg, and the times that the kernel accounts for.
const NOTHING: Duration = Duration::ZERO;

/// In a word: see [`crate::admin::view::Session`]. Of what was between two looks at it, or
/// of its whole life where there was one.
pub(super) fn verdict(before: Option<&SessionView>, now: &SessionView) -> &'static str {
    let moved = Direction::BOTH.map(|direction| {
        let bytes = |view: &SessionView| view.lanes[direction.index()].bytes;
        bytes(now) - before.map_or(0, bytes).min(bytes(now))
    });
    if is_held_by_rate(before, now) {
        return "rate_limit";
    }
    let stalled = Direction::BOTH.map(|direction| now.lanes[direction.index()].held > 0);
    let direction = match (moved, stalled) {
        ([0, 0], [false, false]) => return "idle",
        ([0, 0], [true, _]) => Direction::Up,
        ([0, 0], _) => Direction::Down,
        ([up, down], _) if up > down => Direction::Up,
        _ => Direction::Down,
    };
    let sink = match direction {
        Direction::Up => Side::Upstream,
        Direction::Down => Side::Client,
    };
    let held = now.lanes[direction.index()].held > 0;
    match limit(before, now, sink) {
        Some(LimitedBy::PeerWindow) => word(sink, "window"),
        Some(LimitedBy::Network) => word(sink, "network"),
        Some(LimitedBy::SendBuffer) => "forwarder",
        // A sink without such an account, a unix socket, that takes nothing.
        None if held => word(sink, "window"),
        Some(LimitedBy::Application) | None => word(sink.other(), "application"),
    }
}

/// A byte rate made it wait for half of that time at the least.
fn is_held_by_rate(before: Option<&SessionView>, now: &SessionView) -> bool {
    let Some(held) = now.held_back else {
        return false;
    };
    let earlier = before.and_then(|it| it.held_back).unwrap_or(NOTHING);
    let elapsed = before.map_or(now.age, |it| now.now.since(it.now));
    let held = held.saturating_sub(earlier);
    held > NOTHING && held * 2 >= elapsed
}

/// What held the sending on a side back in that time.
fn limit(before: Option<&SessionView>, now: &SessionView, side: Side) -> Option<LimitedBy> {
    let current = now.tcp[side.index()]?;
    let Some(before) = before else {
        return Some(current.limited_by(now.age));
    };
    let earlier = before.tcp[side.index()]?;
    let less = |one: Duration, other: Duration| one.saturating_sub(other);
    let between = TcpInfo {
        busy: less(current.busy, earlier.busy),
        window_limited: less(current.window_limited, earlier.window_limited),
        send_buffer_limited: less(current.send_buffer_limited, earlier.send_buffer_limited),
        ..current
    };
    let elapsed = now.now.since(before.now).max(NOTHING);
    Some(between.limited_by(elapsed))
}

fn word(side: Side, what: &str) -> &'static str {
    match (side, what) {
        (Side::Client, "window") => "client_window",
        (Side::Client, "network") => "client_network",
        (Side::Client, _) => "client_application",
        (Side::Upstream, "window") => "upstream_window",
        (Side::Upstream, "network") => "upstream_network",
        (Side::Upstream, _) => "upstream_application",
    }
}
