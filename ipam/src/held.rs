//! Who holds which address on this host.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// Who holds an address: the key of an attachment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// Container id, or the name that an address was claimed for.
    pub container: String,
    /// Interface in the container; empty for a claim.
    pub interface: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.container)?;
        if self.interface.is_empty() { Ok(()) } else { write!(f, "/{}", self.interface) }
    }
}

/// Held addresses, both ways.
///
/// Invariant: the two maps are each other's inverse, and no holder has an empty set.
#[derive(Debug, Clone, Default)]
pub(crate) struct Held {
    by_address: BTreeMap<IpAddr, Arc<Holder>>,
    by_holder: BTreeMap<Arc<Holder>, BTreeSet<IpAddr>>,
}

impl Held {
    pub(crate) fn len(&self) -> usize {
        self.by_address.len()
    }

    pub(crate) fn holder(&self, address: IpAddr) -> Option<&Holder> {
        self.by_address.get(&address).map(AsRef::as_ref)
    }

    pub(crate) fn addresses(&self, holder: &Holder) -> impl Iterator<Item = IpAddr> {
        self.by_holder.get(holder).into_iter().flatten().copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (IpAddr, &Holder)> {
        self.by_address.iter().map(|(address, holder)| (*address, holder.as_ref()))
    }

    /// Held addresses from the first to the last, both inside.
    pub(crate) fn between(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> {
        self.by_address.range(first..=last).map(|(address, _)| *address)
    }

    /// Gives the holder an address that nobody holds.
    pub(crate) fn insert(&mut self, holder: &Holder, address: IpAddr) {
        let holder = match self.by_holder.get_key_value(holder) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(holder.clone()),
        };
        self.by_holder.entry(Arc::clone(&holder)).or_default().insert(address);
        let before = self.by_address.insert(address, holder);
        assert!(before.is_none(), "{address} was held already");
    }

    /// Takes an address from its holder.
    pub(crate) fn remove(&mut self, address: IpAddr) -> Option<Arc<Holder>> {
        let holder = self.by_address.remove(&address)?;
        if let Some(addresses) = self.by_holder.get_mut(&holder) {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.by_holder.remove(&holder);
            }
        }
        Some(holder)
    }
}
