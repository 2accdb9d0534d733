//! Counters of the resolver.

use std::sync::atomic::{AtomicU64, Ordering};

/// What a resolver has counted since its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Queries answered from the mesh's names.
    pub local: u64,
    /// Queries forwarded, the ones that the cache answered among them.
    pub forwarded: u64,
    /// Forwarded queries that no upstream answered.
    pub forward_failed: u64,
    /// Queries refused because too many were waiting for upstreams.
    pub overload: u64,
    /// Packets that were no query, dropped.
    pub bad: u64,
    /// Answers that did not fit into a datagram.
    pub truncated: u64,
    /// TCP connections closed at once because there were too many.
    pub tcp_refused: u64,
    /// Answers that the network would not take.
    pub unsent: u64,
}

/// The same, being counted.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) local: AtomicU64,
    pub(super) forwarded: AtomicU64,
    pub(super) forward_failed: AtomicU64,
    pub(super) overload: AtomicU64,
    pub(super) bad: AtomicU64,
    pub(super) truncated: AtomicU64,
    pub(super) tcp_refused: AtomicU64,
    pub(super) unsent: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            local: get(&self.local),
            forwarded: get(&self.forwarded),
            forward_failed: get(&self.forward_failed),
            overload: get(&self.overload),
            bad: get(&self.bad),
            truncated: get(&self.truncated),
            tcp_refused: get(&self.tcp_refused),
            unsent: get(&self.unsent),
        }
    }
}

/// Counts one.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
