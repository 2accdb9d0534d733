//! Results: one JSON line per run.

use serde::Serialize;

use crate::{check::Violation, host::Host};

/// What was counted in a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Events that happened.
    pub steps: u64,
    /// Virtual time, in microseconds.
    pub virtual_micros: u64,
    /// From the end of the faults until all was well, in microseconds.
    pub settled_micros: u64,
    /// Attaches and claims that succeeded.
    #[serde(rename = "attaches_ok")]
    pub attached: u64,
    /// Requests of all kinds that were refused.
    pub refused: u64,
    /// Crashes of nodes.
    pub crashes: u64,
    /// Partitions.
    pub partitions: u64,
    /// Hosts that were told to leave.
    pub leaves: u64,
    /// Hosts that were destroyed.
    pub recycles: u64,
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
    /// Entries about blocks in the ring at the end.
    pub ring: u64,
    /// Those of them that say something.
    pub ring_live: u64,
    /// The least number of blocks that say who owns what at the end.
    pub fragments: u64,
    /// The most rows that a host's ring, membership and vectors ever had, and the bytes of its
    /// disk, as seen when a machine was replaced and at the end.
    pub ring_peak: usize,
    /// See `ring_peak`.
    pub members_peak: usize,
    /// See `ring_peak`.
    pub origins_peak: usize,
    /// See `ring_peak`.
    pub disk_bytes_peak: usize,
    /// Hosts with an old or lost disk that went on without what nobody that they reached could tell
    /// them: from then on an address may be held twice, and has to be shown.
    pub outdated: u64,
    /// Hash of the trace.
    #[serde(serialize_with = "hexadecimal")]
    pub trace: u64,
}

impl Counts {
    /// Looks how large the state of hosts is.
    pub(crate) fn peak(&mut self, hosts: &[Host]) {
        for host in hosts.iter().filter(|host| host.is_member()) {
            let node = &host.node;
            self.ring_peak = self.ring_peak.max(node.ipam().store().len());
            self.members_peak = self.members_peak.max(node.router().members().len());
            let vectors = [
                node.router().members().vector(),
                node.ipam().store().vector(),
                node.zone().store().vector(),
            ];
            let origins = vectors.iter().map(|vector| vector.dots.len()).sum();
            self.origins_peak = self.origins_peak.max(origins);
            self.disk_bytes_peak = self.disk_bytes_peak.max(host.disk.bytes());
        }
    }
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
    /// What was counted.
    #[serde(flatten)]
    pub counts: Counts,
    /// What did not hold.
    pub failure: Option<String>,
}

/// The result of many runs.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// How many runs.
    pub runs: u64,
    /// How many of them failed.
    pub failed: usize,
    /// How long they took.
    pub seconds: f64,
    /// Runs per second, on all threads together.
    pub seeds_per_second: f64,
}

impl Line {
    /// The line of a run.
    pub fn new(
        scenario: &str,
        (seed, hosts): (u64, usize),
        counts: Counts,
        violation: Option<&Violation>,
    ) -> Self {
        let failure = violation.map(ToString::to_string);
        Self { scenario: scenario.to_owned(), seed, hosts, counts, failure }
    }

    /// From the end of the faults until all was well.
    pub fn settled_seconds(&self) -> f64 {
        std::time::Duration::from_micros(self.counts.settled_micros).as_secs_f64()
    }
}

fn hexadecimal<S: serde::Serializer>(hash: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{hash:016x}"))
}
