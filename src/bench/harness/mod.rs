//! Interleaved rounds, every shape, every layout, in one run.
//!
//! For each layout the origin and every subject are started once and stay; a round
//! measures each shape on each subject in turn, so that whatever the machine does
//! meanwhile hits all alike. The turn is a random order in one round and its reverse in
//! the next (`B A C`, `C A B`), so that nobody always comes first, and what a subject leaves
//! behind for the next one is no difference between them. A subject that breaks, or loses
//! bytes, is not measured in that shape again, and not compared in it.
//!
//! | layout | CPUs | what it shows |
//! | --- | --- | --- |
//! | one core | client, forwarder and origin share one | the total cost of a path |
//! | own core | the forwarder has its own, the rest share the others | its ceiling |

mod burst;
mod measure;
mod options;
mod place;
mod result;

use std::any::Any;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use place::{cells, has_datagrams, has_mix, patience, split, start_origin};

pub use options::{BenchOptions, Layout, Status};
pub use result::{
    BurstSample, Cell, DatagramSample, IdleCost, LayoutResult, Quiet, Sample, SubjectFacts,
};

use super::interrupt::Interrupt;
use super::load::shape::Shape;
use super::load::{self, LoadPlan, idle, pin};
use super::origin::{Origin, Role};
use super::precedence::Precedence;
use super::process;
use super::subjects::running::{Running, Stage, StartCost, Workspace};
use super::subjects::size::Size;
use super::subjects::{Kind, Subject};
use crate::balance::Random;
use crate::net::limits;

/// Measures everything. `show` is called as each measurement begins. An interrupt ends it
/// early; the rounds that were finished by then are what it comes to.
///
/// # Errors
/// What makes a comparison impossible: a subject that does not start, too few
/// descriptors or CPUs, an interrupt before any round was finished. By then everything
/// started has been stopped.
pub fn run(
    options: &BenchOptions,
    interrupt: &Interrupt,
    show: &dyn Fn(&Status),
) -> Result<Vec<LayoutResult>, String> {
    check_descriptors(options)?;
    let cpus = limits::allowed_cpus();
    let mut results = Vec::new();
    let total =
        options.layouts.len() * options.rounds * options.shapes.len() * options.subjects.len();
    for (index, layout) in options.layouts.iter().enumerate() {
        let done = index * total / options.layouts.len();
        let measured = (|| {
            let mut bench = Bench::set_up(options, *layout, &cpus, interrupt, show, done, total)?;
            if index == 0 && options.idle_sessions > 0 {
                bench.measure_idle()?;
            }
            bench.rounds();
            Ok(bench.result())
        })();
        match measured {
            Ok(result) => results.push(result),
            // Whatever it says, the interrupt is why.
            Err(_) if interrupt.is_raised() => break,
            Err(error) => return Err(error),
        }
        if interrupt.is_raised() {
            break;
        }
    }
    // The calling thread goes back to where it may run.
    pin(nix::unistd::Pid::from_raw(0), &cpus)?;
    let is_empty = |result: &LayoutResult| result.cells.iter().all(|it| it.samples.is_empty());
    if interrupt.is_raised() && results.iter().all(is_empty) {
        return Err("interrupted before a round was finished".to_owned());
    }
    Ok(results)
}

/// Flows of datagrams that nobody ends: a subject has those of all rounds until long after the run.
fn lasting(options: &BenchOptions) -> usize {
    /// Of questions that were not answered.
    const LOST: usize = 2_000;
    let shapes = options.shapes.iter().filter(|shape| shape.is_datagrams());
    let each: usize = shapes.map(Shape::connections).sum();
    match each {
        0 => 0,
        each => each * options.rounds + options.idle_sessions + LOST,
    }
}

/// What stays open until this is dropped.
fn drop_later(opened: impl Any) -> Box<dyn Any> {
    Box::new(opened)
}

/// Who is measured when in a round: a random order, and its reverse in the round after.
fn order(subjects: usize, round: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..subjects).collect();
    Random::new(seed.wrapping_add(round as u64 / 2)).shuffle(&mut order);
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Client ends and origin ends are in this process, two ends in each subject.
fn check_descriptors(options: &BenchOptions) -> Result<(), String> {
    const SPARE: usize = 64;
    let allowed = limits::raise_descriptor_limit()
        .map_err(|error| format!("cannot read the limit of descriptors: {error}"))?;
    let widest = options
        .shapes
        .iter()
        .max_by_key(|shape| shape.connections());
    let connections = widest.map_or(0, Shape::connections);
    let forwards = options.subjects.iter().map(|it| it.size.forwards).max();
    let sessions = connections.max(options.idle_sessions);
    // A subject has a listener for each further forward on each of its event loops.
    let listeners = (forwards.unwrap_or(1) - 1) * options.workers;
    let needed = (sessions * 2 + listeners).max(sessions + lasting(options)) + SPARE;
    if needed as u64 <= allowed {
        return Ok(());
    }
    let reason = if options.idle_sessions > connections {
        format!("{} idle sessions", options.idle_sessions)
    } else {
        widest.map_or_else(String::new, |shape| format!("`{shape}`"))
    };
    Err(format!(
        "{reason} needs {needed} descriptors here and in every subject, but only {allowed} are \
         allowed (ulimit -Hn); use fewer, or raise the limit"
    ))
}

