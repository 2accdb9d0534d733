//! What queries are answered from: an answer is a pure function of this table and the query.
//!
//! The table is fed with [`ZoneChange`]s and never asks anybody. It knows nothing of packets.
//!
//! Invariant: `reverse` holds exactly one row per address of each row of `forward`.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::Bound,
    sync::Arc,
};

use ipnetwork::IpNetwork;
use mesh_router::PeerId;
use rand::{Rng, seq::SliceRandom};

use crate::{Name, QueryName, QueryType, ZoneChange};

/// The most addresses or names in one answer; more are left out, at random. Chosen: fits into a
/// TCP message many times over, and no client looks at more.
pub const ANSWER_RECORDS_MAX: usize = 256;

/// What to answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The name has these addresses.
    Addresses(Vec<IpAddr>),
    /// The address has these names.
    Pointers(Vec<Name>),
    /// The zone's start of authority was asked for, at its apex.
    Authority {
        /// The zone.
        zone: String,
    },
    /// The name exists, without such records.
    NoData {
        /// The zone it would be in.
        zone: String,
    },
    /// The name does not exist.
    NameError {
        /// The zone it would be in.
        zone: String,
    },
    /// Somebody else's name.
    NotOurs,
}

impl Answer {
    /// Brings several addresses or names into random order and cuts them to
    /// [`ANSWER_RECORDS_MAX`], so that clients spread.
    pub fn shuffle(&mut self, rng: &mut impl Rng) {
        match self {
            Self::Addresses(all) if all.len() > 1 => cut(all, rng),
            Self::Pointers(all) if all.len() > 1 => cut(all, rng),
            _ => {}
        }
    }
}

fn cut<T>(all: &mut Vec<T>, rng: &mut impl Rng) {
    all.shuffle(rng);
    all.truncate(ANSWER_RECORDS_MAX);
}

/// A record in the order of turned names, so that a name's records and what lies below it are
/// ranges: name turned round, origin, holder.
type ForwardKey = (Arc<str>, PeerId, Arc<str>);
/// The name in its usual order, and the addresses.
type ForwardRow = (Name, Box<[IpAddr]>);

/// All names of the mesh, for answering.
#[derive(Debug, Clone)]
pub struct Table {
    domain: QueryName,
    domain_name: Name,
    ranges: Vec<IpNetwork>,
    forward: BTreeMap<ForwardKey, ForwardRow>,
    reverse: BTreeSet<(IpAddr, Name, PeerId, Arc<str>)>,
    hidden: BTreeSet<PeerId>,
}

impl Table {
    /// An empty table for a domain.
    pub fn new(domain: Name) -> Self {
        Self {
            domain: QueryName::from(&domain),
            domain_name: domain,
            ranges: Vec::new(),
            forward: BTreeMap::new(),
            reverse: BTreeSet::new(),
            hidden: BTreeSet::new(),
        }
    }

    /// The mesh's domain.
    pub fn domain(&self) -> &Name {
        &self.domain_name
    }

    /// Sets the mesh's ranges: addresses in them are looked up backwards here, others elsewhere.
    pub fn set_ranges(&mut self, ranges: Vec<IpNetwork>) {
        self.ranges = ranges;
    }

    /// How many records there are, hidden ones too.
    pub fn len(&self) -> usize {
        self.forward.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.forward.is_empty()
    }

    /// Takes a change over.
    pub fn apply(&mut self, change: ZoneChange) {
        match change {
            ZoneChange::Set { origin, name, holder, addresses } => {
                let key = forward_key(&name, origin, holder);
                self.unset(&key);
                for address in &addresses {
                    self.reverse.insert((*address, name.clone(), origin, key.2.clone()));
                }
                self.forward.insert(key, (name, addresses.into()));
            }
            ZoneChange::Unset { origin, name, holder } => {
                self.unset(&forward_key(&name, origin, holder));
            }
            ZoneChange::Hide(peer) => drop(self.hidden.insert(peer)),
            ZoneChange::Show(peer) => drop(self.hidden.remove(&peer)),
            ZoneChange::Clear => {
                self.forward.clear();
                self.reverse.clear();
                self.hidden.clear();
            }
        }
    }

    fn unset(&mut self, key: &ForwardKey) {
        let Some((name, addresses)) = self.forward.remove(key) else { return };
        for address in addresses {
            self.reverse.remove(&(address, name.clone(), key.1, key.2.clone()));
        }
    }

