//! The sockets that a plan listens on: bound here, or taken of those that were passed.

use crate::config::Forward;
use crate::control::awaited::Awaited;
use crate::control::error::StartError;
use crate::control::held::{HeldListener, HeldOptions};
use crate::control::listener_names::ListenerNames;
use crate::control::plan::{ListenerPlan, Plan};
use crate::net::address::{Address, Transport};
use crate::net::inherited::{Carries, Inherited, InheritedSocket, Origin};
use crate::net::listener::{self, Bound, Lacking};
use crate::observe::log::Log;
use crate::observe::notice::Notice;
use crate::relay::id::{ForwardId, ListenerId};

/// An address that was bound, and belongs to nobody yet.
pub(in crate::control) struct BoundAddress {
    pub(in crate::control) id: ListenerId,
    pub(in crate::control) transport: Transport,
    pub(in crate::control) address: Address,
    pub(in crate::control) forward: ForwardId,
    pub(in crate::control) bound: Bound,
    pub(in crate::control) options: HeldOptions,
}

/// Binds wherever that is not done yet. An error closes all that it bound.
pub(in crate::control) fn open(
    plan: &Plan,
    (is_held, inherited): (&dyn Fn(ListenerId) -> bool, &mut Inherited),
    reactors: usize,
    awaited: &Awaited,
    log: &Log,
) -> Result<Vec<BoundAddress>, StartError> {
    let names = ListenerNames::new(&plan.config.global.names, log);
    let mut opened: Vec<BoundAddress> = Vec::new();
    for forward in &*plan.forwards {
        let config = &*forward.config;
        for planned in &forward.listeners {
            let ListenerPlan {
                id,
                transport,
                address,
            } = planned;
            let (id, transport) = (*id, *transport);
            if is_held(id) {
                continue;
            }
            awaited.is(format_args!("binding {address} of forward {}", config.name));
            let carries = carried(transport);
            let claimed = inherited.claim(&config.name, address, carries);
            if claimed.is_empty() && matches!(address, Address::Passed(_)) {
                fits(inherited, config, address, carries)?;
            }
            let bound = match address {
                _ if !claimed.is_empty() => {
                    let lacking = lacking(&claimed);
                    listener::adopt(
                        (transport, address),
                        claimed,
                        &config.client,
                        reactors,
                        lacking,
                    )
                }
                Address::Unix(_) => listener::bind_for(
                    address,
                    &config.client,
                    &config.unix_file.permissions(),
                    reactors,
                ),
                _ => names.bind((transport, address), &config.client, reactors),
            };
            let bound = bound.map_err(|error| {
                let forward = config.name.clone();
                StartError::Bind { forward, error }
            })?;
            // Neighbours have the same options more often than not.
            let options = match opened.last() {
                Some(last) if *last.options.client == config.client => last.options.clone(),
                _ => HeldOptions::new(&config.client),
            };
            opened.push(BoundAddress {
                id,
                transport,
                address: address.clone(),
                forward: forward.id,
                bound,
                options,
            });
        }
    }
    Ok(opened)
}

const fn carried(transport: Transport) -> Carries {
    match transport {
        Transport::Tcp => Carries::Streams,
        Transport::Udp => Carries::Datagrams,
    }
}

/// A service manager that keeps a copy of a socket keeps its queue when this process dies,
/// but not that of another socket beside it.
fn lacking(claimed: &[InheritedSocket]) -> Lacking {
    let passed = |it: &InheritedSocket| matches!(it.origin, Origin::Passed { .. });
    if claimed.iter().any(passed) {
        Lacking::Share
    } else {
        Lacking::Join
    }
}

/// A socket that was passed and is not listened on would take connections that nobody
/// answers.
pub(super) fn nobody_asked_for(inherited: &Inherited, plan: &Plan) -> Result<(), StartError> {
    for socket in inherited.sockets() {
        let Origin::Passed { name } = &socket.origin else {
            continue;
        };
        for forward in &*plan.forwards {
            for its in &forward.listeners {
                let carries = carried(its.transport);
                fits(inherited, &forward.config, &its.address, carries)?;
            }
        }
        return Err(StartError::Inherited(format!(
            "no forward listens on {socket}; write listen = \"systemd:{name}\" or its address, \
             or take it out of the socket unit"
        )));
    }
    Ok(())
}

/// Whether what was passed for an address carries what the forward forwards.
fn fits(
    inherited: &Inherited,
    forward: &Forward,
    address: &Address,
    carries: Carries,
) -> Result<(), StartError> {
    let Some(socket) = inherited.misfit(address, carries) else {
        return Ok(());
    };
    let (wanted, remedy) = match carries {
        Carries::Streams => ("streams", "ListenStream="),
        Carries::Datagrams => ("datagrams", "ListenDatagram="),
    };
    Err(StartError::Inherited(format!(
        "{socket} is not what forward {} takes, which forwards {wanted}; pass one by {remedy}",
        forward.name
    )))
}

/// Says where it listens from now on.
pub(in crate::control) fn tell_listeners<'a>(
    listeners: impl Iterator<Item = &'a HeldListener>,
    log: &Log,
) {
    let told = listeners.flat_map(|listener| {
        let locals = listener.locals().iter();
        locals.map(|local| Notice::Listening {
            listener: local.clone(),
            forward: listener.forward.name.clone(),
        })
    });
    log.report(told);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::{Config, LogFormat, LogLevel, LogTarget};
    use crate::control::plan::Identities;

    fn taken(text: &str, held: &[ListenerId]) -> Result<Vec<ListenerId>, StartError> {
        let config = std::sync::Arc::new(Config::parse(text).unwrap());
        let plan = Plan::of(&config, &mut Identities::default());
        let opened = {
            let (log, _) =
                Log::start(LogLevel::Error, LogFormat::Text, &LogTarget::Stderr).unwrap();
            let held = |id| held.contains(&id);
            let mut none = Inherited::default();
            open(&plan, (&held, &mut none), 2, &Awaited::default(), &log)?
        };
        Ok(opened.iter().map(|it| it.id).collect())
    }

    #[test]
    fn a_listener_that_is_held_is_not_bound_again() {
        let text = "[[forward]]\nname = \"a\"\nlisten = [\"127.0.0.1:0\", \"[::1]:0\"]\n\
                    upstream = \"127.0.0.1:9\"\n";
        let both = taken(text, &[]).unwrap();
        assert_eq!(both.len(), 2);
        assert_eq!(taken(text, &both[..1]).unwrap(), both[1..]);
        assert_eq!(taken(text, &both).unwrap(), []);
    }

    #[test]
    fn what_cannot_be_had_is_told_and_nothing_stays() {
        let taken_here = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken_here.local_addr().unwrap().port();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let other = free.local_addr().unwrap().port();
        drop(free);
        let text = format!(
            "[[forward]]\nname = \"a\"\nlisten = [\"127.0.0.1:{other}\", \"127.0.0.1:{port}\"]\n\
             upstream = \"127.0.0.1:9\"\n"
        );
        let error = taken(&text, &[]).unwrap_err();
        assert!(error.to_string().contains(&port.to_string()), "{error}");
        assert!(std::net::TcpListener::bind(("127.0.0.1", other)).is_ok());
    }
}
