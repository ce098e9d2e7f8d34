//! Why nothing was started.

use std::io;

use thiserror::Error;

use super::clients::AccessFileError;
use super::proxy::users::UsersError;
use crate::admin::BindProblem;
use crate::config::LogTarget;
use crate::net::listener::BindError;
use crate::observe::tap::TapError;

/// Why nothing was started. Exit code 1.
#[derive(Debug, Error)]
pub enum StartError {
    /// Signals cannot be received.
    #[error("cannot receive signals: {0}")]
    Signals(#[source] io::Error),
    /// The log cannot be written.
    #[error("cannot open the log {target}: {error}")]
    Log {
        /// Where it should go.
        target: LogTarget,
        /// Why not.
        error: io::Error,
    },
    /// A tap cannot be written.
    #[error("{0}")]
    Tap(#[from] TapError),
    /// A listener cannot be bound.
    #[error("forward {forward}: {error}")]
    Bind {
        /// Whose.
        forward: String,
        /// Which, why, and what to do.
        error: BindError,
    },
    /// What was passed to this process cannot be listened on, or nobody asks for it.
    #[error("sockets passed to this process (LISTEN_FDS): {0}")]
    Inherited(String),
    /// It cannot become who it should be, or be confined as it should.
    #[error("{0}")]
    Confine(String),
    /// Nothing was taken over from the process before.
    #[error("cannot take over: {0}")]
    TakeOver(String),
    /// The networks that may come in at a forward cannot be read.
    #[error("forward {forward}: {error}")]
    Access {
        /// Whose.
        forward: String,
        /// Where, why, and what to do.
        error: AccessFileError,
    },
    /// Listeners alone take more descriptors than there are.
    #[error(
        "{listeners} listeners on {reactors} reactors need {needed} descriptors, the hard limit is \
         {limit}: raise it (LimitNOFILE=, `ulimit -Hn`), or give fewer --reactors"
    )]
    Descriptors {
        /// Of each reactor.
        listeners: usize,
        /// How many there would be.
        reactors: usize,
        /// Without a session.
        needed: u64,
        /// `RLIMIT_NOFILE`, hard.
        limit: u64,
    },
    /// Names cannot be looked up.
    #[error("cannot start looking names up: {0}")]
    Resolver(#[source] io::Error),
    /// The users of a forward cannot be read.
    #[error("forward {forward}: {error}")]
    Users {
        /// Whose.
        forward: String,
        /// Where, why, and what to do.
        error: UsersError,
    },
    /// Credentials cannot be verified.
    #[error("cannot start verifying credentials: {0}")]
    Verifier(#[source] io::Error),
    /// The admin endpoint cannot be had.
    #[error("{0}")]
    Admin(#[from] BindProblem),
    /// Servers cannot be checked.
    #[error("cannot start checking servers: {0}")]
    Checker(#[source] io::Error),
    /// The kernel does not let this process connect from foreign addresses.
    #[error(
        "forward {forward}: `transparent` needs CAP_NET_ADMIN: {error}; \
         run as root, or setcap cap_net_admin+ep on the binary"
    )]
    Transparent {
        /// Whose.
        forward: String,
        /// Why not.
        error: io::Error,
    },
    /// The engine asked for cannot be had.
    #[error("engine = \"io_uring\" is not to be had: {0}; use engine = \"auto\" or \"epoll\"")]
    Engine(String),
    /// The start does not come to an end.
    #[error("the start has not come to an end after {patience:?}: {step}")]
    Blocked {
        /// What it was at.
        step: String,
        /// How long it had.
        patience: std::time::Duration,
    },
    /// A reactor ended by itself.
    #[error("a reactor stopped by itself; the log says why")]
    ReactorLost,
    /// A reactor cannot be started.
    #[error("cannot start a reactor: {0}")]
    Reactor(#[source] io::Error),
}
