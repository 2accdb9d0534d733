//! Leave: containers' links go, then the blocks go to an heir who confirms, then everything goes.
//!
//! Interrupted anywhere, nothing is lost: the blocks are ours until the grant is durable, and the
//! heir's from then on. Who was asked for space and has not answered confirms, too, that it gives
//! nothing more: what came after we are gone would be nobody's.

use std::{collections::BTreeSet, time::Duration};

use mesh_ipam::{
    GiveError,
    council::{DECREE, WishId, acceptor::Acceptor},
};
use mesh_router::{MeshId, Mutation, PeerId, Router, Time, member::Info, mutation};
use serde::{Deserialize, Serialize};

use super::{
    Node,
    attaching::gateway_holder,
    event::{Output, RequestId},
    peers::PeerMessage,
    request::{Code, Refusal, Reply},
};

/// How long the others may take to agree that this host votes no more.
const RESIGN_PATIENCE: Duration = Duration::from_secs(3);

/// How often peers are asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(300);

/// A leave that is under way.
#[derive(Debug)]
pub(super) struct Leaving {
    id: RequestId,
    until: Time,
    stage: LeavingStage,
    /// To whom blocks were given.
    heirs: BTreeSet<PeerId>,
    /// Who has confirmed since they were given last.
    confirmed: BTreeSet<PeerId>,
    /// Of those that own nothing, who may take blocks over.
    willing: BTreeSet<PeerId>,
    /// Why blocks could not be given away.
    refused: Option<GiveError>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeavingStage {
    /// Containers' links are being removed.
    Emptying,
    /// The kernel is removing the rest, this host's own addresses included: others must not hold
    /// them before.
    Clearing { done: bool },
    /// This host votes no more: the others must not wait for it. It goes even if they do not agree
    /// in time.
    Resigning { wish: WishId, until: Time },
    /// An heir is looked for.
    Parting { ask_at: Time },
    /// All blocks were granted to the heir; it and others have yet to say that nothing else is ours
    /// and that they have this on disk.
    Handing { heir: PeerId, counter: u64, ask_at: Time },
}

/// What is remembered of the mesh that was left last, should this host join it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Left {
    /// Which.
    pub(super) mesh: MeshId,
    /// The counter of this host's last write to its ring, 0 without one: until it is told so much,
    /// it must not believe that the blocks that it gave away are its own.
    pub(super) counter: u64,
    /// To whom it gave them: another that is asked first may know neither that nor these.
    pub(super) heirs: BTreeSet<PeerId>,
    /// What it promised there holds for ever: it may have left in the middle of founding.
    pub(super) promises: Acceptor,
    /// Whether these are surely all: of a disk that may be an old one they are not.
    pub(super) all_promises: bool,
}

impl Leaving {
    /// When to go on with it; who is not settled only looks whether it takes too long.
    pub(super) fn poll_timeout(&self, settled: bool) -> Time {
        match self.stage {
            _ if !settled => self.until,
            LeavingStage::Handing { ask_at, .. } | LeavingStage::Parting { ask_at } => {
                self.until.min(ask_at)
            }
            LeavingStage::Resigning { until, .. } => self.until.min(until),
            _ => self.until,
        }
    }
}

impl Node {
    pub(super) fn leave(&mut self, id: RequestId, until: Time) {
        if self.mesh.is_none() {
            return self.reply(id, Err(super::not_in_a_mesh()));
        }
        if self.leaving.is_some() {
            let text = "this host is leaving already";
            return self.reply(id, Err(Refusal::new(Code::Conflict, text, "wait for it")));
        }
        self.leaving = Some(Leaving {
            id,
            until,
            stage: LeavingStage::Emptying,
            heirs: BTreeSet::new(),
            confirmed: BTreeSet::new(),
            willing: BTreeSet::new(),
            refused: None,
        });
        let holders: Vec<_> = self.slots.keys().cloned().collect();
        for holder in holders.iter().filter(|holder| **holder != gateway_holder()) {
            self.remove(holder, None);
        }
        self.dns_remove_all();
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// The kernel was told to remove everything; nothing else is to be told to it.
    pub(super) fn is_clearing(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| leaving.stage != LeavingStage::Emptying)
    }

