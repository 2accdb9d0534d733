//! Attach: how a slot gets addresses, names and a link. What comes after is in `super::standing`.

use std::net::IpAddr;

use mesh_dns::Name;
use mesh_ipam::{AllocateError, Family, Holder, Wanted};
use mesh_router::{Mutation, Time, mutation};
use rand::RngExt;

use super::{
    Node,
    attachment::{Slot, Stage},
    desired::{BRIDGE_LINK_LOCAL, Mac, Wiring},
    event::{Output, RequestId},
    naming::put_refusal,
    needs::Need,
    request::{Code, Refusal, Reply},
};
use crate::api::types::AttachRequest;

/// Slots that may wait for addresses at once. Chosen: as many as requests may wait for readiness.
const WAITING_MAX: usize = 4096;
/// Requests that may wait for one slot. Chosen: above any number of tries in one patience.
const CROWD_MAX: usize = 64;

/// Who holds the gateway addresses.
pub(super) fn gateway_holder() -> Holder {
    Holder { container: "meshd".to_owned(), interface: "gateway".to_owned() }
}

/// What the zone calls a holder.
pub(super) fn zone_holder(holder: &Holder) -> String {
    format!("{}/{}", holder.container, holder.interface)
}

impl Slot {
    /// Until when it waits for space, if it does and not for ever.
    pub(super) fn waits_until(&self) -> Option<Time> {
        match self.stage {
            Stage::Waiting(until) => until,
            _ => None,
        }
    }

    /// Whether it is being removed.
    pub(super) fn is_going(&self) -> bool {
        matches!(self.stage, Stage::Removing { .. })
    }
}

impl Node {
    pub(super) fn attach(&mut self, id: RequestId, request: Box<AttachRequest>, until: Time) {
        if let Err(refusal) = self.check_attach(&request) {
            return self.reply(id, Err(refusal));
        }
        let holder =
            Holder { container: request.container.clone(), interface: request.interface.clone() };
        if let Some(refusal) = self.crowded(&holder) {
            return self.reply(id, Err(refusal));
        }
        match self.slots.get_mut(&holder) {
            None => self.begin_for(id, holder, request, until),
            Some(slot) => match slot.stage {
                Stage::Waiting(_) | Stage::Making { .. } => slot.askers.push(id),
                Stage::Removing { .. } => slot.next.push((id, request, until)),
                Stage::Standing => self.attach_again(id, &holder, &request),
            },
        }
    }

    /// Why nobody else can wait for this holder; `None` when there is room.
    pub(super) fn crowded(&self, holder: &Holder) -> Option<Refusal> {
        let slot = self.slots.get(holder);
        let waiting =
            slot.map_or(0, |slot| slot.askers.len() + slot.removers.len() + slot.next.len());
        let text = if waiting >= CROWD_MAX {
            format!("{CROWD_MAX} requests wait for {holder} already")
        } else if slot.is_none() && self.waiting.len() >= WAITING_MAX {
            format!("{WAITING_MAX} containers wait for addresses already")
        } else {
            return None;
        };
        Some(Refusal::new(Code::NotReady, text, "try again when some of them were answered"))
    }

    pub(super) fn begin_for(
        &mut self,
        id: RequestId,
        holder: Holder,
        request: Box<AttachRequest>,
        until: Time,
    ) {
        let mut slot = Slot::new(holder.clone(), Some(until));
        slot.request = Some(request);
        slot.askers.push(id);
        self.begin(holder, slot);
    }

    /// The same attach again: the same answer. A link is made again, for the container may have got
    /// a new namespace; one that stands is left as it is.
    pub(super) fn attach_again(&mut self, id: RequestId, holder: &Holder, request: &AttachRequest) {
        let slot = self.slots.get_mut(holder).expect("the caller has seen it");
        let held = &slot.record.addresses;
        let other = request.addresses.iter().find(|address| !held.contains(address));
        let outside = request.subnets.iter().find(|subnet| {
            let mut family = held.iter().filter(|ip| ip.is_ipv4() == subnet.is_ipv4());
            !family.any(|ip| subnet.contains(*ip))
        });
        if let Some(what) = other.map(ToString::to_string).or(outside.map(ToString::to_string)) {
            let refusal = Refusal::new(
                Code::Conflict,
                format!("{} already has other addresses than {what}", holder.container),
                "detach it first, or ask for the addresses that it has",
            );
            return self.reply(id, Err(refusal));
        }
        slot.askers.push(id);
        slot.stage = Stage::Making { storing: None, wiring: false };
        let wiring = request.netns.as_ref().map(|netns| self.wiring(holder, request, netns));
        let slot = self.slots.get_mut(holder).expect("the caller has seen it");
        let old = slot.record.wiring.take();
        slot.before.clone_from(&old);
        slot.record.wiring = wiring.or_else(|| old.clone());
        if let (Some(new), Some(old)) = (&mut slot.record.wiring, &old) {
            new.host_name.clone_from(&old.host_name);
            new.mac = old.mac;
        }
        self.store_and_wire(holder, request.netns.is_some());
        self.finish(holder);
    }

