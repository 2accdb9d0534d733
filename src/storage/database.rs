//! The redb file: made, checked, read, written; a damaged one is moved aside.
//!
//! A new file is prepared under another name and then renamed, so that a file that is found under
//! the real name was whole once: whatever does not check out there is damage. At the start every
//! page's checksum is verified, because a wrong address map is worse than an empty one.

use std::{
    cell::Cell,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    StorageError,
    dir::{FILE_MODE, remove_if_there, rename},
    marker::Mark,
};
use crate::node::event::{Row, Table, Write};

/// The file's name in the state directory.
const FILE: &str = "state.redb";
/// How many damaged files are kept for whoever wants to look; the oldest goes first.
const CORRUPT_FILES_MAX: u32 = 3;
/// redb's page cache. Chosen: 10,000 names are 2 MB, and redb's own default is 1 GiB.
const CACHE_BYTES: usize = 4 << 20;
/// The layout of tables, keys and values. Raised when an older meshd could not read it.
const SCHEMA: u64 = 1;
const SCHEMA_KEY: &str = "schema";
/// A random number that tells this file from others, and how often it was written.
const FILE_KEY: &str = "file";
const COMMITS_KEY: &str = "commits";
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// Why a file could not be used.
#[derive(Debug)]
pub(super) enum Failure {
    /// Its bytes are not what was written.
    Damaged(String),
    /// Anything else.
    Other(StorageError),
}

/// An open redb file.
#[derive(Debug)]
pub(super) struct Database {
    redb: redb::Database,
    path: PathBuf,
    mark: Cell<Mark>,
}

impl Database {
    /// Opens the directory's file and reads it; a damaged one is moved aside and replaced by an
    /// empty one, and the message says so.
    pub(super) fn open_or_recover(
        dir: &Path,
    ) -> Result<(Self, Vec<Row>, Option<String>), StorageError> {
        let path = dir.join(FILE);
        if !path.try_exists().map_err(StorageError::io("look for", &path))? {
            return Ok((Self::make(&path)?, Vec::new(), None));
        }
        let found = catch_unwind(AssertUnwindSafe(|| Self::open_and_read(&path)))
            .unwrap_or_else(|_| Err(Failure::Damaged("redb gave up on it".to_owned())));
        match found {
            Ok((database, rows)) => Ok((database, rows, None)),
            Err(Failure::Other(error)) => Err(error),
            Err(Failure::Damaged(reason)) => {
                let aside = set_aside(&path)?;
                let message = format!(
                    "{} is damaged ({reason}); it was moved to {} and this host starts with an \
                     empty state: let it join its mesh again",
                    path.display(),
                    aside.display()
                );
                Ok((Self::make(&path)?, Vec::new(), Some(message)))
            }
        }
    }

    /// Opens the same file again after a failure, which redb wants.
    pub(super) fn reopen(path: &Path) -> Result<Self, String> {
        let open = |database: Self| {
            let mark = database.read_mark().map_err(|error| error.to_string())?;
            database.mark.set(mark);
            Ok(database)
        };
        match Self::open(path) {
            Ok(database) => open(database),
            Err(Failure::Damaged(reason)) => {
                Err(format!("{} is damaged: {reason}", path.display()))
            }
            Err(Failure::Other(error)) => Err(error.to_string()),
        }
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn make(path: &Path) -> Result<Self, StorageError> {
        let fresh = path.with_extension("redb.new");
        remove_if_there(&fresh).map_err(StorageError::io("remove", &fresh))?;
        let failed = |failure| match failure {
            Failure::Damaged(reason) => {
                StorageError::Database { path: path.to_owned(), reason: reason.clone() }
            }
            Failure::Other(error) => error,
        };
        let database = Self::open(&fresh).map_err(failed)?;
        database.lay_out().map_err(|error| failed(sort_out(path, error)))?;
        rename(&fresh, path).map_err(StorageError::io("make", path))?;
        let mark = database.read_mark().map_err(|error| failed(sort_out(path, error)))?;
        Ok(Self { path: path.to_owned(), mark: Cell::new(mark), ..database })
    }

    fn open(path: &Path) -> Result<Self, Failure> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(FILE_MODE)
            .open(path)
            .map_err(|error| Failure::Other(StorageError::io("open", path)(error)))?;
        let redb = redb::Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_file(file)
            .map_err(|error| sort_out(path, error.into()))?;
        Ok(Self::over(redb, path))
    }

    pub(super) fn over(redb: redb::Database, path: &Path) -> Self {
        Self { redb, path: path.to_owned(), mark: Cell::new(Mark { file: 0, commits: 0 }) }
    }

    /// Makes the tables of a new file.
    pub(super) fn lay_out(&self) -> Result<(), redb::Error> {
        let transaction = self.redb.begin_write()?;
        let mut meta = transaction.open_table(META)?;
        meta.insert(SCHEMA_KEY, SCHEMA)?;
        meta.insert(FILE_KEY, rand::random::<u64>())?;
        drop(meta);
        for table in Table::ALL {
            transaction.open_table(definition(table))?;
        }
        Ok(transaction.commit()?)
    }

    fn open_and_read(path: &Path) -> Result<(Self, Vec<Row>), Failure> {
        let length = fs::metadata(path)
            .map_err(|error| Failure::Other(StorageError::io("look at", path)(error)))?
            .len();
        if length == 0 {
            return Err(Failure::Damaged("it is empty".to_owned()));
        }
        let mut database = Self::open(path)?;
        let rows = database.read()?;
        Ok((database, rows))
    }

