//! The journal: which writes are on their way to the disk, and what waits for them.
//!
//! Writes are collected while an input is handled and leave as one batch. A batch that fails is not
//! lost: its writes, and those of every batch after it, go out again as one after a pause, the
//! newest of each key. Meanwhile the node refuses what would need the disk.

use std::{collections::BTreeMap, time::Duration};

use mesh_router::{Kind, Time};

use super::event::{BatchId, Table, Write};

/// Pause before a failed write is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Per kind of replica, the counter up to which own writes are in a batch; last, how many changes
/// of the council's promises are.
pub(super) type Marks = [u64; Kind::COUNT + 1];

#[derive(Debug)]
struct Pending {
    writes: Vec<Write>,
    marks: Marks,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// By table and key, the newest write of each: while the disk fails this grows with the state
    /// only, not with the time.
    collected: BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>,
    pending: BTreeMap<BatchId, Pending>,
    last: u64,
    retry_at: Option<Time>,
    failure: Option<String>,
}

impl Journal {
    /// Collects a write.
    pub(super) fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.collected.insert((table, key), Some(value));
    }

    /// Collects a deletion.
    pub(super) fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.collected.insert((table, key), None);
    }

    /// The batch that what is collected now will be in.
    pub(super) fn current(&self) -> BatchId {
        BatchId(self.last + 1)
    }

    /// The next batch to write, if there is something to write and the disk is not being rested.
    pub(super) fn flush(&mut self, marks: Marks) -> Option<(BatchId, Vec<Write>)> {
        if self.collected.is_empty() || self.retry_at.is_some() {
            return None;
        }
        let batch = self.current();
        self.last = batch.0;
        let collected = std::mem::take(&mut self.collected).into_iter();
        let writes: Vec<Write> =
            collected.map(|((table, key), value)| Write { table, key, value }).collect();
        self.pending.insert(batch, Pending { writes: writes.clone(), marks });
        Some((batch, writes))
    }

    /// A batch and all before it are durable: returns the marks that hold now.
    pub(super) fn persisted(&mut self, batch: BatchId) -> Option<Marks> {
        let later = self.pending.split_off(&BatchId(batch.0 + 1));
        let done = std::mem::replace(&mut self.pending, later);
        let marks = done.last_key_value().map(|(_, pending)| pending.marks);
        if marks.is_some() {
            self.failure = None;
        }
        marks
    }

    /// A batch and all after it failed. Their writes go out again later.
    pub(super) fn failed(&mut self, batch: BatchId, reason: String, now: Time) {
        let failed = self.pending.split_off(&batch);
        let later = std::mem::take(&mut self.collected);
        let again = failed.into_values().flat_map(|pending| pending.writes);
        let again = again.map(|write| ((write.table, write.key), write.value));
        self.collected = again.chain(later).collect();
        self.failure = Some(reason);
        self.retry_at.get_or_insert(now + RETRY_AFTER);
    }

    /// The time has passed.
    pub(super) fn timeout(&mut self, now: Time) {
        self.retry_at = self.retry_at.filter(|at| *at > now);
    }

    /// When to try again.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.retry_at
    }

    /// Whether a batch is on its way to the disk.
    pub(super) fn is_writing(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether everything that was written is durable.
    pub(super) fn is_idle(&self) -> bool {
        self.pending.is_empty() && self.collected.is_empty()
    }

    /// Whether the disk is being rested after a failure: what is collected waits.
    pub(super) fn is_resting(&self) -> bool {
        self.retry_at.is_some()
    }

    /// The replicas were thrown away: what is still on its way to the disk is not about the new
    /// ones.
    pub(super) fn forget_marks(&mut self) {
        for pending in self.pending.values_mut() {
            pending.marks = Marks::default();
        }
    }

    /// Why the disk does not take writes, while it does not.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(writes: &[Write]) -> Vec<u8> {
        writes.iter().map(|write| write.key[0]).collect()
    }

    #[test]
    fn while_the_disk_fails_only_the_newest_write_of_a_key_is_kept() {
        let mut journal = Journal::default();
        journal.put(Table::Ring, vec![1], vec![0]);
        let (batch, _) = journal.flush([0; 4]).unwrap();
        journal.failed(batch, "disk full".into(), Time::ZERO);
        for value in 1..100 {
            journal.put(Table::Ring, vec![1], vec![value]);
            assert!(journal.flush([0; 4]).is_none());
        }
        journal.timeout(Time::ZERO + RETRY_AFTER);
        let (_, writes) = journal.flush([0; 4]).unwrap();
        assert_eq!(writes, [Write { table: Table::Ring, key: vec![1], value: Some(vec![99]) }]);
    }

    #[test]
    fn failed_writes_go_out_again_in_their_order() {
        let mut journal = Journal::default();
        for key in 1..=3 {
            journal.put(Table::Ring, vec![key], vec![]);
            journal.flush([0; 4]).unwrap();
        }
        assert!(journal.persisted(BatchId(1)).is_some());
        journal.put(Table::Ring, vec![4], vec![]);
        journal.failed(BatchId(2), "disk full".into(), Time::ZERO);
        assert!(journal.flush([0; 4]).is_none(), "the disk rests");
        assert_eq!(journal.failure(), Some("disk full"));
        journal.timeout(Time::ZERO + RETRY_AFTER);
        let (batch, writes) = journal.flush([7; 4]).unwrap();
        assert_eq!((batch, keys(&writes)), (BatchId(4), vec![2, 3, 4]));
        assert_eq!(journal.persisted(batch), Some([7; 4]));
        assert_eq!(journal.failure(), None);
    }
}
