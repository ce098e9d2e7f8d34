//! The wire to a reactor's thread.
//!
//! An order has a reply: [`Pending`] is told once the reactor has carried it out, or
//! that there is no reactor any more.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, SyncSender, sync_channel};
use std::time::Instant;

use crate::admin::Visit;
use crate::engine::choice::Waker;
use crate::engine::{self, Detached, SessionKey};
use crate::net::journal::{Mark, SlotName};
use crate::reactor::upstream::server::{Server, ServerSet};
use crate::reactor::{
    Admitted, Adopted, Arrival, Change, FlowArrival, Listener, MovedFlow, MovedSession, MovedSpare,
    Neighbours, Release, ReleasedFlows, Ruling, SessionStore,
};
use crate::relay::ending::Cause;
use crate::relay::id::{ForwardId, ListenerId, PoolId};

/// What control tells a reactor.
#[derive(Debug)]
pub(super) enum Order {
    /// Accept nothing more; end when the last session has.
    Drain,
    /// End every session.
    Cut(Cause),
    /// End the sessions of these forwards.
    CutForwards(Arc<[ForwardId]>, Cause),
    /// Go by another configuration.
    Change(Box<Change>),
    /// Let clients in at these sockets.
    Adopt(Vec<(engine::Listener, Arc<Listener>)>),
    /// The sockets of these addresses are about to change hands.
    NoteHomes(Vec<ListenerId>),
    /// Look after these sockets no more: somebody else does.
    GiveAway(Vec<(ListenerId, u32)>),
    /// These are the reactors that clients are spread over; `None`: they stay where they are
    /// accepted.
    Neighbours(Option<Box<dyn Neighbours<engine::Incoming>>>),
    /// Nobody uses these pools any more.
    ForgetPools(Arc<[PoolId]>),
    /// Bring the gauges up to date.
    Publish,
    /// These are the servers of a pool from now on.
    Servers(PoolId, Arc<ServerSet>),
    /// End the sessions of a server.
    CutServer(Arc<Server>),
    /// Let sessions go.
    Release(Release<Detached>),
    /// Let these go, as far as they may be moved; how many at the most does not matter.
    ReleaseThese(Vec<SessionKey>, Release<Detached>),
    /// Take sessions of the process before in; those that cannot be had come back.
    AdoptSessions(Vec<Arrival<Detached>>, Sender<Adopted<Arrival<Detached>>>),
    /// Take sessions in that nobody can go on with, and end them for this reason.
    EndSessions(
        Vec<Arrival<Detached>>,
        Cause,
        Sender<Adopted<Arrival<Detached>>>,
    ),
    /// Have sessions stored there from now on.
    KeepIn(Box<dyn SessionStore>),
    /// A session is kept: note there how far it comes.
    Note(SessionKey, Mark),
    /// There is no place for one.
    NoPlace(SessionKey),
    /// Another session has the place of this one: keep it no more.
    MakeRoom(SessionKey, SlotName),
    /// Take sessions in that have been let go, as they were.
    TakeBack(Vec<MovedSession>, Sender<Adopted<MovedSession>>),
    /// Sessions and flows to come have numbers above these.
    NumberFrom(u64, u64),
    /// Let flows go, so many at the most.
    ReleaseFlows(usize, Sender<ReleasedFlows>),
    /// Flows of the process before go on with the ports that they came in by.
    ExpectFlows(Vec<FlowArrival>),
    /// Likewise those that have been let go, as they were.
    TakeFlowsBack(Vec<MovedFlow>),
    /// Let connections go that stand ready, and make none.
    ReleaseSpares(Sender<Vec<MovedSpare>>),
    /// Take such ones in, and make those that are missing.
    AdoptSpares(Vec<MovedSpare>),
}

/// A client is on its way to a reactor for as long as this is there.
#[derive(Debug)]
pub(super) struct Coming(Arc<AtomicU64>);

impl Coming {
    /// Counted there.
    pub(super) fn counted(coming: &Arc<AtomicU64>) -> Self {
        coming.fetch_add(1, Ordering::Relaxed);
        Self(coming.clone())
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(super) enum Message {
    /// The sender is dropped once the order is carried out.
    Order(Order, SyncSender<()>),
    /// Where the request of a session may go: itself the reply to a question.
    Decided(SessionKey, Ruling),
    /// A client that another reactor has accepted.
    Guest(Admitted<engine::Incoming>, Coming),
    /// Somebody looks; the answer is the visitor's matter.
    Visit(Visitor),
}

/// Who comes on a visit.
pub(super) struct Visitor(pub(super) Visit);

impl fmt::Debug for Visitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Visitor")
    }
}

/// An order on its way.
#[derive(Debug)]
#[must_use = "an order has a reply; `forget` says that nobody waits for it"]
pub(super) struct Pending(Receiver<()>);

impl Pending {
    /// Whether it was carried out, or there is nobody left to do so; waits until then.
    pub(super) fn is_done_by(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        self.0.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }

    /// Nothing depends on when it is carried out.
    pub(super) fn forget(self) {
        drop(self.0);
    }
}

/// The way to a reactor, for other threads.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) messages: Sender<Message>,
    pub(super) waker: Arc<Waker>,
}

impl Wire {
    pub(super) fn send(&self, order: Order) -> Pending {
        let (done, pending) = sync_channel(0);
        self.post(Message::Order(order, done));
        Pending(pending)
    }

    /// Likewise, without a word of when it is done; given back if the reactor has ended.
    pub(super) fn try_send(&self, order: Order) -> Result<(), Box<Order>> {
        let (done, _) = sync_channel(0);
        match self.messages.send(Message::Order(order, done)) {
            Ok(()) => {
                let _ = self.waker.wake();
                Ok(())
            }
            Err(SendError(Message::Order(order, _))) => Err(Box::new(order)),
            Err(SendError(_)) => Ok(()),
        }
    }

    /// Has the reactor visited in one of its next turns; `false` if it has ended.
    pub(super) fn visit(&self, visit: Visit) -> bool {
        self.post(Message::Visit(Visitor(visit)))
    }

    pub(super) fn decided(&self, key: SessionKey, ruling: Ruling) {
        self.post(Message::Decided(key, ruling));
    }

    /// Passes a client on; it is given back if the reactor has ended.
    pub(super) fn pass(
        &self,
        guest: Admitted<engine::Incoming>,
        coming: Coming,
    ) -> Option<Admitted<engine::Incoming>> {
        match self.messages.send(Message::Guest(guest, coming)) {
            Ok(()) => {
                let _ = self.waker.wake();
                None
            }
            Err(SendError(Message::Guest(guest, _))) => Some(guest),
            Err(SendError(_)) => None,
        }
    }

    fn post(&self, message: Message) -> bool {
        // A reactor that has ended needs no orders.
        let sent = self.messages.send(message).is_ok();
        if sent {
            let _ = self.waker.wake();
        }
        sent
    }
}
