//! Answers that wait for the disk: who is told that something was done can rely on it after a
//! crash.
//!
//! Attaches and detaches wait in their slots; this is for all other requests that change the state.

use std::collections::BTreeMap;

use super::{
    Node,
    event::{BatchId, RequestId},
    request::{Code, Refusal, Reply},
};

/// Replies by the batch that must be durable before they are given.
pub(super) type Held = BTreeMap<BatchId, Vec<(RequestId, Reply)>>;

impl Node {
    /// Answers a request once all that it has changed is durable; a refusal at once.
    pub(super) fn acknowledge(&mut self, id: RequestId, result: Result<Reply, Refusal>) {
        match result {
            Ok(reply) => {
                let batch = self.journal.current();
                self.acknowledgements.entry(batch).or_default().push((id, reply));
            }
            refusal => self.reply(id, refusal),
        }
    }

    /// After a flush: whoever changed nothing waits for what was on its way before, if anything
    /// was.
    pub(super) fn acknowledge_unchanged(&mut self) {
        if self.journal.is_idle() {
            self.acknowledge_upto(BatchId(u64::MAX));
        } else if !self.journal.is_resting()
            && let Some(waiting) = self.acknowledgements.remove(&self.journal.current())
        {
            let last = BatchId(self.journal.current().0 - 1);
            self.acknowledgements.entry(last).or_default().extend(waiting);
        }
    }

    /// A batch and all before it are durable.
    pub(super) fn acknowledge_upto(&mut self, batch: BatchId) {
        while let Some(entry) = self.acknowledgements.first_entry()
            && *entry.key() <= batch
        {
            for (id, reply) in entry.remove() {
                self.reply(id, Ok(reply));
            }
        }
    }

    /// A batch and all after it failed.
    pub(super) fn acknowledge_failure(&mut self, batch: BatchId) {
        let reason = self.journal.failure().unwrap_or_default().to_owned();
        for (id, _) in self.acknowledgements.split_off(&batch).into_values().flatten() {
            let text = format!("it is done, but a restart may undo it: not written: {reason}");
            let hint = "make room on the disk of the state directory, or make it writable";
            self.reply(id, Err(Refusal::new(Code::Internal, text, hint)));
        }
    }
}
