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

use crate::{api::token, node::event::Credentials, storage::dir};

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
        serde_json::from_slice(&fs::read(path(state_dir)).ok()?).ok()
    }

    /// The credentials, if the file is whole.
    pub(super) fn credentials(&self) -> Option<Credentials> {
        token::decode(&self.token).ok()
    }

    /// Keeps it, as a whole or not at all, readable by the owner only.
    pub(super) fn write(&self, state_dir: &Path) -> io::Result<()> {
        let bytes = serde_json::to_vec(self).map_err(io::Error::other)?;
        dir::replace(&path(state_dir), &bytes).map_err(io::Error::other)
    }

    /// Removes it: the host has left.
    pub(super) fn remove(state_dir: &Path) {
        if let Err(error) = fs::remove_file(path(state_dir))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove {}: {error}", path(state_dir).display());
        }
    }
}

fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(FILE)
}
