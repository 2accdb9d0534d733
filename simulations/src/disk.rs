//! A host's disk: batches become durable in their order, some time after they were begun.
//!
//! What a crash may leave is what redb and fsync allow: each batch wholly or not at all, and never
//! one without all before it. A batch whose commit failed is taken back before the next is written;
//! a crash in between may leave it there, although the node was told that it failed.

use std::collections::{BTreeMap, VecDeque};

use mesh_router::{Kind, PeerId, codec};
use meshwork::node::event::{BatchId, Row, Table, Write};

use crate::queue::Micros;

/// What is durable, and what is on its way to be.
#[derive(Debug, Default, Clone)]
pub(crate) struct Disk {
    rows: BTreeMap<(Table, Vec<u8>), Vec<u8>>,
    pending: VecDeque<(BatchId, Vec<Write>)>,
    /// When the last of them will be durable.
    busy_until: Micros,
    /// Batches that failed and may have reached the disk in spite of it.
    limbo: Vec<Vec<Write>>,
    /// It takes no writes.
    pub(crate) broken: bool,
    /// Per kind, the greatest own counter that was ever durable.
    durable: [u64; Kind::COUNT],
    me: PeerId,
}

impl Disk {
    pub(crate) fn new(me: PeerId) -> Self {
        Self { me, ..Self::default() }
    }

    /// A batch is begun; says when it will be durable.
    pub(crate) fn begin(&mut self, batch: BatchId, writes: Vec<Write>, done: Micros) -> Micros {
        self.pending.push_back((batch, writes));
        self.busy_until = self.busy_until.max(done);
        self.busy_until
    }

    /// A batch and all before it reach the disk.
    pub(crate) fn store(&mut self, upto: BatchId) {
        self.limbo.clear();
        while self.pending.front().is_some_and(|(batch, _)| *batch <= upto) {
            if let Some((_, writes)) = self.pending.pop_front() {
                self.apply(writes);
            }
        }
    }

    fn apply(&mut self, writes: Vec<Write>) {
        for Write { table, key, value } in writes {
            let Some(value) = value else {
                self.rows.remove(&(table, key));
                continue;
            };
            if table == Table::Vectors
                && let Ok((kind, origin)) = codec::decode::<(Kind, PeerId)>(&key)
                && origin == self.me
                && let Ok((counter, _)) = codec::decode::<(u64, u64)>(&value)
            {
                let durable = &mut self.durable[kind as usize];
                *durable = counter.max(*durable);
            }
            self.rows.insert((table, key), value);
        }
    }

    /// Whether a batch is still on its way.
    pub(crate) fn is_pending(&self, batch: BatchId) -> bool {
        self.pending.iter().any(|(pending, _)| *pending == batch)
    }

    /// A batch and all after it fail.
    pub(crate) fn fail(&mut self) {
        if self.limbo.is_empty() {
            self.limbo = self.pending.drain(..).map(|(_, writes)| writes).collect();
        }
        self.pending.clear();
    }

    /// The machine stops: so many of the batches that were on their way, or that failed last, have
    /// made it.
    pub(crate) fn crash(&mut self, made_it: usize) {
        for writes in std::mem::take(&mut self.limbo).into_iter().take(made_it) {
            self.apply(writes);
        }
        for (_, writes) in self.pending.drain(..).take(made_it).collect::<Vec<_>>() {
            self.apply(writes);
        }
        self.busy_until = 0;
    }

    /// How many batches may or may not be there after a crash.
    pub(crate) fn open_len(&self) -> usize {
        self.pending.len().max(self.limbo.len())
    }

    /// An older image takes its place; what was durable is remembered for the checkers.
    pub(crate) fn restore(&mut self, image: &Self) {
        self.rows.clone_from(&image.rows);
        self.pending.clear();
        self.limbo.clear();
        self.busy_until = 0;
    }

    /// A machine with the same identity is gone: what was durable there is remembered here.
    pub(crate) fn outlives(&mut self, other: &Self) {
        for (kept, other) in self.durable.iter_mut().zip(other.durable) {
            *kept = other.max(*kept);
        }
    }

    /// How many bytes it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.rows.iter().map(|((_, key), value)| key.len() + value.len()).sum()
    }

    /// Everything is lost.
    pub(crate) fn wipe(&mut self) {
        self.rows.clear();
        self.pending.clear();
        self.limbo.clear();
        self.busy_until = 0;
    }

    pub(crate) fn get(&self, table: Table, key: &[u8]) -> Option<&[u8]> {
        self.rows.get(&(table, key.to_vec())).map(Vec::as_slice)
    }

    /// What a node starts with.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let row = |((table, key), value): (&(Table, Vec<u8>), &Vec<u8>)| Row {
            table: *table,
            key: key.clone(),
            value: value.clone(),
        };
        self.rows.iter().map(row).collect()
    }

    /// The greatest own counter of a kind that was ever durable.
    pub(crate) fn durable(&self, kind: Kind) -> u64 {
        self.durable[kind as usize]
    }
}
