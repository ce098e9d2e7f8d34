//! What is compared: `direct`, thalweg with any engine and data path, nginx,
//! HAProxy, realm, socat, or any command.
//!
//! [`Subject`] is the text of the command line understood; [`launch`] turns it into
//! a command line and configuration files with the same number of workers for all;
//! [`running`] starts it, waits until an exchange crosses it, and stops it.

pub mod asks;
pub mod launch;
pub mod running;
pub mod size;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use asks::Asks;
use launch::find_program;
use size::Size;

use super::preface::Preface;

/// One contender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// What it is called in the report.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// How large its configuration is.
    pub size: Size,
    /// What it decides by before it forwards.
    pub asks: Asks,
}

/// The kinds of contenders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// No forwarder at all.
    Direct,
    /// This program.
    Thalweg {
        /// Another binary of it than the running one.
        program: Option<PathBuf>,
        /// `--engine`.
        engine: Option<&'static str>,
        /// `--data-path`.
        data_path: Option<&'static str>,
        /// `--set KEY=VALUE`.
        set: Vec<String>,
        /// As an HTTP CONNECT proxy, which every connection asks for the origin.
        connect: bool,
    },
    /// nginx's stream module.
    Nginx {
        /// Another binary than the one in PATH.
        program: Option<PathBuf>,
        /// With a large buffer instead of the default.
        tuned: bool,
    },
    /// HAProxy in TCP mode.
    Haproxy {
        /// Another binary than the one in PATH.
        program: Option<PathBuf>,
        /// With `option splice-*`.
        splice: bool,
    },
    /// realm.
    Realm {
        /// Another binary than the one in PATH.
        program: Option<PathBuf>,
    },
    /// socat.
    Socat {
        /// Another binary than the one in PATH.
        program: Option<PathBuf>,
    },
    /// Any command with `{listen}` and `{upstream}` in it.
    Command {
        /// Split at blanks; no shell.
        template: String,
    },
}

/// How a subject is measured with datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Datagrams {
    /// Those that are one question each at an address of their own, with one answer expected.
    Forwards,
    /// All of them at one address.
    ForwardsAlike,
    /// It is not.
    ForwardsNone,
}

impl Kind {
    const fn has_sizes(&self) -> bool {
        matches!(
            self,
            Self::Thalweg { connect: false, .. } | Self::Nginx { .. } | Self::Haproxy { .. }
        )
    }

    /// How one is that asks nothing first.
    const fn datagrams(&self) -> Datagrams {
        match self {
            Self::Thalweg { connect: false, .. } | Self::Nginx { .. } => Datagrams::Forwards,
            // It cannot be told that an answer ends a flow, or needs not to be told.
            Self::Direct | Self::Realm { .. } | Self::Command { .. } => Datagrams::ForwardsAlike,
            Self::Thalweg { connect: true, .. } | Self::Haproxy { .. } | Self::Socat { .. } => {
                Datagrams::ForwardsNone
            }
        }
    }

    /// Whether its clients ask it for a tunnel to the origin.
    const fn is_proxy(&self) -> bool {
        matches!(self, Self::Thalweg { connect: true, .. })
    }
}

impl Subject {
    /// What each connection to it says before its traffic.
    pub fn preface(&self, origin: SocketAddr) -> Preface {
        if self.kind.is_proxy() {
            Preface::Tunnel(origin)
        } else {
            self.asks.preface()
        }
    }

    /// How it is measured with datagrams.
    pub fn datagrams(&self) -> Datagrams {
        if self.asks == Asks::default() {
            self.kind.datagrams()
        } else {
            Datagrams::ForwardsNone
        }
    }

    /// What goes together.
    fn check(&self, spec: &str) -> Result<(), String> {
        let sized = self.size != Size::default();
        let asks = self.asks != Asks::default();
        if sized && !self.kind.has_sizes() {
            return Err(format!(
                "`{spec}`: only thalweg, nginx and haproxy take forwards= and servers="
            ));
        }
        if asks && !self.kind.has_sizes() {
            return Err(format!(
                "`{spec}`: only thalweg (without connect), nginx and haproxy take sni and proxy2"
            ));
        }
        if asks && sized {
            return Err(format!(
                "`{spec}`: forwards= and servers= go with none of sni, proxy2, access="
            ));
        }
        if self.asks.networks > 0 && !matches!(self.kind, Kind::Thalweg { .. }) {
            return Err(format!("`{spec}`: only thalweg takes access="));
        }
        Ok(())
    }

    /// Connections to the origin that each of its event loops keeps ready.
    pub fn spares(&self) -> u64 {
        let Kind::Thalweg { set, .. } = &self.kind else {
            return 0;
        };
        let mut warm = set.iter().rev().filter_map(|it| it.strip_prefix(WARM));
        warm.find_map(|count| count.parse().ok()).unwrap_or(0)
    }
}

