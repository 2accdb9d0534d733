//! One link's share of replication: what its other end has, and nothing else.
//!
//! There is no queue. When the link can take bytes, the next delta is made from the state as it is
//! then, so a narrow link never carries two versions of one key and never holds more than
//! [`WINDOW_BYTES`].

use std::time::Duration;

use crate::{
    PeerId, Time,
    frame::{Digest, Frame, Names, Word},
    link::LinkUp,
    member::{self, Members},
    replica::{Intervals, Kind, Replica, Source},
    store::{Cursor, VersionVector},
    topology,
};

/// Bytes that may be on their way into a link before more deltas are made. Chosen: half a second on
/// a link of 1 Mbit/s, so that what is urgent never waits longer.
pub const WINDOW_BYTES: usize = 64 * 1024;
/// The size of one delta. Chosen: a quarter of the window.
pub const DELTA_BYTES: usize = 16 * 1024;
/// Without a byte for this long a link is dead. Chosen: four heartbeats.
pub const SILENCE_MAX: Duration = Duration::from_secs(4);
/// Time between heartbeats. From memberlist's LAN probe interval.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// Heartbeats in a row with a digest that is not ours, while either changes, before we ask.
const MISMATCHES_MAX: u32 = 8;
/// Origins that are not known here of which a neighbour may say what it has. Chosen: more than join
/// in two seconds.
pub(crate) const NAMED_UNKNOWN_MAX: usize = 1024;

/// The three replicas by kind.
pub struct Replicas<'a> {
    /// Of the ring.
    pub ring: &'a mut dyn Replica,
    /// Of the zone.
    pub zone: &'a mut dyn Replica,
}

impl Replicas<'_> {
    /// What all kinds may tell, by kind.
    pub(crate) fn sources<'a>(&'a self, members: &'a Members) -> [&'a dyn Source; Kind::COUNT] {
        [members, self.ring.source(), self.zone.source()]
    }
}

impl std::fmt::Debug for Replicas<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Replicas")
    }
}

/// The last delta of each kind that was made for a link, as a frame: the next link most often lacks
/// the same. It is of one state of the replicas.
#[derive(Debug, Default)]
pub(crate) struct Made([Option<(Intervals, Vec<u8>)>; Kind::COUNT]);

/// The state of one link.
#[derive(Debug)]
pub(crate) struct Neighbour {
    /// The link and who is at its other end.
    pub(crate) up: LinkUp,
    /// When a byte last came.
    pub(crate) heard: Time,
    /// Bytes given to the link that have not left yet.
    pub(crate) in_flight: usize,
    /// Heartbeats in a row whose digest was not ours.
    pub(crate) mismatches: u32,
    /// Its hello has come.
    greeted: bool,
    /// It has asked for all that it lacks, with this number.
    serving: Option<u64>,
    /// All was sent, but for what was not yet announced then: our own writes up to these. Only with
    /// them is it complete, for they may have superseded what was therefore not sent.
    complete_at: Option<[u64; Kind::COUNT]>,
    cursors: [Cursor; Kind::COUNT],
    /// When it was last looked at it may have lacked something that there was already.
    pub(crate) behind: bool,
    /// It lacks something of the ring, as far as is known, that its writers have told it.
    held_back: bool,
    /// What others wrote is passed on to it at once: the link is one of the tree, or the mesh is so
    /// small that there is none.
    pub(crate) relays: bool,
    /// Where it is not: what it has been told of for so long that it should have it by now.
    overdue: [Vec<PeerId>; Kind::COUNT],
    /// The last digest that was ours, if it was not asked for anything since.
    equal_at: Option<Digest>,
    /// The digests of its last heartbeat, and of ours when it came.
    digests: Option<(Digest, Digest)>,
}

impl Neighbour {
    pub(crate) fn new(up: LinkUp, now: Time) -> Self {
        Self {
            up,
            heard: now,
            in_flight: 0,
            mismatches: 0,
            greeted: false,
            serving: None,
            complete_at: None,
            cursors: Default::default(),
            behind: true,
            held_back: false,
            relays: true,
            overdue: Default::default(),
            equal_at: None,
            digests: None,
        }
    }

    /// Its hello came: from here on it can be sent what it lacks.
    pub(crate) fn greet(&mut self, vectors: [VersionVector; Kind::COUNT]) {
        self.cursors = vectors.map(Cursor::at);
        self.equal_at = None;
        self.greeted = true;
        self.behind = true;
    }

    /// Whether it has said what it has.
    pub(crate) fn is_greeted(&self) -> bool {
        self.greeted
    }

