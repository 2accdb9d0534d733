//! What the mesh decides together it decides once: whoever knows of a decree knows the same one.
//! And who votes has on its disk what it says to have promised.

use std::collections::{BTreeMap, btree_map::Entry};

use mesh_ipam::{
    RingKey, RingValue,
    council::{DECREE, acceptor::Acceptor, message::Body},
};
use mesh_router::{PeerId, codec};
use meshwork::node::event::Table;

use super::{
    Violation,
    messages::{self, Message},
};
use crate::host::Host;

/// The writes of all decrees so far, by their number, with who was seen to know them first.
pub(crate) type Decreed = BTreeMap<u64, (RingKey, RingValue, usize)>;

/// Compares what a host knows of decrees with what was known before. Returns whose removal was not:
/// who had asked for it may never be told.
pub(crate) fn same(decreed: &mut Decreed, host: &Host) -> Result<Vec<PeerId>, Violation> {
    let mut removed = Vec::new();
    let ring = host.node.ipam().store();
    for key in ring.keys_of(DECREE) {
        let Some(entry) = ring.get(key) else { continue };
        match decreed.entry(entry.dot.counter) {
            Entry::Vacant(slot) => {
                slot.insert((*key, entry.value, host.index));
                if let (RingKey::Removed(peer), RingValue::Removed { .. }) = (key, entry.value) {
                    removed.push(*peer);
                }
            }
            Entry::Occupied(slot) => {
                let (known, value, by) = slot.get();
                if (known, value) != (key, &entry.value) {
                    let (number, value) = (entry.dot.counter, &entry.value);
                    let text = format!(
                        "write {number} of the decrees is {key:?} {value:?} on h{}, and {:?} on \
                         h{by}",
                        host.index,
                        slot.get(),
                    );
                    return Err(Violation::new("decrees", text));
                }
            }
        }
    }
    Ok(removed)
}

/// A host sends a frame: what it promises in it, or says to have accepted, is on its disk.
pub(crate) fn durable(host: &Host, frame: &[u8]) -> Result<(), Violation> {
    let Some((from, _, Message::Council(said))) = messages::of(frame) else { return Ok(()) };
    let accepted = matches!(said.body, Body::Accepted);
    if from != host.id || !(accepted || matches!(said.body, Body::Promise { .. })) {
        return Ok(());
    }
    let row = host.disk.get(Table::Mesh, b"council").map(codec::decode::<Acceptor>);
    let stands = |acceptor: &Acceptor| match accepted {
        true => acceptor.has_accepted((said.branch, said.epoch), said.ballot),
        false => acceptor.has_promised((said.branch, said.epoch), said.ballot),
    };
    match row {
        Some(Ok(acceptor)) if stands(&acceptor) => Ok(()),
        row => {
            let text = format!("h{} says {said:?}, and its disk has {row:?}", host.index);
            Err(Violation::new("decrees", text))
        }
    }
}

#[cfg(test)]
mod tests {
    use mesh_ipam::council::{
        branch::Fork,
        message::{Ballot, CouncilMessage},
    };
    use mesh_router::frame::Frame;

    use super::*;
    use crate::dice::Dice;

    #[test]
    fn a_promise_that_is_told_and_not_on_disk_is_noticed() {
        let host = Host::new(0, None, &mut Dice::new(1, 0)).unwrap();
        let ballot = Ballot { round: 1, proposer: PeerId::new([1; 16]) };
        let said = |body| {
            let message = CouncilMessage { epoch: 1, branch: Fork::default(), ballot, body };
            let payload = codec::encode(&Message::Council(message));
            Frame::Routed { from: host.id, to: ballot.proposer, hops_left: 1, payload }.encode()
        };
        assert!(durable(&host, &said(Body::Accepted)).is_err());
        assert!(durable(&host, &said(Body::GivenUp)).is_ok(), "it promises nothing");
    }

    #[test]
    fn two_decrees_with_one_number_are_noticed() {
        let mut host = Host::new(0, None, &mut Dice::new(1, 0)).unwrap();
        let mut decreed = Decreed::new();
        let mut knows = |cut: u64| {
            let key = RingKey::Removed(PeerId::new([7; 16]));
            let value = RingValue::Removed { cut, epoch: 1 };
            let entry =
                mesh_router::store::Entry { dot: mesh_router::store::Dot::new(DECREE, 1), value };
            let (key, value) = (codec::encode(&key), Some(codec::encode(&entry)));
            let write = meshwork::node::event::Write { table: Table::Ring, key, value };
            host.disk.begin(meshwork::node::event::BatchId(1), vec![write], 0);
            host.disk.store(meshwork::node::event::BatchId(1));
            host.start(0, &mut Dice::new(1, 0)).unwrap();
            same(&mut decreed, &host)
        };
        assert_eq!(knows(3), Ok(vec![PeerId::new([7; 16])]));
        assert_eq!(knows(3), Ok(Vec::new()), "that is known");
        assert!(knows(4).is_err());
    }
}
