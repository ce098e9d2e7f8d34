//! Where the endpoint listens: what can fail about it, before anything is started.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::guard::{Kind, Token};
use super::reserve::RESERVED;
use crate::config::{AdminListen, Config};
use crate::net::address::{Address, Endpoint, Transport, UnixName};
use crate::net::handed::{Handed, HandedLabel, Role};
use crate::net::listener::{self, BindCause, BindError};
use crate::net::options::SocketOptions;

/// Connections that are served at a time, for each kind of listener; behind them the
/// answer is 503.
pub(super) const CONNECTIONS_MAX: usize = 8;

/// Connections that stream: they do not count as the others do.
pub(super) const STREAMS_MAX: usize = 32;

/// Callers who look at sessions, each through a pipe.
pub(super) const TAPS_MAX: usize = 4;

/// Descriptors of the endpoint at the most, beside its listeners: connections, those of
/// its runtime, those set aside, and copies of listeners for a process that takes over.
pub const DESCRIPTORS: u32 =
    (2 * CONNECTIONS_MAX + STREAMS_MAX + 2 * TAPS_MAX + RESERVED) as u32 + 12;

/// A token longer than this was not meant as one.
const TOKEN_MAX: u64 = 4096;

/// A token shorter than this can be guessed.
const TOKEN_MIN: usize = 16;