/// What makes this program keep connections ready.
const WARM: &str = "defaults.upstream.warm=";

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl std::str::FromStr for Subject {
    type Err = String;

    /// `[NAME=]KIND[@PROGRAM][:VARIANT[+VARIANT…]]` or `[NAME=]cmd:COMMAND`. Behind a kind alone the
    /// first variant may have a `+` as well: `nginx+preread`.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (name, spec) = match text.split_once('=') {
            // An equals sign behind the first colon belongs to the variants.
            Some((name, spec)) if !name.contains([':', '@', ' ']) => (name, spec),
            _ => (text, text),
        };
        if let Some(template) = spec.strip_prefix("cmd:") {
            let name = if name == text { "cmd" } else { name };
            return command(name, template);
        }
        let (kind, variants) = match spec.split_once(':') {
            Some(parts) => parts,
            // A path may have one in it.
            None if spec.contains('@') => (spec, ""),
            None => spec.split_once('+').unwrap_or((spec, "")),
        };
        let (kind, program) = match kind.split_once('@') {
            Some((kind, program)) => (kind, Some(PathBuf::from(program))),
            None => (kind, None),
        };
        let mut variants: Vec<&str> = variants.split('+').filter(|v| !v.is_empty()).collect();
        let of_spec = |error: String| format!("`{spec}`: {error}");
        let size = Size::take_from(&mut variants).map_err(of_spec)?;
        let asks = Asks::take_from(&mut variants).map_err(of_spec)?;
        let only = |known: &[(&str, bool)], default: bool| match variants.as_slice() {
            [] => Ok(default),
            [one] => known
                .iter()
                .find(|(name, _)| name == one)
                .map(|(_, value)| *value)
                .ok_or_else(|| format!("`{spec}`: unknown variant `{one}`")),
            _ => Err(format!("`{spec}`: one variant at the most")),
        };
        let kind = match kind {
            "direct" => {
                only(&[], true)?;
                Kind::Direct
            }
            "thalweg" => thalweg(program, &variants, spec)?,
            "nginx" => Kind::Nginx {
                program,
                tuned: only(&[("tuned", true), ("default", false)], false)?,
            },
            "haproxy" => Kind::Haproxy {
                program,
                splice: only(&[("nosplice", false), ("splice", true)], true)?,
            },
            "realm" => {
                only(&[], true)?;
                Kind::Realm { program }
            }
            "socat" => {
                only(&[], true)?;
                Kind::Socat { program }
            }
            _ => {
                return Err(format!(
                    "unknown subject `{kind}`: direct, thalweg, nginx, haproxy, realm, socat, \
                     or cmd:COMMAND with {{listen}} and {{upstream}} in it"
                ));
            }
        };
        let subject = Self {
            name: name.to_owned(),
            kind,
            size,
            asks,
        };
        subject.check(spec).map(|()| subject)
    }
}

fn command(name: &str, template: &str) -> Result<Subject, String> {
    for word in ["{listen}", "{upstream}"] {
        if !template.contains(word) {
            return Err(format!("`cmd:{template}`: {word} is missing"));
        }
    }
    Ok(Subject {
        name: name.to_owned(),
        kind: Kind::Command {
            template: template.to_owned(),
        },
        size: Size::default(),
        asks: Asks::default(),
    })
}

fn thalweg(program: Option<PathBuf>, variants: &[&str], spec: &str) -> Result<Kind, String> {
    let (mut engine, mut data_path, mut set) = (None, None, Vec::new());
    let mut connect = false;
    for variant in variants {
        match *variant {
            "epoll" => engine = Some("epoll"),
            "uring" | "io_uring" => engine = Some("io_uring"),
            "auto" => engine = Some("auto"),
            "copy" => data_path = Some("copy"),
            "splice" => data_path = Some("splice"),
            "warm" => set.push(format!("{WARM}64")),
            // Into a target that takes everything: what it costs to show the first
            // bytes of a session, and that it costs nothing behind them.
            "tap" => set.extend([
                "defaults.tap.format=hex".to_owned(),
                "defaults.tap.to=/dev/null".to_owned(),
            ]),
            "connect" => connect = true,
            other if other.contains('=') => set.push(other.to_owned()),
            other => {
                return Err(format!(
                    "`{spec}`: unknown variant `{other}` (epoll, uring, auto, copy, splice, \
                     warm, tap, connect, sni, proxy2, access=N, forwards=N, servers=N, \
                     KEY=VALUE as for --set)"
                ));
            }
        }
    }
    Ok(Kind::Thalweg {
        program,
        engine,
        data_path,
        set,
        connect,
    })
}

