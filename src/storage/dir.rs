//! The state directory: made private, held by one process, its small files replaced as a whole.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::StorageError;

/// Only its owner may look into the directory: it holds the host's key and the mesh's secret.
const DIR_MODE: u32 = 0o700;
/// The same for each file.
pub const FILE_MODE: u32 = 0o600;
/// The file that a running meshd holds a lock on.
const LOCK_FILE: &str = "lock";

/// Makes the directory with its parents, or checks the one that is there.
///
/// # Errors
/// When it cannot be made or is no directory.
pub fn prepare(dir: &Path) -> Result<(), StorageError> {
    match fs::metadata(dir) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => Err(StorageError::NotADirectory(dir.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(StorageError::NotADirectory(file_above(dir)))
        }
        Err(_) => DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(dir)
            .map_err(StorageError::io("make the state directory", dir)),
    }
}

/// The first part of the path that is there but is no directory.
fn file_above(path: &Path) -> PathBuf {
    let is_file = |part: &&Path| fs::metadata(part).is_ok_and(|found| !found.is_dir());
    path.ancestors().find(is_file).unwrap_or(path).to_owned()
}

/// Holds a state directory for this process, until dropped or until the process ends.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock.
    ///
    /// # Errors
    /// [`StorageError::InUse`] when another process has it, or the system's error.
    pub fn take(dir: &Path) -> Result<Self, StorageError> {
        let path = dir.join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(&path)
            .map_err(StorageError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The number only helps to find the other process.
                let pid =
                    file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(StorageError::InUse { dir: dir.to_owned(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(StorageError::io("lock", &path)(error)),
        }
        // A full disk must not keep a host with good state from starting: the lock counts alone.
        let note = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = note {
            tracing::debug!(%error, "cannot note the process id in {}", path.display());
        }
        Ok(Self { file })
    }
}

impl Drop for Lock {
    /// Closing the file is not enough while a child that is being started has it, too.
    fn drop(&mut self) {
        if let Err(error) = self.file.unlock() {
            tracing::debug!(%error, "cannot unlock the state directory");
        }
    }
}

/// Puts a file with these bytes in place, all or nothing, durably, readable by its owner only.
///
/// # Errors
/// The system's; the old file, if any, is then still there.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let fresh = path.with_extension("new");
    let write = || -> io::Result<()> {
        remove_if_there(&fresh)?;
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        rename(&fresh, path)
    };
    write().map_err(StorageError::io("write", path))
}

/// Renames a file within a directory, durably.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

pub(super) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
