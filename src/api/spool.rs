//! The spool of detaches that could not be asked for because meshd was away.
//!
//! A small file per detach in `pending-detach/` beside the socket: the first line is the container,
//! the second the interface. mesh-cni adds, meshd takes. The directory is on /run: it forgets at a
//! reboot, as do containers. No fsync for that reason.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::types::Holder;

/// The directory's name, beside the socket.
const DIRECTORY: &str = "pending-detach";

/// Chosen: a host has a few thousand containers at most; beyond that something is badly wrong.
const ENTRIES_MAX: usize = 65_536;

/// The spool that belongs to a socket.
#[derive(Debug, Clone)]
pub struct Spool {
    directory: PathBuf,
}

impl Spool {
    /// The spool beside a socket.
    pub fn beside(socket: &Path) -> Self {
        Self { directory: socket.with_file_name(DIRECTORY) }
    }

    /// Notes that what a container's interface holds is to be taken back. Idempotent.
    ///
    /// # Errors
    /// When the directory or the file cannot be written, or the spool is full.
    pub fn add(&self, holder: &Holder) -> io::Result<()> {
        fs::create_dir_all(&self.directory)?;
        let path = self.path(holder);
        if !path.exists() && fs::read_dir(&self.directory)?.count() >= ENTRIES_MAX {
            return Err(io::Error::other(format!("{} is full", self.directory.display())));
        }
        // Written beside and renamed, so that nobody reads half of it.
        let scratch = path.with_extension(format!("{}.tmp", std::process::id()));
        fs::write(&scratch, format!("{}\n{}\n", holder.container, holder.interface))?;
        fs::rename(&scratch, &path)
    }

    /// Whether such a note exists.
    pub fn contains(&self, holder: &Holder) -> bool {
        self.path(holder).exists()
    }

    /// All notes. Files that are none of ours are passed over.
    ///
    /// # Errors
    /// When the directory exists and cannot be read.
    pub fn list(&self) -> io::Result<Vec<Holder>> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries.take(ENTRIES_MAX) {
            let path = entry?.path();
            let Ok(text) = fs::read_to_string(&path) else { continue };
            if let Some(holder) = parse(&text).filter(|holder| self.path(holder) == path) {
                found.push(holder);
            }
        }
        found.sort();
        Ok(found)
    }

    /// Strikes a note. Idempotent.
    ///
    /// # Errors
    /// When the file is there and cannot be removed.
    pub fn done(&self, holder: &Holder) -> io::Result<()> {
        match fs::remove_file(self.path(holder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Container ids may be longer than file names: the name is FNV-1a, 128 bits, of both texts.
    fn path(&self, holder: &Holder) -> PathBuf {
        let bytes = holder.container.bytes().chain([0]).chain(holder.interface.bytes());
        let hash = bytes.fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128, |hash, byte| {
            (hash ^ u128::from(byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b)
        });
        self.directory.join(format!("{hash:032x}"))
    }
}

fn parse(text: &str) -> Option<Holder> {
    let (container, interface) = text.strip_suffix('\n')?.split_once('\n')?;
    Some(Holder { container: container.to_owned(), interface: interface.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(container: &str) -> Holder {
        Holder { container: container.to_owned(), interface: "eth0".to_owned() }
    }

    #[test]
    fn what_was_added_is_listed_until_it_is_done() {
        let directory = std::env::temp_dir().join(format!("mesh-spool-{}", std::process::id()));
        let spool = Spool::beside(&directory.join("meshd.sock"));
        assert_eq!(spool.list().unwrap(), []);
        for container in ["b", "a", "b", &"x".repeat(300)] {
            spool.add(&holder(container)).unwrap();
        }
        fs::write(directory.join(DIRECTORY).join("notes"), "not ours").unwrap();
        assert_eq!(spool.list().unwrap(), [holder("a"), holder("b"), holder(&"x".repeat(300))]);
        assert!(spool.contains(&holder("a")));
        spool.done(&holder("a")).unwrap();
        spool.done(&holder("a")).unwrap();
        assert!(!spool.contains(&holder("a")));
        assert_eq!(spool.list().unwrap().len(), 2);
        fs::remove_dir_all(directory).unwrap();
    }
}
