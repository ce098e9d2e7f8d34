//! How servers are asked whether they are well.

use std::time::Duration;

use super::lexer::Line;
use super::told::Told;
use crate::convert::model::Value;
use crate::convert::time;

/// What `option …chk`, `tcp-check` and `http-check` say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    kind: Kind,
    send: Option<String>,
    expect: Option<String>,
    path: Option<String>,
    host: Option<String>,
    status: Option<String>,
    command: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Connect,
    Exchange,
    Http,
    Tls,
    Command,
}

/// When servers are asked; of the first that says so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pace {
    pub(super) interval: Option<Duration>,
    pub(super) fast_interval: Option<Duration>,
    pub(super) rise: Option<u64>,
    pub(super) fall: Option<u64>,
    pub(super) port: Option<u64>,
    pub(super) close_on_down: bool,
}

impl Asked {
    /// Takes an `option`; false if it is about something else.
    pub(super) fn option(&mut self, name: &str, args: &[String], on: bool) -> bool {
        let kind = match name {
            "tcp-check" => Kind::Connect,
            "httpchk" => Kind::Http,
            "ssl-hello-chk" => Kind::Tls,
            "external-check" => Kind::Command,
            "redis-check" | "smtpchk" => Kind::Exchange,
            "mysql-check" | "pgsql-check" | "ldap-check" => Kind::Connect,
            _ => return false,
        };
        *self = Self {
            kind,
            ..Self::default()
        };
        if !on {
            self.kind = Kind::Connect;
            return true;
        }
        match name {
            "redis-check" => {
                self.send = Some("*1\r\n$4\r\nPING\r\n".to_owned());
                self.expect = Some("+PONG".to_owned());
            }
            "smtpchk" => self.expect = Some("220".to_owned()),
            // OPTIONS / where nothing is said; only GET can be asked here.
            "httpchk" => {
                self.path = match args {
                    [] => None,
                    [path] => Some(path.clone()),
                    [_, path, ..] => Some(path.clone()),
                };
            }
            _ => {}
        }
        true
    }

    /// Takes a line of `tcp-check`, `http-check` or `external-check`.
    pub(super) fn line(&mut self, line: &Line) -> Told {
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        match words.as_slice() {
            ["tcp-check", "connect"] => {}
            ["tcp-check", "send", text, ..] if self.send.is_none() && self.expect.is_none() => {
                self.kind = Kind::Exchange;
                self.send = Some((*text).to_owned());
            }
            ["tcp-check", "expect", "string", text, ..] if self.expect.is_none() => {
                self.kind = Kind::Exchange;
                self.expect = Some((*text).to_owned());
                return Told::Differs("the answer has to begin so, not to contain it");
            }
            ["tcp-check", ..] => return Told::Left("one text is sent and one expected, no more"),
            ["http-check", "expect", "status", status, ..] => {
                self.status = Some((*status).to_owned());
            }
            ["http-check", "expect", "rstatus", ..] => {
                return Told::Left("statuses are a list or a range (`status = \"200-399\"`)");
            }
            ["http-check", "send", rest @ ..] => {
                let mut rest = rest.iter();
                while let Some(word) = rest.next() {
                    match (*word, rest.next()) {
                        ("uri", Some(path)) => self.path = Some((*path).to_owned()),
                        ("meth" | "ver", Some(_)) => {}
                        ("hdr", Some(name)) if name.eq_ignore_ascii_case("host") => {
                            self.host = rest.next().map(|host| (*host).to_owned());
                        }
                        _ => return Told::Left("only a path and a host can be said"),
                    }
                }
            }
            ["http-check", ..] => {
                return Told::Left("only a path, a host and a status can be said");
            }
            ["external-check", "command", path] => self.command = Some((*path).to_owned()),
            ["external-check", ..] => return Told::Needless("the command has our environment"),
            _ => return Told::Left("not known here"),
        }
        Told::Same
    }

    /// As `check` of a pool.
    pub(super) fn table(&self, pace: &Pace, timeout: Option<Duration>) -> Value {
        let mut table: Vec<(&'static str, Value)> = Vec::new();
        let mut kind = self.kind;
        if kind == Kind::Exchange && self.expect.is_none() {
            kind = Kind::Connect;
        }
        let name = match kind {
            Kind::Connect => "tcp",
            Kind::Exchange => "exchange",
            Kind::Http => "http",
            Kind::Tls => "tls",
            Kind::Command => "command",
        };
        table.push(("type", name.into()));
        let mut text = |key, text: &Option<String>| {
            if let Some(text) = text {
                table.push((key, Value::Text(text.clone())));
            }
        };
        match kind {
            Kind::Exchange => {
                text("send", &self.send);
                text("expect", &self.expect);
            }
            Kind::Http => {
                text("path", &self.path);
                text("host", &self.host);
                text("status", &self.status);
            }
            Kind::Command => {
                let command = self.command.clone().unwrap_or_default();
                table.push(("command", Value::List(vec![command])));
            }
            Kind::Connect | Kind::Tls => {}
        }
        pace.add(&mut table, timeout);
        Value::Table(table)
    }
}

impl Pace {
    /// HAProxy's interval is 2 s, as ours; its answer has as long as that, ours a second.
    fn add(&self, table: &mut Vec<(&'static str, Value)>, timeout: Option<Duration>) {
        const LEAST: Duration = Duration::from_millis(10);
        let interval = self.interval.unwrap_or(Duration::from_secs(2)).max(LEAST);
        let fast = self.fast_interval.map(|fast| fast.clamp(LEAST, interval));
        if self.interval.is_some() {
            table.push(("interval", time::timeout(interval).into()));
        }
        if let Some(fast) = fast {
            table.push(("fast_interval", time::timeout(fast).into()));
        }
        let most = fast.unwrap_or(interval);
        let timeout = timeout.unwrap_or(most).clamp(LEAST, most);
        table.push(("timeout", time::timeout(timeout).into()));
        let numbers = [
            ("rise", self.rise),
            ("fall", self.fall),
            ("port", self.port),
        ];
        for (key, number) in numbers {
            if let Some(number) = number {
                table.push((key, number.into()));
            }
        }
        if self.close_on_down {
            table.push(("on_down", "close".into()));
        }
    }
}
