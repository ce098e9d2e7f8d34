//! `bind`: addresses, and what stands behind them.

use super::address;
use super::lexer::Line;
use crate::convert::finding::Findings;
use crate::convert::model::{Keys, Value};
use crate::convert::time;

/// One `bind`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bind {
    pub(super) addresses: Vec<String>,
    /// What makes its listeners a forward of their own.
    pub(super) keys: Keys,
    pub(super) options: Keys,
}

/// Reads it; none if it cannot be listened on here.
pub(super) fn read(line: &Line, findings: &mut Findings) -> Option<Bind> {
    let (place, shown) = (&line.place, line.shown());
    let words = line.from(2);
    let both = words.iter().any(|word| word == "v4v6");
    let addresses = match address::listeners(line.word(1), both) {
        Ok(addresses) => addresses,
        Err(why) => {
            findings.left(place, &shown, why);
            return None;
        }
    };
    let mut bind = Bind {
        addresses,
        keys: Keys::default(),
        options: Keys::default(),
    };
    let mut words = words.iter().map(String::as_str);
    let mut whole = true;
    while let Some(word) = words.next() {
        match bind.parameter(word, &mut words) {
            Ok(None) => {}
            Ok(Some(differs)) => {
                findings.differs(place, &format!("{shown}: {word}"), differs);
            }
            Err(Refused::Parameter(why)) => {
                findings.left(place, &format!("{shown}: {word}"), why);
            }
            Err(Refused::Listener(why)) => {
                findings.left(place, &shown, why);
                whole = false;
                break;
            }
        }
    }
    findings.same(place, &shown);
    whole.then_some(bind)
}

enum Refused {
    /// One word has no counterpart.
    Parameter(&'static str),
    /// The listener cannot be had at all.
    Listener(&'static str),
}

impl Bind {
    fn parameter<'a>(
        &mut self,
        word: &str,
        rest: &mut impl Iterator<Item = &'a str>,
    ) -> Result<Option<&'static str>, Refused> {
        const NO_VALUE: Refused = Refused::Parameter("its value is not understood");
        let mut value = || rest.next().ok_or(NO_VALUE);
        match word {
            "accept-proxy" => {
                self.keys.set("accept_proxy", true);
                return Ok(Some(
                    "everybody's header is believed, as by HAProxy; name whom to believe",
                ));
            }
            "v4v6" | "v6only" | "transparent" => {
                if word == "transparent" {
                    self.options.set("free_bind", true);
                }
            }
            "interface" => self.options.set("interface", value()?),
            "mss" => self
                .options
                .set("mss", value()?.parse::<u64>().map_err(|_| NO_VALUE)?),
            "backlog" => self
                .options
                .set("backlog", value()?.parse::<u64>().map_err(|_| NO_VALUE)?),
            "maxconn" => {
                self.keys.set(
                    "max_connections",
                    value()?.parse::<u64>().map_err(|_| NO_VALUE)?,
                );
            }
            "tcp-ut" => {
                let time = time::parse(value()?, 1).ok_or(NO_VALUE)?;
                self.options.set("user_timeout", time::timeout(time));
            }
            "tfo" => {
                self.options.set("fastopen_queue", 256);
                return Ok(Some("256 fast opens may be pending"));
            }
            "defer-accept" => {
                self.options.set("defer_accept", "1s");
                return Ok(Some("for a second at the least, as the kernel rounds it"));
            }
            "mode" => {
                let mode = value()?;
                self.keys.set("unix_mode", format!("{mode:0>4}"));
            }
            "user" | "uid" => self
                .keys
                .set("unix_owner", Value::Text(value()?.to_owned())),
            "group" | "gid" => self
                .keys
                .set("unix_group", Value::Text(value()?.to_owned())),
            "name" | "id" | "process" | "thread" | "shards" | "nice" | "severity-output"
            | "guid-prefix" => {
                value()?;
            }
            "ssl" | "crt" | "crt-list" => {
                return Err(Refused::Listener(
                    "TLS is not terminated here; forward it, or end it in front",
                ));
            }
            "accept-netscaler-cip" | "namespace" | "level" | "expose-fd" | "alpn" | "proto" => {
                value()?;
                return Err(Refused::Parameter("has no counterpart"));
            }
            _ => return Err(Refused::Parameter("not known here")),
        }
        Ok(None)
    }
}