    /// Checks the file and reads all of it.
    pub(super) fn read(&mut self) -> Result<Vec<Row>, Failure> {
        let path = &self.path;
        match self.redb.check_integrity() {
            Ok(true) => {}
            Ok(false) => return Err(Failure::Damaged("checksums do not match".to_owned())),
            Err(error) => return Err(sort_out(path, error.into())),
        }
        let schema = self.schema().map_err(|error| sort_out(path, error))?;
        match schema {
            Some(SCHEMA) => {}
            Some(found) if found > SCHEMA => {
                let path = path.to_owned();
                let newer = StorageError::Newer { path, found, known: SCHEMA };
                return Err(Failure::Other(newer));
            }
            _ => return Err(Failure::Damaged("it has no valid schema version".to_owned())),
        }
        let rows = self.rows().map_err(|error| sort_out(path, error))?;
        let mark = self.read_mark().map_err(|error| sort_out(path, error))?;
        self.mark.set(mark);
        Ok(rows)
    }

    fn schema(&self) -> Result<Option<u64>, redb::Error> {
        let table = self.redb.begin_read()?.open_table(META)?;
        Ok(table.get(SCHEMA_KEY)?.map(|value| value.value()))
    }

    /// Which commit of which file was the last.
    pub(super) fn mark(&self) -> Mark {
        self.mark.get()
    }

    fn read_mark(&self) -> Result<Mark, redb::Error> {
        let table = self.redb.begin_read()?.open_table(META)?;
        let number = |key| Ok::<_, redb::Error>(table.get(key)?.map_or(0, |value| value.value()));
        Ok(Mark { file: number(FILE_KEY)?, commits: number(COMMITS_KEY)? })
    }

    fn rows(&self) -> Result<Vec<Row>, redb::Error> {
        let transaction = self.redb.begin_read()?;
        let mut rows = Vec::new();
        for table in Table::ALL {
            let open = match transaction.open_table(definition(table)) {
                // A file of an earlier version.
                Err(redb::TableError::TableDoesNotExist(_)) => continue,
                open => open?,
            };
            for entry in open.iter()? {
                let (key, value) = entry?;
                rows.push(Row { table, key: key.value().to_vec(), value: value.value().to_vec() });
            }
        }
        Ok(rows)
    }

    /// Makes the writes durable, all or none. `undo` receives, newest last, what would take back
    /// each write that was tried, also when this fails.
    pub(super) fn commit<'a>(
        &self,
        writes: impl Iterator<Item = &'a Write>,
        undo: &mut Vec<Write>,
    ) -> Result<(), redb::Error> {
        let mut transaction = self.redb.begin_write()?;
        transaction.set_durability(redb::Durability::Immediate)?;
        {
            let mut tables = Tables::new();
            for write in writes {
                tables.apply(&transaction, write, undo)?;
            }
        }
        let mark = Mark { commits: self.mark.get().commits + 1, ..self.mark.get() };
        transaction.open_table(META)?.insert(COMMITS_KEY, mark.commits)?;
        transaction.commit()?;
        self.mark.set(mark);
        Ok(())
    }
}

type Open<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// The tables of one transaction, each opened when it is first written.
struct Tables<'t> {
    open: [Option<Open<'t>>; Table::ALL.len()],
}

impl<'t> Tables<'t> {
    fn new() -> Self {
        Self { open: Default::default() }
    }

    fn apply(
        &mut self,
        transaction: &'t redb::WriteTransaction,
        write: &Write,
        undo: &mut Vec<Write>,
    ) -> Result<(), redb::Error> {
        let slot = &mut self.open[write.table as usize];
        let table = match slot {
            Some(table) => table,
            None => slot.insert(transaction.open_table(definition(write.table))?),
        };
        let key = write.key.as_slice();
        let old = match &write.value {
            Some(value) => table.insert(key, value.as_slice())?,
            None => table.remove(key)?,
        };
        let value = old.map(|old| old.value().to_vec());
        undo.push(Write { table: write.table, key: write.key.clone(), value });
        Ok(())
    }
}

/// Tells damage from the system's errors.
fn sort_out(path: &Path, error: redb::Error) -> Failure {
    use redb::Error;
    match error {
        Error::Io(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            Failure::Damaged(error.to_string())
        }
        Error::Io(error) => Failure::Other(StorageError::io("use", path)(error)),
        Error::DatabaseAlreadyOpen => Failure::Other(StorageError::Database {
            path: path.to_owned(),
            reason: "another process has it open; stop that one first".to_owned(),
        }),
        error @ (Error::Corrupted(_)
        | Error::UpgradeRequired(_)
        | Error::RepairAborted
        | Error::TableTypeMismatch { .. }
        | Error::TableIsMultimap(_)
        | Error::TableDoesNotExist(_)
        | Error::TypeDefinitionChanged { .. }) => Failure::Damaged(error.to_string()),
        error => {
            let reason = error.to_string();
            Failure::Other(StorageError::Database { path: path.to_owned(), reason })
        }
    }
}

/// Moves a damaged file away, under the first free number; the oldest make room.
fn set_aside(path: &Path) -> Result<PathBuf, StorageError> {
    let numbered = |number: u32| path.with_extension(format!("redb.corrupt-{number}"));
    if numbered(CORRUPT_FILES_MAX).exists() {
        for number in 1..CORRUPT_FILES_MAX {
            let to = numbered(number);
            fs::rename(numbered(number + 1), &to).map_err(StorageError::io("replace", &to))?;
        }
    }
    let free = (1..=CORRUPT_FILES_MAX).map(numbered).find(|aside| !aside.exists());
    let aside = free.unwrap_or_else(|| numbered(CORRUPT_FILES_MAX));
    rename(path, &aside).map_err(StorageError::io("move aside to", &aside))?;
    Ok(aside)
}
