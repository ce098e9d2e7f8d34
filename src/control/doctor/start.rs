//! What a start takes hold of, tried one by one and let go again: listeners, the log,
//! taps, files of users, commands of checks, the right to connect from foreign addresses.
//!
//! Nothing is made, written, listened on or removed.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::AccessFlags;

use crate::admin;
use crate::config::{CheckKind, Config, Forward, LogTarget, Pool, TapTarget};
use crate::control::proxy;
use crate::net::address::{Address, Endpoint, Transport};
use crate::net::dial;
use crate::net::holder::Holders;
use crate::net::listener::{self, BindCause, BindError, Listeners};
use crate::net::options::SocketOptions;

/// What every thalweg is called.
const OWN_NAME: &str = env!("CARGO_PKG_NAME");

/// Listeners that are told of one by one: a range of ports may have one trouble for all.
const TOLD_MAX: usize = 8;

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trial {
    /// What: `listener :80`, `log`.
    pub name: String,
    /// What came of it, in a few words.
    pub found: String,
    /// Whether a start would succeed.
    pub verdict: Verdict,
}

/// What a trial says about a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It would.
    Fine,
    /// It may; what to look at.
    Note(String),
    /// It would not; what to change.
    Refused(String),
}

/// Tries everything.
pub(super) fn trials(config: &Config) -> Vec<Trial> {
    let mut trials = listeners(config);
    let admin = admin::Bound::rehearse(config).into_iter();
    trials.extend(
        admin.map(|problem| refused("admin".to_owned(), "cannot be had", problem.to_string())),
    );
    trials.extend(log(&config.log.to));
    trials.extend(taps(config));
    trials.extend(users(config));
    trials.extend(pools(config));
    trials
}

fn refused(name: String, found: impl Into<String>, remedy: impl Into<String>) -> Trial {
    Trial {
        name,
        found: found.into(),
        verdict: Verdict::Refused(remedy.into()),
    }
}

fn fine(name: impl Into<String>, found: impl Into<String>) -> Trial {
    Trial {
        name: name.into(),
        found: found.into(),
        verdict: Verdict::Fine,
    }
}

fn listeners(config: &Config) -> Vec<Trial> {
    let mut trials = Vec::new();
    let (mut count, mut told, mut untold) = (0_usize, 0_usize, 0_usize);
    let mut holders = None;
    let mut rehearsed: [Rehearsed; 2] = Default::default();
    let all = config.forwards.iter();
    let each = all.flat_map(|it| {
        let transports = it.transports();
        transports.flat_map(move |transport| it.listen.iter().map(move |at| (it, transport, at)))
    });
    for (forward, transport, address) in each {
        count += 1;
        let found = rehearse((transport, address), &forward.client);
        let trial = match found.map_err(|error| error.cause) {
            Ok(locals) => rehearsed[transport as usize].add(forward, address, &locals),
            Err(cause @ BindCause::PortTaken { port }) => {
                let holders = holders.get_or_insert_with(Holders::read);
                Some(taken(forward, address, &cause, port, holders))
            }
            Err(cause) => Some(refused(
                name_of(forward, address),
                "cannot be had",
                cause.to_string(),
            )),
        };
        if let Some(trial) = trial {
            told += 1;
            if told > TOLD_MAX {
                untold += 1;
            } else {
                trials.push(trial);
            }
        }
    }
    if untold > 0 {
        let found = format!("{untold} more cannot be had");
        let remedy = "as those above; when they are mended, look again";
        trials.push(refused("listeners".to_owned(), found, remedy));
    } else if told == 0 {
        trials.push(fine("listeners", format!("{count} can be had")));
    }
    trials
}

/// An interface that cannot be had is said of the option, with its own remedy; here the
/// rest counts.
fn rehearse(
    at: (Transport, &Address),
    options: &SocketOptions,
) -> Result<Vec<Endpoint>, BindError> {
    match listener::rehearse(at, options) {
        Err(error) if matches!(error.cause, BindCause::Interface { .. }) => {
            let options = SocketOptions {
                interface: None,
                ..options.clone()
            };
            listener::rehearse(at, &options)
        }
        other => other,
    }
}

fn name_of(forward: &Forward, address: &Address) -> String {
    let address = address.to_string();
    if forward.name == address {
        format!("listener {address}")
    } else {
        format!("listener {address} of {}", forward.name)
    }
}

/// A port that somebody listens on: perhaps the very forwarder that this is about.
fn taken(
    forward: &Forward,
    address: &Address,
    cause: &BindCause,
    port: u16,
    holders: &Holders,
) -> Trial {
    let name = name_of(forward, address);
    match holders.of(port) {
        Some(it) if it.name == OWN_NAME => Trial {
            name,
            found: format!("{OWN_NAME} listens there, process {}", it.process),
            verdict: Verdict::Note(
                "well if that one has this configuration; another one cannot start beside it"
                    .to_owned(),
            ),
        },
        Some(it) => refused(
            name,
            format!("{} listens there, process {}", it.name, it.process),
            "stop it, or choose another port",
        ),
        None => refused(name, "somebody listens there", cause.to_string()),
    }
}

/// What names stand for, beside what is written: two listeners may be the same.
#[derive(Default)]
struct Rehearsed {
    listeners: Listeners<String>,
    exact: HashMap<Address, String>,
}