    fn begin(&mut self, holder: Holder, mut slot: Slot) {
        slot.since = self.now;
        self.slots.insert(holder.clone(), slot);
        self.waiting.insert(holder.clone());
        self.try_allocate(&holder);
    }

    /// The host's own addresses, one of each family.
    pub(super) fn keep_gateway(&mut self) {
        let member = self.mesh.is_some() && !self.is_leaving();
        if !member || !self.router.is_settled() || self.ipam.ranges().is_empty() {
            self.gateway_kept = None;
            return;
        }
        let mark = self.ipam.store().change_mark();
        if self.gateway_kept == Some(mark) {
            return;
        }
        let holder = gateway_holder();
        let families: Vec<Family> = self.families().collect();
        match self.slots.get_mut(&holder) {
            None => self.begin(holder.clone(), Slot::new(holder, None)),
            Some(slot) if slot.stage == Stage::Standing => {
                let addresses = &slot.record.addresses;
                let v4 = |of: &Family| *of == Family::V4;
                let has = |of: &Family| addresses.iter().any(|address| address.is_ipv4() == v4(of));
                if families.iter().all(has) {
                    self.gateway_kept = Some(mark);
                } else {
                    slot.stage = Stage::Waiting(None);
                    self.waiting.insert(holder);
                }
            }
            Some(_) => {}
        }
    }

    /// Looks again at everybody who waits for space, when something may have changed for them: the
    /// ring, what was answered to this host, what it holds itself, or that their patience has
    /// ended.
    pub(super) fn progress_waiting(&mut self) {
        let mark = self.ipam.store().change_mark();
        let due = std::mem::take(&mut self.waiting_due) || mark != self.waiting_mark;
        let over = |until: Time| until <= self.now;
        let mut waiting = self.waiting.iter();
        if !due && !waiting.any(|holder| self.slots[holder].waits_until().is_some_and(over)) {
            return;
        }
        self.waiting_mark = mark;
        for holder in self.waiting.clone() {
            self.try_allocate(&holder);
        }
        // When this host is sure again, nothing else may have changed.
        self.waiting_due |= !self.waiting.is_empty() && self.withholds_because().is_some();
    }

    /// Why no address is given now, whatever there is. Who is being told the ring anew sees it in
    /// pieces.
    fn withholds_because(&self) -> Option<String> {
        let told = !self.recalling && self.router.is_settled();
        if told { self.unsure_because() } else { Some(self.unsettled_words()) }
    }

    /// Takes addresses for a slot in `Waiting` if they are there, and goes on to `Making`.
    fn try_allocate(&mut self, holder: &Holder) {
        let now = self.now;
        let slot = &self.slots[holder];
        let (until, since) = (slot.waits_until(), slot.since);
        let over = until.is_some_and(|until| until <= now);
        if let Some(why) = self.withholds_because() {
            if over {
                let why = format!("no address in time: {why}");
                let hint = "try again; `meshctl status` tells when addresses are given again";
                self.give_up(holder, Refusal::new(Code::Timeout, why, hint));
            }
            return;
        }
        let mut addresses = Vec::new();
        let mut lent = Vec::new();
        for need in self.needs(slot) {
            let result = match need {
                Need::Claimed(address) => {
                    lent.push(address);
                    Ok(address)
                }
                Need::Own(wanted) => self.allocate(holder, wanted),
                Need::Of(family) => self.ipam.allocate_of(holder, family, now),
            };
            match result {
                Ok(address) => addresses.push(address),
                Err(error) if may_pass(&error) => {
                    if over {
                        self.give_up(holder, self.out_of_patience(&error));
                    }
                    return;
                }
                Err(AllocateError::Exhausted(ranges))
                    if !over && self.ipam.asks_again(&ranges, since, now) =>
                {
                    return;
                }
                Err(error) => return self.give_up(holder, self.refusal_of(&error, need)),
            }
        }
        self.lent.extend(lent.into_iter().map(|address| (address, holder.clone())));
        self.waiting.remove(holder);
        self.make(holder, addresses);
    }

