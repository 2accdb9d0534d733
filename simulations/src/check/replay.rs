//! A delta equals the full state: a replica that knows nothing, fed what a node tells one that
//! knows nothing, holds what the node holds and derives the same from it.

use mesh_ipam::Ipam;
use mesh_router::{PeerId, Register, Store, store::Cursor};

use super::{Violation, convergence::first_difference};
use crate::host::Host;

/// Feeds a new replica all that a host tells.
pub(crate) fn equal(host: &Host) -> Result<(), Violation> {
    let wrong = |what: String| {
        let text = format!("h{}: a replica that was told everything {what}", host.index);
        Err(Violation::new("replay", text))
    };
    let mut fresh = Ipam::new(PeerId::new([0xfe; 16]));
    let told = feed(host.node.ipam().store(), |bytes| fresh.absorb(bytes).is_ok_and(|all| all));
    if let Err(what) = told.and_then(|()| same(host.node.ipam().store(), fresh.store())) {
        return wrong(what);
    }
    if host.node.ipam().routes() != fresh.routes() {
        let (ours, theirs) = (host.node.ipam().routes(), fresh.routes());
        return wrong(format!("routes otherwise: {theirs:?}, not {ours:?}"));
    }
    let members = copy(host.node.router().members());
    let zone = copy(host.node.zone().store());
    members.and(zone).or_else(wrong)
}

fn copy<R: Register>(store: &Store<R>) -> Result<(), String> {
    let mut fresh = Store::<R>::new(PeerId::new([0xfe; 16]));
    feed(store, |bytes| fresh.apply(bytes).is_ok_and(|all| all))?;
    same(store, &fresh)
}

fn feed<R: Register>(store: &Store<R>, mut take: impl FnMut(&[u8]) -> bool) -> Result<(), String> {
    let mut cursor = Cursor::default();
    loop {
        let delta = store.delta(&cursor, |_| true, usize::MAX);
        if !delta.bytes.is_empty() && !take(&delta.bytes) {
            return Err("does not take it".to_owned());
        }
        if !delta.more {
            return Ok(());
        }
        cursor = delta.cursor;
    }
}

fn same<R: Register>(ours: &Store<R>, theirs: &Store<R>) -> Result<(), String> {
    if ours.announced() != theirs.announced() {
        return Err(format!("has seen {:?}, not {:?}", theirs.announced(), ours.announced()));
    }
    match first_difference(theirs.iter(), ours.iter()) {
        None => Ok(()),
        Some(difference) => Err(format!("has other entries: {difference}")),
    }
}

#[cfg(test)]
mod tests {
    use mesh_router::member::{Info, MemberKey, MemberValue, Members};

    use super::*;

    #[test]
    fn what_a_store_keeps_to_itself_is_noticed() {
        let me = PeerId::new([1; 16]);
        let mut members = Members::new(me);
        let info = Info { name: "a".into(), endpoints: vec![], incarnation: 0, left: false };
        let dot = members.write(MemberKey::Info(me), MemberValue::Info(info));
        assert!(copy(&members).is_err(), "it is not durable, so it is not told");
        members.mark_durable(dot.counter);
        assert_eq!(copy(&members), Ok(()));
    }
}
