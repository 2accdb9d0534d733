//! Results: one JSON line per run.

use serde::Serialize;

use crate::check::Violation;

/// What was counted in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that happened.
    pub steps: u64,
    /// Virtual time, in microseconds.
    pub virtual_micros: u64,
    /// From the end of the faults until all was well, in microseconds.
    pub settled_micros: u64,
    /// Attaches and claims that succeeded.
    pub attached: u64,
    /// Requests of all kinds that were refused.
    pub refused: u64,
    /// Crashes of nodes.
    pub crashes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Hosts that were told to leave.
    pub leaves: u64,
    /// Dials.
    pub dials: u64,
    /// Links that a node was told of.
    pub links: u64,
    /// Frames sent.
    pub frames: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Batches for disks.
    pub batches: u64,
    /// Hash of the trace.
    pub trace: u64,
}

/// The result of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// Name of the scenario.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// How many hosts.
    pub hosts: usize,
    /// Events that happened.
    pub steps: u64,
    /// Virtual time.
    pub virtual_seconds: f64,
    /// From the end of the faults until all was well.
    pub settled_seconds: f64,
    /// Attaches and claims that succeeded.
    pub attaches_ok: u64,
    /// Requests that were refused.
    pub refused: u64,
    /// Crashes.
    pub crashes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Leaves.
    pub leaves: u64,
    /// Dials.
    pub dials: u64,
    /// Links that came up.
    pub links: u64,
    /// Frames sent.
    pub frames: u64,
    /// Bytes sent.
    pub bytes: u64,
    /// Batches persisted or begun.
    pub batches: u64,
    /// Hash of the trace, hexadecimal.
    pub trace: String,
    /// What did not hold.
    pub failure: Option<String>,
}

impl Line {
    /// The line of a run.
    pub fn new(
        scenario: &str,
        (seed, hosts): (u64, usize),
        counts: &Counts,
        violation: Option<&Violation>,
    ) -> Self {
        let seconds = |micros: u64| std::time::Duration::from_micros(micros).as_secs_f64();
        Self {
            scenario: scenario.to_owned(),
            seed,
            hosts,
            steps: counts.steps,
            virtual_seconds: seconds(counts.virtual_micros),
            settled_seconds: seconds(counts.settled_micros),
            attaches_ok: counts.attached,
            refused: counts.refused,
            crashes: counts.crashes,
            partitions: counts.partitions,
            leaves: counts.leaves,
            dials: counts.dials,
            links: counts.links,
            frames: counts.frames,
            bytes: counts.bytes,
            batches: counts.batches,
            trace: format!("{:016x}", counts.trace),
            failure: violation.map(ToString::to_string),
        }
    }
}
