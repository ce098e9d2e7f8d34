//! Who makes room when there are too many flows: the one that was without any answer for
//! longest. One that was answered never does, so a flood of forged senders, which nobody
//! answers or which answers do not reach, displaces itself and nobody else.
//!
//! Owns the order of the unanswered, by slot, for each group (a forward) by itself: lists
//! through a vector, so that nothing here grows with the number of flows.

use std::collections::BTreeMap;

const NIL: u32 = u32::MAX;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Crowd {
    links: Vec<Link>,
    /// First and last of each group that has any.
    ends: BTreeMap<u32, (u32, u32)>,
    len: usize,
}

#[derive(Debug, Clone, Copy)]
struct Link {
    before: u32,
    behind: u32,
    /// `None`: it is in no list.
    group: Option<u32>,
}

const OUT: Link = Link {
    before: NIL,
    behind: NIL,
    group: None,
};

impl Crowd {
    /// Unanswered flows.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A flow of a group began.
    pub fn enter(&mut self, group: u32, slot: u32) {
        let at = slot as usize;
        if at >= self.links.len() {
            self.links.resize(at + 1, OUT);
        }
        self.leave(slot);
        let (first, last) = self.ends.get(&group).copied().unwrap_or((slot, NIL));
        self.links[at] = Link {
            before: last,
            behind: NIL,
            group: Some(group),
        };
        if let Some(link) = self.links.get_mut(last as usize) {
            link.behind = slot;
        }
        self.ends.insert(group, (first, slot));
        self.len += 1;
    }

    /// It was answered, or is over. Again does no harm.
    pub fn leave(&mut self, slot: u32) {
        let Some(link) = self.links.get_mut(slot as usize) else {
            return;
        };
        let Link {
            before,
            behind,
            group: Some(group),
        } = std::mem::replace(link, OUT)
        else {
            return;
        };
        if let Some(link) = self.links.get_mut(before as usize) {
            link.behind = behind;
        }
        if let Some(link) = self.links.get_mut(behind as usize) {
            link.before = before;
        }
        self.len -= 1;
        if let Some((first, last)) = self.ends.get_mut(&group) {
            if *first == slot {
                *first = behind;
            }
            if *last == slot {
                *last = before;
            }
            if *first == NIL {
                self.ends.remove(&group);
            }
        }
    }

    /// The one that makes room next, of a group or of any.
    pub fn first(&self, group: Option<u32>) -> Option<u32> {
        let ends = match group {
            Some(group) => self.ends.get(&group),
            None => self.ends.values().next(),
        };
        ends.map(|(first, _)| *first)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// As queues that are looked through.
        #[test]
        fn a_crowd_is_a_queue_for_each_group(
            steps in proptest::collection::vec((0u32..12, 0u32..3, any::<bool>()), 0..200),
        ) {
            let mut crowd = Crowd::default();
            let mut queues: [VecDeque<u32>; 3] = Default::default();
            for (slot, group, enters) in steps {
                for queue in &mut queues {
                    queue.retain(|it| *it != slot);
                }
                if enters {
                    crowd.enter(group, slot);
                    queues[group as usize].push_back(slot);
                } else {
                    crowd.leave(slot);
                }
                prop_assert_eq!(crowd.len(), queues.iter().map(VecDeque::len).sum::<usize>());
                for (group, queue) in (0..).zip(&queues) {
                    prop_assert_eq!(crowd.first(Some(group)), queue.front().copied());
                }
            }
            while let Some(first) = crowd.first(None) {
                let group = queues.iter_mut().find(|it| it.front() == Some(&first));
                prop_assert!(group.is_some_and(|it| it.pop_front().is_some()));
                crowd.leave(first);
            }
            prop_assert!(crowd.is_empty() && queues.iter().all(VecDeque::is_empty));
        }
    }
}
