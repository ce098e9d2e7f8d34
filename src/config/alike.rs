//! Which forwards two configurations have in common. What has not changed since it was read is
//! the very same `Arc` in both (`Config::load_again`, `Config::share`), so that it is seen
//! without looking into any: whoever compares two configurations looks at the others only.

use std::collections::HashSet;
use std::sync::Arc;

use super::forward::Forward;
use super::model::Config;

/// The forwards of two configurations that are not in both, by their places.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Others {
    pub(super) old: Vec<usize>,
    pub(super) new: Vec<usize>,
}

impl Others {
    pub(super) fn of(old: &[Arc<Forward>], new: &[Arc<Forward>]) -> Self {
        // Most are in both, one after the other: nothing is looked up for those.
        let (old_range, new_range) = middle(old, new, Arc::ptr_eq);
        let pointers = |of: &[Arc<Forward>]| -> HashSet<*const Forward> {
            of.iter().map(Arc::as_ptr).collect()
        };
        let of_old = pointers(&old[old_range.clone()]);
        let of_new = pointers(&new[new_range.clone()]);
        let is_other = |of: &[Arc<Forward>], at: usize, there: &HashSet<*const Forward>| {
            !there.contains(&Arc::as_ptr(&of[at]))
        };
        Self {
            old: old_range.filter(|at| is_other(old, *at, &of_new)).collect(),
            new: new_range.filter(|at| is_other(new, *at, &of_old)).collect(),
        }
    }

    pub(super) const fn is_none(&self) -> bool {
        self.old.is_empty() && self.new.is_empty()
    }
}

/// The forwards that only one of two configurations has, or has otherwise.
#[derive(Debug)]
pub(crate) struct OtherForwards<'c> {
    pub(crate) old: Vec<&'c Arc<Forward>>,
    pub(crate) new: Vec<&'c Arc<Forward>>,
}

impl Config {
    /// The forwards that are not the very same ones in both: see [`Self::share`].
    pub(crate) fn other_forwards<'c>(&'c self, new: &'c Self) -> OtherForwards<'c> {
        let others = Others::of(&self.forwards, &new.forwards);
        let of = |config: &'c Self, places: Vec<usize>| {
            let places = places.into_iter();
            places.map(|at| &config.forwards[at]).collect()
        };
        OtherForwards {
            old: of(self, others.old),
            new: of(new, others.new),
        }
    }
}

/// What is left of two lists without what they begin and end with alike.
pub(super) fn middle<T>(
    old: &[T],
    new: &[T],
    is_same: impl Fn(&T, &T) -> bool,
) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let pairs = || old.iter().zip(new);
    let begin = pairs().take_while(|(old, new)| is_same(old, new)).count();
    let (old_rest, new_rest) = (&old[begin..], &new[begin..]);
    let backwards = old_rest.iter().rev().zip(new_rest.iter().rev());
    let end = backwards.take_while(|(old, new)| is_same(old, new)).count();
    (begin..old.len() - end, begin..new.len() - end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_is_what_is_not_at_both_ends() {
        let middle = |old: &str, new: &str| {
            let (old, new): (Vec<char>, Vec<char>) = (old.chars().collect(), new.chars().collect());
            let (of_old, of_new) = middle(&old, &new, PartialEq::eq);
            let text = |of: &[char]| of.iter().collect::<String>();
            (text(&old[of_old]), text(&new[of_new]))
        };
        let of = |old: &str, new: &str| (old.to_owned(), new.to_owned());
        assert_eq!(middle("abcd", "abcd"), of("", ""));
        assert_eq!(middle("abcd", "abxd"), of("c", "x"));
        assert_eq!(middle("aa", "aaa"), of("", "a"));
        assert_eq!(middle("", "ab"), of("", "ab"));
        assert_eq!(middle("abcd", "xbcy"), of("abcd", "xbcy"));
    }

    #[test]
    fn others_are_those_that_are_not_the_very_same() {
        let all: Vec<Arc<Forward>> = (0..6).map(|_| Arc::default()).collect();
        let of = |places: &[usize]| -> Vec<Arc<Forward>> {
            places.iter().map(|at| all[*at].clone()).collect()
        };
        let others = Others::of(&of(&[0, 1, 2, 3, 4]), &of(&[0, 3, 5, 1, 4]));
        let (old, new) = (vec![2], vec![2]);
        assert_eq!(others, Others { old, new });
        assert!(Others::of(&all, &all).is_none());
    }
}
