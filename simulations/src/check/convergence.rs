//! Nodes that are connected and quiet hold equal states.

use std::{collections::BTreeSet, fmt::Debug};

use mesh_ipam::Family;
use mesh_router::{PeerId, Register, Store, member, store::Entry};

use crate::host::Host;

/// The first difference between members that are up, in words; also that one is not ready.
pub(crate) fn differences(hosts: &[Host]) -> Option<String> {
    let mut members = hosts.iter().filter(|host| host.is_member());
    let waiting = hosts.iter().filter(|host| !host.stays_down).find(|host| !host.is_member());
    if let Some(host) = waiting {
        return Some(format!("h{} is in no mesh", host.index));
    }
    let first = members.next()?;
    let stays = hosts.iter().filter(|host| !(host.removed && host.stays_down));
    let present: BTreeSet<PeerId> = stays.map(|host| host.id).collect();
    let described = first.node.router().members();
    for host in members {
        // What those said of themselves who left goes some time later, not everywhere at once.
        let describes = host.node.router().members();
        let there = |origin: &PeerId| {
            present.contains(origin)
                && [described, describes].iter().any(|members| member::is_present(members, *origin))
        };
        let difference = store(described, describes, there)
            .or_else(|| store(first.node.ipam().store(), host.node.ipam().store(), |_| true))
            .or_else(|| store(first.node.zone().store(), host.node.zone().store(), there));
        if let Some(what) = difference {
            return Some(format!("h{} and h{} differ: {what}", first.index, host.index));
        }
    }
    let unready = hosts.iter().filter(|host| host.is_member()).find(|host| !host.node.is_ready());
    unready.filter(|_| free(hosts)).map(|host| {
        let why = host.node.unready_because().unwrap_or_default();
        format!("h{} is not ready: {why}", host.index)
    })
}

/// Whether anybody has an IPv4 address to give to whoever names no range.
pub(crate) fn free(hosts: &[Host]) -> bool {
    hosts.iter().filter(|host| host.is_member()).any(|host| {
        let range = host.node.ipam().default_range(Family::V4);
        range.is_some_and(|range| host.node.ipam().free_in(&range) > 0)
    })
}

fn store<R: Register>(
    a: &Store<R>,
    b: &Store<R>,
    counts: impl Fn(&PeerId) -> bool,
) -> Option<String> {
    let (seen_a, seen_b) = (a.announced(), b.announced());
    let counted = |(origin, _): &(&PeerId, &u64)| counts(origin);
    if !seen_a.dots.iter().filter(counted).eq(seen_b.dots.iter().filter(counted)) {
        return Some(format!("{seen_a:?} against {seen_b:?}"));
    }
    let counted = |(_, entry): &(_, &Entry<R::Value>)| counts(&entry.dot.actor);
    first_difference(a.iter().filter(counted), b.iter().filter(counted))
}

/// The first difference between the entries of two stores, both in the order of keys.
pub(crate) fn first_difference<T: PartialEq + Debug>(
    mut a: impl Iterator<Item = T>,
    mut b: impl Iterator<Item = T>,
) -> Option<String> {
    loop {
        match (a.next(), b.next()) {
            (None, None) => return None,
            (a, b) if a == b => {}
            (a, b) => return Some(format!("{a:?} against {b:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_router::member::{Info, MemberKey, MemberValue, Members};

    use super::*;

    #[test]
    fn stores_that_differ_in_one_entry_are_noticed() {
        let me = PeerId::new([1; 16]);
        let write = |name: &str| {
            let mut members = Members::new(me);
            let name = name.to_owned();
            let info = Info { name, endpoints: vec![], incarnation: 0, left: false };
            members.write(MemberKey::Info(me), MemberValue::Info(info));
            members
        };
        assert_eq!(store(&write("a"), &write("a"), |_| true), None);
        assert!(store(&write("a"), &write("b"), |_| true).is_some(), "same vector, other value");
        assert!(
            store(&write("a"), &Members::new(me), |_| true).is_some(),
            "an entry that the other lacks"
        );
        assert!(differences(&[]).is_none());
    }
}