    pub(super) fn progress_leaving(&mut self) {
        let Some(leaving) = &self.leaving else { return };
        let settled = self.router.is_settled();
        match leaving.stage {
            // It learns first what it owns.
            _ if !settled => {}
            LeavingStage::Emptying if self.slots.keys().all(|of| *of == gateway_holder()) => {
                self.clear_kernel();
            }
            LeavingStage::Clearing { done: true } if self.slots.is_empty() => self.resign(),
            LeavingStage::Resigning { wish, until } if self.has_resigned() || until <= self.now => {
                self.ipam.withdraw(wish);
                self.part();
            }
            LeavingStage::Parting { ask_at } if ask_at <= self.now => self.hand_over(),
            LeavingStage::Handing { heir, counter, ask_at } if ask_at <= self.now => {
                self.ask_to_confirm(self.heir_after(heir), counter);
                self.go_on_handing();
            }
            _ => {}
        }
        let Some(leaving) = &self.leaving else { return };
        if leaving.until <= self.now {
            let id = leaving.id;
            let text = self.late_words(leaving);
            if let LeavingStage::Resigning { wish, .. } = leaving.stage {
                self.ipam.withdraw(wish);
            }
            self.leaving = None;
            self.ipam.stay();
            // At once: it may be told to leave again before anything else happens, and whoever has
            // forgotten it meanwhile has to hear of it anew to confirm anything.
            self.describe_due = true;
            self.describe_self();
            self.replan();
            let hint = if settled {
                "nothing is lost: this host is still a member; try again"
            } else {
                "it may own addresses that it would take along; if it was never in that mesh, join \
                 another, or stop meshd and remove its state directory"
            };
            self.reply(id, Err(Refusal::new(Code::Timeout, text, hint)));
        }
    }

    /// Why it could not leave in time.
    fn late_words(&self, leaving: &Leaving) -> String {
        match leaving.stage {
            _ if !self.router.is_settled() => self.unsettled_words(),
            LeavingStage::Handing { heir, .. } => self.unconfirmed_words(heir),
            LeavingStage::Parting { .. } => leaving.refused.as_ref().map_or_else(
                || "no peer could be reached that may take our blocks over".to_owned(),
                |error| format!("our blocks cannot be handed over: {error}"),
            ),
            LeavingStage::Resigning { .. } => {
                "the electors have not agreed yet that this host votes no more".to_owned()
            }
            LeavingStage::Emptying | LeavingStage::Clearing { .. } => {
                "the kernel has not removed the containers' links in time".to_owned()
            }
        }
    }

