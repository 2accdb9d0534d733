//! Many seeds: each run on one thread, results in the order of seeds.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
};

use crate::{
    check::Violation,
    dice::Dice,
    report::{Counts, Line},
    scenario::Scenario,
    world::World,
};

/// The result of one seed, and the trace if it was asked for.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The result.
    pub line: Line,
    /// What happened, line by line.
    pub trace: Vec<String>,
}

/// How many hosts a seed has.
pub fn hosts_of(seed: u64, hosts: &RangeInclusive<usize>) -> usize {
    let (first, last) = (*hosts.start() as u64, *hosts.end() as u64);
    let drawn = Dice::new(seed, 2).between(first, last.max(first));
    usize::try_from(drawn).unwrap_or(*hosts.start())
}

/// Runs one seed. A panic of a node is a failure like another.
pub fn one(scenario: &Scenario, seed: u64, hosts: usize, trace: bool) -> Outcome {
    let scenario = &*scenario.of_seed(seed);
    break_rules(scenario);
    let run = || match World::new(scenario, seed, hosts, trace) {
        Ok(mut world) => {
            world.run();
            let violation = world.violation().cloned();
            (world.counts().clone(), violation, world.take_lines())
        }
        Err(error) => {
            let violation = Violation::new("world", error.to_string());
            (Counts::default(), Some(violation), Vec::new())
        }
    };
    let (counts, violation, trace) = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        let violation = Violation::new("panic", text.unwrap_or_else(|| "a panic".to_owned()));
        (Counts::default(), Some(violation), Vec::new())
    });
    let line = Line::new(&scenario.name, (seed, hosts), counts, violation.as_ref());
    Outcome { line, trace }
}

/// Switches on, on this thread, what the scenario breaks.
#[cfg(feature = "mutations")]
fn break_rules(scenario: &Scenario) {
    mesh_router::mutation::switch(scenario.mutation);
    mesh_router::mutation::cut_deltas(scenario.cut_deltas);
}

#[cfg(not(feature = "mutations"))]
fn break_rules(_: &Scenario) {}

/// Runs so many seeds from the first on and hands each result on, in order, until `sink` says stop.
pub fn many(
    scenario: &Scenario,
    (first, count): (u64, u64),
    hosts: &RangeInclusive<usize>,
    threads: usize,
    mut sink: impl FnMut(Outcome) -> bool,
) {
    let next = AtomicU64::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            let (sender, next) = (sender.clone(), &next);
            scope.spawn(move || {
                loop {
                    let turn = next.fetch_add(1, Ordering::Relaxed);
                    if turn >= count {
                        return;
                    }
                    let seed = first.wrapping_add(turn);
                    let outcome = one(scenario, seed, hosts_of(seed, hosts), false);
                    if sender.send((turn, outcome)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let (mut early, mut due) = (BTreeMap::new(), 0);
        for (turn, outcome) in receiver {
            early.insert(turn, outcome);
            while let Some(outcome) = early.remove(&due) {
                due += 1;
                if !sink(outcome) {
                    next.store(count, Ordering::Relaxed);
                    return;
                }
            }
        }
    });
}
