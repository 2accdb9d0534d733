//! What becomes of a slot once it was handed to disk and kernel: it stands, fails or is removed.

use mesh_ipam::Holder;
use mesh_router::{Mutation, mutation};

use super::{
    Node, PORTS_DELAY,
    attaching::{gateway_holder, zone_holder},
    attachment::{Record, Stage},
    desired::bridge_mac,
    event::{BatchId, Output, RequestId},
    request::{Code, Refusal, Reply, Request},
};
use crate::api::types;

impl Node {
    pub(super) fn detach(&mut self, id: RequestId, container: &str, interface: Option<&str>) {
        let first = Holder { container: container.to_owned(), interface: String::new() };
        let mut holders: Vec<Holder> = self
            .slots
            .range(first..)
            .map(|(holder, _)| holder.clone())
            .take_while(|holder| holder.container == container)
            // All that a container has are its links: what is claimed for it stays claimed.
            .filter(|holder| match interface {
                Some(interface) => holder.interface == interface,
                None => !holder.interface.is_empty(),
            })
            .filter(|holder| *holder != gateway_holder())
            .collect();
        // The one that is durable last answers.
        holders.sort_by_key(|holder| match self.slots[holder].stage {
            Stage::Removing { storing: None, .. } => BatchId(0),
            Stage::Removing { storing: Some(batch), .. } => batch,
            _ => BatchId(u64::MAX),
        });
        match holders.split_last() {
            None => self.reply(id, Ok(Reply::Done)),
            Some((last, others)) => {
                if let Some(refusal) = self.crowded(last) {
                    return self.reply(id, Err(refusal));
                }
                for holder in others {
                    self.remove(holder, None);
                }
                self.remove(last, Some(id));
            }
        }
    }

    pub(super) fn remove(&mut self, holder: &Holder, remover: Option<RequestId>) {
        let slot = self.slots.get_mut(holder).expect("only slots that exist are removed");
        slot.removers.extend(remover);
        match slot.stage {
            Stage::Waiting(_) => {
                self.give_up(holder, detached_meanwhile());
            }
            Stage::Removing { .. } => self.finish(holder),
            Stage::Standing => self.begin_removal(holder, true),
            Stage::Making { .. } => {
                slot.failure = Some(detached_meanwhile());
                self.begin_removal(holder, true);
                self.answer_failure(holder);
            }
        }
    }

    /// Deletes the record and the names; `unwire` is whether a link may stand.
    fn begin_removal(&mut self, holder: &Holder, unwire: bool) {
        let batch = self.journal.current();
        let slot = self.slots.get_mut(holder).expect("only slots that exist are removed");
        let record = slot.record.clone();
        let wiring = record.wiring.clone().filter(|_| unwire);
        slot.stage = Stage::Removing { storing: Some(batch), wiring: wiring.is_some() };
        self.storing.entry(batch).or_default().push(holder.clone());
        self.delete_record(&record);
        // Who is being told what it once wrote writes nothing; at the end it forgets this name.
        if !self.recalling {
            self.zone.remove_holder(&zone_holder(holder));
        }
        if mutation::on(Mutation::ReleaseEarly) {
            self.let_go(&record);
        }
        if let Some(wiring) = wiring {
            let holder = holder.clone();
            self.outputs.push_back(Output::Unwire { holder, host_name: wiring.host_name });
            self.replan_ports();
        }
    }

    /// A batch is durable: goes on with everybody who waited for it.
    pub(super) fn stored(&mut self, batch: BatchId) {
        let later = self.storing.split_off(&BatchId(batch.0 + 1));
        for holder in std::mem::replace(&mut self.storing, later).into_values().flatten() {
            if let Some(slot) = self.slots.get_mut(&holder) {
                slot.stored(batch);
                self.finish(&holder);
            }
        }
    }

