//! Persisted state is never behind what others were told.

use mesh_router::{Kind, store::VersionVector};

use super::Violation;
use crate::host::Host;

/// What a node has of others' writes is on their disks.
pub(crate) fn behind(
    hosts: &[Host],
    host: usize,
    (kind, vector): (Kind, &VersionVector),
) -> Result<(), Violation> {
    for origin in hosts.iter().filter(|origin| origin.index != host) {
        told(kind, (origin.index, host), origin.disk.durable(kind), vector.get(&origin.id))?;
    }
    Ok(())
}

fn told(
    kind: Kind,
    (origin, host): (usize, usize),
    durable: u64,
    known: u64,
) -> Result<(), Violation> {
    if known <= durable {
        return Ok(());
    }
    let text = format!(
        "h{host} knows {kind:?} of h{origin} up to {known}, of which {durable} are on its disk"
    );
    Err(Violation::new("durable", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_that_was_told_before_it_was_durable_is_noticed() {
        assert!(told(Kind::Ring, (0, 1), 4, 4).is_ok());
        assert!(told(Kind::Ring, (0, 1), 4, 5).is_err());
    }
}
