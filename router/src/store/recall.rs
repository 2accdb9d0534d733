//! Recall: a replica that lost what it once wrote is told it by others.

use super::{Register, Store};
use crate::{Mutation, PeerId, mutation};

/// How far the clock jumps after a recall. Chosen: more writes than a host makes between two
/// exchanges with any peer.
const RECALL_JUMP: u64 = 1 << 20;
/// By how much more, at most, and in which steps: two recalls from one state do not jump alike.
const SPREAD: u64 = 1 << 20;
const SPREAD_STEP: u64 = 1 << 10;

impl<R: Register> Store<R> {
    /// Begins taking own entries from others: a host that lost its disk, or may have an old one,
    /// learns what it once wrote. It must not write before it has ended.
    pub fn begin_recall(&mut self) {
        self.recalling = true;
        self.recalled_from = self.vector.get(&self.me);
        self.recalls_everything = self.vector.dots.is_empty();
    }

    /// Own writes that others told us may be told on at once, and must: what is told of one origin
    /// leaves out what another's entries superseded. Not while own writes are on their way to the
    /// disk.
    pub(super) fn tell_recalled(&mut self, origin: PeerId, upto: u64) {
        if origin == self.me && self.recalling && self.durable >= self.recalled_from {
            self.durable = self.durable.max(upto);
        }
    }

    /// Ends taking own entries from others. If this host wrote what it does not know for sure,
    /// here or into another store of the mesh, `jump` is a number that this process drew: the
    /// clock jumps by a span that depends on it, so that what it wrote and nobody told it is not
    /// written a second time with other content; where keys have one writer, what it was told is
    /// written anew, and what it was not told is gone everywhere.
    pub fn end_recall(&mut self, jump: Option<u64>) {
        if !std::mem::take(&mut self.recalling) {
            return;
        }
        self.moves_all();
        self.settle_base();
        if let Some(number) = jump {
            let more = number % (SPREAD / SPREAD_STEP) * SPREAD_STEP;
            let without = mutation::on(Mutation::RecallWithoutJump);
            let jump = if without { 0 } else { RECALL_JUMP + more };
            self.cover(self.me, self.clock + jump);
            if R::SINGLE_WRITER {
                self.write_anew();
            }
        }
    }

    /// Whether it is being told everything, and knew nothing before.
    pub fn recalls_everything(&self) -> bool {
        self.recalling && self.recalls_everything
    }

    /// Whether others have told more of this host's own writes than it knew.
    pub fn was_recalled(&self) -> bool {
        self.vector.get(&self.me) > self.recalled_from
    }

    /// Tells everybody the whole own state, everything in it new: for who was told by somebody who
    /// may have lagged, so that others may hold later own writes, which cannot be replaced one by
    /// one; and for who may have been dropped by others ([`Store::drop_origin`]). Only where keys
    /// have one writer.
    pub fn write_anew(&mut self) {
        self.raise_floor(self.me, self.vector.get(&self.me));
        let own: Vec<R::Key> = self.keys_of(self.me).cloned().collect();
        for key in own {
            let value = self.entries[&key].value.clone();
            self.write(key, value);
        }
    }

    /// Whether it is taking own entries from others, and must not write.
    pub fn is_recalling(&self) -> bool {
        self.recalling
    }
}