/// One layout in progress.
struct Bench<'a> {
    options: &'a BenchOptions,
    interrupt: &'a Interrupt,
    show: &'a dyn Fn(&Status),
    done: usize,
    total: usize,
    layout: Layout,
    forwarder_cpus: Vec<usize>,
    other_cpus: Vec<usize>,
    /// Of threads for small messages, where a shape has bulk beside them.
    precedence: Precedence,
    // Dropped in this order: subjects end before the origin and their files.
    running: Vec<Running>,
    origin: Origin,
    _workspace: Workspace,
    idle: Vec<Option<IdleCost>>,
    idle_flows: Vec<Option<IdleCost>>,
    starts: Vec<Vec<StartCost>>,
    cells: Vec<Cell>,
}

impl<'a> Bench<'a> {
    fn set_up(
        options: &'a BenchOptions,
        layout: Layout,
        cpus: &[usize],
        interrupt: &'a Interrupt,
        show: &'a dyn Fn(&Status),
        done: usize,
        total: usize,
    ) -> Result<Self, String> {
        let (forwarder_cpus, other_cpus) = split(layout, cpus, options.workers)?;
        // Children and threads inherit; subjects are pinned again once they run.
        pin(nix::unistd::Pid::from_raw(0), &other_cpus)?;
        let precedence = match layout {
            // There nothing may be run before the subject.
            Layout::OneCore => Precedence::Ordinary,
            Layout::OwnCore => Precedence::permitted(),
        };
        let origin = start_origin(options, other_cpus.len(), precedence)?;
        let upstream = origin
            .address(Role::Command)
            .map(|address| match &options.path {
                // It may listen on every address.
                None => SocketAddr::from(([127, 0, 0, 1], address.port())),
                Some(_) => address,
            })
            .ok_or("the origin has no command port")?;
        let workspace = Workspace::new()
            .map_err(|error| format!("cannot make a temporary directory: {error}"))?;
        let widest = options.shapes.iter().map(Shape::connections).max();
        let stage = Stage {
            upstream,
            workers: options.workers,
            sessions: widest.unwrap_or(0).max(options.idle_sessions) + lasting(options) + 16,
            datagrams: has_datagrams(options),
            workspace: &workspace,
            interrupt,
        };
        let mut starts = vec![Vec::new(); options.subjects.len()];
        for round in 0..options.starts {
            for (subject, starts) in options.subjects.iter().zip(&mut starts) {
                if subject.kind == Kind::Direct {
                    continue;
                }
                show(&Status {
                    done,
                    total,
                    text: format!("start {} of {subject}", round + 1),
                });
                starts.push(Running::start(subject, stage)?.start);
            }
        }
        let mut running = Vec::new();
        for subject in &options.subjects {
            show(&Status {
                done,
                total,
                text: format!("starting {subject}"),
            });
            running.push(Running::start(subject, stage)?);
        }
        let cells = cells(options.shapes.len(), running.len());
        Ok(Self {
            options,
            interrupt,
            show,
            done,
            total,
            layout,
            forwarder_cpus,
            other_cpus,
            precedence,
            idle: vec![None; running.len()],
            idle_flows: vec![None; running.len()],
            starts,
            running,
            origin,
            _workspace: workspace,
            cells,
        })
    }

    /// User memory and descriptors for each of many sessions that say nothing.
    fn measure_idle(&mut self) -> Result<(), String> {
        let sessions = self.options.idle_sessions;
        for index in 0..self.running.len() {
            let subject = &self.running[index];
            let Some(root) = subject.process() else {
                continue;
            };
            (self.show)(&Status {
                done: self.done,
                total: self.total,
                text: format!("{}: {sessions} idle sessions", subject.subject),
            });
            self.settle()?;
            let streams = || idle::open(subject.address, subject.preface, sessions).map(drop_later);
            self.idle[index] = Some(self.idle_cost(subject, root, &streams)?);
            self.settle()?;
            if subject.single.is_some() {
                let flows = || idle::ask(subject.address, sessions).map(drop_later);
                self.idle_flows[index] = Some(self.idle_cost(subject, root, &flows)?);
            }
        }
        Ok(())
    }

