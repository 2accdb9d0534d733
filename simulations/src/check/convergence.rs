//! Nodes that are connected and quiet hold equal states.

use mesh_ipam::Family;
use mesh_router::{Register, Store, codec};

use crate::host::Host;

/// The first difference between members that are up, in words; also that one is not ready.
pub(crate) fn differences(hosts: &[Host]) -> Option<String> {
    let mut members = hosts.iter().filter(|host| host.is_member());
    let waiting = hosts.iter().filter(|host| !host.stays_down).find(|host| !host.is_member());
    if let Some(host) = waiting {
        return Some(format!("h{} is in no mesh", host.index));
    }
    let first = members.next()?;
    for host in members {
        let difference = store(first.node.router().members(), host.node.router().members())
            .or_else(|| store(first.node.ipam().store(), host.node.ipam().store()))
            .or_else(|| store(first.node.zone().store(), host.node.zone().store()));
        if let Some(what) = difference {
            return Some(format!("h{} and h{} differ: {what}", first.index, host.index));
        }
    }
    let unready = hosts.iter().filter(|host| host.is_member()).find(|host| !host.node.is_ready());
    unready.filter(|_| free(hosts)).map(|host| format!("h{} is not ready", host.index))
}

/// Whether anybody has an IPv4 address to give to whoever names no range.
pub(crate) fn free(hosts: &[Host]) -> bool {
    hosts.iter().filter(|host| host.is_member()).any(|host| {
        let range = host.node.ipam().default_range(Family::V4);
        range.is_some_and(|range| host.node.ipam().free_in(&range) > 0)
    })
}

fn store<R: Register>(a: &Store<R>, b: &Store<R>) -> Option<String> {
    if a.announced() != b.announced() {
        return Some(format!("{:?} against {:?}", a.announced(), b.announced()));
    }
    let all = |store: &Store<R>| codec::encode(&store.iter().collect::<Vec<_>>());
    if a.len() == b.len() && all(a) == all(b) {
        return None;
    }
    let odd = a
        .iter()
        .find(|(key, entry)| b.get(key) != Some(entry))
        .map(|(key, entry)| format!("{key:?} {entry:?} against {:?}", b.get(key)))
        .or_else(|| {
            let odd = b.iter().find(|(key, _)| a.get(key).is_none());
            odd.map(|(key, entry)| format!("{key:?} {entry:?} against nothing"))
        });
    Some(odd.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use mesh_router::{
        PeerId,
        member::{Info, MemberKey, MemberValue, Members},
    };

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
        assert_eq!(store(&write("a"), &write("a")), None);
        assert!(store(&write("a"), &write("b")).is_some(), "same vector, other value");
        assert!(store(&write("a"), &Members::new(me)).is_some(), "an entry that the other lacks");
        assert!(differences(&[]).is_none());
    }
}
