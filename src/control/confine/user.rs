//! From root to another user, with the capabilities that the configuration needs and no
//! others.

use std::ffi::CString;

use caps::{CapSet, Capability, CapsHashSet};
use nix::sys::prctl;
use nix::unistd::{Gid, Group, Uid, User, geteuid, initgroups, setgroups, setresgid, setresuid};

use crate::config::Config;
use crate::config::clients::OnDeny;
use crate::net::address::Address;
use crate::net::limits;
use crate::net::listener::Who;
use crate::net::options::SocketOptions;

/// Becomes it; what is in force then, in words.
pub(super) fn become_user(config: &Config) -> Result<String, String> {
    let wanted = Account::of(config)?;
    let kept = needed(config);
    if !geteuid().is_root() {
        // A process that was upgraded is it already.
        if geteuid() == wanted.uid {
            return Ok(told(&wanted, &kept));
        }
        return Err(format!(
            "[global] user: only root can become {}, this process is user {}; start it as \
             root, or leave the key out",
            wanted.name,
            geteuid()
        ));
    }
    let errno =
        |what: &'static str| move |errno: nix::errno::Errno| format!("{what}: {}", errno.desc());
    let failed =
        |what: &'static str| move |error: caps::errors::CapsError| format!("{what}: {error}");
    // While there is the power to do it.
    for capability in caps::all().difference(&kept) {
        // A kernel that does not know it has nothing to take away.
        if caps::has_cap(None, CapSet::Bounding, *capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(failed("capabilities"))?;
        }
    }
    prctl::set_keepcaps(!kept.is_empty()).map_err(errno("PR_SET_KEEPCAPS"))?;
    match CString::new(wanted.login.clone()) {
        Ok(account) if !account.is_empty() => {
            initgroups(&account, wanted.gid).map_err(errno("initgroups"))?;
        }
        _ => setgroups(&[wanted.gid]).map_err(errno("setgroups"))?,
    }
    setresgid(wanted.gid, wanted.gid, wanted.gid).map_err(errno("setresgid"))?;
    setresuid(wanted.uid, wanted.uid, wanted.uid).map_err(errno("setresuid"))?;
    if !wanted.uid.is_root() {
        for set in [CapSet::Ambient, CapSet::Inheritable] {
            caps::clear(None, set).map_err(failed("capabilities"))?;
        }
        // Permitted was kept as it was, effective was not.
        caps::set(None, CapSet::Permitted, &kept).map_err(failed("capabilities"))?;
        caps::set(None, CapSet::Effective, &kept).map_err(failed("capabilities"))?;
    }
    // /proc/self belongs to root otherwise, and this process reads there.
    prctl::set_dumpable(true).map_err(errno("PR_SET_DUMPABLE"))?;
    prctl::set_no_new_privs().map_err(errno("no_new_privs"))?;
    Ok(told(&wanted, &kept))
}

/// Whose files are to be, if it becomes somebody else.
pub(super) fn ids(config: &Config) -> Option<(u32, u32)> {
    config.global.confine.user.as_ref()?;
    let wanted = Account::of(config).ok()?;
    Some((wanted.uid.as_raw(), wanted.gid.as_raw()))
}

/// The same, without doing it.
pub(super) fn expected(config: &Config) -> String {
    match Account::of(config) {
        Ok(wanted) => told(&wanted, &needed(config)),
        Err(problem) => problem,
    }
}

fn told(wanted: &Account, kept: &CapsHashSet) -> String {
    let mut kept: Vec<String> = kept.iter().map(ToString::to_string).collect();
    kept.sort();
    let kept = if kept.is_empty() {
        "no capabilities".to_owned()
    } else {
        kept.join(", ")
    };
    format!("user {}, group {}, {kept}", wanted.name, wanted.gid)
}

/// Whom it is to be.
struct Account {
    name: String,
    /// By which its groups are known; empty for a number that has no name.
    login: String,
    uid: Uid,
    gid: Gid,
}

impl Account {
    fn of(config: &Config) -> Result<Self, String> {
        let keys = &config.global.confine;
        let looking_up = |errno: nix::errno::Errno| format!("looking up a user: {}", errno.desc());
        let known = match &keys.user {
            None => User::from_uid(geteuid()).map_err(looking_up)?,
            Some(Who::Id(id)) => User::from_uid(Uid::from_raw(*id)).map_err(looking_up)?,
            Some(Who::Name(name)) => {
                let found = User::from_name(name).map_err(looking_up)?;
                Some(found.ok_or_else(|| {
                    format!(
                        "[global] user: there is no user {} on this host",
                        name.escape_debug()
                    )
                })?)
            }
        };
        let uid = match (&keys.user, &known) {
            (_, Some(known)) => known.uid,
            (Some(Who::Id(id)), None) => Uid::from_raw(*id),
            _ => geteuid(),
        };
        let gid = match &keys.group {
            Some(Who::Id(id)) => Gid::from_raw(*id),
            Some(Who::Name(name)) => {
                let found = Group::from_name(name).map_err(looking_up)?;
                let missing = || {
                    format!(
                        "[global] group: there is no group {} on this host",
                        name.escape_debug()
                    )
                };
                found.ok_or_else(missing)?.gid
            }
            None => match &known {
                Some(known) => known.gid,
                None => {
                    return Err(format!(
                        "[global] user: {uid} has no name on this host and so no group; add `group`"
                    ));
                }
            },
        };
        let account = known.map(|it| it.name).unwrap_or_default();
        Ok(Self {
            name: if account.is_empty() {
                uid.to_string()
            } else {
                account.clone()
            },
            login: account,
            uid,
            gid,
        })
    }
}

/// The capabilities that the configuration cannot do without.
fn needed(config: &Config) -> CapsHashSet {
    let mut needed = CapsHashSet::new();
    let first_free = limits::first_unprivileged_port();
    let admin = super::needs::endpoints(config).into_iter();
    let listeners = config.forwards.iter().flat_map(|it| &it.listen);
    let mut ports = listeners.chain(admin).filter_map(Address::port);
    if ports.any(|port| port != 0 && port < first_free) {
        needed.insert(Capability::CAP_NET_BIND_SERVICE);
    }
    for forward in &config.forwards {
        let pools = super::needs::pools(forward);
        if pools.iter().any(|(_, pool)| pool.transparent) {
            needed.insert(Capability::CAP_NET_ADMIN);
        }
        if forward.clients.on_deny == OnDeny::Drop {
            needed.insert(Capability::CAP_NET_ADMIN);
        }
        let by_pool = pools.iter().any(|(_, pool)| pool.interface.is_some());
        let options = [&forward.client, &forward.upstream];
        if by_pool || options.iter().any(|it| it.interface.is_some()) {
            needed.insert(Capability::CAP_NET_RAW);
        }
        let admin = |it: &&SocketOptions| {
            it.mark.is_some() || it.priority.is_some_and(|priority| priority > 6)
        };
        if options.iter().any(admin) {
            needed.insert(Capability::CAP_NET_ADMIN);
        }
    }
    needed
}