    /// A batch failed. Attaches that waited for it or a later one are refused and undone; removals
    /// go on waiting, for the journal tries again.
    pub(super) fn store_failed(&mut self, batch: BatchId) {
        let failed: Vec<Holder> = self.storing.split_off(&batch).into_values().flatten().collect();
        let reason = self.journal.failure().unwrap_or_default().to_owned();
        for holder in failed {
            let Some(slot) = self.slots.get_mut(&holder) else { continue };
            match slot.stage {
                // The host's own addresses were asked for by nobody who could be refused.
                Stage::Making { .. } if holder == gateway_holder() => self.store_again(&holder),
                Stage::Making { .. } => {
                    slot.failure = Some(Refusal::new(
                        Code::Internal,
                        format!("the state cannot be written: {reason}"),
                        "make room on the disk of the state directory, or make it writable",
                    ));
                    // An attach that was only repeated takes nothing away from its container.
                    if slot.stood {
                        self.store_again(&holder);
                    } else {
                        self.begin_removal(&holder, true);
                    }
                    self.answer_failure(&holder);
                }
                Stage::Removing { .. } => self.store_again(&holder),
                Stage::Waiting(_) | Stage::Standing => {}
            }
        }
    }

    /// Its writes are in the journal again and will be in the next batch.
    fn store_again(&mut self, holder: &Holder) {
        let batch = self.journal.current();
        let slot = self.slots.get_mut(holder).expect("the caller has seen it");
        if let Stage::Making { storing, .. } | Stage::Removing { storing, .. } = &mut slot.stage {
            *storing = Some(batch);
            self.storing.entry(batch).or_default().push(holder.clone());
        }
    }

    pub(super) fn wired(&mut self, holder: &Holder, identity: (u64, u64)) {
        let Some(slot) = self.slots.get_mut(holder) else { return };
        if !matches!(slot.stage, Stage::Making { .. }) {
            return;
        }
        if let Some(wiring) = &mut slot.record.wiring
            && wiring.netns_identity != Some(identity)
        {
            wiring.netns_identity = Some(identity);
            let record = slot.record.clone();
            self.write_record(&record);
        }
        self.slots.get_mut(holder).expect("it was just there").kernel_done();
        self.finish(holder);
    }

    pub(super) fn wire_failed(&mut self, holder: &Holder, refusal: Refusal) {
        let Some(slot) = self.slots.get_mut(holder) else { return };
        if !matches!(slot.stage, Stage::Making { .. }) {
            return;
        }
        slot.failure = Some(refusal);
        if slot.stood {
            // An attach that was only repeated takes nothing away from its container.
            slot.record.wiring = slot.before.take();
            let record = slot.record.clone();
            let batch = self.journal.current();
            slot.stage = Stage::Making { storing: Some(batch), wiring: false };
            self.storing.entry(batch).or_default().push(holder.clone());
            self.write_record(&record);
            self.answer_failure(holder);
        } else {
            // The kernel has left nothing; the askers hear of it when the disk has not, either.
            self.begin_removal(holder, false);
        }
    }

    pub(super) fn unwired(&mut self, holder: &Holder) {
        if let Some(slot) = self.slots.get_mut(holder)
            && matches!(slot.stage, Stage::Removing { .. })
        {
            slot.kernel_done();
            self.finish(holder);
        }
    }

    fn answer_failure(&mut self, holder: &Holder) {
        let slot = self.slots.get_mut(holder).expect("the caller has seen it");
        let askers = std::mem::take(&mut slot.askers);
        let failure = slot.failure.clone().expect("the caller has set it");
        for asker in askers {
            self.reply(asker, Err(failure.clone()));
        }
    }

