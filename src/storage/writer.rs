//! The writing thread: takes all batches that wait, commits them as one, reports the last.
//!
//! ```text
//!             commit works                 Resume: the file is opened anew
//!           +-------------+              +----------------------------------+
//!           v             |              v                                  |
//!        writing ---------+--------> (commit fails, PersistFailed) ----> failed
//!                                                                 batches are dropped
//! ```
//!
//! A failed commit leaves nothing behind: if the transaction reached the disk in spite of the
//! error, the undo log takes it back before anything else is written.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::{database::Database, marker::Marker};
use crate::node::event::{BatchId, Input, Write};

/// The most writes in one transaction. Chosen: about 10 ms of work, and a bound on memory.
const COMMIT_WRITES_MAX: usize = 4096;
/// How long the next of several busy askers is waited for. Chosen: a small part of an fsync.
const COMPANY: Duration = Duration::from_micros(100);
/// How often a full input channel is tried again; only a stalled node sees this.
const RETRY: Duration = Duration::from_millis(1);

/// What the thread is asked to do, in order.
pub(super) enum Job {
    /// Make this durable.
    Batch {
        /// Its number.
        batch: BatchId,
        /// The writes.
        writes: Vec<Write>,
    },
    /// The node knows of the failure; batches after this one count again.
    Resume,
}

enum State {
    Writing(Database),
    /// The file is closed; the undo log of the failed commit, and whether the node still has to
    /// be told.
    Failed {
        undo: Vec<Write>,
        dropping: bool,
    },
}

/// The thread's state.
pub(super) struct Writer {
    state: State,
    path: PathBuf,
    marker: Marker,
    /// How many batches the last commit held.
    last_group: usize,
    queue: mpsc::Receiver<Job>,
    inputs: Sender<Input>,
    closing: Arc<AtomicBool>,
}

impl Writer {
    pub(super) fn new(
        (database, marker): (Database, Marker),
        queue: mpsc::Receiver<Job>,
        inputs: Sender<Input>,
        closing: Arc<AtomicBool>,
    ) -> Self {
        let path = database.path().to_owned();
        let state = State::Writing(database);
        Self { state, path, marker, last_group: 0, queue, inputs, closing }
    }

    /// Runs until the queue is closed and empty; then the file is closed.
    pub(super) fn run(mut self) {
        let mut group = Vec::new();
        let mut next = self.queue.recv().ok();
        while let Some(job) = next {
            next = self.gather(job, &mut group);
            self.write(&mut group);
            if next.is_none() {
                next = self.queue.recv().ok();
            }
        }
    }

    /// Adds what waits to the group, up to its bound; returns the job that did not fit.
    fn gather(&mut self, first: Job, group: &mut Vec<(BatchId, Vec<Write>)>) -> Option<Job> {
        let mut size = 0;
        let mut job = first;
        loop {
            match job {
                Job::Resume if group.is_empty() => self.resume(),
                Job::Resume => return Some(Job::Resume),
                Job::Batch { batch, writes } => {
                    size += writes.len();
                    group.push((batch, writes));
                }
            }
            if size >= COMMIT_WRITES_MAX {
                return None;
            }
            job = self.follower(group.len())?;
        }
    }

    /// The next job, if it is there. Those whose batches were committed together mostly come back
    /// together: up to as many are waited for, or else every second commit would hold only the
    /// quickest of them.
    fn follower(&self, gathered: usize) -> Option<Job> {
        if gathered < self.last_group {
            self.queue.recv_timeout(COMPANY).ok()
        } else {
            self.queue.try_recv().ok()
        }
    }

    fn resume(&mut self) {
        if let State::Failed { dropping, .. } = &mut self.state {
            *dropping = false;
        }
    }

    /// Commits a group, or reports that it failed; leaves the group empty.
    fn write(&mut self, group: &mut Vec<(BatchId, Vec<Write>)>) {
        let (Some(first), Some(last)) = (group.first(), group.last()) else { return };
        let (first, last) = (first.0, last.0);
        self.last_group = group.len();
        if matches!(self.state, State::Failed { dropping: true, .. }) {
            group.clear();
            return;
        }
        let result = self.reopen().and_then(|()| self.commit(group));
        group.clear();
        match result {
            Ok(()) => self.report(Input::Persisted(last)),
            Err(reason) => {
                let reason = format!("cannot write {}: {reason}", self.path.display());
                tracing::warn!("{reason}");
                self.report(Input::PersistFailed { batch: first, reason });
            }
        }
    }

