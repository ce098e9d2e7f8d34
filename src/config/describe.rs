//! Every section of the configuration with its keys, for whoever describes them: the
//! documentation, the example, the schema.

use std::fmt::Write as _;

use super::admin::{Admin, Metrics};
use super::check;
use super::forward::{self, Forward};
use super::global::Global;
use super::http_connect::HttpConnect;
use super::log::Log;
use super::pool::{self, Pool};
use super::profile::{self, KeepaliveNumbers};
use super::route;
use super::row::Row;
use super::section::Section;
use super::server::Server;
use super::tap::{Rotate, Tap, TapFilter};

/// A table of keys.
pub(super) struct Described {
    /// Its name in the documentation and the schema.
    pub(super) name: &'static str,
    pub(super) rows: Vec<Row>,
}

/// Every section, in the order of the documentation.
pub(super) fn sections() -> Vec<Described> {
    let section = |name, rows| Described { name, rows };
    let mut defaults = Forward::rows();
    defaults.push(forward::defaults_upstream_row());
    let mut pool = vec![pool::servers_row()];
    pool.extend(Pool::rows());
    vec![
        section("global", Global::rows()),
        section("log", Log::rows()),
        section("admin", Admin::rows()),
        section("metrics", Metrics::rows()),
        section("defaults", defaults),
        section("tap", Tap::rows()),
        section("filter", TapFilter::rows()),
        section("rotate", Rotate::rows()),
        section("forward", forward::own_rows()),
        section("connect", HttpConnect::rows()),
        section("route", route::rows()),
        section("pool", pool),
        section("server", Server::rows()),
        section("check", check::rows()),
        section("profile", profile::rows()),
        section("keepalive", KeepaliveNumbers::rows()),
        section("raw", profile::raw_rows()),
    ]
}

/// Every section as a table, as in docs/configuration.md.
pub fn tables() -> String {
    let table = |it: Described| format!("## `{}`\n\n{}", it.name, markdown(&it.rows));
    sections()
        .into_iter()
        .map(table)
        .collect::<Vec<_>>()
        .join("\n")
}

/// The table of a section.
pub(super) fn markdown(rows: &[Row]) -> String {
    let of_sockets = rows.iter().any(|row| row.called.is_some());
    let mut text = String::from(if of_sockets {
        "| key | kind | socket option | takes effect | remarks |\n| --- | --- | --- | --- | --- |\n"
    } else {
        "| key | kind | default | takes effect | meaning |\n| --- | --- | --- | --- | --- |\n"
    });
    for row in rows {
        let third = match row.called {
            Some(called) => format!("`{called}`"),
            None if row.has_default => format!("`{}`", row.default),
            None => row.default.clone(),
        };
        let cells = [
            format!("`{}`", row.key),
            row.words.clone(),
            third,
            row.effect.to_string(),
            row.doc.to_owned(),
        ];
        let cells = cells.map(|cell| cell.replace('|', "\\|"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}
