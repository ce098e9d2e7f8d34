//! Where requests may go: `access`, or the lists `allow` and `deny`, as an operator writes them. What
//! they mean, and how they are held against a request, is in [`policy::access`].
//!
//! | rule | in `allow` | in `deny` |
//! | --- | --- | --- |
//! | `:443`, `:8000-8099`, `:*` | every public address, at these ports | everything at these ports |
//! | `host.example`, `*.example.com` | the public addresses of such a name | such a name |
//! | `10.0.0.0/8`, `192.0.2.1`, `2001:db8::/32` | these addresses, public or not | these addresses |
//!
//! A port follows a colon (`10.0.0.0/8:22`, `[2001:db8::/32]:443`); without one a rule
//! of `allow` is for port 443 and a rule of `deny` for every port. Deny wins. What no
//! rule allows is denied.
//!
//! `access` has the same rules in one list, behind `allow` or `deny`, as the list of clients has
//! ([`config::clients`](crate::config::clients)): the first that is about a request decides.
//!
//! [`policy::access`]: crate::policy::access

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use ipnet::IpNet;

use crate::config::report::Fault;
use crate::net::network;
use crate::policy::access::{Access, DEFAULT_PORT, Rule, Scope, Verdict};
use crate::proto::host;

/// Where requests may go, as it is written: in two lists, or in one in which the first rule about a
/// request decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessRules {
    /// `allow` and `deny`.
    Lists {
        /// What is allowed; by default `:443`, every public address at that port.
        allow: Vec<Rule>,
        /// What is not, whatever `allow` says; nothing by default.
        deny: Vec<Rule>,
    },
    /// `access`.
    Ordered(Vec<OrderedRule>),
}

/// A rule of `access`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderedRule {
    /// Denied, or allowed.
    pub denies: bool,
    /// About what.
    pub what: OrderedScope,
}

/// What a rule of `access` is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderedScope {
    /// What this rule is about; `all` is [`Scope::Anywhere`] at every port.
    Rule(Rule),
    /// What the rules in a file are about, a line each, read at the start and at a reload.
    File(PathBuf),
}

impl Default for AccessRules {
    fn default() -> Self {
        Self::Lists {
            allow: vec![Rule {
                scope: Scope::Anywhere,
                ports: Some(DEFAULT_PORT..=DEFAULT_PORT),
            }],
            deny: Vec::new(),
        }
    }
}

impl AccessRules {
    /// The tables that requests are held against; `read` has the rules of a file.
    ///
    /// # Errors
    /// What `read` says of a file.
    pub fn compile<E>(
        &self,
        mut read: impl FnMut(&Path) -> Result<Vec<Rule>, E>,
    ) -> Result<Access, E> {
        let ordered = match self {
            Self::Lists { allow, deny } => return Ok(Access::new(deny, allow)),
            Self::Ordered(ordered) => ordered,
        };
        let mut verdicts = Vec::new();
        for OrderedRule { denies, what } in ordered {
            let rules = match what {
                OrderedScope::Rule(rule) => vec![rule.clone()],
                OrderedScope::File(path) => read(path)?,
            };
            let denies = *denies;
            verdicts.extend(rules.into_iter().map(|rule| Verdict { denies, rule }));
        }
        Ok(Access::ordered(verdicts))
    }

    /// The files that it names.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let ordered = match self {
            Self::Lists { .. } => &[][..],
            Self::Ordered(ordered) => ordered,
        };
        ordered.iter().filter_map(|rule| match &rule.what {
            OrderedScope::File(path) => Some(path.as_path()),
            OrderedScope::Rule(_) => None,
        })
    }
}

impl FromStr for OrderedRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        const FORM: &str = "such as \"deny 10.9.0.0/16\", \"allow *.example.com:443\", \
                            \"allow @partners.txt\", \"deny all\"";
        let Some((verb, what)) = text.split_once(' ') else {
            let problem = "a rule is `allow` or `deny`, a space, and what it is about";
            return wrong(problem, FORM);
        };
        let denies = match verb {
            "deny" => true,
            "allow" => false,
            _ => return wrong("a rule begins with `allow` or `deny`", FORM),
        };
        let what = match what.trim() {
            "all" => OrderedScope::Rule(ALL),
            "" | "@" => return wrong("nothing is named behind `allow` or `deny`", FORM),
            what => match what.strip_prefix('@') {
                Some(path) => OrderedScope::File(path.into()),
                None => OrderedScope::Rule(what.parse()?),
            },
        };
        Ok(Self { denies, what })
    }
}

