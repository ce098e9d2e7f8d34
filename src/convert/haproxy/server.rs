//! `server`: an address, and what stands behind it.

use super::check::Pace;
use super::lexer::Line;
use crate::convert::finding::{Findings, Origin};
use crate::convert::model::{Keys, Value};
use crate::convert::time;

/// One `server`.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) place: Origin,
    pub(super) shown: String,
    /// As HAProxy writes it: without a port it has that of the listener.
    pub(super) address: String,
    pub(super) keys: Keys,
    /// What is said of one server and is the pool's here.
    pub(super) pool: Keys,
    pub(super) checked: bool,
    pub(super) pace: Pace,
}

/// What `default-server` says, for the servers behind it.
#[derive(Debug, Clone, Default)]
pub(super) struct Defaults(Vec<String>);

impl Defaults {
    pub(super) fn add(&mut self, line: &Line) {
        self.0.extend_from_slice(line.from(1));
    }
}

/// Reads it; none if it cannot be a server here.
pub(super) fn read(line: &Line, defaults: &Defaults, findings: &mut Findings) -> Option<Server> {
    let template = line.word(0) == "server-template";
    let (address, from) = if template {
        (line.word(3), 4)
    } else {
        (line.word(2), 3)
    };
    let mut server = Server {
        place: line.place.clone(),
        shown: line.shown(),
        address: address.to_owned(),
        keys: Keys::default(),
        pool: Keys::default(),
        checked: false,
        pace: Pace::default(),
    };
    if address.is_empty() {
        findings.left(&line.place, &line.shown(), "no address");
        return None;
    }
    let own = line.from(from);
    let keeps_up = own
        .iter()
        .chain(&defaults.0)
        .any(|word| word == "resolvers")
        || template;
    let mut whole = true;
    for (words, defaulted) in [(defaults.0.as_slice(), true), (own, false)] {
        let mut words = words.iter().map(String::as_str);
        while let Some(word) = words.next() {
            match server.parameter(word, &mut words) {
                Ok(None) => {}
                Ok(Some(differs)) => {
                    findings.differs(&line.place, &format!("{}: {word}", server.shown), differs);
                }
                Err(why) => {
                    let of = if defaulted {
                        "default-server"
                    } else {
                        "server"
                    };
                    findings.left(&line.place, &format!("{of} {}: {word}", line.word(1)), why);
                    whole &= word != "ssl";
                }
            }
        }
    }
    if super::server::is_name(address) && !keeps_up {
        let why = "names are kept resolved here; HAProxy looks them up once, at its start";
        findings.differs(&line.place, &server.shown, why);
    }
    findings.same(&line.place, &server.shown);
    whole.then_some(server)
}

/// Whether the host of an address is a name.
pub(super) fn is_name(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    !address.contains(['/', '@', '['])
        && host.parse::<std::net::IpAddr>().is_err()
        && address.parse::<std::net::IpAddr>().is_err()
}

impl Server {
    fn parameter<'a>(
        &mut self,
        word: &str,
        rest: &mut impl Iterator<Item = &'a str>,
    ) -> Result<Option<&'static str>, &'static str> {
        const NO_VALUE: &str = "its value is not understood";
        let mut value = || rest.next().ok_or(NO_VALUE);
        let number = |text: &str| text.parse::<u64>().map_err(|_| NO_VALUE);
        let time = |text: &str| time::parse(text, 1).ok_or(NO_VALUE);
        match word {
            "check" => self.checked = true,
            "no-check" => self.checked = false,
            "inter" => self.pace.interval = Some(time(value()?)?),
            "fastinter" => self.pace.fast_interval = Some(time(value()?)?),
            "downinter" => {
                value()?;
                return Ok(Some("servers that are down are asked as often as others"));
            }
            "rise" => self.pace.rise = Some(number(value()?)?),
            "fall" => self.pace.fall = Some(number(value()?)?),
            "port" => self.pace.port = Some(number(value()?)?),
            "on-marked-down" if value()? == "shutdown-sessions" => self.pace.close_on_down = true,
            "weight" => self.keys.set("weight", number(value()?)?),
            "maxconn" => match number(value()?)? {
                0 => self.keys.remove("max_connections"),
                most => self.keys.set("max_connections", most),
            },
            "backup" => self.keys.set("backup", true),
            "disabled" => self.keys.set("state", "maintenance"),
            "enabled" => self.keys.remove("state"),
            "slowstart" => self.pool.set("slow_start", time::timeout(time(value()?)?)),
            "send-proxy" => self.pool.set("send_proxy", "v1"),
            "send-proxy-v2" => self.pool.set("send_proxy", "v2"),
            "proxy-v2-options" => {
                let mut tlvs = Vec::new();
                let mut unknown = false;
                for option in value()?.split(',') {
                    match option {
                        "unique-id" => tlvs.push("unique_id".to_owned()),
                        "crc32c" | "authority" => tlvs.push(option.to_owned()),
                        _ => unknown = true,
                    }
                }
                let table = vec![("version", "v2".into()), ("tlvs", Value::List(tlvs))];
                self.pool.set("send_proxy", Value::Table(table));
                if unknown {
                    return Err("of TLVs only unique-id, crc32c and authority");
                }
            }
            "source" => {
                let address = value()?;
                let host = address.trim_end_matches(":0");
                self.pool.set("source", host);
            }
            "resolvers" | "resolve-prefer" | "resolve-net" | "resolve-opts" | "init-addr"
            | "id" | "cookie" | "agent-port" | "agent-inter" | "minconn" | "pool-max-conn"
            | "error-limit" | "on-error" | "pool-purge-delay" | "pool-low-conn" | "log-proto"
            | "guid" => {
                value()?;
            }
            "observe" => {
                value()?;
                self.pool.set("max_fails", 10);
                return Ok(Some(
                    "failed connects mark a server after ten (`max_fails`)",
                ));
            }
            "maxqueue" => {
                value()?;
                return Ok(Some(
                    "`queue` bounds how many wait for all servers together",
                ));
            }
            "no-send-proxy" | "no-send-proxy-v2" => self.pool.remove("send_proxy"),
            "check-send-proxy" | "no-ssl" | "non-stick" | "no-backup" | "no-verifyhost"
            | "no-check-ssl" | "stick" => {}
            "ssl" => return Err("TLS is not begun here; the server would be sent plain text"),
            "tfo" => return Ok(Some("write `fastopen_connect` into the upstream profile")),
            "verify" | "ca-file" | "sni" | "alpn" | "crt" | "verifyhost" | "check-sni"
            | "check-alpn" | "ssl-min-ver" | "ssl-max-ver" | "ciphers" | "ciphersuites" => {
                value()?;
                return Ok(Some("of TLS, which passes as it is"));
            }
            "check-ssl" => return Err("write `check = \"tls\"`"),
            "track" | "addr" | "usesrc" | "redir" | "namespace" | "agent-check" | "socks4" => {
                return Err("has no counterpart");
            }
            "on-marked-up" => {
                value()?;
                return Err("sessions of a backup stay when its servers return");
            }
            _ => return Err("not known here"),
        }
        Ok(None)
    }
}