    /// Answers and moves on if a stage is complete.
    pub(super) fn finish(&mut self, holder: &Holder) {
        let Some(slot) = self.slots.get_mut(holder) else { return };
        match slot.stage {
            Stage::Making { storing: None, wiring: false } => {
                slot.stage = Stage::Standing;
                slot.stood = true;
                let askers = std::mem::take(&mut slot.askers);
                let record = self.slots[holder].record.clone();
                for asker in askers {
                    let reply = self.attached(&record);
                    self.reply(asker, reply);
                }
            }
            Stage::Removing { storing: None, wiring } => {
                if slot.failure.is_some() {
                    self.answer_failure(holder);
                }
                let slot = self.slots.get_mut(holder).expect("it was just there");
                let removers = std::mem::take(&mut slot.removers);
                for remover in removers {
                    self.reply(remover, Ok(Reply::Done));
                }
                if !wiring {
                    self.forget_slot(holder);
                }
            }
            _ => {}
        }
    }

    /// The kernel and the disk are done: only now are the addresses free.
    fn forget_slot(&mut self, holder: &Holder) {
        let Some(slot) = self.slots.remove(holder) else { return };
        self.let_go(&slot.record);
        for (id, attach, until) in slot.next {
            let request = if attach.interface.is_empty() {
                let address = attach.addresses.first().copied();
                Request::Claim { address, holder: attach.container }
            } else {
                Request::Attach(attach)
            };
            self.enqueue(id, Box::new(request), until);
        }
    }

    pub(super) fn replan_ports(&mut self) {
        self.program_at.get_or_insert(self.now + PORTS_DELAY);
    }

    pub(super) fn check(&self, container: String, interface: String) -> Result<Reply, Refusal> {
        let holder = Holder { container, interface };
        match self.slots.get(&holder) {
            Some(slot) if slot.stage == Stage::Standing => self.attached(&slot.record),
            _ => Err(Refusal::new(
                Code::NotFound,
                format!("{} has no {} in the mesh", holder.container, holder.interface),
                "attach it first",
            )),
        }
    }

    pub(super) fn allocations(&self) -> Vec<types::Allocation> {
        let gateway = gateway_holder();
        let held = self.slots.values().filter(|slot| slot.record.holder != gateway);
        held.flat_map(|slot| {
            let record = &slot.record;
            record.addresses.iter().map(|address| types::Allocation {
                address: *address,
                holder: record.holder.container.clone(),
                interface: record.holder.interface.clone(),
            })
        })
        .collect()
    }

    /// What a holder has been given, for the asker.
    fn attached(&self, record: &Record) -> Result<Reply, Refusal> {
        if record.holder.interface.is_empty() {
            let holder = record.holder.container.clone();
            let address = record.addresses.first().copied().expect("a claim is of one address");
            let interface = String::new();
            return Ok(Reply::Claimed(types::Allocation { address, holder, interface }));
        }
        let wiring = record.wiring.as_ref();
        let networks = match wiring {
            Some(wiring) => Some(wiring.addresses.clone()),
            None => record.addresses.iter().map(|address| self.with_prefix(*address)).collect(),
        };
        // While the ring is told anew the range of an address may not be known.
        let addresses = networks.ok_or_else(|| self.not_ready())?;
        let gateways = match wiring {
            Some(wiring) => wiring.gateways.clone(),
            None => self.container_gateways(),
        };
        let mtu = wiring.map_or(0, |wiring| wiring.mtu_bytes);
        Ok(Reply::Attached(types::Attachment {
            container: record.holder.container.clone(),
            interface: record.holder.interface.clone(),
            netns: wiring.map(|wiring| wiring.netns.clone()),
            addresses,
            gateways,
            routes: wiring.map_or_else(Vec::new, |wiring| wiring.routes.clone()),
            mac: wiring.map_or_else(String::new, |wiring| wiring.mac.to_string()),
            host_interface: wiring.map(|wiring| wiring.host_name.clone()),
            bridge_mac: bridge_mac(self.config.me).to_string(),
            bridge: self.config.bridge.clone(),
            mtu: if mtu == 0 { self.tunnel_mtu() } else { mtu },
            names: record.names.iter().map(ToString::to_string).collect(),
            nameservers: self.gateway_addresses(),
            domain: self.config.domain.to_string(),
        }))
    }
}

fn detached_meanwhile() -> Refusal {
    Refusal::new(Code::Conflict, "it was detached meanwhile", "try again")
}
