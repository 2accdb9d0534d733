//! What lies inside a grant is retired before the grant is written.
//!
//! A retirement by the granter that names its own grant has the smaller counter: who has seen the
//! grant has then seen it, too, and writes with greater ones.

use mesh_ipam::{Owner, RingKey, RingValue, ring::Version};

use super::Violation;
use crate::host::Host;

/// Looks at a host's own retirements.
pub(crate) fn before_grant(host: &Host) -> Result<(), Violation> {
    let ring = host.node.ipam().store();
    for key in ring.keys_of(host.id) {
        let Some(entry) = ring.get(key) else { continue };
        let RingValue::Retired { within, at_least, .. } = entry.value else { continue };
        let Some(around) = ring.get(&RingKey::Block(within)) else { continue };
        let granted = matches!(around.value, RingValue::Owned { owner, .. } if owner != host.id);
        let named = granted && around.dot.actor == host.id && Version::of(around) == at_least;
        // Of what smaller entries hide, as `Ipam::tidy` does later, it passes nothing on.
        let RingKey::Block(inner) = key else { continue };
        let own = host.node.ipam().owner(inner.first()) == Owner::Peer(host.id);
        if named && !own && entry.dot.counter > at_least.counter {
            let text = format!("h{} retires {key:?} after it granted {within}", host.index);
            return Err(Violation::new("retired", text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use mesh_ipam::Block;
    use mesh_router::{PeerId, codec, store::Entry};
    use meshwork::node::event::{BatchId, Table, Write};

    use super::*;
    use crate::dice::Dice;

    #[test]
    fn a_retirement_after_its_grant_is_noticed() {
        let block = |text: &str| Block::from(text.parse::<ipnetwork::IpNetwork>().unwrap());
        let (outer, inner) = (block("10.32.0.0/30"), block("10.32.0.0/31"));
        for (grant, retirement, sound) in [(7, 6, true), (7, 8, false)] {
            let mut dice = Dice::new(1, 0);
            let mut host = Host::new(0, None, &mut dice).unwrap();
            let me = host.id;
            let owned = RingValue::Owned { owner: PeerId::new([2; 16]), epoch: 0 };
            let at_least = Version { epoch: 0, counter: grant, writer: me };
            let retired = RingValue::Retired { within: outer, at_least, epoch: 0 };
            let row = |block, counter, value| Write {
                table: Table::Ring,
                key: codec::encode(&RingKey::Block(block)),
                value: Some(codec::encode(&Entry {
                    dot: mesh_router::store::Dot::new(me, counter),
                    value,
                })),
            };
            let writes = vec![row(outer, grant, owned), row(inner, retirement, retired)];
            host.disk.begin(BatchId(1), writes, 0);
            host.disk.store(BatchId(1));
            host.start(0, &mut dice).unwrap();
            assert_eq!(before_grant(&host).is_ok(), sound);
        }
    }
}