/// Why the endpoint cannot be had.
#[derive(Debug, Error)]
pub enum BindProblem {
    /// An address that was asked for cannot be listened on.
    #[error("[{section}] {error}")]
    Listen {
        /// Of the configuration.
        section: &'static str,
        /// Which, why, and what to do.
        error: BindError,
    },
    /// It would be open to everyone.
    #[error(
        "[admin] listen = {0} is open to everyone who can connect: add `token_file`, a file \
         with a token of at least 16 characters in it"
    )]
    NoToken(String),
    /// The token cannot be had.
    #[error("[admin] token_file {path}: {problem}")]
    Token {
        /// Of the file.
        path: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// Metrics over a unix socket are those of the endpoint.
    #[error("[metrics] listen = {0}: this is for TCP; over a unix socket [admin] has /metrics")]
    MetricsOnUnix(String),
    /// The runtime cannot be had.
    #[error("cannot start the admin endpoint: {0}")]
    Runtime(#[source] io::Error),
}

/// A socket of the endpoint.
#[derive(Debug)]
pub(super) struct AdminListener {
    pub(super) kind: Kind,
    pub(super) fd: OwnedFd,
    pub(super) at: Endpoint,
    label: HandedLabel,
}

/// Everything that can fail, done.
#[derive(Debug, Default)]
pub struct Bound {
    pub(super) listeners: Vec<AdminListener>,
    pub(super) token: Option<Token>,
    pub(super) hosts: Vec<String>,
    /// Paths of unix listeners go with these.
    pub(super) held: Vec<listener::Bound>,
    /// Why there is no socket in the runtime directory, if there is none and that is no
    /// error.
    pub(super) without: Option<String>,
}

impl Bound {
    /// Listens wherever the configuration says, with what was handed over where it was.
    pub fn take(config: &Config, handed: &mut Handed) -> Result<Self, BindProblem> {
        let mut bound = Self {
            hosts: config.admin.hosts.clone(),
            ..Self::default()
        };
        if let Some(path) = &config.admin.token_file {
            bound.token = Some(read_token(path)?);
        }
        match &config.admin.listen {
            AdminListen::Auto => match in_runtime_directory(STEM, Role::Admin, handed) {
                Ok((its, address)) => bound.add(Kind::Unix, its, &address),
                Err(problem) => bound.without = Some(problem),
            },
            AdminListen::At(addresses) => {
                for address in addresses {
                    bound.admin(address, handed)?;
                }
            }
        }
        for address in &config.metrics.listen {
            if matches!(address, Address::Unix(_)) {
                return Err(BindProblem::MetricsOnUnix(address.to_string()));
            }
            bound.listen(Kind::Metrics, address, handed)?;
        }
        Ok(bound)
    }

    /// What [`Bound::take`] would say, without listening anywhere or making a path.
    pub fn rehearse(config: &Config) -> Vec<BindProblem> {
        let mut problems = Vec::new();
        let token = config
            .admin
            .token_file
            .as_ref()
            .map(|path| read_token(path));
        let has_token = token.is_some();
        problems.extend(token.and_then(Result::err));
        let look = |section, address: &Address| {
            let found = listener::rehearse((Transport::Tcp, address), &SocketOptions::default());
            found
                .err()
                .map(|error| BindProblem::Listen { section, error })
        };
        if let AdminListen::At(addresses) = &config.admin.listen {
            for address in addresses {
                let path = matches!(address, Address::Unix(UnixName::Path(_)));
                if path || has_token {
                    problems.extend(look("admin", address));
                } else {
                    problems.push(BindProblem::NoToken(address.to_string()));
                }
            }
        }
        for address in &config.metrics.listen {
            problems.extend(match address {
                Address::Unix(_) => Some(BindProblem::MetricsOnUnix(address.to_string())),
                _ => look("metrics", address),
            });
        }
        problems
    }

    /// Where it can be asked, for the log: `unix:/run/thalweg/admin.sock`.
    pub fn addresses(&self) -> impl Iterator<Item = &Endpoint> {
        let admin = self.listeners.iter().filter(|it| it.kind != Kind::Metrics);
        admin.map(|it| &it.at)
    }

    /// Where metrics alone can be asked for.
    pub fn metrics_addresses(&self) -> impl Iterator<Item = &Endpoint> {
        let metrics = self.listeners.iter().filter(|it| it.kind == Kind::Metrics);
        metrics.map(|it| &it.at)
    }

    /// Why there is no endpoint although the configuration would have one.
    pub fn why_without(&self) -> Option<&str> {
        self.without.as_deref()
    }

    /// Whether anybody can ask for anything.
    pub fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// The same sockets for another process.
    pub fn passable(&self) -> Vec<(HandedLabel, OwnedFd)> {
        let listeners = self.listeners.iter();
        listeners
            .filter_map(|it| Some((it.label.clone(), it.fd.try_clone().ok()?)))
            .collect()
    }

    fn admin(&mut self, address: &Address, handed: &mut Handed) -> Result<(), BindProblem> {
        match address {
            Address::Unix(UnixName::Path(_)) => self.listen(Kind::Unix, address, handed),
            // A name in the abstract namespace has no permissions.
            _ if self.token.is_none() => Err(BindProblem::NoToken(address.to_string())),
            _ => self.listen(Kind::Tcp, address, handed),
        }
    }

    fn listen(
        &mut self,
        kind: Kind,
        address: &Address,
        handed: &mut Handed,
    ) -> Result<(), BindProblem> {
        let section = if kind == Kind::Metrics {
            "metrics"
        } else {
            "admin"
        };
        let bound = match handed.listen(role(kind), address) {
            Some(bound) => bound,
            None => listener::bind_private(address)
                .map_err(|error| BindProblem::Listen { section, error })?,
        };
        self.add(kind, bound, address);
        Ok(())
    }

    fn add(&mut self, kind: Kind, mut bound: listener::Bound, address: &Address) {
        let sockets = bound.take_share(0).into_iter();
        let label = HandedLabel::new(role(kind), address);
        self.listeners.extend(sockets.map(|socket| AdminListener {
            kind,
            fd: socket.fd,
            at: socket.local,
            label: label.clone(),
        }));
        self.held.push(bound);
    }
}

fn role(kind: Kind) -> Role {
    match kind {
        Kind::Metrics => Role::Metrics,
        Kind::Unix | Kind::Tcp => Role::Admin,
    }
}

/// What the endpoint's socket is called.
const STEM: &str = "admin";

/// Listens in the first runtime directory in which that can be had, for this user alone.
/// Another instance may have the name `STEM.sock`: then it is one with the number of the
/// process. What was handed over there is taken as it is.
pub fn in_runtime_directory(
    stem: &str,
    role: Role,
    handed: &mut Handed,
) -> Result<(listener::Bound, Address), String> {
    let mut problem = "no runtime directory: RUNTIME_DIRECTORY and XDG_RUNTIME_DIR are not set \
                       and /run/thalweg cannot be made"
        .to_owned();
    for directory in runtime_directories() {
        if let Some(address) = handed.found_in(role, &directory, stem)
            && let Some(bound) = handed.listen(role, &address)
        {
            return Ok((bound, address));
        }
        if let Err(error) = make_directory(&directory) {
            problem = format!("{}: {error}", directory.display());
            continue;
        }
        let (usual, own) = (
            format!("{stem}.sock"),
            format!("{stem}-{}.sock", std::process::id()),
        );
        for name in [usual, own] {
            let address = Address::Unix(UnixName::Path(directory.join(name)));
            match listener::bind_private(&address) {
                Ok(bound) => return Ok((bound, address)),
                Err(error) => {
                    let taken = error.cause == BindCause::UnixInUse;
                    problem = error.to_string();
                    if !taken {
                        break;
                    }
                }
            }
        }
    }
    Err(problem)
}

/// Where the socket may be, best first: that of the service manager alone, if it gave
/// one; that of the system; that of the user.
pub fn runtime_directories() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|it| !it.is_empty());
    if let Some(given) = variable("RUNTIME_DIRECTORY") {
        // Several are separated by colons (systemd.exec(5)).
        return std::env::split_paths(&given).take(1).collect();
    }
    let user = variable("XDG_RUNTIME_DIR").map(|it| Path::new(&it).join("thalweg"));
    [PathBuf::from("/run/thalweg")]
        .into_iter()
        .chain(user)
        .collect()
}

