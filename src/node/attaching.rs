//! Attach: how a slot gets addresses, names and a link. What comes after is in `super::standing`.

use std::net::IpAddr;

use mesh_dns::Name;
use mesh_ipam::{AllocateError, Block, Holder, Wanted};
use mesh_router::{Mutation, Time, mutation};
use rand::RngExt;

use super::{
    Node,
    attachment::{Slot, Stage},
    desired::{BRIDGE_LINK_LOCAL, Mac, Wiring},
    event::{Output, RequestId},
    naming::put_refusal,
    request::{Code, Refusal, Reply},
};
use crate::api::types::AttachRequest;

/// Names that one container may have. Chosen: far above any orchestrator's use.
const NAMES_MAX: usize = 32;
/// Addresses and routes that one attach may name. Chosen: its row on disk stays under 64 KiB.
const LIST_MAX: usize = 256;
/// Bytes of the path of a namespace, from PATH_MAX.
const PATH_BYTES_MAX: usize = 4096;
/// Bytes of a container id or a claim's holder. Container ids are 64 hexadecimal digits.
const ID_BYTES_MAX: usize = 256;
/// Bytes of an interface name, from IFNAMSIZ less its NUL.
const INTERFACE_BYTES_MAX: usize = 15;

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
}

impl Node {
    pub(super) fn attach(&mut self, id: RequestId, request: Box<AttachRequest>, until: Time) {
        if let Err(refusal) = self.check_attach(&request) {
            return self.reply(id, Err(refusal));
        }
        let holder =
            Holder { container: request.container.clone(), interface: request.interface.clone() };
        match self.slots.get_mut(&holder) {
            None => {
                let mut slot = Slot::new(holder.clone(), Some(until));
                slot.request = Some(request);
                slot.askers.push(id);
                self.begin(holder, slot);
            }
            Some(slot) => match slot.stage {
                Stage::Waiting(_) | Stage::Making { .. } => slot.askers.push(id),
                Stage::Removing { .. } => slot.next.push((id, request, until)),
                Stage::Standing => self.attach_again(id, &holder, &request),
            },
        }
    }

