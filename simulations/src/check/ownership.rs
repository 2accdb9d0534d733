//! At most one node believes itself the owner of an address, and in the end each address has one.

use mesh_ipam::{Block, RingKey, RingValue};

use super::Violation;
use crate::host::Host;

/// What a node owns, nobody else does: nodes that are down count with what they would start with.
pub(crate) fn single(hosts: &[Host], host: usize) -> Result<(), Violation> {
    let mine = &hosts[host].seen.owned;
    for other in hosts.iter().filter(|other| other.index != host) {
        if let Some((a, b)) = overlap(mine, &other.seen.owned) {
            let mut text = format!("{a} is h{host}'s and {b} is h{}'s, say they", other.index);
            for who in [&hosts[host], other] {
                text += &format!("; h{} ({}):{}", who.index, who.id.short(), entries(who, &a));
            }
            return Err(Violation::new("ownership", text));
        }
    }
    Ok(())
}

/// What a host's ring says about a block.
pub(crate) fn entries(host: &Host, block: &Block) -> String {
    let about = |key: &RingKey| match key {
        RingKey::Range(range) | RingKey::Block(range) => range.overlaps(block),
        RingKey::Epoch | RingKey::Elector(_) | RingKey::Removed(_) | RingKey::Base => true,
    };
    let all = host.node.ipam().store().iter().filter(|(key, _)| about(key));
    all.map(|(key, entry)| format!(" {key:?} {:?} {:?}", entry.dot, entry.value)).collect()
}

/// The first overlap of two rising lists of disjoint blocks.
fn overlap(a: &[Block], b: &[Block]) -> Option<(Block, Block)> {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    while let (Some(left), Some(right)) = (a.peek(), b.peek()) {
        if left.overlaps(right) {
            return Some((**left, **right));
        }
        if left < right {
            a.next()
        } else {
            b.next()
        };
    }
    None
}

/// How many ranges of the mesh a node knows.
pub(crate) fn ranges_known(host: &Host) -> usize {
    host.node.ipam().ranges().len()
}

/// Ranges do not overlap: in each of them whoever added it owned everything.
pub(crate) fn disjoint(host: &Host) -> Result<(), Violation> {
    let ring = host.node.ipam().store();
    let mut last: Option<Block> = None;
    for (key, _) in ring.iter() {
        let RingKey::Range(range) = *key else { break };
        if let Some(last) = last.filter(|last| last.overlaps(&range)) {
            let text = format!("h{} knows the ranges {last} and {range}", host.index);
            return Err(Violation::new("ownership", text));
        }
        last = Some(range);
    }
    Ok(())
}

/// Every node knows all ranges of the mesh.
pub(crate) fn ranges(hosts: &[Host], least: usize) -> Result<(), Violation> {
    let members = || hosts.iter().filter(|host| host.is_member());
    // One may have been added although whoever asked for it was not told so.
    let most = members().map(ranges_known).max().unwrap_or(least).max(least);
    match members().find(|host| ranges_known(host) != most) {
        None => Ok(()),
        Some(host) => {
            let text = format!("h{} knows {} ranges, not {most}", host.index, ranges_known(host));
            Err(Violation::new("ownership", text))
        }
    }
}

/// The nodes together own all of every range.
pub(crate) fn covered(hosts: &[Host]) -> Result<(), Violation> {
    let members = || hosts.iter().filter(|host| host.is_member());
    let Some(first) = members().next() else { return Ok(()) };
    for range in first.node.ipam().ranges() {
        let owned: u128 = members().map(|host| host.node.ipam().owned_in(range, host.id)).sum();
        if owned != range.size() {
            let there = |peer| members().any(|host| host.id == peer);
            let all = first.node.ipam().store().iter();
            let lost = all.filter(|(_, entry)| match entry.value {
                RingValue::Owned { owner, .. } => !there(owner),
                _ => false,
            });
            let lost: String = lost.map(|entry| format!(" {entry:?}")).collect();
            let text = format!(
                "of {range} only {owned} of {} addresses are owned; others':{lost}",
                range.size()
            );
            return Err(Violation::new("ownership", text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(all: &[&str]) -> Vec<Block> {
        let block = |text: &&str| Block::from(text.parse::<ipnetwork::IpNetwork>().unwrap());
        all.iter().map(block).collect()
    }

    #[test]
    fn an_address_with_two_owners_is_noticed() {
        let mine = blocks(&["10.0.0.0/24", "10.0.4.0/22", "fd00::/64"]);
        assert_eq!(overlap(&mine, &blocks(&["10.0.1.0/24", "10.0.8.0/24", "fd00:1::/64"])), None);
        assert!(overlap(&mine, &blocks(&["10.0.7.255/32"])).is_some());
        assert!(overlap(&mine, &blocks(&["10.0.3.0/24", "fd00::7/128"])).is_some());
        assert!(overlap(&blocks(&["10.0.0.9/32"]), &mine).is_some());
    }
}
