//! In the end the ring is as small as what it says: entries <= hosts + real fragments.
//!
//! Real fragments are the least number of blocks whose longest match says who owns what. It is
//! found as in Draves et al., "Constructing Optimal IP Routing Tables", 1999: of two halves that
//! could have the same owner, one entry around both serves.

use std::collections::BTreeSet;

use mesh_ipam::{Block, RingKey};
use mesh_router::PeerId;

use super::Violation;
use crate::host::Host;

/// How many entries of the ring are about blocks, and how many it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// All entries, also those that say nothing any more.
    pub(crate) entries: usize,
    /// Entries that say something.
    pub(crate) live: usize,
    /// Who owns anything.
    pub(crate) owners: usize,
    /// The least number of blocks.
    pub(crate) fragments: usize,
}

/// Measures the ring as one host sees it.
pub(crate) fn size(host: &Host) -> Size {
    let ring = host.node.ipam();
    let blocks = |key: &RingKey| matches!(key, RingKey::Block(_));
    let routes = ring.routes();
    let owners: BTreeSet<PeerId> = routes.iter().map(|(_, owner)| *owner).collect();
    let inside = |range: &Block| -> Vec<(Block, PeerId)> {
        routes.iter().filter(|(block, _)| range.covers(block)).copied().collect()
    };
    let ranges = ring.ranges().iter();
    Size {
        entries: ring.store().iter().filter(|(key, _)| blocks(key)).count(),
        live: ring.entries(),
        owners: owners.len(),
        fragments: ranges.map(|range| least(*range, None, &inside(range)).1).sum(),
    }
}

/// Of a block the owners that an entry around it could name, and the least number of entries. The
/// routes inside are in order, outer before inner.
fn least(
    block: Block,
    around: Option<PeerId>,
    routes: &[(Block, PeerId)],
) -> (BTreeSet<Option<PeerId>>, usize) {
    let (owner, inside) = match routes {
        [(first, owner), rest @ ..] if *first == block => (Some(*owner), rest),
        _ => (around, routes),
    };
    let halves = block.halves().filter(|_| !inside.is_empty());
    let Some((left, right)) = halves else { return (BTreeSet::from([owner]), 1) };
    let split = inside.partition_point(|(route, _)| left.covers(route));
    let (a, b) = (least(left, owner, &inside[..split]), least(right, owner, &inside[split..]));
    let both: BTreeSet<_> = a.0.intersection(&b.0).copied().collect();
    if both.is_empty() {
        return (a.0.union(&b.0).copied().collect(), a.1 + b.1);
    }
    (both, a.1 + b.1 - 1)
}

/// Enforces the bound on entries that say something.
pub(crate) fn bounded(size: Size) -> Result<(), Violation> {
    if size.live <= size.owners + size.fragments {
        return Ok(());
    }
    Err(Violation::new("fragments", format!("the ring is longer than it need be: {size:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_number_of_blocks_nests_them() {
        let block = |text: &str| Block::from(text.parse::<ipnetwork::IpNetwork>().unwrap());
        let (a, b) = (PeerId::new([1; 16]), PeerId::new([2; 16]));
        let range = block("10.0.0.0/24");
        let whole = [(range, a)];
        assert_eq!(least(range, None, &whole).1, 1);
        let nested = [(range, a), (block("10.0.0.64/26"), b), (block("10.0.0.128/26"), b)];
        assert_eq!(least(range, None, &nested).1, 3);
        let halves = [(block("10.0.0.0/25"), a), (block("10.0.0.128/25"), a)];
        assert_eq!(least(range, None, &halves).1, 1);
    }

    #[test]
    fn a_ring_that_is_too_long_is_noticed() {
        let size = Size { entries: 9, live: 7, owners: 3, fragments: 4 };
        assert!(bounded(size).is_ok());
        assert!(bounded(Size { live: 8, ..size }).is_err());
    }
}
