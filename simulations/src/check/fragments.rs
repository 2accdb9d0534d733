//! In the end the ring is as small as what it says: entries <= hosts + real fragments.
//!
//! Real fragments are the least number of aligned blocks that, put side by side, say who owns what.

use mesh_ipam::RingKey;

use super::Violation;
use crate::host::Host;

/// How many entries of the ring say something about blocks, and how many blocks it takes.
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

/// Measures the ring as one host sees it; `hosts` are all that it knows.
pub(crate) fn size(hosts: &[Host]) -> Option<Size> {
    let members = || hosts.iter().filter(|host| host.is_member());
    let ring = members().next()?.node.ipam();
    let blocks = |key: &RingKey| matches!(key, RingKey::Block(_));
    Some(Size {
        entries: ring.store().iter().filter(|(key, _)| blocks(key)).count(),
        live: ring.entries(),
        owners: members().filter(|host| !host.node.ipam().owned_blocks().is_empty()).count(),
        fragments: members().map(|host| host.node.ipam().owned_blocks().len()).sum(),
    })
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
    fn a_ring_that_is_too_long_is_noticed() {
        let size = Size { entries: 9, live: 7, owners: 3, fragments: 4 };
        assert!(bounded(size).is_ok());
        assert!(bounded(Size { live: 8, ..size }).is_err());
    }
}
