//! A mark outside of the state directory that tells whether the disk is still the one that the last
//! run left: it lies on a file system that is empty after a restart of the machine, beside the
//! API's socket, and says which commit of which file was the last.
//!
//! Without it a state directory that was restored from an old copy looks like any other.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

use super::dir::FILE_MODE;

/// Which commit of which file was the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Drawn at random when the file was made.
    pub(super) file: u64,
    /// Commits so far.
    pub(super) commits: u64,
}

/// The file that holds the mark.
#[derive(Debug)]
pub(super) struct Marker(Option<File>);

impl Marker {
    /// Opens the mark, and says what it said. Where that is impossible there is none: the disk is
    /// then compared with a peer's memory at each start.
    pub(super) fn open(path: Option<&Path>) -> (Self, Option<Mark>) {
        let open = |path: &Path| -> io::Result<(File, Option<Mark>)> {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
            let file = options.open(path)?;
            let mut bytes = [0; 16];
            let whole = file.read_exact_at(&mut bytes, 0).is_ok();
            let number =
                |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte]));
            let mark = Mark { file: number(0), commits: number(8) };
            Ok((file, whole.then_some(mark)))
        };
        match path.map(open) {
            Some(Ok((file, mark))) => (Self(Some(file)), mark),
            Some(Err(error)) => {
                tracing::warn!("no mark of the last commit can be kept: {error}");
                (Self(None), None)
            }
            None => (Self(None), None),
        }
    }

    /// A commit was made.
    pub(super) fn note(&mut self, mark: Mark) {
        let bytes = [mark.file.to_le_bytes(), mark.commits.to_le_bytes()].concat();
        if let Some(file) = &self.0
            && let Err(error) = file.write_all_at(&bytes, 0)
        {
            tracing::warn!("the mark of the last commit cannot be written: {error}");
            self.0 = None;
        }
    }
}
