//! The truth about addresses: who holds which, whatever the nodes believe.
//!
//! A container holds its addresses as long as its link stands in the kernel, crash or not; one
//! without a link from the reply of its attach until somebody asks for its detach.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use mesh_ipam::Holder;
use meshwork::api::types::{AttachRequest, Attachment};

use crate::check::Violation;

/// Who holds an address: on which host, and who there.
pub(crate) type Claimant = (usize, String);

/// What a successful attach promised.
#[derive(Debug, Clone)]
pub(crate) struct Promise {
    pub(crate) request: AttachRequest,
    pub(crate) attachment: Attachment,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    held: BTreeMap<IpAddr, BTreeMap<Claimant, u32>>,
    promises: BTreeMap<(usize, Holder), Promise>,
    by_hand: BTreeMap<(usize, String), BTreeSet<IpAddr>>,
    /// Names of which nobody knows whether they were added or removed.
    unsure: BTreeSet<(usize, String)>,
    /// Hosts that may give what others give, too: a removal by force put asunder what they know. It
    /// is then shown as a conflict.
    pub(crate) excused: BTreeSet<usize>,
    /// What hosts held when their blocks were taken from them, or their disks were set back: that
    /// may be others'.
    old: BTreeSet<(usize, IpAddr)>,
    /// Addresses that are held twice and are shown.
    shown: BTreeSet<IpAddr>,
}

impl Ledger {
    /// Somebody holds an address from now on.
    pub(crate) fn hold(&mut self, address: IpAddr, claimant: Claimant) -> Result<(), Violation> {
        let claimants = self.held.entry(address).or_default();
        *claimants.entry(claimant).or_default() += 1;
        let excused =
            |host: usize| self.excused.contains(&host) || self.old.contains(&(host, address));
        let counts = claimants.keys().filter(|(host, _)| !excused(*host)).count();
        if counts > 1 && !self.shown.contains(&address) {
            let all: Vec<String> =
                claimants.keys().map(|(host, who)| format!("{who} on h{host}")).collect();
            return Err(Violation::new("addresses", format!("{address}: {}", all.join(" and "))));
        }
        Ok(())
    }

    /// What is held by more than one, and by whom.
    pub(crate) fn held_twice(&self) -> impl Iterator<Item = (IpAddr, Vec<Claimant>)> {
        let twice = self.held.iter().filter(|(_, claimants)| claimants.len() > 1);
        twice.map(|(address, claimants)| (*address, claimants.keys().cloned().collect()))
    }

    /// What a host's containers hold now, or its disk says that they do, may be others'.
    pub(crate) fn excuse_what_is_held(&mut self, host: usize, recorded: &BTreeSet<IpAddr>) {
        let own = |claimants: &BTreeMap<Claimant, u32>| claimants.keys().any(|(at, _)| *at == host);
        let held = self.held.iter().filter(|(_, claimants)| own(claimants));
        let all = held.map(|(address, _)| address).chain(recorded);
        self.old.extend(all.map(|address| (host, *address)));
    }

    /// What is held twice now is shown; from here on nobody is excused.
    pub(crate) fn accept(&mut self) {
        self.shown = self.held_twice().map(|(address, _)| address).collect();
        self.excused.clear();
    }

    /// Somebody holds an address no longer.
    pub(crate) fn let_go(&mut self, address: IpAddr, claimant: &Claimant) {
        let Some(claimants) = self.held.get_mut(&address) else { return };
        if let Some(count) = claimants.get_mut(claimant) {
            *count -= 1;
            if *count == 0 {
                claimants.remove(claimant);
            }
        }
        if claimants.is_empty() {
            self.held.remove(&address);
        }
    }

    pub(crate) fn promise(&self, host: usize, holder: &Holder) -> Option<&Promise> {
        self.promises.get(&(host, holder.clone()))
    }

    pub(crate) fn promises(&self) -> impl Iterator<Item = (&(usize, Holder), &Promise)> {
        self.promises.iter()
    }

