//! Network namespaces: which one a path means, and being in it for a moment.

use std::{
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
};

use nix::sched::{CloneFlags, setns};

use crate::node::{
    desired::Wiring,
    request::{Code, Refusal},
};

/// A container's network namespace.
#[derive(Debug)]
pub(super) struct Netns {
    file: File,
    path: String,
    identity: (u64, u64),
}

impl Netns {
    /// Opens the namespace at a path.
    pub(super) fn open(path: &str) -> Result<Self, Refusal> {
        let refuse = |code, why: &str| {
            let hint = "check that the container runs and that its namespace is at this path";
            Refusal::new(code, format!("there is no network namespace at {path:?}: {why}"), hint)
        };
        let code = |error: &io::Error| match error.kind() {
            io::ErrorKind::NotFound => Code::NotFound,
            _ => Code::Invalid,
        };
        let file = File::open(path).map_err(|error| refuse(code(&error), &error.to_string()))?;
        let (identity, own) = (identity(&file), File::open(OWN).and_then(|own| identity(&own)));
        let identity = identity.map_err(|error| refuse(Code::Invalid, &error.to_string()))?;
        let filesystem = nix::sys::statfs::fstatfs(&file).map(|s| s.filesystem_type());
        if filesystem != Ok(nix::sys::statfs::NSFS_MAGIC) {
            return Err(refuse(Code::Invalid, "what is there is not a namespace"));
        }
        if own.is_ok_and(|own| own == identity) {
            return Err(refuse(Code::Invalid, "what is there is the host's own"));
        }
        Ok(Self { file, path: path.to_owned(), identity })
    }

    /// Inode and device: the same for two paths exactly when they mean the same namespace.
    pub(super) fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Does something within the namespace, on this thread, and comes back.
    ///
    /// Only the calling thread moves, so it must be one of the kernel's own: never a worker that
    /// others' tasks run on. A thread that could not come back would be lost; that is a panic.
    pub(super) fn within<T>(&self, act: impl FnOnce() -> Result<T, Refusal>) -> Result<T, Refusal> {
        let enter = || {
            let own = File::open(OWN)?;
            setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)?;
            Ok::<_, io::Error>(own)
        };
        let own = enter().map_err(|error| {
            let why = format!("the namespace at {:?} cannot be entered: {error}", self.path);
            let hint = "check that it is a network namespace and that meshd has CAP_SYS_ADMIN";
            Refusal::new(Code::Invalid, why, hint)
        })?;
        let result = act();
        setns(own.as_fd(), CloneFlags::CLONE_NEWNET).expect("a thread comes back to where it was");
        result
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The namespace of the calling thread.
const OWN: &str = "/proc/thread-self/ns/net";

fn identity(file: &File) -> io::Result<(u64, u64)> {
    let metadata = file.metadata()?;
    Ok((metadata.ino(), metadata.dev()))
}

/// Whether the namespace that a container was wired in is still there.
pub(super) fn is_as_wired(wiring: &Wiring) -> bool {
    let standing = || std::fs::metadata(&wiring.netns).map(|m| (m.ino(), m.dev())).ok();
    wiring.netns_identity.is_some() && wiring.netns_identity == standing()
}
