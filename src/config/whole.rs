//! What must hold of all forwards of a configuration together: names and addresses are each
//! one's own. Of one that was not read as a whole this says whether it does for sure; what is
//! wrong otherwise is said by who reads all of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::forward::Forward;
use super::forwards::ADDRESSES_MAX;
use super::model::Config;
use super::tap::{Tap, TapTarget};
use crate::net::address::{Address, Transport};
use crate::net::listener::Listeners;

/// Whether it holds as it did of `before`: each forward has what is looked at from the one at
/// its place.
pub(super) fn is_as_whole(config: &Config, before: &Config) -> bool {
    let is_as = |now: &Arc<Forward>, was: &Arc<Forward>| {
        Arc::ptr_eq(now, was)
            || now.name == was.name
                && now.listen == was.listen
                && now.protocol == was.protocol
                && now.client.interface == was.client.interface
                && now.tap == was.tap
                && now.pool.servers.len() == was.pool.servers.len()
    };
    config.forwards.len() == before.forwards.len()
        && config.own_listeners() == before.own_listeners()
        && config
            .forwards
            .iter()
            .zip(&before.forwards)
            .all(|(now, was)| is_as(now, was))
}

/// Whether all that must hold of forwards together does for sure.
pub(super) fn is_whole(config: &Config) -> bool {
    let mut names = HashSet::new();
    let mut addresses = 0;
    let mut seen: HashSet<(Transport, &Address)> = HashSet::new();
    let mut overlaps: [Listeners<()>; 2] = Default::default();
    let mut fits = |transport, address, interface| {
        let port_is_chosen = Address::port(address) == Some(0);
        port_is_chosen
            || seen.insert((transport, address))
                && overlaps[transport as usize]
                    .add(address, interface, ())
                    .is_ok()
    };
    for forward in &config.forwards {
        addresses += forward.listen.len() + forward.pool.servers.len();
        let interface = forward.client.interface.as_deref();
        let mut at = forward.transports().flat_map(|transport| {
            let listen = forward.listen.iter();
            listen.map(move |address| (transport, address))
        });
        if !names.insert(&*forward.name)
            || is_numbered(forward)
            || !at.all(|(transport, address)| fits(transport, address, interface))
        {
            return false;
        }
    }
    let own = config.own_listeners();
    let mut own = own.iter().flat_map(|(_, addresses)| *addresses);
    let taps = config.forwards.iter().filter_map(|it| it.tap.as_ref());
    let mut files = HashMap::new();
    let mut agree = |tap: &Tap| {
        let how = (tap.format, tap.rotate);
        tap.to == TapTarget::Stderr || *files.entry(tap.to.clone()).or_insert(how) == how
    };
    !config.forwards.is_empty()
        && addresses <= ADDRESSES_MAX
        && own.all(|address| fits(Transport::Tcp, address, None))
        && taps.into_iter().all(&mut agree)
}

/// Whether it may have its name from which it is of those that listen at one address.
fn is_numbered(forward: &Forward) -> bool {
    let Some((base, _)) = forward.name.rsplit_once('#') else {
        return false;
    };
    let base = base.strip_prefix("udp:").unwrap_or(base);
    let listen = forward.listen.iter();
    listen.map(Address::to_string).any(|it| it == base)
}