    /// What each of many costs that `open` opens.
    fn idle_cost(
        &self,
        subject: &Running,
        root: i32,
        open: &dyn Fn() -> Result<Box<dyn Any>, String>,
    ) -> Result<IdleCost, String> {
        let sessions = self.options.idle_sessions;
        let memory_before = process::memory_of_tree(root);
        let (descriptors_before, pipes_before) = process::descriptors_of_tree(root);
        let _opened = open().map_err(|error| format!("{}: {error}", subject.subject))?;
        let settled = Instant::now() + Duration::from_millis(200);
        if self.interrupt.wait_until(settled) {
            return Err("interrupted".to_owned());
        }
        let (descriptors, pipes) = process::descriptors_of_tree(root);
        let each = |after: u64, before: u64| (after as f64 - before as f64) / sessions as f64;
        Ok(IdleCost {
            sessions,
            bytes: each(process::memory_of_tree(root), memory_before),
            descriptors: each(descriptors, descriptors_before),
            pipe_ends: each(pipes, pipes_before),
        })
    }

    /// Connections that subjects keep ready.
    fn ready(&self) -> u64 {
        let each = self.running.iter().map(|it| it.subject.spares());
        each.sum::<u64>() * self.options.workers as u64
    }

    /// Every connection of what came before is gone, but for those that subjects keep
    /// ready.
    fn settle(&self) -> Result<(), String> {
        let deadline = Instant::now() + self.patience() + Duration::from_secs(2);
        self.origin.wait_until_open(self.ready(), deadline).map_err(|open| {
            format!(
                "{open} connections still reach the origin seconds after their clients have gone"
            )
        })
    }

    /// All of them, or as many as are finished before an interrupt.
    fn rounds(&mut self) {
        for round in 0..self.options.rounds {
            let order = order(self.running.len(), round, self.options.seed);
            for shape in 0..self.options.shapes.len() {
                for subject in &order {
                    if self.interrupt.is_raised() {
                        return self.drop_unfinished(round, shape);
                    }
                    self.measure_cell(round, shape, *subject);
                    self.done += 1;
                }
            }
        }
        if self.interrupt.is_raised() {
            self.drop_unfinished(self.options.rounds - 1, self.options.shapes.len() - 1);
        }
    }

    /// A round of a shape in which not everybody was measured compares nothing.
    fn drop_unfinished(&mut self, round: usize, shape: usize) {
        let cells = self.cells.iter_mut().filter(|cell| cell.shape == shape);
        let mut cells: Vec<&mut Cell> = cells.collect();
        let is_whole = |cell: &Cell| {
            let last = cell.samples.last().is_some_and(|it| it.round == round);
            last || cell.failure.is_some()
        };
        if !cells.iter().all(|cell| is_whole(cell)) {
            for cell in &mut cells {
                cell.samples.retain(|sample| sample.round != round);
            }
        }
    }

    fn measure_cell(&mut self, round: usize, shape: usize, subject: usize) {
        let cell = shape * self.running.len() + subject;
        if self.cells[cell].failure.is_some() {
            return;
        }
        (self.show)(&Status {
            done: self.done,
            total: self.total,
            text: format!(
                "{} round {}: {} through {}",
                self.layout.name(),
                round + 1,
                self.options.shapes[shape],
                self.running[subject].subject
            ),
        });
        match self.measure(round, shape, subject) {
            Ok((sample, cut_short)) => {
                self.cells[cell].samples.push(sample);
                self.cells[cell].cut_short += cut_short;
            }
            // It was cut short, which says nothing of the subject.
            Err(_) if self.interrupt.is_raised() => {}
            Err(error) => {
                let ended = self.running[subject].ended();
                self.cells[cell].failure =
                    Some(ended.map_or(error.clone(), |ended| format!("{error}; {ended}")));
            }
        }
    }

    fn measure(&self, round: usize, shape: usize, subject: usize) -> Result<(Sample, u64), String> {
        let subject = &self.running[subject];
        let shape = &self.options.shapes[shape];
        if let Some(root) = subject.process() {
            process::pin_tree(root, &self.forwarder_cpus)?;
        }
        if let Some(burst) = shape.burst {
            self.settle()?;
            let sample = burst::measure(subject, burst, round, &self.origin, self.interrupt)?;
            return Ok((sample, 0));
        }
        let Some(quiet) = shape.quiet() else {
            return self.measure_load(round, shape, subject, None);
        };
        let apart = Some(self.precedence);
        // Which of them comes first takes turns, so that neither always has the machine
        // as the other leaves it.
        let (alone, (mut sample, cut_short)) = if round.is_multiple_of(2) {
            let (alone, _) = self.measure_load(round, &quiet, subject, apart)?;
            (alone, self.measure_load(round, shape, subject, apart)?)
        } else {
            let mix = self.measure_load(round, shape, subject, apart)?;
            (self.measure_load(round, &quiet, subject, apart)?.0, mix)
        };
        sample.quiet = Some(Quiet {
            exchanges: alone.exchanges,
            forwarder_cpu: alone.forwarder_cpu,
            latency: alone.latency,
        });
        Ok((sample, cut_short))
    }

