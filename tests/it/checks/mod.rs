//! Active checks against real servers on loopback (behaviour 31), and the marks and
//! picks that reactors share.

mod commands;
mod connections;
mod counts;
mod marks;
mod origin;
mod picks;
mod plans;
mod tls;
mod watch;