    fn clear_kernel(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.stage = LeavingStage::Clearing { done: false };
            self.programmed = false;
            self.program_at = None;
            self.outputs.push_back(Output::Program(None));
        }
    }

    /// The kernel stands as it was last told to.
    pub(super) fn kernel_programmed(&mut self) {
        if let Some(Leaving { stage: LeavingStage::Clearing { done }, .. }) = &mut self.leaving {
            *done = true;
            // It waits for the disk like every other; then the blocks go.
            if self.slots.contains_key(&gateway_holder()) {
                self.remove(&gateway_holder(), None);
            }
        } else {
            // Without addresses of our own nothing was asked of the kernel but to remove all.
            self.programmed = self.mesh.is_some() && !self.gateway_addresses().is_empty();
        }
    }

    fn resign(&mut self) {
        let others = self.standing_members().len() > 1;
        if self.has_resigned() || !others {
            return self.part();
        }
        let wish = self.ipam.wish_resignation();
        let until = self.now + RESIGN_PATIENCE;
        if let Some(leaving) = &mut self.leaving {
            leaving.stage = LeavingStage::Resigning { wish, until };
        }
    }

    fn part(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.stage = LeavingStage::Parting { ask_at: self.now };
        }
        self.hand_over();
    }

    fn has_resigned(&self) -> bool {
        !self.ipam.electors().contains(&self.config.me)
    }

    /// Gives all blocks to the reachable peer with the smallest id, of those that own some if there
    /// is one. Whoever owns nothing uses what it gets at once and may be unknown to the others: it
    /// is asked first. Without any peer the mesh ends here.
    fn hand_over(&mut self) {
        let Some(leaving) = &mut self.leaving else { return };
        leaving.stage = LeavingStage::Parting { ask_at: self.now + ASK_EVERY };
        let willing = leaving.willing.clone();
        self.ipam.begin_leaving();
        let (owners, others) = self.possible_heirs();
        let known = others.iter().find(|peer| willing.contains(peer));
        match owners.first().or(known).copied() {
            Some(heir) => self.give_to(heir),
            // Waits: others own or know something of ours and cannot be reached now.
            None if self.standing_members().len() > 1 => {
                for peer in others {
                    self.send_to_peer(peer, &PeerMessage::WouldTakeOver);
                }
            }
            None => self.clear(),
        }
    }

    /// Peers that can be reached and stay, those that own something first.
    fn possible_heirs(&self) -> (Vec<PeerId>, Vec<PeerId>) {
        let present = self.standing_members();
        let fits = |peer: &PeerId| present.contains(peer) && !self.ipam.is_fenced(*peer);
        let paths = self.router.paths().keys().copied();
        paths.filter(fits).partition(|peer| self.ipam.owns_anything(*peer))
    }

    /// Who is asked whether it has on disk what this heir was given: the heir, or another, should
    /// it have left itself, or died.
    fn heir_after(&self, heir: PeerId) -> PeerId {
        let (owners, others) = self.possible_heirs();
        let mut possible = owners.into_iter().chain(others);
        if possible.clone().any(|peer| peer == heir) {
            return heir;
        }
        possible.next().unwrap_or(heir)
    }

    /// This host is told the ring anew: what it owns, and to whom it may give that, is seen then.
    pub(super) fn leave_later(&mut self) {
        // Whom it had asked for space is forgotten with the ring.
        self.resumed = true;
        if let Some(leaving) = &mut self.leaving {
            leaving.willing.clear();
            leaving.confirmed.clear();
            if let LeavingStage::Handing { .. } | LeavingStage::Parting { .. } = leaving.stage {
                leaving.stage = LeavingStage::Parting { ask_at: self.now };
            }
        }
    }

    /// A peer that owns nothing may take blocks over.
    pub(super) fn may_be_heir(&mut self, peer: PeerId) {
        let Some(leaving) = self.leaving.as_mut().filter(|_| self.router.is_settled()) else {
            return;
        };
        leaving.willing.insert(peer);
        if matches!(leaving.stage, LeavingStage::Parting { .. }) {
            self.hand_over();
        }
    }

    fn give_to(&mut self, heir: PeerId) {
        if let Err(error) = self.ipam.give_all(heir) {
            self.notice(true, format!("cannot hand over: {error}"));
            if let Some(leaving) = &mut self.leaving {
                leaving.refused = Some(error);
            }
            return;
        }
        let info = mesh_router::member::info(self.router.members(), self.config.me);
        if let Some(info) = info.cloned() {
            self.router.describe(Info { left: true, ..info });
        }
        if mutation::on(Mutation::LeaveUnconfirmed) {
            return self.clear();
        }
        let counter = self.ipam.store().own_counter();
        if let Some(leaving) = &mut self.leaving {
            leaving.confirmed.clear();
        }
        self.ask_to_confirm(heir, counter);
    }

    fn ask_to_confirm(&mut self, heir: PeerId, counter: u64) {
        if let Some(leaving) = &mut self.leaving {
            let ask_at = self.now + ASK_EVERY;
            leaving.heirs.insert(heir);
            leaving.stage = LeavingStage::Handing { heir, counter, ask_at };
        }
        // That it has left it says there, too, which is all there is if it owned nothing.
        let left = self.router.members().own_counter();
        let told = self.router.members().durable_counter() >= left;
        if told && self.ipam.store().durable_counter() >= counter {
            let decreed = self.ipam.store().seen(DECREE);
            for peer in self.unconfirmed(heir) {
                let to = peer == heir;
                let message = PeerMessage::HandOver { counter, left, decreed, heir: to };
                self.send_to_peer(peer, &message);
            }
        }
    }

    /// Who has yet to confirm: the heir, and who was asked for space and may still give some. After
    /// a restart that may be any owner; those who are away are not waited for.
    pub(super) fn unconfirmed(&self, heir: PeerId) -> BTreeSet<PeerId> {
        let confirmed = self.leaving.as_ref().map(|leaving| &leaving.confirmed);
        let has = |peer: &PeerId| confirmed.is_some_and(|confirmed| confirmed.contains(peer));
        let paths = self.router.paths();
        let owners = self.ipam.owners().filter(|peer| self.resumed && paths.contains_key(peer));
        self.ipam.may_give().chain(owners).chain([heir]).filter(|peer| !has(peer)).collect()
    }

    fn unconfirmed_words(&self, heir: PeerId) -> String {
        let mut donors = self.unconfirmed(heir);
        if donors.remove(&heir) {
            let heir = self.router.name_of(heir);
            return format!("waiting for {heir}: it has not confirmed our blocks yet");
        }
        format!(
            "waiting for {}: asked for space and not answered yet, and what a host is given after \
             it is gone would be nobody's (if it is gone for good, `meshctl peer remove` it)",
            self.names(&donors)
        )
    }

    /// A peer has our grants, and that we left, on disk, and knows of nothing else that is ours.
    pub(super) fn taken_over(&mut self, from: PeerId, taken: u64) {
        let Some(leaving) = self.leaving.as_mut().filter(|_| self.router.is_settled()) else {
            return;
        };
        if let LeavingStage::Handing { counter, .. } = leaving.stage
            && taken >= counter
        {
            leaving.confirmed.insert(from);
            self.go_on_handing();
        }
    }

    fn go_on_handing(&mut self) {
        let Some(Leaving { stage: LeavingStage::Handing { heir, .. }, .. }) = self.leaving else {
            return;
        };
        // Something came that was asked for, or from somebody else who left: it goes on, too.
        if !self.ipam.owned_blocks().is_empty() {
            self.hand_over();
        } else if self.unconfirmed(heir).is_empty() {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.notice(false, "left the mesh".to_owned());
        self.exit();
    }

    /// What is remembered of this host's mesh, if it was there before.
    pub(super) fn left_before(&self) -> Option<&Left> {
        self.left.as_ref().filter(|left| Some(left.mesh) == self.mesh_id())
    }

    fn note_left(&mut self, heirs: BTreeSet<PeerId>) {
        let Some(mesh) = self.mesh_id() else { return };
        let before = self.left_before();
        let counter = self.ipam.store().own_counter();
        let counter = before.map_or(counter, |left| left.counter.max(counter));
        let heirs =
            before.into_iter().flat_map(|left| &left.heirs).chain(&heirs).copied().collect();
        let promises = self.ipam.promises().1.clone();
        let remembers = self.remembers || before.is_some_and(|left| left.all_promises);
        let all_promises = remembers && !self.doubtful;
        let wrote = counter.max(self.router.members().own_counter()) > 0;
        if wrote || promises != Acceptor::default() {
            self.left = Some(Left { mesh, counter, heirs, promises, all_promises });
            self.write_left();
        }
    }

    /// This host is in a mesh again that it left: it keeps its promises.
    pub(super) fn keep_promises(&mut self) {
        if let Some(promises) = self.left_before().map(|left| left.promises.clone()) {
            self.ipam.keep_promises(promises);
        }
    }

    /// After a start with a disk that may be an old one: this host may have been back since.
    pub(super) fn doubt_promises(&mut self) {
        if let Some(left) = self.left.as_mut().filter(|left| left.all_promises) {
            left.all_promises = false;
            self.write_left();
        }
    }

    /// Stops being a member: nothing of the mesh stays, neither here nor in the kernel.
    pub(super) fn exit(&mut self) {
        if let Some(joining) = self.joining.take() {
            let text = "this host was told to leave before it was ready";
            self.reply(joining.id, Err(Refusal::new(Code::Superseded, text, "join again")));
        }
        let mut heirs = BTreeSet::new();
        if let Some(leaving) = self.leaving.take() {
            heirs = leaving.heirs;
            self.acknowledge(leaving.id, Ok(Reply::Done));
        }
        self.refuse_undecided();
        self.forget_confirmations();
        self.delete_everything();
        self.note_left(heirs);
        let links: Vec<_> = self.router.links().map(|up| up.link).collect();
        for link in links {
            let reason = "this host has left the mesh".to_owned();
            self.outputs.push_back(Output::Close { link, reason });
        }
        self.journal.forget_marks();
        self.mesh = None;
        self.recalling = false;
        self.remembers = false;
        self.founding = None;
        self.desk = super::council::Desk::default();
        self.comparing = None;
        self.denied.clear();
        self.registration = super::registering::Registration::default();
        self.doubtful = false;
        self.recall_reason = None;
        self.promises_written = 0;
        self.describe_due = true;
        self.router = Router::new(self.config.me, self.config.seed ^ self.now.as_micros());
        self.ipam = mesh_ipam::Ipam::new(self.config.me);
        self.zone = mesh_dns::Zone::new(self.config.me);
        self.slots.clear();
        self.lent.clear();
        self.in_kernel.clear();
        self.waiting.clear();
        self.storing.clear();
        self.absent = super::absent::Absent::default();
        self.keeping = super::peers::Keeping::default();
        self.programmed = false;
        self.program_at = None;
        self.outputs.push_back(Output::Zone(mesh_dns::ZoneChange::Clear));
        self.outputs.push_back(Output::Program(None));
        self.outputs.push_back(Output::Membership(None));
    }
}
