//! Membership: what every host says about itself, as a CRDT.
//!
//! Each host writes two registers: [`Info`] (name, endpoints; changes rarely) and [`Reach`] (whom
//! it has a link to; changes with the weather). Nobody else may write them.

use std::{collections::BTreeSet, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{PeerId, Register, Store};

/// The longest name of a host, from RFC 1035, 2.3.4.
pub const NAME_BYTES_MAX: usize = 253;
/// Endpoints that a host may publish. Chosen: more cannot all be tried in useful time.
pub const ENDPOINTS_MAX: usize = 16;
/// Peers in an explicit reachability set. Chosen: bounds an entry at 64 KiB.
pub const REACH_MAX: usize = 4096;

/// What an entry of the membership is filed under.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum MemberKey {
    /// A host's description of itself.
    Info(PeerId),
    /// A host's links.
    Reach(PeerId),
}

/// What is filed there.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum MemberValue {
    /// A host's description of itself.
    Info(Info),
    /// A host's links.
    Reach(Reach),
}

/// A host's description of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Info {
    /// Its name, for people.
    pub name: String,
    /// Control endpoints that others can dial, best first.
    pub endpoints: Vec<SocketAddr>,
    /// Drawn at random when its process started.
    pub incarnation: u64,
    /// It has left the mesh in good order.
    pub left: bool,
}

/// Whom a host has a link to, as exceptions: topology costs O(exceptions), not O(hosts squared).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reach {
    /// Every member but these.
    AllBut(BTreeSet<PeerId>),
    /// These and no others.
    Only(BTreeSet<PeerId>),
}

impl Reach {
    /// The smaller way to say which of `members` are in `linked`.
    pub fn of(linked: &BTreeSet<PeerId>, members: impl Iterator<Item = PeerId>) -> Self {
        let missing: BTreeSet<_> = members.filter(|peer| !linked.contains(peer)).collect();
        if missing.len() <= linked.len() {
            Self::AllBut(missing)
        } else {
            Self::Only(linked.clone())
        }
    }

    /// Whether it claims a link to `peer`.
    pub fn claims(&self, peer: PeerId) -> bool {
        match self {
            Self::AllBut(missing) => !missing.contains(&peer),
            Self::Only(linked) => linked.contains(&peer),
        }
    }
}

/// The register rules of the membership.
#[derive(Debug, Clone)]
pub enum Membership {}

impl Register for Membership {
    type Key = MemberKey;
    type Value = MemberValue;

    const SINGLE_WRITER: bool = true;

    fn validate(origin: PeerId, key: &MemberKey, value: &MemberValue) -> Result<(), String> {
        match (key, value) {
            (MemberKey::Info(peer), MemberValue::Info(info)) if *peer == origin => {
                if info.name.len() > NAME_BYTES_MAX || info.name.chars().any(char::is_control) {
                    return Err("its name is too long or has control characters".to_owned());
                }
                if info.endpoints.len() > ENDPOINTS_MAX {
                    return Err(format!("it has more than {ENDPOINTS_MAX} endpoints"));
                }
                Ok(())
            }
            (MemberKey::Reach(peer), MemberValue::Reach(reach)) if *peer == origin => {
                let (Reach::AllBut(set) | Reach::Only(set)) = reach;
                if set.len() > REACH_MAX {
                    return Err(format!("it names more than {REACH_MAX} peers"));
                }
                Ok(())
            }
            _ => Err("only a host itself may describe itself".to_owned()),
        }
    }
}

/// The replica of the membership.
pub type Members = Store<Membership>;

/// What a host says of itself, if it is known.
pub fn info(members: &Members, peer: PeerId) -> Option<&Info> {
    match &members.get(&MemberKey::Info(peer))?.value {
        MemberValue::Info(info) => Some(info),
        MemberValue::Reach(_) => None,
    }
}

/// Whom a host says that it has a link to, if it said so.
pub fn reach(members: &Members, peer: PeerId) -> Option<&Reach> {
    match &members.get(&MemberKey::Reach(peer))?.value {
        MemberValue::Reach(reach) => Some(reach),
        MemberValue::Info(_) => None,
    }
}

/// All that hosts say of their links, in the order of their ids.
pub fn reaches(members: &Members) -> impl Iterator<Item = (PeerId, &Reach)> {
    members.iter().filter_map(|(key, entry)| match (key, &entry.value) {
        (MemberKey::Reach(peer), MemberValue::Reach(reach)) => Some((*peer, reach)),
        _ => None,
    })
}

/// All hosts that are in the mesh and have not left, in the order of their ids.
pub fn present(members: &Members) -> impl Iterator<Item = (PeerId, &Info)> {
    members.iter().filter_map(|(key, entry)| match (key, &entry.value) {
        (MemberKey::Info(peer), MemberValue::Info(info)) if !info.left => Some((*peer, info)),
        _ => None,
    })
}

/// Whether a host is known to be in the mesh.
pub fn is_present(members: &Members, peer: PeerId) -> bool {
    info(members, peer).is_some_and(|info| !info.left)
}

/// All hosts that have left in good order, and of which something is still known.
pub fn left(members: &Members) -> impl Iterator<Item = PeerId> {
    members.iter().filter_map(|(key, entry)| match (key, &entry.value) {
        (MemberKey::Info(peer), MemberValue::Info(info)) if info.left => Some(*peer),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::new([n; 16])
    }

    #[test]
    fn reach_is_said_the_shorter_way_and_means_the_same() {
        let members: Vec<_> = (1..=5).map(peer).collect();
        let most: BTreeSet<_> = (1..=4).map(peer).collect();
        let few: BTreeSet<_> = [peer(3)].into();
        let said = Reach::of(&most, members.iter().copied());
        assert_eq!(said, Reach::AllBut([peer(5)].into()));
        assert_eq!(Reach::of(&few, members.iter().copied()), Reach::Only(few.clone()));
        for id in members {
            assert_eq!(said.claims(id), most.contains(&id));
        }
    }

    #[test]
    fn nobody_writes_for_another_host() {
        let info = Info { name: "a".into(), endpoints: vec![], incarnation: 1, left: false };
        let key = MemberKey::Info(peer(1));
        let value = MemberValue::Info(info);
        assert!(Membership::validate(peer(1), &key, &value).is_ok());
        assert!(Membership::validate(peer(2), &key, &value).is_err());
        assert!(Membership::validate(peer(1), &MemberKey::Reach(peer(1)), &value).is_err());
    }
}