    fn measure_load(
        &self,
        round: usize,
        shape: &Shape,
        subject: &Running,
        exchanges_apart: Option<Precedence>,
    ) -> Result<(Sample, u64), String> {
        let process = subject.process();
        let target = if shape.is_single_question() {
            subject.single
        } else {
            subject.single.map(|_| subject.address)
        };
        let target = match target {
            _ if !shape.is_datagrams() => subject.address,
            Some(target) => target,
            None => return Err("it forwards no datagrams".to_owned()),
        };
        // Nothing of `direct` runs on the forwarder's own CPU.
        let mut cpus = self.other_cpus.clone();
        if process.is_some() && self.layout == Layout::OwnCore {
            cpus.extend(&self.forwarder_cpus);
        }
        self.settle()?;
        let _stand = idle::open(subject.address, subject.preface, shape.idle)?;
        let threads = self.options.threads.unwrap_or(self.other_cpus.len());
        measure::measure(&measure::Measurement {
            round,
            plan: LoadPlan {
                target,
                preface: subject.preface,
                shape: shape.clone(),
                threads,
                exchanges_apart,
                cpus: self.other_cpus.clone(),
                congestion: self.options.congestion.clone(),
                options: None,
                watch: None,
                compare_one_in: Some(self.options.compare_one_in),
                connect_timeout: Duration::from_secs(10),
                patience: self.patience(),
                traffic: shape.stream.map(|_| self.origin.traffic()),
                answer_timeout: self.answer_timeout(),
            },
            warm_up: self.options.warm_up,
            duration: self.options.duration,
            process,
            origin: &self.origin,
            ready: self.ready(),
            path: self.options.path.as_deref(),
            cpus: &cpus,
            interrupt: self.interrupt,
        })
    }

    /// How long what is on its way may take to arrive.
    fn patience(&self) -> Duration {
        let Some(path) = &self.options.path else {
            return load::PATIENCE;
        };
        let widest = self.options.shapes.iter().map(Shape::connections).max();
        patience(path.spec(), widest.unwrap_or(0))
    }

    /// How long an answer in a datagram may take.
    fn answer_timeout(&self) -> Duration {
        let path = self.options.path.as_ref().map(|path| path.spec().rtt * 4);
        load::ANSWER_TIMEOUT + path.unwrap_or_default()
    }

    /// The subject of the same kind and the usual size, if this one is larger.
    fn smaller(&self, subject: &Subject) -> Option<usize> {
        let usual = Size::default();
        let is_it = |it: &Running| {
            let it = &it.subject;
            it.kind == subject.kind && it.asks == subject.asks && it.size == usual
        };
        let found = self.running.iter().position(is_it);
        found.filter(|_| subject.size != usual)
    }

    fn result(self) -> LayoutResult {
        let mut notes = Vec::new();
        if has_mix(self.options)
            && self.layout == Layout::OwnCore
            && self.precedence == Precedence::Ordinary
        {
            notes.push(
                "the generator's and the origin's threads for small messages may not run before \
                 those for bulk (CAP_SYS_NICE): the latency of a mix includes what they wait for \
                 their CPU"
                    .to_owned(),
            );
        }
        let subjects = self
            .running
            .iter()
            .zip(&self.idle)
            .zip(&self.idle_flows)
            .zip(&self.starts)
            .map(|(((running, idle), idle_flow), starts)| SubjectFacts {
                name: running.subject.name.clone(),
                is_direct: running.subject.kind == Kind::Direct,
                launch: running.launch.clone(),
                keeps_half_closed: running.keeps_half_closed,
                idle: *idle,
                idle_flow: *idle_flow,
                starts: starts.clone(),
                smaller: self.smaller(&running.subject),
            })
            .collect();
        LayoutResult {
            layout: self.layout,
            forwarder_cpus: self.forwarder_cpus,
            other_cpus: self.other_cpus,
            subjects,
            cells: self.cells,
            notes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_two_rounds_each_comes_once_before_each_other() {
        for seed in 0..20 {
            for round in [0, 2, 4] {
                let (one, other) = (order(5, round, seed), order(5, round + 1, seed));
                let mut sorted = one.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, [0, 1, 2, 3, 4]);
                assert!(one.iter().eq(other.iter().rev()), "{one:?} {other:?}");
            }
        }
        let first: Vec<usize> = (0..40).map(|seed| order(3, 0, seed)[0]).collect();
        assert!((0..3).all(|subject| first.contains(&subject)), "{first:?}");
    }
}
