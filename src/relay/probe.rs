//! Probes for the simulator: which states were reached, and classic bugs that
//! can be switched on to see that they are caught.
//!
//! Compiled in only with the feature `probes`; without it both functions are
//! empty and vanish. Switches and notes are per thread: a simulated run is one.

/// A classic bug of forwarders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// The end is passed on before held bytes are.
    EndBeforeResidue,
    /// A pump that ended with its budget is not queued again.
    DroppedEdgeAfterBudget,
    /// A pipe that still holds bytes goes back to the pool.
    PipeReusedWithResidue,
    /// A key of an earlier session is taken for its successor's.
    StaleKeyHonoured,
    /// One side's end closes the whole session.
    HalfCloseAsFullClose,
    /// A side is closed again while its close is under way.
    DoubleClose,
    /// After running out of descriptors nobody looks at the listener again.
    LostWakeUpAfterExhaustion,
    /// A short splice is counted as a full one.
    ShortSpliceCountedFull,
    /// Bytes towards the client do not count as activity.
    IdleTimerNotRefreshed,
    /// Bytes held for a side that failed are not dropped.
    BufferLeakedOnReset,
}

impl Mutation {
    /// Every one of them.
    pub const ALL: [Self; 10] = [
        Self::EndBeforeResidue,
        Self::DroppedEdgeAfterBudget,
        Self::PipeReusedWithResidue,
        Self::StaleKeyHonoured,
        Self::HalfCloseAsFullClose,
        Self::DoubleClose,
        Self::LostWakeUpAfterExhaustion,
        Self::ShortSpliceCountedFull,
        Self::IdleTimerNotRefreshed,
        Self::BufferLeakedOnReset,
    ];
}

#[cfg(not(feature = "probes"))]
mod imp {
    /// Whether a bug is switched on: never.
    #[inline]
    pub const fn mutated(_: super::Mutation) -> bool {
        false
    }

    /// Notes that something was reached.
    #[inline]
    pub const fn visit(_: &'static str, _: &'static str) {}
}

#[cfg(feature = "probes")]
mod imp {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;

    use super::Mutation;

    thread_local! {
        static MUTATION: Cell<Option<Mutation>> = const { Cell::new(None) };
        static VISITED: RefCell<BTreeSet<(&'static str, &'static str)>> = const { RefCell::new(BTreeSet::new()) };
    }

    /// Whether a bug is switched on for this thread.
    pub fn mutated(mutation: Mutation) -> bool {
        MUTATION.get() == Some(mutation)
    }

    /// Notes that something was reached: a transition, or a pair of states.
    pub fn visit(from: &'static str, to: &'static str) {
        VISITED.with_borrow_mut(|visited| visited.insert((from, to)));
    }

    /// Switches one bug on, or all off.
    pub fn switch(mutation: Option<Mutation>) {
        MUTATION.set(mutation);
    }

    /// Everything that was noted on this thread since the last call.
    pub fn take_visited() -> BTreeSet<(&'static str, &'static str)> {
        VISITED.take()
    }
}

pub use imp::*;