    /// Answers a query.
    pub fn answer(&self, query: &QueryName, kind: QueryType) -> Answer {
        if query.is_within(&self.domain) {
            return self.answer_forward(query, kind);
        }
        match query.reverse() {
            Some((address, bits)) => self.answer_reverse(query, (address, bits), kind),
            None => Answer::NotOurs,
        }
    }

    fn answer_forward(&self, query: &QueryName, kind: QueryType) -> Answer {
        let zone = || self.domain_name.to_string();
        if *query == self.domain {
            return match kind {
                QueryType::Soa | QueryType::Any => Answer::Authority { zone: zone() },
                _ => Answer::NoData { zone: zone() },
            };
        }
        let mut exists = false;
        let mut addresses = Vec::new();
        for (_, row) in self.visible_from(query.turned()) {
            exists = true;
            addresses.extend(row.1.iter().filter(|address| wanted(address, kind)));
        }
        if addresses.len() > 1 {
            addresses.sort_unstable();
            addresses.dedup();
        }
        if !addresses.is_empty() {
            Answer::Addresses(addresses)
        } else if exists || self.has_below(query.turned()) {
            Answer::NoData { zone: zone() }
        } else {
            Answer::NameError { zone: zone() }
        }
    }

    /// The rows of exactly this name whose origin is not hidden.
    fn visible_from<'a>(
        &'a self,
        turned: &'a str,
    ) -> impl Iterator<Item = (&'a ForwardKey, &'a ForwardRow)> {
        let from = (Arc::from(turned), PeerId::new([0; 16]), Arc::from(""));
        self.forward
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(move |(key, _)| *key.0 == *turned)
            .filter(|(key, _)| !self.hidden.contains(&key.1))
    }

    /// Whether a visible name lies below this one, which then exists too (RFC 8020 section 2).
    fn has_below(&self, turned: &str) -> bool {
        let below = format!("{turned}.");
        let from = (Arc::from(below.as_str()), PeerId::new([0; 16]), Arc::from(""));
        self.forward
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(|(key, _)| key.0.starts_with(&below))
            .any(|(key, _)| !self.hidden.contains(&key.1))
    }

    fn answer_reverse(
        &self,
        query: &QueryName,
        (address, bits): (IpAddr, u8),
        kind: QueryType,
    ) -> Answer {
        let Some(range) = self.ranges.iter().find(|r| r.contains(address) && r.prefix() <= bits)
        else {
            return Answer::NotOurs;
        };
        let zone = reverse_zone(query, range);
        let whole = if address.is_ipv4() { 32 } else { 128 };
        if bits < whole {
            return Answer::NoData { zone };
        }
        let names = self.names_of(address);
        match (names.is_empty(), kind) {
            (true, _) => Answer::NameError { zone },
            (false, QueryType::Ptr | QueryType::Any) => Answer::Pointers(names),
            (false, _) => Answer::NoData { zone },
        }
    }

    /// The visible names of an address, each once.
    fn names_of(&self, address: IpAddr) -> Vec<Name> {
        let from = (address, Name::least(), PeerId::new([0; 16]), Arc::from(""));
        let mut names: Vec<Name> = self
            .reverse
            .range((Bound::Included(from), Bound::Unbounded))
            .take_while(|row| row.0 == address)
            .filter(|row| !self.hidden.contains(&row.2))
            .map(|row| row.1.clone())
            .collect();
        names.dedup();
        names
    }
}

fn forward_key(name: &Name, origin: PeerId, holder: String) -> ForwardKey {
    (QueryName::from(name).turned().into(), origin, holder.into())
}

fn wanted(address: &IpAddr, kind: QueryType) -> bool {
    match kind {
        QueryType::A => address.is_ipv4(),
        QueryType::Aaaa => address.is_ipv6(),
        QueryType::Any => true,
        QueryType::Ptr | QueryType::Soa | QueryType::Other => false,
    }
}

/// The reverse zone around a query: the greatest one on a label's border that is all in the range.
fn reverse_zone(query: &QueryName, range: &IpNetwork) -> String {
    let per_label = if range.is_ipv4() { 8 } else { 4 };
    query.suffix(2 + usize::from(range.prefix().div_ceil(per_label)))
}

#[cfg(test)]
mod tests;