/// Makes the first of them that can be made, for a process that may not make it later, and
/// gives it to the user that it will be.
pub fn prepare_directory(owner: Option<(u32, u32)>) {
    for directory in runtime_directories() {
        let is_new = !directory.exists();
        if make_directory(&directory).is_ok() {
            if let Some((user, group)) = owner.filter(|_| is_new) {
                // Without it there is no endpoint, which is said.
                let _ = std::os::unix::fs::chown(&directory, Some(user), Some(group));
            }
            return;
        }
    }
}

/// Only this user's. One that others can write to is not used: they could put a socket of
/// theirs in the place of ours.
fn make_directory(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::metadata(path)?;
    if !found.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if found.mode() & 0o022 != 0 && found.mode() & 0o1000 == 0 {
        return Err(io::Error::other("others can write to this directory"));
    }
    Ok(())
}

/// The token in a file.
fn read_token(path: &Path) -> Result<Token, BindProblem> {
    let problem = |problem: String| BindProblem::Token {
        path: path.display().to_string(),
        problem,
    };
    let cannot = |error: io::Error| problem(format!("cannot be read: {error}"));
    let found = fs::metadata(path).map_err(cannot)?;
    if found.mode() & 0o077 != 0 {
        let mode = found.mode() & 0o777;
        return Err(problem(format!(
            "others can read or write it (mode {mode:04o}): chmod 0600 it"
        )));
    }
    if found.len() > TOKEN_MAX {
        return Err(problem(format!("it is larger than {TOKEN_MAX} bytes")));
    }
    let text = fs::read_to_string(path).map_err(cannot)?;
    let token = text.trim();
    if token.len() < TOKEN_MIN {
        return Err(problem(format!(
            "the token in it is shorter than {TOKEN_MIN} characters; make one with \
             `openssl rand -hex 32`"
        )));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(problem(
            "the token in it has characters that a header cannot carry".to_owned(),
        ));
    }
    Ok(Token::new(token))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn b146_a_token_that_others_can_read_is_refused() {
        let directory = std::env::temp_dir().join(format!("thalweg-token-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("token");
        fs::write(&path, "0123456789abcdef0123\n").unwrap();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        for open in [0o644, 0o640, 0o660, 0o602] {
            mode(open);
            let error = read_token(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 0600"), "{error}");
        }
        mode(0o600);
        assert!(read_token(&path).unwrap().is("0123456789abcdef0123"));
        fs::write(&path, "short\n").unwrap();
        let error = read_token(&path).unwrap_err().to_string();
        assert!(error.contains("shorter than 16"), "{error}");
        fs::remove_dir_all(&directory).unwrap();
    }
}
