//! What survives a crash: one redb file, written by one thread, in the order of the node's batches.
//!
//! All batches that wait when the thread is free share one transaction and so one fsync. A commit
//! is one-phase (redb's checksums tell a torn one from a whole one), because a second fsync would
//! halve the rate at which containers start. Reading happens once, at the start: the node
//! keeps its state in memory.
//!
//! * [`dir`]: the state directory, its lock, and files that are replaced as a whole;
//!   `database`: the redb file; `writer`: the thread; `marker`: whether the disk is the last run's.
//!
//! Deliberately absent: any knowledge of what keys and values mean, and any read after the start.
//!
//! Invariants: one process per directory; what is announced as durable is a prefix of the batches;
//! a batch that was reported failed leaves nothing behind while this process lives.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use crate::node::event::{BatchId, Input, Row, Write};

mod database;
pub mod dir;
mod marker;
#[cfg(test)]
pub(crate) mod scratch;
#[cfg(test)]
mod tests;
mod writer;

use marker::Marker;
use writer::{Job, Writer};

/// Why the state could not be opened. Nothing has been changed, except where a variant says so.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Another process holds the directory's lock.
    #[error(
        "another meshd{} uses the state directory {}; stop it, or give this one another \
         --state-dir",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), dir.display()
    )]
    InUse {
        /// Which directory.
        dir: PathBuf,
        /// Who holds it, as far as the lock file says.
        pid: Option<u32>,
    },
    /// The path exists and is something else.
    #[error("{} is not a directory; remove it or choose another --state-dir", .0.display())]
    NotADirectory(PathBuf),
    /// The system refused an operation on a file or directory.
    #[error("cannot {what} {}: {source}; {}", path.display(), advice(source))]
    Io {
        /// What was tried, as an infinitive.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A later release wrote the file.
    #[error(
        "{} was written by a newer meshd (schema {found}, this one knows {known}); start that \
         release again, or move the file away to rejoin with an empty state", path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u64,
        /// Ours.
        known: u64,
    },
    /// redb refused for a reason that is neither damage nor the system's.
    #[error("cannot open {}: {reason}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What redb said.
        reason: String,
    },
}

impl StorageError {
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// What to do about an error of the system.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run meshd as root, or choose another --state-dir",
        io::ErrorKind::ReadOnlyFilesystem => {
            "remount it for writing, or choose another --state-dir"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space on that file system"
        }
        _ => "look at the file system (dmesg) or choose another --state-dir",
    }
}

/// The state as it was found, and the way to change it.
#[derive(Debug)]
pub struct Opened {
    /// Where to write from now on.
    pub storage: Storage,
    /// All that the disk held, table by table, in the order of keys.
    pub rows: Vec<Row>,
    /// A damaged file was moved aside and the state is empty: a line for the log.
    pub recovered: Option<String>,
    /// The disk is as the last run left it: it is new, or a mark outside of it says so.
    pub trusted: bool,
}

/// The way to the writing thread. Dropping it flushes, as [`Storage::shutdown`] does.
#[derive(Debug)]
pub struct Storage {
    jobs: Option<mpsc::Sender<Job>>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    _lock: dir::Lock,
}

impl Storage {
    /// Locks and reads the state directory (made with mode 0700 if absent) and starts the thread,
    /// which reports [`Input::Persisted`] and [`Input::PersistFailed`] to `inputs`. Blocks on the
    /// disk. `marker` is a file on a file system that is empty after the machine's start.
    ///
    /// # Errors
    /// See [`StorageError`]. A damaged file is not an error: see [`Opened::recovered`].
    pub fn open(
        state_dir: &Path,
        marker: Option<&Path>,
        inputs: tokio::sync::mpsc::Sender<Input>,
    ) -> Result<Opened, StorageError> {
        dir::prepare(state_dir)?;
        let lock = dir::Lock::take(state_dir)?;
        let (database, rows, recovered) = database::Database::open_or_recover(state_dir)?;
        let (marker, last) = Marker::open(marker);
        let mark = database.mark();
        let same = last.is_some_and(|last| last.file == mark.file && last.commits <= mark.commits);
        let trusted = rows.is_empty() || same;
        let (jobs, queue) = mpsc::channel();
        let closing = Arc::new(AtomicBool::new(false));
        let writer = Writer::new((database, marker), queue, inputs, Arc::clone(&closing));
        let thread = std::thread::Builder::new()
            .name("storage".to_owned())
            .spawn(move || writer.run())
            .map_err(StorageError::io("start a thread for", state_dir))?;
        let storage = Self { jobs: Some(jobs), closing, thread: Some(thread), _lock: lock };
        Ok(Opened { storage, rows, recovered, trusted })
    }

    /// Queues a batch; never blocks. It becomes durable after all earlier ones, or fails.
    ///
    /// How many may wait is the node's bound: each belongs to a request or a frame it has accepted.
    pub fn persist(&self, batch: BatchId, writes: Vec<Write>) {
        self.submit(Job::Batch { batch, writes });
    }

    /// The driver has taken [`Input::PersistFailed`] from the channel and hands it to the node now.
    ///
    /// From a failure until this call all batches are dropped: the node had begun them before it
    /// knew, so the failure speaks for them too.
    pub fn resume(&self) {
        self.submit(Job::Resume);
    }

    fn submit(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // The thread ends only after this sender, unless it panicked; then nothing is durable
            // any more and nothing is announced either, which is safe.
            if jobs.send(job).is_err() {
                tracing::error!("the storage thread is gone; nothing is written any more");
            }
        }
    }

    /// Writes what waits, closes the file and gives the directory free. Blocks on the disk.
    pub fn shutdown(mut self) {
        self.finish();
    }

    fn finish(&mut self) {
        self.closing.store(true, Ordering::Release);
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the storage thread panicked; the last batches may not be on disk");
        }
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.finish();
    }
}