    /// The same attach again: the same answer. A link is made again, for the container may have got
    /// a new namespace; one that stands is left as it is.
    fn attach_again(&mut self, id: RequestId, holder: &Holder, request: &AttachRequest) {
        let slot = self.slots.get_mut(holder).expect("the caller has seen it");
        if let Some(address) =
            request.addresses.iter().find(|address| !slot.record.addresses.contains(address))
        {
            let refusal = Refusal::new(
                Code::Conflict,
                format!("{} already has other addresses than {address}", holder.container),
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

    fn check_attach(&self, request: &AttachRequest) -> Result<(), Refusal> {
        let invalid = |message: String, hint: &str| Err(Refusal::new(Code::Invalid, message, hint));
        if request.container.is_empty() || request.container.len() > ID_BYTES_MAX {
            return invalid(
                format!("a container id has 1 to {ID_BYTES_MAX} bytes"),
                "give the container's id",
            );
        }
        let name = &request.interface;
        let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
        if name.is_empty() || name.len() > INTERFACE_BYTES_MAX || name.chars().any(odd) {
            return invalid(
                format!("{name:?} is not the name of an interface"),
                "use 1 to 15 bytes without spaces and slashes, such as eth0",
            );
        }
        if request.container == gateway_holder().container && *name == gateway_holder().interface {
            return invalid(
                "meshd/gateway holds this host's own addresses".to_owned(),
                "use another container id",
            );
        }
        let lists = request.addresses.len().max(request.routes.len());
        let path = request.netns.as_ref().map_or(0, String::len);
        if lists > LIST_MAX || path > PATH_BYTES_MAX {
            return invalid(
                format!("more than {LIST_MAX} addresses or routes, or a very long path"),
                "give fewer",
            );
        }
        if request.names.len() > NAMES_MAX {
            return invalid(format!("more than {NAMES_MAX} names"), "give fewer names");
        }
        for name in &request.names {
            self.parse_name(name)?;
        }
        if let Some(mac) = &request.mac
            && Mac::parse(mac).is_none()
        {
            return invalid(
                format!("{mac:?} is not a hardware address"),
                "use six bytes such as 02:00:00:00:00:01, not a multicast one",
            );
        }
        Ok(())
    }

    pub(super) fn parse_name(&self, text: &str) -> Result<Name, Refusal> {
        Name::in_domain(text, &self.config.domain).map_err(|error| {
            Refusal::new(
                Code::Invalid,
                error.to_string(),
                format!("use letters, digits and '-', such as web or web.{}", self.config.domain),
            )
        })
    }

    /// Sets an address aside for somebody who is no container.
    pub(super) fn claim(
        &mut self,
        id: RequestId,
        address: Option<IpAddr>,
        holder: String,
        until: Time,
    ) {
        if holder.is_empty() || holder.len() > ID_BYTES_MAX {
            let text = format!("a holder's name has 1 to {ID_BYTES_MAX} bytes");
            return self.reply(id, Err(Refusal::new(Code::Invalid, text, "use --for NAME")));
        }
        let holder = Holder { container: holder, interface: String::new() };
        let mut request = AttachRequest::new(holder.container.clone());
        request.interface = String::new();
        request.addresses = address.into_iter().collect();
        match self.slots.get_mut(&holder) {
            Some(slot) => match slot.stage {
                Stage::Removing { .. } => slot.next.push((id, Box::new(request), until)),
                Stage::Standing => self.attach_again(id, &holder, &request),
                _ => slot.askers.push(id),
            },
            None => {
                let mut slot = Slot::new(holder.clone(), Some(until));
                slot.request = Some(Box::new(request));
                slot.askers.push(id);
                self.begin(holder, slot);
            }
        }
    }

    fn begin(&mut self, holder: Holder, slot: Slot) {
        self.slots.insert(holder.clone(), slot);
        self.waiting.insert(holder.clone());
        self.try_allocate(&holder);
    }

    /// The host's own addresses, in every range.
    pub(super) fn keep_gateway(&mut self) {
        let member = self.mesh.is_some() && !self.is_leaving();
        if !member || !self.router.is_settled() || self.ipam.ranges().is_empty() {
            return;
        }
        let holder = gateway_holder();
        match self.slots.get_mut(&holder) {
            None => self.begin(holder.clone(), Slot::new(holder, None)),
            Some(slot) if slot.stage == Stage::Standing => {
                let has = |range: &Block| slot.record.addresses.iter().any(|a| range.contains(*a));
                if !self.ipam.ranges().iter().all(has) {
                    slot.stage = Stage::Waiting(None);
                    self.waiting.insert(holder);
                }
            }
            Some(_) => {}
        }
    }

    /// Looks again at everybody who waits for space.
    pub(super) fn progress_waiting(&mut self) {
        for holder in self.waiting.clone() {
            self.try_allocate(&holder);
        }
    }

    /// What a slot asks for: one address per range, exact ones where they were named.
    fn wanted(&self, slot: &Slot) -> Vec<Wanted> {
        let exact = slot.request.as_ref().map_or(&[][..], |request| &request.addresses);
        let mut wanted: Vec<Wanted> = exact.iter().map(|address| Wanted::Exact(*address)).collect();
        let mut ranges = self.ipam.ranges().to_vec();
        if slot.record.holder.interface.is_empty() {
            // A claim is of one address: the named one, or any of the first range.
            ranges.truncate(usize::from(exact.is_empty()));
        }
        ranges.retain(|range| !exact.iter().any(|address| range.contains(*address)));
        wanted.extend(ranges.into_iter().map(Wanted::Any));
        wanted
    }

    /// Takes addresses for a slot in `Waiting` if they are there, and goes on to `Making`.
    fn try_allocate(&mut self, holder: &Holder) {
        let now = self.now;
        let slot = &self.slots[holder];
        let until = slot.waits_until();
        let mut addresses = Vec::new();
        for wanted in self.wanted(slot) {
            match self.allocate(holder, wanted) {
                Ok(address) => addresses.push(address),
                Err(error) if may_pass(&error) => {
                    if until.is_none_or(|until| until > now) {
                        return;
                    }
                    return self.give_up(holder, self.out_of_patience(&error));
                }
                Err(error) => return self.give_up(holder, refusal_of(&error)),
            }
        }
        self.waiting.remove(holder);
        self.make(holder, addresses);
    }

    fn allocate(&mut self, holder: &Holder, wanted: Wanted) -> Result<IpAddr, AllocateError> {
        let result = self.ipam.allocate(holder, wanted);
        if let Err(AllocateError::Elsewhere { address, refused: None, .. }) = &result {
            self.ipam.want_exact(*address);
        }
        result
    }

    fn out_of_patience(&self, error: &AllocateError) -> Refusal {
        let waiting = self.waiting_words();
        let asked = if waiting.is_empty() { String::new() } else { format!(" ({waiting})") };
        Refusal::new(
            Code::Timeout,
            format!("no address in time: {error}{asked}"),
            "try again; `meshctl status ipam` tells who was asked for space",
        )
    }

    /// A slot in `Waiting` gets nothing: its askers are told and it is gone.
    pub(super) fn give_up(&mut self, holder: &Holder, refusal: Refusal) {
        self.waiting.remove(holder);
        if *holder == gateway_holder() && !self.is_leaving() {
            return self.gateway_waits_on(refusal);
        }
        self.ipam.release(holder);
        if let Some(slot) = self.slots.remove(holder) {
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
        own.iter()
            .map(|gateway| match gateway {
                IpAddr::V4(_) => *gateway,
                IpAddr::V6(_) => BRIDGE_LINK_LOCAL.into(),
            })
            .collect()
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

/// Whether waiting may help: space was asked for.
fn may_pass(error: &AllocateError) -> bool {
    matches!(error, AllocateError::NoSpace { .. } | AllocateError::Elsewhere { refused: None, .. })
}

fn refusal_of(error: &AllocateError) -> Refusal {
    let (code, hint) = match error {
        AllocateError::Outside(_) => {
            (Code::Invalid, "`meshctl status ipam` shows the mesh's ranges")
        }
        AllocateError::Reserved(_) => (Code::Invalid, "choose another address"),
        AllocateError::Taken { .. } | AllocateError::Elsewhere { .. } => {
            (Code::Conflict, "choose another address")
        }
        _ => (Code::Exhausted, "release addresses, or found the mesh with a larger range"),
    };
    Refusal::new(code, error.to_string(), hint)
}
