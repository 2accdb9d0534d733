//! What lets a host whose state was damaged join its mesh again: credentials and a few endpoints,
//! in a file of its own beside the state.
//!
//! It is not the state: nothing is served from it. It only answers "whose member was I, and whom
//! can I ask", so that a damaged disk needs nobody to type a token.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::config::Start;
use crate::{
    api::{target::Target, token},
    node::event::Credentials,
    storage::dir,
};

const FILE: &str = "membership.json";

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keepsake {
    token: String,
    /// Where members were last found.
    pub(super) targets: Vec<SocketAddr>,
}

impl Keepsake {
    pub(super) fn new(credentials: &Credentials, targets: Vec<SocketAddr>) -> Self {
        Self { token: token::encode(credentials), targets }
    }

    /// What was kept, if there is anything that can be read.
    pub(super) fn read(state_dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(state_dir)).ok()?).ok()
    }

    /// The credentials, if the file is whole.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        token::decode(&self.token).ok()
    }

    /// Whom to join through: members that were found once, and those that the configuration names.
    pub(super) fn and_given(&self, start: &Start) -> Vec<Target> {
        let kept = self.targets.iter().map(ToString::to_string);
        let mut all: Vec<_> = kept.filter_map(|address| Target::parse(&address).ok()).collect();
        if let Start::Join { targets, .. } | Start::Found { targets, .. } = start {
            let new = targets.iter().filter(|target| !all.contains(target));
            all.extend(new.cloned().collect::<Vec<_>>());
        }
        all
    }

    /// Where it is kept.
    pub(super) fn path(state_dir: &Path) -> PathBuf {
        state_dir.join(FILE)
    }

    /// Keeps it, as a whole or not at all, readable by the owner only.
    pub(super) fn write(&self, state_dir: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        dir::replace(&Self::path(state_dir), &bytes).map_err(io::Error::other)
    }

    /// Removes it: the host has left.
    pub(super) fn remove(state_dir: &Path) {
        if let Err(error) = fs::remove_file(Self::path(state_dir))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove {}: {error}", Self::path(state_dir).display());
        }
    }
}
