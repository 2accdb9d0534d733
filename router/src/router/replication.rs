//! What the router does with frames, and what it sends of its own accord.

use std::time::Duration;

use super::{Effect, Router};
use crate::{
    PeerId, Time,
    frame::{Digest, Frame, Word},
    link::LinkId,
    member::MemberKey,
    neighbour::{Made, Neighbour, Replicas},
    replica::{Kind, Replica, Source},
    store::VersionVector,
};

/// How long one neighbour may take to send all that we lack before another is asked.
const PULL_MAX: Duration = Duration::from_secs(10);
/// Who could not tell it is not asked again before this has passed, for all have their turn.
const ROUND_MIN: Duration = Duration::from_secs(1);
/// For each member what others wrote is passed on this much more rarely. Chosen: not felt among ten
/// hosts, 5 ms among fifty.
const RELAY_DELAY: Duration = Duration::from_micros(100);
/// But never more rarely than this.
const RELAY_DELAY_MAX: Duration = Duration::from_millis(100);

impl Router {
    pub(super) fn on_decoded(
        &mut self,
        link: LinkId,
        frame: Frame,
        replicas: &mut Replicas<'_>,
        now: Time,
    ) -> Result<(), String> {
        match frame {
            Frame::Hello { vectors, founding } => {
                if !self.meet(link, founding, now)? {
                    return Ok(());
                }
                self.look_back(link, &vectors, replicas);
                let equal = vectors == *self.told.vectors(&self.members, replicas);
                let neighbour = self.neighbour(link);
                neighbour.greet(vectors);
                neighbour.mismatches = u32::from(!equal);
                self.pump_due = true;
                self.ask_if(!equal, link, replicas, now);
            }
            Frame::Heartbeat { digest } => self.on_digest(link, digest, replicas, now),
            Frame::Want { vectors, pull } => {
                self.look_back(link, &vectors, replicas);
                self.neighbour(link).want(vectors, pull);
                self.pump_due = true;
                if !self.tells_all() {
                    self.send(link, false, &Frame::Unsettled { pull });
                }
            }
            Frame::Unsettled { pull } => {
                if pull == self.pulls && self.pulling.is_some_and(|(from, _)| from == link) {
                    self.pulling = Some((link, now));
                    self.pull_next(replicas, now);
                }
            }
            Frame::Synced { pull, word } => self.on_synced((link, pull, word), replicas, now),
            Frame::Delta { kind, bytes } => {
                return self.on_delta(link, (kind, &bytes), replicas, now);
            }
            Frame::Have { names } => {
                let known = self.told.vectors(&self.members, replicas);
                if let Some(neighbour) = self.neighbours.get_mut(&link) {
                    neighbour.names(&names, known);
                }
            }
            Frame::Routed { from, to, hops_left: _, payload } if to == self.me => {
                self.note_way_back(from, link);
                self.effects.push_back(Effect::Deliver { from, payload });
            }
            Frame::Routed { from, to, hops_left, payload } => {
                self.note_way_back(from, link);
                if let Some(hops_left) = hops_left.checked_sub(1) {
                    self.route(to, Frame::Routed { from, to, hops_left, payload });
                }
            }
        }
        Ok(())
    }

    /// Whether a peer knows more of this host's own writes than the host has ever told.
    fn look_back(
        &mut self,
        link: LinkId,
        vectors: &[VersionVector; Kind::COUNT],
        replicas: &Replicas<'_>,
    ) {
        let ours = self.own_counters(replicas);
        if vectors.iter().zip(ours).all(|(theirs, ours)| theirs.get(&self.me) <= ours) {
            return;
        }
        if self.tells && !self.settled {
            // It is asked, too.
            self.synced = None;
        } else if self.settled {
            let peer = self.neighbour(link).up.peer;
            self.effects.push_back(Effect::Behind { peer });
        }
    }

    /// Up to where own writes may be told, by kind; the vectors leave out what says nothing.
    fn own_counters(&self, replicas: &Replicas<'_>) -> [u64; Kind::COUNT] {
        replicas.sources(&self.members).map(Source::durable_counter)
    }

