//! Persisted state is never behind what others were told.

use mesh_router::{Kind, PeerId, replica::Source};

use super::Violation;
use crate::world::World;

/// What a node has got of others' writes since a revision is on their disks.
pub(crate) fn behind(
    world: &World,
    host: usize,
    (kind, store, since): (Kind, &dyn Source, u64),
) -> Result<(), Violation> {
    let all = || world.ids.clone();
    let moved: Vec<PeerId> = store.moved_since(since).unwrap_or_else(all);
    for origin in moved.into_iter().filter(|origin| *origin != world.ids[host]) {
        // A machine and its copy have one identity.
        let machines = (0..world.ids.len()).filter(|of| world.ids[*of] == origin);
        let durable = |of: usize| (world.hosts[of].disk.durable(kind), of);
        if let Some((durable, of)) = machines.map(durable).max() {
            told(kind, (of, host), durable, store.announced_of(origin))?;
        }
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
