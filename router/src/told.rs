//! What this host may tell of all three kinds, kept so that only what changed is looked at: every
//! frame that comes or goes needs it.

use std::collections::BTreeSet;

use crate::{
    PeerId,
    frame::Digest,
    member::{self, Members},
    neighbour::Replicas,
    replica::{Intervals, Kind},
    store::VersionVector,
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The replicas' revisions of which this is.
    revisions: [Option<u64>; Kind::COUNT],
    vectors: [VersionVector; Kind::COUNT],
    /// Of the vectors.
    digest: Digest,
    /// The hosts whose elements are in it, of kinds in which not all are.
    covered: BTreeSet<PeerId>,
    /// The origins that have something new since the links were last looked at.
    fresh: [Vec<PeerId>; Kind::COUNT],
    /// One was there then that is there no more.
    dropped: bool,
}

impl Told {
    /// The vectors as they are now.
    pub(crate) fn vectors(
        &mut self,
        members: &Members,
        replicas: &Replicas<'_>,
    ) -> &[VersionVector; Kind::COUNT] {
        for kind in Kind::ALL {
            self.follow(kind, members, replicas);
        }
        &self.vectors
    }

    /// Catches up with one kind; returns what has grown, with the counters before and after.
    pub(crate) fn follow(
        &mut self,
        kind: Kind,
        members: &Members,
        replicas: &Replicas<'_>,
    ) -> Intervals {
        let place = kind as usize;
        let source = replicas.sources(members)[place];
        let before = self.revisions[place].replace(source.revision());
        if before == self.revisions[place] {
            return Intervals::new();
        }
        let moved = before.and_then(|before| source.moved_since(before));
        let vector = &self.vectors[place];
        let moved = match moved {
            Some(mut moved) => {
                // What is told of one's own writes depends on others' as well.
                moved.push(members.me());
                moved
            }
            None => {
                vector.dots.keys().copied().chain(source.announced().dots.into_keys()).collect()
            }
        };
        let mut grown = Intervals::new();
        for origin in moved {
            if kind == Kind::Members {
                self.cover(origin, members);
            }
            let vector = &mut self.vectors[place];
            let (before, after) = (vector.get(&origin), source.announced_of(origin));
            if before == after {
                continue;
            }
            if kind == Kind::Ring || self.covered.contains(&origin) {
                self.digest = self.digest.with(kind, origin, (before, after));
            }
            if after == 0 {
                vector.dots.remove(&origin);
                self.dropped = true;
                continue;
            }
            vector.dots.insert(origin, after);
            self.fresh[place].push(origin);
            if after > before {
                grown.push((origin, before, after));
            }
        }
        grown
    }

    /// The host may have come or left: what it wrote goes into the digest or out of it.
    fn cover(&mut self, host: PeerId, members: &Members) {
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Ring) {
            let has = self.vectors[kind as usize].get(&host);
            let was = if self.covered.contains(&host) { has } else { 0 };
            let is = if Digest::covers(kind, host, members) { has } else { 0 };
            self.digest = self.digest.with(kind, host, (was, is));
        }
        if member::is_present(members, host) {
            self.covered.insert(host);
        } else {
            self.covered.remove(&host);
        }
    }

    /// Whether an origin has something new since [`Told::fresh`] was last asked for.
    pub(crate) fn is_fresh(
        &mut self,
        origin: PeerId,
        members: &Members,
        replicas: &Replicas<'_>,
    ) -> bool {
        self.vectors(members, replicas);
        self.fresh.iter().any(|fresh| fresh.contains(&origin))
    }

    /// Per kind the origins that have something new since this was last asked for, and whether one
    /// that was there then is there no more.
    pub(crate) fn fresh(
        &mut self,
        members: &Members,
        replicas: &Replicas<'_>,
    ) -> ([Vec<PeerId>; Kind::COUNT], bool) {
        self.vectors(members, replicas);
        let mut fresh = std::mem::take(&mut self.fresh);
        for origins in &mut fresh {
            origins.sort_unstable();
            origins.dedup();
        }
        (fresh, std::mem::take(&mut self.dropped))
    }

    /// The vectors as they are now, and their digest.
    pub(crate) fn with_digest(
        &mut self,
        members: &Members,
        replicas: &Replicas<'_>,
    ) -> (&[VersionVector; Kind::COUNT], Digest) {
        self.vectors(members, replicas);
        (&self.vectors, self.digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        member::{Info, MemberKey, MemberValue},
        store::{Cursor, Return},
    };
    use rand::{RngExt, SeedableRng};

    /// Whatever hosts write of themselves, leave, come back or are forgotten.
    #[test]
    fn the_digest_of_what_changed_is_that_of_all() {
        let peer = |n: u8| PeerId::new([n; 16]);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let mut members = Members::new(peer(0));
        let (mut ring, mut zone) = (Members::new(peer(0)), Members::new(peer(0)));
        let mut others: Vec<Members> = (0..4).map(|n| Members::new(peer(n))).collect();
        let mut told = Told::default();
        for step in 0..2_000 {
            let (host, what) = (rng.random_range(1..4_u8), rng.random_range(0..4_u8));
            let from = &mut others[usize::from(host)];
            let info =
                Info { name: step.to_string(), endpoints: vec![], incarnation: 0, left: what == 2 };
            from.write(MemberKey::Info(peer(host)), MemberValue::Info(info));
            from.mark_durable(from.own_counter());
            let delta = from.delta(&Cursor::default(), |_| true, usize::MAX);
            match what {
                0 => {
                    zone.apply(&delta.bytes).unwrap();
                    ring.apply(&delta.bytes).unwrap();
                }
                1 | 2 => drop(members.apply(&delta.bytes).unwrap()),
                _ => members.drop_origin(peer(host), Return::Perhaps),
            }
            let replicas = Replicas { ring: &mut ring, zone: &mut zone };
            let (vectors, digest) = told.with_digest(&members, &replicas);
            assert_eq!(digest, Digest::of(vectors, &members), "step {step}: {host} {what}");
        }
        assert!(!told.vectors.iter().all(|vector| vector.dots.is_empty()));
    }
}
