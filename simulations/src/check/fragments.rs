//! In the end the ring is as small as what it says: entries <= hosts + real fragments.
//!
//! A real fragment is a largest aligned block that has one owner: what it takes to say who owns
//! what without nesting.

use std::collections::BTreeSet;

use mesh_ipam::{Block, RingKey};
use mesh_router::PeerId;

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
    /// Largest aligned blocks with one owner.
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
        fragments: ranges.map(|range| largest(*range, None, &inside(range)).1).sum(),
    }
}

/// Who owns all of a block, if that is one (`Some(None)`: nobody), and how many largest aligned
/// blocks with one owner are in it. The routes inside are in order, outer before inner.
fn largest(
    block: Block,
    around: Option<PeerId>,
    routes: &[(Block, PeerId)],
) -> (Option<Option<PeerId>>, usize) {
    let (owner, inside) = match routes {
        [(first, owner), rest @ ..] if *first == block => (Some(*owner), rest),
        _ => (around, routes),
    };
    let halves = block.halves().filter(|_| !inside.is_empty());
    let Some((left, right)) = halves else { return (Some(owner), 1) };
    let split = inside.partition_point(|(route, _)| left.covers(route));
    let (a, b) = (largest(left, owner, &inside[..split]), largest(right, owner, &inside[split..]));
    if a.0.is_some() && a.0 == b.0 { (a.0, 1) } else { (None, a.1 + b.1) }
}

/// Whether the ring is longer than it may be once all is quiet.
pub(crate) fn too_long(size: Size) -> Option<String> {
    let long = size.entries > size.owners + size.fragments;
    long.then(|| format!("the ring is longer than hosts and fragments: {size:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_one_owner_is_one_fragment() {
        let block = |text: &str| Block::from(text.parse::<ipnetwork::IpNetwork>().unwrap());
        let (a, b) = (PeerId::new([1; 16]), PeerId::new([2; 16]));
        let range = block("10.0.0.0/24");
        let fragments = |routes: &[(Block, PeerId)]| largest(range, None, routes).1;
        assert_eq!(fragments(&[(range, a)]), 1);
        assert_eq!(fragments(&[(block("10.0.0.0/25"), a), (block("10.0.0.128/25"), a)]), 1);
        assert_eq!(fragments(&[(range, a), (block("10.0.0.64/26"), b)]), 3);
        let nested = [(range, a), (block("10.0.0.64/26"), b), (block("10.0.0.64/27"), a)];
        assert_eq!(fragments(&nested), 4);
    }

    #[test]
    fn a_ring_that_is_too_long_is_noticed() {
        let size = Size { entries: 7, live: 6, owners: 3, fragments: 4 };
        assert_eq!(too_long(size), None);
        assert!(too_long(Size { entries: 8, ..size }).is_some());
    }
}