    fn allocate(&mut self, holder: &Holder, wanted: Wanted) -> Result<IpAddr, AllocateError> {
        let result = self.ipam.allocate(holder, wanted, self.now);
        match &result {
            Err(AllocateError::Elsewhere { address, refused: None, .. })
                if !self.ipam.want_exact(*address) =>
            {
                return Err(AllocateError::Busy(*address));
            }
            Err(AllocateError::Taken { address, holder: user })
                if self.claims_what_it_has(holder, user) =>
            {
                let (address, user) = (*address, user.clone());
                self.ipam.hand_over(address, holder);
                self.lent.insert(address, user);
                return Ok(address);
            }
            _ => {}
        }
        result
    }

    fn out_of_patience(&self, error: &AllocateError) -> Refusal {
        let waiting = self.waiting_words();
        let asked = if waiting.is_empty() { String::new() } else { format!(" ({waiting})") };
        Refusal::new(
            Code::Timeout,
            format!("no address in time: {}{asked}", self.words(error)),
            "try again; `meshctl status ipam` tells who was asked for space",
        )
    }

    /// An error in words that name peers.
    fn words(&self, error: &AllocateError) -> String {
        match error {
            AllocateError::Elsewhere { address, owner, refused } => {
                let refused =
                    refused.as_ref().map(|reason| format!(", which refused it: {reason}"));
                let name = self.router.name_of(*owner);
                format!("{address} belongs to {name}{}", refused.unwrap_or_default())
            }
            other => other.to_string(),
        }
    }

    fn refusal_of(&self, error: &AllocateError, need: Need) -> Refusal {
        let (code, hint) = match error {
            AllocateError::Outside(_) => {
                (Code::Invalid, "`meshctl ipam range list` shows the mesh's ranges")
            }
            AllocateError::Reserved(_) => (Code::Invalid, "choose another address"),
            AllocateError::Taken { .. } | AllocateError::Elsewhere { .. } => {
                (Code::Conflict, "choose another address")
            }
            _ if matches!(need, Need::Of(_)) => (
                Code::Exhausted,
                "release addresses, or add a range with `meshctl ipam range add CIDR`",
            ),
            _ => (Code::Exhausted, "release addresses, or choose another or a larger subnet"),
        };
        Refusal::new(code, self.words(error), hint)
    }

    /// A slot in `Waiting` gets nothing: its askers are told and it is gone.
    pub(super) fn give_up(&mut self, holder: &Holder, refusal: Refusal) {
        self.waiting.remove(holder);
        if *holder == gateway_holder() && !self.is_leaving() {
            return self.gateway_waits_on(refusal);
        }
        if let Some(slot) = self.slots.remove(holder) {
            self.let_go(&slot.record);
            self.forget_needs(slot.request.as_deref());
            for asker in slot.askers {
                self.reply(asker, Err(refusal.clone()));
            }
            for remover in slot.removers {
                self.reply(remover, Ok(Reply::Done));
            }
        }
    }

    /// The host's own addresses are never given up: they are taken as soon as there are any.
    fn gateway_waits_on(&mut self, refusal: Refusal) {
        self.waiting.insert(gateway_holder());
        let slot = self.slots.get_mut(&gateway_holder()).expect("it was just refused");
        if slot.failure.as_ref() != Some(&refusal) {
            slot.failure = Some(refusal.clone());
            self.notice(true, format!("no gateway address yet: {refusal}"));
        }
    }