impl Rehearsed {
    fn add(&mut self, forward: &Forward, address: &Address, locals: &[Endpoint]) -> Option<Trial> {
        let interface = forward.client.interface.as_deref();
        let locals: Vec<Address> = match address {
            Address::Name { .. } => locals.iter().filter_map(address_of).collect(),
            other => vec![other.clone()],
        };
        for local in locals {
            let name = name_of(forward, address);
            let same = self.exact.get(&local).cloned();
            let same = same.filter(|_| local.port() != Some(0));
            let clash = self.listeners.add(&local, interface, name.clone()).err();
            if let Some(other) = same.or(clash.map(|(_, other)| other)) {
                let remedy = "the kernel gives a port to one of them: remove one";
                return Some(refused(name, format!("is {other} as well"), remedy));
            }
            self.exact.insert(local, name);
        }
        None
    }
}

fn address_of(endpoint: &Endpoint) -> Option<Address> {
    match endpoint {
        Endpoint::Inet(local) => Some(Address::Inet(*local)),
        Endpoint::Unix(_) | Endpoint::Unnamed => None,
    }
}

fn log(to: &LogTarget) -> Option<Trial> {
    match to {
        LogTarget::Stdout | LogTarget::Stderr => None,
        LogTarget::File(path) => Some(file("log".to_owned(), path)),
    }
}

fn taps(config: &Config) -> Vec<Trial> {
    let mut seen = BTreeSet::new();
    let taps = config.forwards.iter().filter_map(|it| it.tap.as_ref());
    let paths = taps.filter_map(|tap| match &tap.to {
        TapTarget::File(path) => Some(path),
        TapTarget::Stderr => None,
    });
    paths
        .filter(|path| seen.insert((*path).clone()))
        .map(|path| file("tap".to_owned(), path))
        .collect()
}

/// A file that is written to, or made if it is not there.
fn file(name: String, path: &Path) -> Trial {
    let shown = shown(path);
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    match fs::metadata(path) {
        Ok(it) if it.is_dir() => refused(name, shown, "this is a directory: name a file in it"),
        Ok(_) => match listener::may(path, AccessFlags::W_OK) {
            Ok(()) => fine(name, shown),
            Err(errno) => refused(
                name,
                shown,
                format!(
                    "it cannot be written to: {}; see its owner and mode",
                    errno.desc()
                ),
            ),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            match listener::may_make_files_in(parent) {
                Ok(()) => fine(name, shown),
                Err(errno) => refused(name, shown, cannot_make(parent, errno)),
            }
        }
        Err(error) => refused(name, shown, format!("it cannot be looked at: {error}")),
    }
}

fn cannot_make(parent: &Path, errno: Errno) -> String {
    let directory = self::shown(parent);
    match errno {
        Errno::ENOENT => format!("there is no directory {directory}: make it first"),
        errno => format!(
            "no file can be made in {directory}: {}; see its owner and mode, or in a systemd unit \
             LogsDirectory= and ReadWritePaths=",
            errno.desc()
        ),
    }
}

/// Control bytes are escaped.
fn shown(path: &Path) -> String {
    path.as_os_str()
        .as_encoded_bytes()
        .escape_ascii()
        .to_string()
}

fn users(config: &Config) -> Vec<Trial> {
    let mut seen = BTreeSet::new();
    let requests = config.forwards.iter().flat_map(|it| it.requests());
    requests
        .filter_map(|(_, connect)| connect.users.as_ref())
        .filter(|path| seen.insert((*path).clone()))
        .map(|path| {
            let name = "users".to_owned();
            // Reading from a pipe would wait for who writes it.
            if fs::metadata(path).is_ok_and(|it| it.file_type().is_fifo()) {
                let remedy = "this is a pipe: a start waits for who writes it; use a file";
                return refused(name, shown(path), remedy);
            }
            match proxy::check_users(path) {
                Ok(()) => fine(name, shown(path)),
                Err(error) => refused(name, shown(path), error.to_string()),
            }
        })
        .collect()
}

fn pools(config: &Config) -> Vec<Trial> {
    let mut trials = Vec::new();
    let mut seen = HashSet::new();
    let all = config.forwards.iter().flat_map(|forward| {
        let name = forward.pool.name.as_ref().unwrap_or(&forward.name);
        let routed = forward.routes.iter();
        let routed = routed.filter_map(|it| it.pool(&forward.name));
        routed.chain([(name.clone(), &forward.pool)])
    });
    for (label, pool) in all {
        if !seen.insert(Arc::as_ptr(pool)) {
            continue;
        }
        let label = label.as_str();
        if pool.transparent
            && let Err(errno) = dial::may_be_transparent()
        {
            trials.push(refused(
                format!("pool {label}: transparent"),
                errno.desc(),
                "run as root, or `setcap cap_net_admin+ep` on the binary",
            ));
        }
        trials.extend(sources(label, pool));
        trials.extend(command(label, pool));
    }
    trials
}

/// Local addresses that this host does not have: connects would fail, one in so many.
fn sources(label: &str, pool: &Pool) -> Vec<Trial> {
    let missing = |source: &&IpAddr| dial::may_come_from(**source).is_err();
    let missing = pool.sources.iter().filter(missing);
    missing
        .map(|source| {
            refused(
                format!("pool {label}: source {source}"),
                "cannot be had",
                "this host does not have that address; `ip address` lists those it has",
            )
        })
        .collect()
}

/// The program of a check: without it every server would be down.
fn command(label: &str, pool: &Pool) -> Option<Trial> {
    let check = pool.check.as_ref()?;
    let CheckKind::Command { argv } = &check.kind else {
        return None;
    };
    let program = Path::new(argv.first()?);
    let name = format!("pool {label}: check");
    Some(match listener::may(program, AccessFlags::X_OK) {
        Ok(()) => fine(name, shown(program)),
        Err(errno) => refused(
            name,
            shown(program),
            format!(
                "it cannot be run: {}; every server would be down",
                errno.desc()
            ),
        ),
    })
}
