//! A service manager's part: sockets that it passes, what it is told, what it keeps.

mod activation;
mod confined;
mod kept;
pub(crate) mod manager;
mod notify;
mod survival;
mod systemd;
mod units;