    fn on_digest(&mut self, link: LinkId, digest: Digest, replicas: &Replicas<'_>, now: Time) {
        let neighbour = self.neighbours.get_mut(&link).expect("it has just sent something");
        let (vectors, ours) = self.told.with_digest(&self.members, replicas);
        if digest == ours {
            neighbour.is_equal((digest, vectors), &self.members);
        }
        let differs = neighbour.differs(digest, ours);
        self.ask_if(differs, link, replicas, now);
    }

    /// Asks a neighbour, if it has something else. Who is not settled asks even its equal: only a
    /// peer that is settled will say that this is all. Its equal may have lost as much.
    fn ask_if(&mut self, differs: bool, link: LinkId, replicas: &Replicas<'_>, now: Time) {
        if (differs || !self.was_told_all()) && self.may_pull(link, now) {
            self.pull(link, replicas, now);
        }
    }

    /// Whether this host knows that it has been told all that there was.
    fn was_told_all(&self) -> bool {
        self.word() == Word::Settled && self.synced == Some(Word::Settled)
    }

    /// Asks a neighbour for all that this host lacks.
    fn pull(&mut self, link: LinkId, replicas: &Replicas<'_>, now: Time) {
        let vectors = self.told.vectors(&self.members, replicas).clone();
        self.neighbour(link).mismatches = 0;
        self.pulling = Some((link, now + PULL_MAX));
        self.pulls += 1;
        let pull = self.pulls;
        self.send(link, false, &Frame::Want { vectors, pull });
    }

    /// Whether this neighbour may be asked for all that we lack: one at a time. Whoever did not
    /// tell it in time lets the others have their turn, if we want anything of them; its answer
    /// counts until one has it.
    fn may_pull(&mut self, link: LinkId, now: Time) -> bool {
        if let Some((last, until)) = self.pulling {
            if until > now {
                return false;
            }
            self.passed_over.insert(last);
        }
        let told_all = self.was_told_all();
        let mut neighbours = self.neighbours.iter();
        let done = neighbours.all(|(link, neighbour)| {
            self.passed_over.contains(link) || (told_all && neighbour.mismatches == 0)
        });
        if done && self.round_at + ROUND_MIN <= now {
            self.passed_over.clear();
            self.round_at = now;
        }
        !self.passed_over.contains(&link)
    }

    /// Not all was taken of what this neighbour tells: what it says at the end will not count.
    fn pull_in_vain(&mut self, link: LinkId) {
        self.pulling = None;
        self.pulls += 1;
        self.passed_over.insert(link);
    }

    /// The neighbour that was asked cannot say that it has told all: asks another.
    fn pull_next(&mut self, replicas: &Replicas<'_>, now: Time) {
        let greeted = self.neighbours.iter().filter(|(_, of)| of.is_greeted());
        let links: Vec<LinkId> = greeted.map(|(link, _)| *link).collect();
        if let Some(next) = links.into_iter().find(|link| self.may_pull(*link, now)) {
            self.pull(next, replicas, now);
        }
    }

    fn on_synced(
        &mut self,
        (link, pull, word): (LinkId, u64, Word),
        replicas: &Replicas<'_>,
        now: Time,
    ) {
        // An answer to an earlier question, since when this host has forgotten what it knew or has
        // begun to listen to somebody else, says nothing.
        if pull != self.pulls || self.pulling.is_none_or(|(from, _)| from != link) {
            return;
        }
        self.pulling = None;
        if word == Word::Settled {
            self.passed_over.clear();
        } else {
            self.passed_over.insert(link);
        }
        // Another may know more of this host's own writes than the one that was asked.
        let ours = self.own_counters(replicas);
        let knows_more = |n: &Neighbour| {
            Kind::ALL
                .iter()
                .any(|kind| n.has_of(*kind, self.me).unwrap_or(0) > ours[*kind as usize])
        };
        self.told_by.insert(link);
        let unasked = |link: &LinkId| !self.told_by.contains(link);
        let mut neighbours = self.neighbours.iter();
        let better = neighbours.find(|(link, of)| unasked(link) && knows_more(of));
        let better = better.map(|(link, _)| *link);
        if let Some(better) = better.filter(|_| !self.settled) {
            return self.pull(better, replicas, now);
        }
        self.synced = self.synced.max(Some(word));
        self.hearsay &= word != Word::Settled;
        if !self.settled && !self.tells {
            self.hearsay = word != Word::Settled;
            self.settle(now);
        }
    }

