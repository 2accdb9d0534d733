//! What this host may tell of all three kinds, kept so that only what changed is looked at: every
//! frame that comes or goes needs it.

use crate::{
    PeerId,
    frame::Digest,
    member::Members,
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
    digest: Option<Digest>,
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
        self.digest = None;
        let moved = before.and_then(|before| source.moved_since(before));
        let vector = &mut self.vectors[place];
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
            let (before, after) = (vector.get(&origin), source.announced_of(origin));
            if before == after {
                continue;
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

    /// Per kind the origins that have something new since this was last asked for; `None` when one
    /// is there no more.
    pub(crate) fn fresh(
        &mut self,
        members: &Members,
        replicas: &Replicas<'_>,
    ) -> Option<[Vec<PeerId>; Kind::COUNT]> {
        self.vectors(members, replicas);
        let mut fresh = std::mem::take(&mut self.fresh);
        for origins in &mut fresh {
            origins.sort_unstable();
            origins.dedup();
        }
        (!std::mem::take(&mut self.dropped)).then_some(fresh)
    }

    /// The vectors as they are now, and their digest.
    pub(crate) fn with_digest(
        &mut self,
        members: &Members,
        replicas: &Replicas<'_>,
    ) -> (&[VersionVector; Kind::COUNT], Digest) {
        self.vectors(members, replicas);
        (&self.vectors, *self.digest.get_or_insert_with(|| Digest::of(&self.vectors, members)))
    }
}
