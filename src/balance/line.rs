//! Who waits for a server with room: first come, first served, so many at the most.
//!
//! Invariants: the order is that of joining, and who went back in line during a turn
//! stands before those who had none; whoever left counts no more and is passed over.
//! Each operation is O(1), amortised: places of those who left are swept when they are
//! more than half of the line.

use std::collections::VecDeque;

/// Places of those who left that are not worth sweeping.
const SLACK: usize = 32;

/// See the module's documentation.
#[derive(Debug)]
pub struct WaitingLine<K> {
    /// In order; some may have left.
    line: VecDeque<K>,
    /// How many have not.
    waiting: usize,
}

/// The line while it is served.
#[derive(Debug)]
pub struct Turn<K>(VecDeque<K>);

impl<K> WaitingLine<K> {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self {
            line: VecDeque::new(),
            waiting: 0,
        }
    }

    /// Whether nobody waits.
    pub const fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// How many wait.
    pub const fn len(&self) -> usize {
        self.waiting
    }

    /// Joins at the end, unless `max` wait already. `waits` tells who has not left.
    pub fn join(&mut self, key: K, max: usize, waits: impl FnMut(&K) -> bool) -> bool {
        if self.waiting >= max {
            return false;
        }
        if self.line.len() >= 2 * self.waiting + SLACK {
            self.line.retain(waits);
        }
        self.line.push_back(key);
        self.waiting += 1;
        true
    }

    /// One of those who wait has left.
    pub fn left(&mut self) {
        debug_assert!(self.waiting > 0, "somebody left who did not wait");
        self.waiting = self.waiting.saturating_sub(1);
    }

    /// Begins to serve those who wait now.
    pub fn begin(&mut self) -> Turn<K> {
        Turn(std::mem::take(&mut self.line))
    }

    /// The next of a turn; waits no more, unless he joins again.
    pub fn next(&mut self, turn: &mut Turn<K>, waits: impl Fn(&K) -> bool) -> Option<K> {
        while let Some(key) = turn.0.pop_front() {
            if waits(&key) {
                self.waiting = self.waiting.saturating_sub(1);
                return Some(key);
            }
        }
        None
    }

    /// Ends a turn: whoever joined during it stands before those who had none.
    pub fn end(&mut self, turn: Turn<K>) {
        let mut line = turn.0;
        while let Some(back) = self.line.pop_back() {
            line.push_front(back);
        }
        self.line = line;
        if self.waiting == 0 {
            self.line.clear();
        }
    }
}

impl<K> Default for WaitingLine<K> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Event {
        Join,
        Leave(usize),
        /// So many are served, and of them each that is to goes back in line.
        Serve(Vec<bool>),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => Just(Event::Join),
            2 => any::<usize>().prop_map(Event::Leave),
            1 => prop::collection::vec(any::<bool>(), 0..6).prop_map(Event::Serve),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_queue_that_people_leave(
            max in 1..40_usize,
            events in prop::collection::vec(event(), 1..400),
        ) {
            let mut line = WaitingLine::new();
            // As plainly as can be: those who wait, in order.
            let (mut model, mut present, mut next) = (Vec::new(), BTreeSet::new(), 0_u32);
            for event in events {
                match event {
                    Event::Join => {
                        next += 1;
                        let joined = line.join(next, max, |key| present.contains(key));
                        prop_assert_eq!(joined, model.len() < max);
                        if joined {
                            present.insert(next);
                            model.push(next);
                        }
                    }
                    Event::Leave(at) if !model.is_empty() => {
                        let gone = model.remove(at % model.len());
                        present.remove(&gone);
                        line.left();
                    }
                    Event::Leave(_) => {}
                    Event::Serve(again) => {
                        let mut turn = line.begin();
                        let mut back = Vec::new();
                        for again in again {
                            let due = (!model.is_empty()).then(|| model.remove(0));
                            let served = line.next(&mut turn, |key| present.contains(key));
                            prop_assert_eq!(served, due);
                            let Some(served) = served else { break };
                            present.remove(&served);
                            if again {
                                prop_assert!(line.join(served, max, |key| present.contains(key)));
                                present.insert(served);
                                back.push(served);
                            }
                        }
                        line.end(turn);
                        model.splice(0..0, back);
                    }
                }
                prop_assert_eq!(line.len(), model.len());
                prop_assert!(line.line.len() <= 2 * max + SLACK + 1);
            }
        }
    }
}
