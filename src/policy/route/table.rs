//! The routes of a forward, compiled.

use std::collections::BTreeMap;

use super::{Conditions, Known, Pattern};

/// Routes in their order, and tables of those with names.
#[derive(Debug, Clone, Default)]
pub struct Routes {
    all: Vec<Conditions>,
    sni: Names,
    host: Names,
    /// Those without names, in order.
    unnamed: Vec<usize>,
}

/// Which routes have a name, by the name; each list in order.
#[derive(Debug, Clone, Default)]
struct Names {
    exact: BTreeMap<String, Vec<usize>>,
    below: BTreeMap<String, Vec<usize>>,
}

/// Which route is taken, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen {
    /// The route of this number, for it has the very name.
    Exact(usize),
    /// For it has a suffix of the name.
    Suffix(usize),
    /// For its conditions hold, and it has no names.
    Unnamed(usize),
    /// None: the forward's own servers.
    Default,
}

impl Chosen {
    /// The number of the route.
    pub const fn route(self) -> Option<usize> {
        match self {
            Self::Exact(at) | Self::Suffix(at) | Self::Unnamed(at) => Some(at),
            Self::Default => None,
        }
    }
}

impl Routes {
    /// Of routes in their order.
    pub fn new(routes: Vec<Conditions>) -> Self {
        let mut table = Self::default();
        for (at, route) in routes.iter().enumerate() {
            table.sni.add(&route.sni, at);
            table.host.add(&route.host, at);
            if route.names().next().is_none() {
                table.unnamed.push(at);
            }
        }
        table.all = routes;
        table
    }

    /// The routes, in their order.
    pub fn conditions(&self) -> &[Conditions] {
        &self.all
    }

    /// Which one a session takes.
    pub fn decide(&self, known: &Known<'_>) -> Chosen {
        let names = [(&self.sni, known.sni), (&self.host, known.host)];
        for (names, name) in names {
            let Some(name) = name else { continue };
            let listed = names.exact.get(name).map(Vec::as_slice);
            if let Some(at) = self.first(listed.unwrap_or_default(), known) {
                return Chosen::Exact(at);
            }
            let dots = name.match_indices('.').filter(|(at, _)| *at > 0);
            let suffixes = dots.filter_map(|(at, _)| names.below.get(&name[at + 1..]));
            let firsts = suffixes.filter_map(|listed| self.first(listed, known));
            if let Some(at) = firsts.min() {
                return Chosen::Suffix(at);
            }
        }
        self.first(&self.unnamed, known)
            .map_or(Chosen::Default, Chosen::Unnamed)
    }

    fn first(&self, listed: &[usize], known: &Known<'_>) -> Option<usize> {
        let mut listed = listed.iter().copied();
        listed.find(|at| self.all[*at].hold(known))
    }
}

impl Names {
    fn add(&mut self, patterns: &[Pattern], at: usize) {
        for pattern in patterns {
            let (names, name) = match pattern {
                Pattern::Exact(name) => (&mut self.exact, name),
                Pattern::Below(suffix) => (&mut self.below, suffix),
            };
            let listed = names.entry(name.clone()).or_default();
            if listed.last() != Some(&at) {
                listed.push(at);
            }
        }
    }
}
