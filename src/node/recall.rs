//! Recall: a host that lost its disk, has an old one or was removed is told by others what it once
//! wrote, before it writes anything.

use std::collections::BTreeSet;

use mesh_router::{MeshId, PeerId, Time, member};
use serde::{Deserialize, Serialize};

use super::{
    Node,
    comparing::COMPARE_OTHERS,
    event::{Disk, Output},
    peers::PeerMessage,
};

/// How many meshes are remembered. Chosen: more than one leaves one after another in a machine's
/// life; after that each join takes ten seconds.
const MESHES_MAX: usize = 64;

/// In which meshes this host has written something: with the same key it must not write the same
/// number twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Past {
    /// The key is older than the disk, or the disk may be an old one.
    #[default]
    Unknown,
    /// In these.
    Known(BTreeSet<MeshId>),
}

impl Node {
    /// After a restart: a member goes on being one.
    pub(super) fn resume(&mut self, now: Time) {
        self.look_at_past();
        let Some(credentials) = self.mesh.clone() else { return self.ipam.refresh() };
        self.outputs.push_back(Output::Membership(Some(credentials)));
        self.resumed = true;
        if self.was_just_founded() {
            self.remember();
        }
        let told_anew = !self.remembers;
        if told_anew {
            // It may be the image of a host that was being told, and has written since.
            self.write_doubt(self.config.disk == Disk::MayBeOld || self.doubtful);
            self.begin_recall();
        } else {
            self.begin_comparing(now);
        }
        // Only now: it retires what is needless, unless that is an old disk's.
        self.ipam.refresh();
        self.put_to_rest();
        if told_anew {
            self.resume_founding();
        }
        self.outputs.extend(self.zone.snapshot().map(Output::Zone));
        self.replan();
    }

    /// A peer has told everything: from here on this host writes, and after a restart it knows all
    /// that it ever wrote. Before anything is written.
    pub(super) fn end_recall(&mut self) {
        if !self.recalling || !self.router.is_settled() {
            return;
        }
        // Two machines with one identity would each write beyond what the other did, for ever.
        let twin = self.has_twin() || self.may_be_copy();
        if self.ipam.is_behind() || self.waits_for_others() || twin {
            self.router.unsettle();
        } else if self.knows_what_it_gave() {
            let own = [
                self.router.members().own_counter(),
                self.ipam.store().own_counter(),
                self.zone.store().own_counter(),
            ];
            // Who told us of one kind may know nothing of another that we wrote, too.
            let left = self.left_before().is_some();
            let wrote = left || !self.is_new_here() || own.iter().any(|counter| *counter > 0);
            let knows = left || self.ipam.removal_of(self.config.me).is_some();
            if wrote && !knows && self.comparing.is_none() {
                return self.compare_what_was_lost();
            }
            // Unless the disk was there, and nobody knew anything that was not on it.
            let compared = self.comparing.is_some() && self.remembers;
            let wrote = wrote && (!compared || self.was_recalled());
            if wrote && self.comparing.take().is_some() {
                self.router.stop_asking();
                self.notice(
                    true,
                    "the disk was an old one, or lost: peers told what was missing".to_owned(),
                );
            }
            // With an old disk somebody who was not asked may know more: a member, too, that
            // joined after the disk's image was made and that nobody here has heard of.
            let jump = (wrote || self.doubtful).then_some(self.config.incarnation);
            let kept = self.left_before().is_some_and(|left| left.all_promises && !self.doubtful);
            let promises_kept = std::mem::take(&mut self.desk.promises_kept) || kept;
            self.recalling = false;
            self.write_doubt(false);
            self.router.members_mut().end_recall(jump);
            self.ipam.store_mut().end_recall(jump);
            self.zone.store_mut().end_recall(jump);
            if wrote && !promises_kept {
                self.ipam.abstain();
            }
            self.recall_reason = None;
            self.desk.forked = None;
            if self.left.take().is_some() {
                self.dns_remove_all();
                self.write_left();
            }
            self.remember();
            self.ipam.come_back();
            self.ipam.refresh();
            self.forget_lost_names();
            self.tell_names_again();
            self.denied.clear();
        } else {
            self.denied.extend(self.router.told_by());
            self.router.unsettle();
            // Those to whom there is no link cannot tell it in any other way.
            for peer in self.leave_unheard() {
                self.send_to_peer(peer, &PeerMessage::WhatDidIWrite);
            }
        }
    }

    /// Tells a host that is back what this one knows of its ring entries, if that is all there is.
    pub(super) fn say_what_was_written(&mut self, by: PeerId) {
        if self.router.is_settled() && !self.recalling && !self.is_doubtful() {
            let counter = self.ipam.store().seen(by);
            self.send_to_peer(by, &PeerMessage::YouWrote { counter });
        }
    }

    pub(super) fn told_what_was_written(&mut self, from: PeerId, counter: u64) {
        if self.recalling && counter < self.last_grant() {
            self.denied.insert(from);
        }
    }

    /// Whether others may know writes of this host that those do not who told it: these may have
    /// old disks themselves, or are of another branch, whose side may not have heard of them.
    fn waits_for_others(&self) -> bool {
        let waits = |since: Time| self.now.since(since) < COMPARE_OTHERS;
        let doubtful = self.router.is_hearsay() || self.desk.forked.is_some_and(waits);
        doubtful && !self.all_have_greeted()
    }

