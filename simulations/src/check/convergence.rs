//! Nodes that are connected and quiet hold equal states.

use std::{collections::BTreeSet, fmt::Debug};

use mesh_dns::RecordValue;
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
        let (zone, other) = (first.node.zone().store(), host.node.zone().store());
        let gone = |value: &RecordValue| *value == RecordValue::Tombstone;
        let difference = store((described, describes), there, |_| false)
            .or_else(|| {
                let rings = (first.node.ipam().store(), host.node.ipam().store());
                store(rings, |_| true, |_| false)
            })
            .or_else(|| store((zone, other), there, gone));
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

/// A member that was removed, is there again, and has not said so: nobody gives it anything.
pub(crate) fn unreturned(hosts: &[Host]) -> Option<String> {
    let mut members = hosts.iter().filter(|host| host.is_member());
    let host = members.find(|host| host.node.ipam().is_removed(host.id))?;
    Some(format!("h{} goes on as if it had not been removed", host.index))
}

/// Whether anybody has an IPv4 address to give to whoever names no range.
pub(crate) fn free(hosts: &[Host]) -> bool {
    hosts.iter().filter(|host| host.is_member()).any(|host| {
        let ranges = host.node.ipam().ranges_of(Family::V4);
        ranges.iter().any(|range| host.node.ipam().free_in(range) > 0)
    })
}

/// The first difference between what two stores hold of the origins that count. Who was told all of
/// an origin by one that had collected tombstones has none of these, and others may have them for
/// as long as the origin is away: it says when they go.
fn store<R: Register>(
    (a, b): (&Store<R>, &Store<R>),
    counts: impl Fn(&PeerId) -> bool,
    is_tombstone: impl Fn(&R::Value) -> bool,
) -> Option<String> {
    let (seen_a, seen_b) = (a.announced(), b.announced());
    let counted = |(origin, _): &(&PeerId, &u64)| counts(origin);
    if !seen_a.dots.iter().filter(counted).eq(seen_b.dots.iter().filter(counted)) {
        return Some(format!("{seen_a:?} against {seen_b:?}"));
    }
    let one = entries((a, b), &counts, &is_tombstone);
    first_difference(one, entries((b, a), &counts, &is_tombstone))
}

/// The entries of the first store that count, without tombstones that either may have collected.
fn entries<'a, R: Register>(
    (store, other): (&'a Store<R>, &'a Store<R>),
    counts: &'a impl Fn(&PeerId) -> bool,
    is_tombstone: &'a impl Fn(&R::Value) -> bool,
) -> impl Iterator<Item = (&'a R::Key, &'a Entry<R::Value>)> {
    let collected = move |entry: &Entry<R::Value>| {
        let floors = [store, other].map(|of| of.floors().get(&entry.dot.actor).copied());
        let floor = floors.into_iter().flatten().max().unwrap_or(0);
        is_tombstone(&entry.value) && entry.dot.counter <= floor
    };
    store.iter().filter(move |(_, entry)| counts(&entry.dot.actor) && !collected(entry))
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
    use mesh_dns::{Name, RecordKey, ZoneRegister};
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
        let compare = |a: &Members, b: &Members| store((a, b), |_| true, |_| false);
        assert_eq!(compare(&write("a"), &write("a")), None);
        assert!(compare(&write("a"), &write("b")).is_some(), "same vector, other value");
        assert!(compare(&write("a"), &Members::new(me)).is_some(), "one that the other lacks");
        assert!(differences(&[]).is_none());
    }

    #[test]
    fn a_tombstone_that_one_has_collected_is_no_difference_and_a_name_is_one() {
        let me = PeerId::new([1; 16]);
        let key = |holder: &str| RecordKey {
            origin: me,
            holder: holder.to_owned(),
            name: Name::parse("a.mesh.internal").unwrap(),
        };
        let write = |value: RecordValue| {
            let mut zone = Store::<ZoneRegister>::new(me);
            zone.write(key("c1"), RecordValue::Tombstone);
            zone.write(key("c2"), value);
            zone
        };
        let compare = |a: &Store<ZoneRegister>, b: &Store<ZoneRegister>| {
            store((a, b), |_| true, |value| *value == RecordValue::Tombstone)
        };
        let there = write(RecordValue::Addresses(vec!["10.0.0.1".parse().unwrap()]));
        let mut collected = there.clone();
        collected.collect(&key("c1"));
        assert_eq!(compare(&there, &collected), None);
        assert_eq!(compare(&collected, &there), None);
        let mut other = write(RecordValue::Addresses(vec!["10.0.0.2".parse().unwrap()]));
        assert!(compare(&there, &other).is_some());
        other.collect(&key("c1"));
        assert!(compare(&there, &other).is_some(), "also if it has collected something");
    }
}
