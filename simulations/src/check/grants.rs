//! One request for space gets one grant, and the grant is on disk before anybody is told of it.
//!
//! The donor is looked at from outside, before and after a request reaches it: a second block for
//! a request that has its answer in the ring is one too many, as is any for a request that its
//! sender's later writes show to be old.

use mesh_ipam::{RingKey, RingValue, SpaceMessage, SpaceRequest};
use mesh_router::{PeerId, codec};
use meshwork::node::event::Table;

use super::{
    Violation,
    messages::{self, Message},
};
use crate::host::Host;

/// What a donor had before a request reached it.
#[derive(Debug)]
pub(crate) struct Before {
    from: PeerId,
    counter: u64,
    /// The request was answered, or is overtaken.
    done: bool,
}

/// A message about space in a frame, with its ends.
fn space_message(frame: &[u8]) -> Option<(PeerId, PeerId, SpaceMessage)> {
    match messages::of(frame)? {
        (from, to, Message::Space(message)) => Some((from, to, message)),
        _ => None,
    }
}

/// A frame is about to reach a host: remembers how it stands, if it is a request for space.
pub(crate) fn before(host: &Host, frame: &[u8]) -> Option<Before> {
    let (from, to, SpaceMessage::Request(request)) = space_message(frame)? else { return None };
    let ipam = host.node.ipam();
    if to != host.id || from == host.id || ipam.is_leaving() {
        return None;
    }
    let answered = own_grants(host, from, request.seen).any(|block| match request.address {
        Some(address) => block.contains(address),
        None => request.range.covers(&block),
    });
    let overtaken = is_overtaken(host, from, &request);
    Some(Before { from, counter: ipam.store().own_counter(), done: answered || overtaken })
}

fn is_overtaken(host: &Host, from: PeerId, request: &SpaceRequest) -> bool {
    host.node.ipam().store().vector().get(&from) > request.own
}

/// Blocks that the host granted to a peer after its own write of this number.
fn own_grants(host: &Host, to: PeerId, after: u64) -> impl Iterator<Item = mesh_ipam::Block> {
    let ring = host.node.ipam().store();
    ring.keys_of(host.id).filter_map(move |key| {
        let RingKey::Block(block) = key else { return None };
        let entry = ring.get(key)?;
        let theirs = matches!(entry.value, RingValue::Owned { owner, .. } if owner == to);
        (theirs && entry.dot.counter > after).then_some(*block)
    })
}

/// The frame has reached the host.
pub(crate) fn after(host: &Host, before: &Before) -> Result<(), Violation> {
    if !before.done {
        return Ok(());
    }
    match own_grants(host, before.from, before.counter).next() {
        None => Ok(()),
        Some(block) => {
            let text = format!(
                "h{} grants {block} to {} for a request that is done",
                host.index,
                before.from.short()
            );
            Err(Violation::new("grants", text))
        }
    }
}

/// A host sends a frame: what it says to have granted is on its disk.
pub(crate) fn durable(host: &Host, frame: &[u8]) -> Result<(), Violation> {
    let Some((from, _, SpaceMessage::Granted { block, .. })) = space_message(frame) else {
        return Ok(());
    };
    let key = codec::encode(&RingKey::Block(block));
    if from != host.id || host.disk.get(Table::Ring, &key).is_some() {
        return Ok(());
    }
    let text = format!("h{} tells that it granted {block}, and its disk has not", host.index);
    Err(Violation::new("grants", text))
}

#[cfg(test)]
mod tests {
    use mesh_router::frame::Frame;

    use super::*;
    use crate::dice::Dice;

    #[test]
    fn a_grant_that_is_told_and_not_on_disk_is_noticed() {
        let host = Host::new(0, None, &mut Dice::new(1, 0)).unwrap();
        let block = "10.32.0.0/26".parse::<ipnetwork::IpNetwork>().unwrap().into();
        let payload =
            codec::encode(&Message::Space(SpaceMessage::Granted { id: 1, block, free: 0 }));
        let to = PeerId::new([1; 16]);
        let told = |from| Frame::Routed { from, to, hops_left: 1, payload: payload.clone() };
        assert!(durable(&host, &told(host.id).encode()).is_err());
        assert!(durable(&host, &told(to).encode()).is_ok(), "it only passes it on");
        assert!(
            durable(
                &host,
                &Frame::Synced { pull: 1, word: mesh_router::frame::Word::Settled }.encode()
            )
            .is_ok()
        );
    }
}