/// A list of subjects from one argument: separated by commas, but what follows
/// `cmd:` is one command to its end.
///
/// # Errors
/// Which of them is wrong, and how; also two of the same name.
pub fn parse_list(texts: &[String]) -> Result<Vec<Subject>, String> {
    let mut subjects: Vec<Subject> = Vec::new();
    for text in texts {
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let is_command = rest
                .split(',')
                .next()
                .is_some_and(|first| first.contains("cmd:"));
            let (one, after) = match rest.split_once(',') {
                Some((one, after)) if !is_command => (one, after),
                _ => (rest, ""),
            };
            let subject: Subject = one.parse()?;
            if subjects.iter().any(|known| known.name == subject.name) {
                return Err(format!("two subjects are called `{}`", subject.name));
            }
            subjects.push(subject);
            rest = after;
        }
    }
    Ok(subjects)
}

/// What to compare when nothing was said: what is there of the usual ones.
pub fn usual() -> Vec<Subject> {
    let mut subjects = vec!["direct", "thalweg"];
    for name in ["nginx", "haproxy", "realm"] {
        if find_program(name).is_some() {
            subjects.push(name);
        }
    }
    subjects
        .into_iter()
        .filter_map(|name| name.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_told_apart() {
        let list = parse_list(&[
            "direct,thalweg,thalweg:uring+copy,nginx:tuned".to_owned(),
            "old=thalweg@/tmp/old:splice+global.busy_poll=50us".to_owned(),
            "thalweg:tap+defaults.tap.max_bytes_per_session=1GiB".to_owned(),
            "mine=cmd:fwd -a,b {listen} {upstream}".to_owned(),
        ])
        .unwrap();
        let names: Vec<&str> = list.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "direct",
                "thalweg",
                "thalweg:uring+copy",
                "nginx:tuned",
                "old",
                "thalweg:tap+defaults.tap.max_bytes_per_session=1GiB",
                "mine"
            ]
        );
        assert_eq!(
            list[4].kind,
            Kind::Thalweg {
                program: Some("/tmp/old".into()),
                engine: None,
                data_path: Some("splice"),
                set: vec!["global.busy_poll=50us".to_owned()],
                connect: false,
            }
        );
        assert_eq!(
            list[5].kind,
            Kind::Thalweg {
                program: None,
                engine: None,
                data_path: None,
                connect: false,
                set: vec![
                    "defaults.tap.format=hex".to_owned(),
                    "defaults.tap.to=/dev/null".to_owned(),
                    "defaults.tap.max_bytes_per_session=1GiB".to_owned(),
                ],
            }
        );
        assert_eq!(
            list[6].kind,
            Kind::Command {
                template: "fwd -a,b {listen} {upstream}".to_owned()
            }
        );
    }

    #[test]
    fn a_proxy_is_a_variant() {
        let kind = |text: &str| text.parse::<Subject>().unwrap().kind;
        assert!(kind("thalweg:epoll+connect").is_proxy());
        assert!(!kind("thalweg:epoll").is_proxy() && !kind("direct").is_proxy());
    }

    #[test]
    fn what_is_decided_by_is_a_variant() {
        let origin = "127.0.0.1:9".parse().unwrap();
        for (text, preface) in [
            ("thalweg:epoll+sni", Preface::hello()),
            ("nginx+preread", Preface::hello()),
            ("nginx:tuned+preread", Preface::hello()),
            ("haproxy+sni", Preface::hello()),
            ("thalweg:uring+proxy2", Preface::header()),
            ("nginx+proxy2", Preface::header()),
            ("haproxy:nosplice+proxy2", Preface::header()),
            ("thalweg:epoll+access=100000", Preface::Nothing),
        ] {
            let subject: Subject = text.parse().unwrap();
            assert_eq!(subject.preface(origin), preface, "{text}");
            assert_eq!(subject.datagrams(), Datagrams::ForwardsNone, "{text}");
        }
        let proxy: Subject = "thalweg:connect".parse().unwrap();
        assert_eq!(proxy.preface(origin), Preface::Tunnel(origin));
    }

    #[test]
    fn nonsense_is_named() {
        for (text, word) in [
            ("envoy", "unknown subject `envoy`"),
            ("nginx:fast", "unknown variant `fast`"),
            ("cmd:nc {listen}", "{upstream} is missing"),
            ("thalweg:quick", "unknown variant `quick`"),
            ("direct,direct", "two subjects"),
            ("socat:forwards=2", "only thalweg, nginx and haproxy"),
            ("nginx:servers=0", "a number from 1"),
            ("thalweg:access=0", "a number from 1"),
            ("thalweg:sni+proxy2", "one of sni, preread, proxy2"),
            ("thalweg:connect+sni", "without connect"),
            ("realm:sni", "only thalweg"),
            ("nginx:access=5", "only thalweg takes access="),
            ("haproxy:sni+servers=5", "go with none of"),
        ] {
            let error = parse_list(&[text.to_owned()]).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