    fn on_delta(
        &mut self,
        link: LinkId,
        (kind, bytes): (Kind, &[u8]),
        replicas: &mut Replicas<'_>,
        now: Time,
    ) -> Result<(), String> {
        // Who is being told the ring is told it by one: pieces from several, each of a state of its
        // own, may together hide what only the whole of one says.
        if kind == Kind::Ring && !self.settled && self.pulling.is_none_or(|(from, _)| from != link)
        {
            return Ok(());
        }
        self.told.follow(kind, &self.members, replicas);
        let mark = self.members.change_mark();
        let replica: &mut dyn Replica = match kind {
            Kind::Members => &mut self.members,
            Kind::Ring => &mut *replicas.ring,
            Kind::Zone => &mut *replicas.zone,
        };
        // What could not be taken because something before it is missing comes again: the next
        // heartbeats' digests differ.
        let taken = replica.apply(bytes).map_err(|error| error.to_string())?;
        if !taken && self.pulling.is_some_and(|(from, _)| from == link) {
            self.pull_in_vain(link);
        }
        let grown = self.told.follow(kind, &self.members, replicas);
        self.neighbour(link).has(kind, &grown);
        if kind == Kind::Members {
            let changes = self.members.changes_since(mark).unwrap_or_default();
            let described = changes.iter().any(|change| matches!(change.key, MemberKey::Info(_)));
            self.members_changed(described, now);
        }
        Ok(())
    }

    /// Whether [`Router::pump`] may find something to send although no replica changed: a link came
    /// up, was greeted, asked or has room again.
    pub fn pump_due(&self) -> bool {
        self.pump_due
    }

    /// The origins of which somebody may lack something, for these have something new. Who is sent
    /// what depends also on who is linked to whom and who is there, and members say that.
    fn concerned(&mut self, mut fresh: [Vec<PeerId>; Kind::COUNT]) -> [Vec<PeerId>; Kind::COUNT] {
        let mut members = fresh[Kind::Members as usize].clone();
        members.retain(|peer| *peer != self.me);
        for link in members.iter().filter_map(|peer| self.by_peer.get(peer)) {
            if let Some(neighbour) = self.neighbours.get_mut(link) {
                neighbour.behind = true;
            }
        }
        for kind in [Kind::Ring, Kind::Zone] {
            let fresh = &mut fresh[kind as usize];
            fresh.extend(&members);
            fresh.sort_unstable();
            fresh.dedup();
        }
        fresh
    }

    /// All links may lack something, whatever changed.
    pub(super) fn look_again(&mut self) {
        self.pump_due = true;
        self.neighbours.values_mut().for_each(|neighbour| neighbour.behind = true);
    }

    /// Sends to every link what its other end lacks, as far as the link can take it. Costs one look
    /// at each link and each origin that has something new: for when a replica changed, or
    /// [`Router::pump_due`]. Only to pass on what others wrote it waits, so that in a large mesh a
    /// burst of that is few frames.
    pub fn pump(&mut self, replicas: &Replicas<'_>, now: Time) {
        let own = self.told.is_fresh(self.me, &self.members, replicas);
        let relay_at = self.relayed + self.pause(RELAY_DELAY, RELAY_DELAY_MAX);
        if !own && !self.pump_due && now < relay_at {
            self.relay_at = Some(relay_at);
            return self.due_by(relay_at);
        }
        (self.relayed, self.relay_at) = (now, None);
        let (fresh, dropped) = self.told.fresh(&self.members, replicas);
        let fresh = self.concerned(fresh);
        self.note_unnamed(&fresh);
        if dropped {
            self.look_again();
        }
        self.pump_due = false;
        let tells = self.tells_all().then(|| self.word());
        let links: Vec<LinkId> = self.neighbours.keys().copied().collect();
        let mut made = Made::default();
        for link in links {
            while let Some(frame) = self
                .neighbours
                .get_mut(&link)
                .and_then(|n| n.next_frame(&self.members, replicas, (tells, &fresh), &mut made))
            {
                self.send_bytes(link, false, frame);
            }
            self.neighbour(link).looked_at();
        }
    }
}