    /// The holders on a host that were promised something.
    pub(crate) fn holders(&self, host: usize) -> Vec<Holder> {
        let own = self.promises.keys().filter(|(at, _)| *at == host);
        own.map(|(_, holder)| holder.clone()).collect()
    }

    /// An attach succeeded.
    pub(crate) fn keep(
        &mut self,
        host: usize,
        holder: Holder,
        promise: Promise,
    ) -> Result<(), Violation> {
        if let Some(before) = self.promise(host, &holder) {
            return same_answer(&before.attachment, &promise.attachment);
        }
        if promise.attachment.netns.is_none() {
            for network in &promise.attachment.addresses {
                self.hold(network.ip(), (host, holder.to_string()))?;
            }
        }
        self.promises.insert((host, holder), promise);
        Ok(())
    }

    /// Somebody asked for its detach, or it is gone.
    pub(crate) fn end(&mut self, host: usize, holder: &Holder) {
        let Some(promise) = self.promises.remove(&(host, holder.clone())) else { return };
        if promise.attachment.netns.is_none() {
            for network in &promise.attachment.addresses {
                self.let_go(network.ip(), &(host, holder.to_string()));
            }
        }
    }

    /// Everybody on a host is gone.
    pub(crate) fn end_all(&mut self, host: usize) {
        for holder in self.holders(host) {
            self.end(host, &holder);
        }
        self.by_hand.retain(|(at, _), _| *at != host);
        self.unsure.retain(|(at, _)| *at != host);
    }

    /// A name was added (or, with no addresses, removed) by hand on a host.
    pub(crate) fn name(&mut self, host: usize, name: &str, add: bool, addresses: &[IpAddr]) {
        let key = (host, name.to_owned());
        if add {
            self.by_hand.entry(key).or_default().extend(addresses);
        } else {
            self.by_hand.remove(&key);
        }
    }

    /// Nobody knows what became of a name.
    pub(crate) fn unsure(&mut self, host: usize, name: &str) {
        self.unsure.insert((host, name.to_owned()));
    }

    /// Nobody knows what became of any of a host's names.
    pub(crate) fn unsure_of_all(&mut self, host: usize) {
        let names: Vec<_> = self.by_hand.keys().filter(|(at, _)| *at == host).cloned().collect();
        self.unsure.extend(names);
    }

    /// Names by hand of which it is known how they stand.
    pub(crate) fn names(&self) -> impl Iterator<Item = (usize, &str, &BTreeSet<IpAddr>)> {
        let sure = self.by_hand.iter().filter(|(key, _)| !self.unsure.contains(key));
        sure.map(|((host, name), addresses)| (*host, name.as_str(), addresses))
    }
}

/// The same attach twice gives the same answer.
fn same_answer(before: &Attachment, after: &Attachment) -> Result<(), Violation> {
    let facts = |a: &Attachment| (a.addresses.clone(), a.mac.clone(), a.host_interface.clone());
    if facts(before) == facts(after) && before.gateways == after.gateways {
        return Ok(());
    }
    let text = format!("{}: first {before:?}, then {after:?}", before.container);
    Err(Violation::new("answers", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_holders_of_one_address_are_noticed_wherever_they_are() {
        let address: IpAddr = "10.32.0.9".parse().unwrap();
        for other in [(0, "b".to_owned()), (1, "a".to_owned())] {
            let mut ledger = Ledger::default();
            ledger.hold(address, (0, "a".to_owned())).unwrap();
            ledger.hold(address, (0, "a".to_owned())).expect("it is the same holder");
            assert!(ledger.hold(address, other.clone()).is_err());
            let mut ledger = Ledger::default();
            ledger.hold(address, (0, "a".to_owned())).unwrap();
            ledger.let_go(address, &(0, "a".to_owned()));
            ledger.hold(address, other).expect("it was let go");
        }
    }
}