    fn make(&mut self, holder: &Holder, addresses: Vec<IpAddr>) {
        let slot = self.slots.get_mut(holder).expect("only slots that exist are made");
        slot.record.addresses = addresses;
        slot.stage = Stage::Making { storing: None, wiring: false };
        if let Some(request) = slot.request.take() {
            slot.record.masquerade = request.masquerade;
            let names = request.names.iter().filter_map(|name| self.parse_name(name).ok());
            let names: Vec<Name> = names.collect();
            let wiring = request.netns.as_ref().map(|netns| self.wiring(holder, &request, netns));
            let slot = self.slots.get_mut(holder).expect("it was just there");
            slot.record.names = names;
            slot.record.wiring = wiring;
        }
        let record = self.slots[holder].record.clone();
        for name in &record.names {
            let addresses = record.addresses.clone();
            if let Err(error) = self.zone.put(name, &zone_holder(holder), addresses) {
                self.zone.remove_holder(&zone_holder(holder));
                return self.give_up(holder, put_refusal(&error));
            }
        }
        self.store_and_wire(holder, record.wiring.is_some());
        if *holder == gateway_holder() {
            self.replan();
        }
    }

    /// Hands the record to the disk and, at the same time, the link to the kernel: nobody is
    /// answered before both are done, and a link without a record is removed at the next start.
    fn store_and_wire(&mut self, holder: &Holder, wire: bool) {
        let batch = self.journal.current();
        let slot = self.slots.get_mut(holder).expect("only slots that exist are stored");
        let record = slot.record.clone();
        let storing = (!mutation::on(Mutation::ReplyEarly)).then_some(batch);
        slot.stage = Stage::Making { storing, wiring: wire };
        self.storing.entry(batch).or_default().push(holder.clone());
        self.write_record(&record);
        if let Some(wiring) = record.wiring.filter(|_| wire) {
            let holder = holder.clone();
            self.outputs.push_back(Output::Wire { holder, wiring: Box::new(wiring) });
            self.replan_ports();
        }
    }

    fn wiring(&mut self, holder: &Holder, request: &AttachRequest, netns: &str) -> Wiring {
        let addresses = self.slots[holder].record.addresses.clone();
        let mac = request.mac.as_deref().and_then(Mac::parse).unwrap_or_else(|| {
            let v4 = addresses.iter().find_map(|address| match address {
                IpAddr::V4(v4) => Some(v4.octets()),
                IpAddr::V6(_) => None,
            });
            // A fixed address keeps others' neighbour tables right; 0a:58 is the custom of CNI.
            let [a, b, c, d] = v4.unwrap_or_else(|| self.rng.random());
            Mac([0x0a, 0x58, a, b, c, d])
        });
        let gateways = self.container_gateways();
        Wiring {
            host_name: format!("mw{:012x}", self.rng.random::<u64>() >> 16),
            netns: netns.to_owned(),
            interface: request.interface.clone(),
            mac,
            addresses: addresses.iter().filter_map(|a| self.with_prefix(*a)).collect(),
            gateways: if request.default_gateway { gateways } else { Vec::new() },
            routes: request.routes.clone(),
            mtu_bytes: request.mtu,
            hairpin: request.hairpin,
            netns_identity: None,
        }
    }

    /// The gateways that containers have: this host's own IPv4 address, and for IPv6 the bridge's
    /// link-local one, because proxy NDP works per address only.
    pub(super) fn container_gateways(&self) -> Vec<IpAddr> {
        let own = self.gateway_addresses();
        let v4 = own.iter().find(|gateway| gateway.is_ipv4()).copied();
        let v6 = own.iter().find(|gateway| gateway.is_ipv6()).map(|_| BRIDGE_LINK_LOCAL.into());
        v4.into_iter().chain(v6).collect()
    }

    /// The host's own addresses in the mesh.
    pub(super) fn gateway_addresses(&self) -> Vec<IpAddr> {
        self.slots
            .get(&gateway_holder())
            .map_or_else(Vec::new, |slot| slot.record.addresses.clone())
    }

    /// An address with the prefix that it is put on with.
    pub(super) fn with_prefix(&self, address: IpAddr) -> Option<ipnetwork::IpNetwork> {
        let length = match address {
            IpAddr::V4(_) => self.ipam.ranges().iter().find(|r| r.contains(address))?.length(),
            IpAddr::V6(_) => 128,
        };
        ipnetwork::IpNetwork::new(address, length).ok()
    }
}

/// Whether waiting may help: space was asked for, or will be.
fn may_pass(error: &AllocateError) -> bool {
    use AllocateError::{Busy, Elsewhere, NoSpace};
    matches!(error, NoSpace { .. } | Elsewhere { refused: None, .. } | Busy(_))
}