    /// It said what it has and asked for the rest.
    pub(crate) fn want(&mut self, vectors: [VersionVector; Kind::COUNT], pull: u64) {
        self.cursors = vectors.map(Cursor::at);
        self.equal_at = None;
        self.serving = Some(pull);
        self.complete_at = None;
        self.behind = true;
    }

    /// Its digest is ours: it has exactly what we may tell.
    pub(crate) fn is_equal(
        &mut self,
        (digest, ours): (Digest, &[VersionVector; Kind::COUNT]),
        members: &Members,
    ) {
        self.mismatches = 0;
        if self.serving.is_none() && self.equal_at.replace(digest) != Some(digest) {
            for ((cursor, ours), kind) in self.cursors.iter_mut().zip(ours).zip(Kind::ALL) {
                cursor.move_to(ours, |origin| Digest::covers(kind, origin, members));
            }
        }
    }

    /// It sent entries: it has what has grown here by them. (What we have learned from it we never
    /// send back.)
    pub(crate) fn has(&mut self, kind: Kind, grown: &Intervals) {
        let cursor = &mut self.cursors[kind as usize];
        for (origin, _, counter) in grown {
            if *counter > cursor.have.get(origin) {
                cursor.have.dots.insert(*origin, *counter);
            }
        }
    }

    /// It says that it has these. Of origins that are not known here only so many are noted: who
    /// names what nobody wrote costs nothing.
    pub(crate) fn names(&mut self, names: &Names, known: &[VersionVector; Kind::COUNT]) {
        for ((names, cursor), known) in names.iter().zip(&mut self.cursors).zip(known) {
            for (origin, counter) in names {
                let have = &mut cursor.have;
                let room = have.dots.len() < known.dots.len() + NAMED_UNKNOWN_MAX;
                if *counter > have.get(origin) && (room || have.dots.contains_key(origin)) {
                    have.dots.insert(*origin, *counter);
                }
            }
        }
    }

    /// Origins of the ring that it is known to have something of.
    #[cfg(test)]
    pub(crate) fn named(&self) -> usize {
        self.cursors[Kind::Ring as usize].have.dots.len()
    }

    /// This was named to it so long ago that the tree should have brought it. Returns whether it
    /// has not.
    pub(crate) fn is_owed(&mut self, names: &Names, members: &Members) -> bool {
        let peer = self.up.peer;
        let by_us = |origin| origin != peer && !is_told(members, origin, peer);
        for ((names, cursor), overdue) in names.iter().zip(&self.cursors).zip(&mut self.overdue) {
            let lacks = |named: &&(PeerId, u64)| cursor.have.get(&named.0) < named.1;
            let named = names.iter().filter(lacks).map(|(origin, _)| *origin);
            overdue.extend(named.filter(|origin| by_us(*origin)));
            overdue.sort_unstable();
            overdue.dedup();
        }
        self.overdue.iter().any(|overdue| !overdue.is_empty())
    }

    /// How far it has an origin's entries of a kind, if it said anything yet.
    pub(crate) fn has_of(&self, kind: Kind, origin: PeerId) -> Option<u64> {
        self.greeted.then(|| self.cursors[kind as usize].have.get(&origin))
    }

    /// The next frame of replication for it, most urgent first; `None` when it has all that it
    /// should get over this link, or the link is full. Unless it is behind, it may lack something
    /// of the fresh origins only. `tells` is what its word is worth that it has told all, if it
    /// may say so.
    pub(crate) fn next_frame(
        &mut self,
        members: &Members,
        replicas: &Replicas<'_>,
        (tells, fresh): (Option<Word>, &[Vec<PeerId>; Kind::COUNT]),
        made: &mut Made,
    ) -> Option<Vec<u8>> {
        if !self.greeted || self.in_flight >= WINDOW_BYTES {
            return None;
        }
        for kind in Kind::ALL {
            let (fresh, made) = (&fresh[kind as usize], &mut made.0[kind as usize]);
            let frame = self.next_delta((kind, fresh), members, replicas, made);
            if frame.is_some() {
                return frame;
            }
        }
        // Who has yet to learn what it once wrote itself cannot say that it has told everything.
        let word = tells.filter(|_| self.serving.is_some())?;
        let sources = replicas.sources(members);
        let complete_at = *self.complete_at.get_or_insert(sources.map(Source::own_counter));
        let me = members.me();
        let sent = |((cursor, source), counter): ((&Cursor, &dyn Source), u64)| {
            // Writes that nobody needs to know any more are not told.
            let untold = || source.durable_counter() >= counter && source.announced_of(me) == 0;
            cursor.have.get(&me) >= counter || untold()
        };
        self.cursors.iter().zip(sources).zip(complete_at).all(sent).then(|| {
            let pull = self.serving.take().unwrap_or_default();
            self.complete_at = None;
            Frame::Synced { pull, word }.encode()
        })
    }

