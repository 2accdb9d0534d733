//! Claims: addresses set aside for somebody who may not be there yet.
//!
//! A claim is a slot without an interface. It holds its address in the ring's books as long as it
//! stands; a container whose id or one of whose names is the claim's holder is lent it, one at a
//! time, and gives it back to the claim when it goes. When a claim is released, the address stays
//! with who uses it.

use std::net::IpAddr;

use mesh_ipam::Holder;
use mesh_router::Time;

use super::{
    Node,
    attachment::{Record, Slot, Stage},
    event::RequestId,
    needs::ID_BYTES_MAX,
    request::{Code, Refusal},
};
use crate::api::types::AttachRequest;

/// The key of a claim.
fn claim_of(holder: impl Into<String>) -> Holder {
    Holder { container: holder.into(), interface: String::new() }
}

impl Node {
    /// Sets an address aside.
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
        let holder = claim_of(holder);
        let mut request = AttachRequest::new(holder.container.clone());
        request.interface = String::new();
        request.addresses = address.into_iter().collect();
        if let Some(refusal) = self.crowded(&holder) {
            return self.reply(id, Err(refusal));
        }
        match self.slots.get_mut(&holder) {
            None => self.begin_for(id, holder, Box::new(request), until),
            Some(slot) => match slot.stage {
                Stage::Removing { .. } => slot.next.push((id, Box::new(request), until)),
                Stage::Standing => self.attach_again(id, &holder, &request),
                _ => slot.askers.push(id),
            },
        }
    }

    /// What is claimed for a container and lent to nobody else.
    pub(super) fn claimed_for(&self, holder: &Holder, request: &AttachRequest) -> Vec<IpAddr> {
        let mut claims = vec![claim_of(holder.container.clone())];
        for name in &request.names {
            claims.push(claim_of(name.clone()));
            if let Ok(full) = self.parse_name(name) {
                let full = full.to_string();
                let short = full.strip_suffix(&format!(".{}", self.config.domain));
                claims.extend(short.map(claim_of));
                claims.push(claim_of(full));
            }
        }
        let slots = claims.iter().filter_map(|claim| self.slots.get(claim));
        let slots =
            slots.filter(|slot| matches!(slot.stage, Stage::Making { .. } | Stage::Standing));
        let addresses = slots.flat_map(|slot| slot.record.addresses.iter().copied());
        addresses
            .filter(|address| self.lent.get(address).is_none_or(|user| user == holder))
            .collect()
    }

    /// Whether a claim is for the container that has the address already.
    pub(super) fn claims_what_it_has(&self, claim: &Holder, user: &Holder) -> bool {
        if !claim.interface.is_empty() || user.interface.is_empty() {
            return false;
        }
        let names = self.slots.get(user).map_or(&[][..], |slot| &slot.record.names);
        let claimed = self.parse_name(&claim.container).ok();
        user.container == claim.container || names.iter().any(|name| Some(name) == claimed.as_ref())
    }

    /// Nobody waits for these addresses any more, unless another slot does.
    pub(super) fn forget_needs(&mut self, request: Option<&AttachRequest>) {
        for address in request.map_or(&[][..], |request| &request.addresses) {
            let wanted = self.waiting.iter().any(|holder| {
                let request = self.slots[holder].request.as_ref();
                request.is_some_and(|request| request.addresses.contains(address))
            });
            if !wanted {
                self.ipam.forget_wish(*address);
            }
        }
    }

    /// Puts back what a holder had, read from disk. A claim and the container that it lent its
    /// address to both have it in their records.
    pub(super) fn restore_record(&mut self, record: Record) {
        self.ipam.restore(&record.holder, &record.addresses);
        for address in &record.addresses {
            let Some(other) = self.ipam.holder_of(*address).cloned() else { continue };
            let (claim, user) = match (record.holder.interface.is_empty(), &other) {
                (_, other) if *other == record.holder => continue,
                (true, _) => (record.holder.clone(), other),
                (false, other) if other.interface.is_empty() => {
                    (other.clone(), record.holder.clone())
                }
                _ => continue,
            };
            self.ipam.hand_over(*address, &claim);
            self.lent.insert(*address, user);
        }
        self.note_in_kernel(&record);
        self.slots.insert(record.holder.clone(), Slot::restored(record));
    }
}
