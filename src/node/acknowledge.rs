//! Answers that wait for the disk: who is told that something was done can rely on it after a
//! crash.
//!
//! Attaches and detaches wait in their slots; this is for all other requests that change the state,
//! and for what peers want to know to be on disk.

use std::collections::BTreeMap;

use mesh_router::PeerId;

use super::{
    Node,
    event::{BatchId, RequestId},
    peers::PeerMessage,
    request::{Code, Refusal, Reply},
};

/// What is said once the disk has it.
#[derive(Debug)]
pub(super) enum Answer {
    Reply(RequestId, Reply),
    Message(PeerId, PeerMessage),
}

/// Answers by the batch that must be durable before they are given.
pub(super) type Held = BTreeMap<BatchId, Vec<Answer>>;

impl Node {
    /// Answers a request once all that it has changed is durable; a refusal at once.
    pub(super) fn acknowledge(&mut self, id: RequestId, result: Result<Reply, Refusal>) {
        match result {
            Ok(reply) => self.hold(Answer::Reply(id, reply)),
            refusal => self.reply(id, refusal),
        }
    }

    /// Sends a message once all that this host knows now is durable; not if the disk fails, for who
    /// waits for it asks again.
    pub(super) fn confirm(&mut self, to: PeerId, message: PeerMessage) {
        self.hold(Answer::Message(to, message));
    }

    fn hold(&mut self, answer: Answer) {
        self.acknowledgements.entry(self.journal.current()).or_default().push(answer);
    }

    /// Peers of a mesh that this host has left are told nothing more.
    pub(super) fn forget_confirmations(&mut self) {
        for answers in self.acknowledgements.values_mut() {
            answers.retain(|answer| matches!(answer, Answer::Reply(..)));
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
            for answer in entry.remove() {
                match answer {
                    Answer::Reply(id, reply) => self.reply(id, Ok(reply)),
                    Answer::Message(to, message) => self.send_to_peer(to, &message),
                }
            }
        }
    }

    /// A batch and all after it failed.
    pub(super) fn acknowledge_failure(&mut self, batch: BatchId) {
        let reason = self.journal.failure().unwrap_or_default().to_owned();
        for answer in self.acknowledgements.split_off(&batch).into_values().flatten() {
            let Answer::Reply(id, _) = answer else { continue };
            let text = format!("it is done, but a restart may undo it: not written: {reason}");
            let hint = "make room on the disk of the state directory, or make it writable";
            self.reply(id, Err(Refusal::new(Code::Internal, text, hint)));
        }
    }
}