    /// The next delta of a kind, as a frame, if something of it should be sent.
    fn next_delta(
        &mut self,
        (kind, fresh): (Kind, &[PeerId]),
        members: &Members,
        replicas: &Replicas<'_>,
        made: &mut Option<(Intervals, Vec<u8>)>,
    ) -> Option<Vec<u8>> {
        let (me, peer) = (members.me(), self.up.peer);
        let (serving, relays) = (self.serving.is_some(), self.relays);
        let overdue = &self.overdue[kind as usize];
        let links = member::reach(members, peer);
        // Our own entries go to everybody. Those of others go to who asked, and to who has no link
        // to their origin and so cannot have them from there, or whose origin is gone; in a large
        // mesh only along a tree, or when that has failed: see `router::relay`.
        // (The ring goes whole or not at all: see the store.)
        let is_ring = kind == Kind::Ring;
        let cursor = &self.cursors[kind as usize];
        let wanted = |origin: PeerId| {
            let ours = || relays || overdue.contains(&origin);
            let claims = || links.is_some_and(|links| links.claims(origin));
            let told = || claims() && is_told(members, origin, peer);
            origin == me || serving || (origin != peer && ours() && !told())
        };
        let these = [fresh, overdue].concat();
        let mut among = (!self.behind).then_some(&these[..]);
        if let Some(these) = among
            && !these.iter().any(|origin| wanted(*origin))
        {
            self.held_back |= is_ring && !these.is_empty();
            return None;
        }
        // What was held back goes with whatever is sent.
        among = among.filter(|_| !(is_ring && self.held_back));
        let replica: &dyn Replica = match kind {
            Kind::Members => members,
            Kind::Ring => &*replicas.ring,
            Kind::Zone => &*replicas.zone,
        };
        let lacking = replica.source().lacking(cursor, &wanted, among);
        if lacking.as_ref().is_some_and(Vec::is_empty) {
            return None;
        }
        if is_ring {
            let unwanted = |(origin, ..): &(PeerId, u64, u64)| !wanted(*origin);
            self.held_back = lacking.as_ref().is_some_and(|all| all.iter().all(unwanted));
            if self.held_back {
                return None;
            }
        }
        if let (Some(lacking), Some((same, frame))) = (&lacking, &*made)
            && lacking == same
        {
            self.cursors[kind as usize].pass(lacking);
            return Some(frame.clone());
        }
        // Most often it is little, and then costs what is told, not what there is.
        let told = lacking.as_ref().and_then(|all| replica.delta_of(all, DELTA_BYTES));
        if let (Some(lacking), Some(bytes)) = (&lacking, told) {
            self.cursors[kind as usize].pass(lacking);
            let frame = Frame::Delta { kind, bytes }.encode();
            *made = Some((lacking.clone(), frame.clone()));
            return Some(frame);
        }
        let delta = replica.delta(cursor, &wanted, DELTA_BYTES);
        if delta.bytes.is_empty() {
            return None;
        }
        self.cursors[kind as usize] = delta.cursor;
        let frame = Frame::Delta { kind, bytes: delta.bytes }.encode();
        if let Some(lacking) = lacking.filter(|_| !delta.more) {
            *made = Some((lacking, frame.clone()));
        }
        Some(frame)
    }

    /// It was sent what could be sent: is there something left?
    pub(crate) fn looked_at(&mut self) {
        self.behind = !self.greeted || self.serving.is_some() || self.in_flight >= WINDOW_BYTES;
        if !self.behind {
            self.overdue = Default::default();
        }
    }

    /// Whether its digest differs from ours so that we should ask for what we lack. Once is
    /// nothing: entries are on their way; and while either changes they always are.
    pub(crate) fn differs(&mut self, theirs: Digest, ours: Digest) -> bool {
        let stands = self.digests.replace((theirs, ours)) == Some((theirs, ours));
        if theirs == ours {
            return false;
        }
        self.mismatches += if stands { MISMATCHES_MAX } else { 1 };
        self.mismatches > MISMATCHES_MAX
    }
}

/// Whether an origin tells a peer itself what it writes.
pub(crate) fn is_told(members: &Members, origin: PeerId, peer: PeerId) -> bool {
    member::is_present(members, origin) && topology::linked(members, origin, peer)
}