impl fmt::Display for OrderedRule {
    /// As it can be read again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.denies { "deny " } else { "allow " })?;
        match &self.what {
            OrderedScope::Rule(rule) if *rule == ALL => f.write_str("all"),
            OrderedScope::Rule(rule) => rule.fmt(f),
            OrderedScope::File(path) => write!(f, "@{}", path.display()),
        }
    }
}

/// `all`: everything, or every public address where it is allowed.
const ALL: Rule = Rule {
    scope: Scope::Anywhere,
    ports: Some(1..=u16::MAX),
};

const FORMS: &str = "such as \"*.example.com:443\", \"10.0.0.0/8:22\", \"[2001:db8::/32]:443\", \
                     \":8000-8099\"";

/// What is wrong with the text of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleError {
    /// What is wrong.
    pub problem: String,
    /// What to write.
    pub remedy: String,
}

impl From<RuleError> for Fault {
    fn from(error: RuleError) -> Self {
        Self::new(error.problem).remedy(error.remedy)
    }
}

fn wrong<T>(problem: impl Into<String>, remedy: impl Into<String>) -> Result<T, RuleError> {
    Err(RuleError {
        problem: problem.into(),
        remedy: remedy.into(),
    })
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (scope, ports) = match text.strip_prefix('[') {
            Some(rest) => match rest.split_once(']') {
                Some((inner, "")) => (inner, None),
                Some((inner, rest)) if rest.starts_with(':') => (inner, Some(&rest[1..])),
                _ => return wrong("the bracket is not closed, or no port follows it", FORMS),
            },
            None if text.matches(':').count() > 1 => (text, None),
            None => match text.rsplit_once(':') {
                Some((scope, ports)) => (scope, Some(ports)),
                None => (text, None),
            },
        };
        if scope.is_empty() && ports.is_none() {
            return wrong("an entry cannot be empty", FORMS);
        }
        Ok(Self {
            scope: scope_of(scope)?,
            ports: ports.map(ports_of).transpose()?,
        })
    }
}

fn scope_of(text: &str) -> Result<Scope, RuleError> {
    if text.is_empty() {
        return Ok(Scope::Anywhere);
    }
    let address = text.split_once('/').map_or(text, |(address, _)| address);
    if address.parse::<IpAddr>().is_ok() {
        return network::parse(text)
            .map(Scope::Network)
            .or_else(|error| wrong(error.problem, error.remedy));
    }
    if text.contains('/') {
        return wrong("there is no address before the slash", FORMS);
    }
    let (name, below) = match text.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (text, false),
    };
    if name.contains('*') {
        let remedy = "a star stands only in front (\"*.example.com\"); for any host, write the \
                      port alone (\":443\")";
        return wrong("a star stands where it cannot", remedy);
    }
    let name = host::parse(name).or_else(|error| wrong(error.to_string(), error.remedy()))?;
    Ok(if below {
        Scope::Below(name)
    } else {
        Scope::Name(name)
    })
}

fn ports_of(text: &str) -> Result<RangeInclusive<u16>, RuleError> {
    const REMEDY: &str = "such as \":443\", \":8000-8099\" or \":*\"";
    let port = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => wrong("a port is a number from 1 to 65535", REMEDY),
    };
    if text == "*" {
        return Ok(1..=u16::MAX);
    }
    let (low, high) = text.split_once('-').unwrap_or((text, text));
    let (low, high) = (port(low)?, port(high)?);
    if low > high {
        return wrong(
            "the range of ports runs backwards",
            format!("write {high}-{low}"),
        );
    }
    Ok(low..=high)
}

impl fmt::Display for Rule {
    /// As it can be read again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.scope {
            Scope::Anywhere => {}
            Scope::Name(name) => f.write_str(name)?,
            Scope::Below(name) => write!(f, "*.{name}")?,
            Scope::Network(IpNet::V4(network)) => write!(f, "{network}")?,
            Scope::Network(IpNet::V6(network)) => write!(f, "[{network}]")?,
        }
        match &self.ports {
            None => Ok(()),
            Some(ports) if *ports == (1..=u16::MAX) => f.write_str(":*"),
            Some(ports) if ports.start() == ports.end() => write!(f, ":{}", ports.start()),
            Some(ports) => write!(f, ":{}-{}", ports.start(), ports.end()),
        }
    }
}

#[cfg(test)]
mod tests;
