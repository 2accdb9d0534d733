//! What the tests of a mesh share.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use meshwork::lab::{Container, Host, Lab, NameQuery, Programs, Underlay, mesh, wait_until};

/// How long a test may take in all, setting up included.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);
/// How long anything may take that is not measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// How long one ping or question waits.
pub(crate) const ANSWER: Duration = Duration::from_secs(1);

/// The programs that were built with this test.
pub(crate) fn programs() -> Result<Programs> {
    Programs::in_directory(Path::new(env!("CARGO_BIN_EXE_meshd")).parent().context("a path")?)
}

/// A lab with hosts on which nothing runs yet.
pub(crate) fn hosts(count: u8) -> Result<(Lab, Vec<Host>)> {
    let mut lab = Lab::new(Underlay::Both, programs()?)?;
    let hosts = lab.hosts(count)?;
    Ok((lab, hosts))
}

/// A lab with hosts that form one mesh.
pub(crate) fn meshed(count: u8) -> Result<(Lab, Vec<Host>)> {
    let (lab, mut hosts) = hosts(count)?;
    mesh::form(&mut hosts, PATIENCE)?;
    Ok((lab, hosts))
}

/// Waits until one container's ping reaches another over both families.
pub(crate) fn wait_reach(from: &Container, to: &Container, deadline: Duration) -> Result<Duration> {
    let (_, took) = wait_until(&format!("{} to reach {}", from.id, to.id), deadline, || {
        for address in [to.v4()?, to.v6()?] {
            ensure!(reaches(from, address)?, "no answer from {address}");
        }
        Ok(Some(()))
    })?;
    Ok(took)
}

/// Whether one ping of a container is answered.
pub(crate) fn reaches(from: &Container, to: IpAddr) -> Result<bool> {
    from.namespace.ping(to, ANSWER)
}

/// A host's resolver, asked from the host itself.
pub(crate) fn resolver(host: &Host) -> Result<NameQuery> {
    let server: SocketAddr =
        *host.status()?.dns.listen.first().context("the resolver listens nowhere")?;
    NameQuery::new(host.namespace(), server)
}

/// The full name of a container.
pub(crate) fn full_name(id: &str) -> String {
    format!("{id}.mesh.internal")
}

/// The value that this part of a hundred of the samples are not above.
pub(crate) fn percentile(samples: &mut [Duration], percent: usize) -> Duration {
    samples.sort();
    samples[(samples.len() * percent).div_ceil(100).saturating_sub(1)]
}