    fn was_recalled(&self) -> bool {
        self.router.members().was_recalled()
            || self.ipam.store().was_recalled()
            || self.zone.store().was_recalled()
    }

    /// Whoever left this very mesh gave its blocks away, and whoever was removed had given some:
    /// until it is told so again it must not believe that they are its own. Who removed it may
    /// have taken no news of it meanwhile.
    fn knows_what_it_gave(&self) -> bool {
        let known = self.ipam.store().seen(self.config.me);
        known >= self.last_grant() || self.leave_unheard().is_empty()
    }

    /// Up to where it may have given blocks away before it left or was removed.
    fn last_grant(&self) -> u64 {
        let left = self.left_before().map_or(0, |left| left.counter);
        left.max(self.ipam.removal_of(self.config.me).map_or(0, |(_, cut)| cut))
    }

    /// Members that have not said yet that they know no more of what this host gave away, and
    /// heirs that these may not have heard of. Once all have, those who knew lost it, or were
    /// removed: the blocks are this host's after all.
    pub(super) fn leave_unheard(&self) -> BTreeSet<PeerId> {
        let mut members = self.standing_members();
        let heirs = self.left_before().into_iter().flat_map(|left| &left.heirs);
        let unknown = |heir: &&PeerId| member::info(self.router.members(), **heir).is_none();
        members.extend(heirs.filter(unknown).filter(|heir| !self.ipam.is_removed(**heir)));
        members.retain(|peer| *peer != self.config.me && !self.denied.contains(peer));
        members
    }

    /// For whom a host that left waits, when it is back.
    pub(super) fn leave_words(&self) -> Option<String> {
        let unheard = self.leave_unheard();
        let members = self.router.members();
        // Whom nobody has heard of is removed by its whole id.
        let name = |peer: &PeerId| {
            member::info(members, *peer).map_or_else(|| peer.to_string(), |info| info.name.clone())
        };
        (!self.denied.is_empty() && !unheard.is_empty()).then(|| {
            let names: Vec<String> = unheard.iter().map(name).collect();
            let when = if self.left_before().is_some() { "left" } else { "was removed" };
            format!(
                "this host gave blocks away before it {when}, and nobody asked so far knows to \
                 whom; waiting for {} (if one of these is gone for good, remove it with `meshctl \
                 peer remove`)",
                names.join(", ")
            )
        })
    }

    pub(super) fn remember(&mut self) {
        self.remembers = true;
        self.write_remembers();
        let mesh = self.mesh_id();
        if let Past::Known(meshes) = &mut self.past
            && mesh.is_some_and(|mesh| meshes.insert(mesh))
        {
            if meshes.len() > MESHES_MAX {
                self.past = Past::Unknown;
            }
            self.write_past();
        }
    }

    /// What the disk says of other meshes, and of promises, is worth nothing if it may be an old
    /// one; a key that was just made was never used.
    fn look_at_past(&mut self) {
        let past = match self.config.disk {
            Disk::New => Past::Known(BTreeSet::new()),
            Disk::Same => return,
            Disk::MayBeOld => {
                self.doubt_promises();
                Past::Unknown
            }
        };
        if past != self.past {
            self.past = past;
            self.write_past();
        }
    }

    /// Whether this host never wrote anything in this mesh. Who lost its disk but not its key may
    /// have, though nobody it reaches ever heard of it.
    fn is_new_here(&self) -> bool {
        let Past::Known(meshes) = &self.past else { return false };
        self.mesh_id().is_some_and(|mesh| !meshes.contains(&mesh))
    }

    pub(super) fn begin_recall(&mut self) {
        self.recalling = true;
        self.router.members_mut().begin_recall();
        self.ipam.store_mut().begin_recall();
        self.zone.store_mut().begin_recall();
    }

    /// Names of ours that others remember and that no container has any more: the disk was lost.
    fn forget_lost_names(&mut self) {
        let me = self.config.me;
        let own = self.zone.records().filter(|(key, _)| key.origin == me);
        let mut lost: BTreeSet<String> = own
            .map(|(key, _)| key.holder.clone())
            .filter(|holder| holder != mesh_dns::BY_HAND)
            .collect();
        for (holder, _) in self.slots.iter().filter(|(_, slot)| !slot.is_going()) {
            lost.remove(&super::attaching::zone_holder(holder));
        }
        for holder in lost {
            self.zone.remove_holder(&holder);
        }
    }

    /// Names of containers that others were told to forget: this host was removed, and is back.
    fn tell_names_again(&mut self) {
        let records: Vec<_> =
            self.slots.values().filter(|slot| slot.stood && !slot.is_going()).collect();
        let records: Vec<_> = records.iter().map(|slot| slot.record.clone()).collect();
        for record in records {
            let holder = super::attaching::zone_holder(&record.holder);
            for name in &record.names {
                if let Err(error) = self.zone.put(name, &holder, record.addresses.clone()) {
                    self.notice(true, format!("{name} cannot be told again: {error}"));
                }
            }
        }
    }
}