    /// Opens the file anew after a failure and takes back what the failure may have left.
    fn reopen(&mut self) -> Result<(), String> {
        let State::Failed { undo, dropping } = &mut self.state else { return Ok(()) };
        *dropping = true;
        let database = Database::reopen(&self.path)?;
        if !undo.is_empty() {
            let back = undo.iter().rev();
            database.commit(back, &mut Vec::new()).map_err(|error| error.to_string())?;
        }
        self.state = State::Writing(database);
        Ok(())
    }

    fn commit(&mut self, group: &[(BatchId, Vec<Write>)]) -> Result<(), String> {
        let State::Writing(database) = &self.state else {
            return Err("it is not open".to_owned());
        };
        let mut undo = Vec::new();
        let writes = group.iter().flat_map(|(_, writes)| writes);
        // redb panics on some damage that it meets; the thread must live to report it.
        let result = catch_unwind(AssertUnwindSafe(|| database.commit(writes, &mut undo)))
            .map_err(|_| "redb gave up on it".to_owned())
            .and_then(|result| result.map_err(|error| error.to_string()));
        if result.is_ok() {
            self.marker.note(database.mark());
        } else {
            // Closes the file, too: redb refuses to go on with one that had an error.
            self.state = State::Failed { undo, dropping: true };
        }
        result
    }

    /// Hands an input to the node. Waits while the channel is full, unless all is being closed:
    /// nobody reads any more then.
    fn report(&self, mut input: Input) {
        loop {
            match self.inputs.try_send(input) {
                Ok(()) | Err(TrySendError::Closed(_)) => return,
                Err(TrySendError::Full(_)) if self.closing.load(Ordering::Acquire) => return,
                Err(TrySendError::Full(back)) => input = back,
            }
            thread::sleep(RETRY);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        node::event::{Row, Table},
        storage::scratch::Scratch,
    };

    fn write(key: &[u8], value: Option<&[u8]>) -> Write {
        Write { table: Table::Ring, key: key.to_vec(), value: value.map(<[u8]>::to_vec) }
    }

    #[test]
    fn a_commit_that_failed_but_reached_the_disk_is_taken_back() {
        let scratch = Scratch::new();
        let (database, ..) = Database::open_or_recover(scratch.path()).unwrap();
        let path = database.path().to_owned();
        let before = [write(b"changed", Some(b"old")), write(b"removed", Some(b"old"))];
        database.commit(before.iter(), &mut Vec::new()).unwrap();
        let failed = [
            write(b"changed", Some(b"new")),
            write(b"changed", Some(b"newer")),
            write(b"removed", None),
            write(b"added", Some(b"new")),
        ];
        let mut undo = Vec::new();
        database.commit(failed.iter(), &mut undo).unwrap();
        drop(database);
        let (jobs, queue) = mpsc::channel();
        let (inputs, mut reports) = tokio::sync::mpsc::channel(8);
        let state = State::Failed { undo, dropping: true };
        let closing = Arc::new(AtomicBool::new(false));
        let marker = Marker::open(None).0;
        let writer = Writer { state, path, marker, last_group: 0, queue, inputs, closing };
        for (batch, key) in [(1, b"too late"), (2, b"in time!")] {
            let writes = vec![write(key, Some(b"value"))];
            jobs.send(Job::Batch { batch: BatchId(batch), writes }).unwrap();
            jobs.send(Job::Resume).unwrap();
        }
        drop(jobs);
        writer.run();
        assert!(matches!(reports.try_recv(), Ok(Input::Persisted(BatchId(2)))));
        assert!(reports.try_recv().is_err());
        let (_, rows, _) = Database::open_or_recover(scratch.path()).unwrap();
        let row = |key: &[u8], value: &[u8]| Row {
            table: Table::Ring,
            key: key.to_vec(),
            value: value.to_vec(),
        };
        let expected =
            [row(b"changed", b"old"), row(b"in time!", b"value"), row(b"removed", b"old")];
        assert_eq!(rows, expected);
    }
}
