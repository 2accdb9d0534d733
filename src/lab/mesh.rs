//! Hosts of one mesh: founded by the first, joined by the rest.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Container, Host};
use crate::api::types::Status;

impl Host {
    /// Starts `meshd` so that it founds a mesh.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub fn start_founding(&mut self) -> Result<()> {
        self.start(&["--init"])
    }

    /// Starts `meshd` so that it joins the mesh of another host.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub fn start_joining(&mut self, target: &Self, token: &str) -> Result<()> {
        let file = self.directory().join("token");
        std::fs::write(&file, token).with_context(|| format!("cannot write {}", file.display()))?;
        let (address, file) = (target.address().to_string(), file.to_string_lossy().into_owned());
        self.start(&["--join", &address, "--token-file", &file])
    }
}

/// Whether a host is ready and its containers reach those of each of `total` hosts.
pub fn is_complete(status: &Status, total: usize) -> bool {
    let up = status.paths.iter().filter(|path| path.state == "up").count();
    status.ready && status.peers.alive == total && up + 1 == total
}

/// Makes a mesh of hosts whose `meshd` does not run yet, and waits until it is complete.
///
/// # Errors
/// When that takes longer than `patience` for one of them, or a `meshd` ends.
pub fn form(hosts: &mut [Host], patience: Duration) -> Result<()> {
    let (first, others) = hosts.split_first_mut().context("a mesh has a first host")?;
    first.start_founding()?;
    first.wait_ready(patience)?;
    let token = first.token()?;
    for host in others {
        host.start_joining(first, &token)?;
    }
    wait_complete(hosts, patience)
}

/// Waits until each of the hosts reaches all of them.
///
/// # Errors
/// As [`form`].
pub fn wait_complete(hosts: &mut [Host], patience: Duration) -> Result<()> {
    let total = hosts.len();
    for host in hosts {
        host.wait_status("complete", patience, |status| is_complete(status, total))?;
    }
    Ok(())
}

/// One container on each host: `c1` on `h1`, and so on.
///
/// # Errors
/// When a plugin refuses.
pub fn populate(hosts: &[Host]) -> Result<Vec<Container>> {
    hosts.iter().map(|host| host.container(&host.name().replacen('h', "c", 1))).collect()
}
