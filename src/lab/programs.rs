//! Where the programs are that a lab runs.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// Names another directory, for a test binary that was copied to elsewhere.
const DIRECTORY_VARIABLE: &str = "MESHWORK_BIN_DIR";

/// The paths of the real programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// The daemon.
    pub meshd: PathBuf,
    /// The command line.
    pub meshctl: PathBuf,
    /// The CNI plugin.
    pub mesh_cni: PathBuf,
}

impl Programs {
    /// The programs beside the one that runs.
    ///
    /// # Errors
    /// Names what is missing and the command that builds it.
    pub fn beside_this_one() -> Result<Self> {
        let own = env::current_exe().context("cannot tell where this program is")?;
        Self::in_directory(own.parent().unwrap_or(Path::new("/")))
    }

    /// The programs in a directory; `MESHWORK_BIN_DIR` beats it.
    ///
    /// # Errors
    /// Names what is missing and the command that builds it.
    pub fn in_directory(directory: &Path) -> Result<Self> {
        let other = env::var_os(DIRECTORY_VARIABLE).map(PathBuf::from);
        let directory = other.as_deref().unwrap_or(directory);
        let find = |name: &str| {
            let path = directory.join(name);
            if path.is_file() {
                return Ok(path);
            }
            let release = if directory.ends_with("release") { " --release" } else { "" };
            bail!("{} is missing; build it: `cargo build{release}`", path.display())
        };
        Ok(Self { meshd: find("meshd")?, meshctl: find("meshctl")?, mesh_cni: find("mesh-cni")? })
    }
}
