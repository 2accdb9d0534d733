//! What this host may tell of all three kinds, kept so that it is made anew only when it changed:
//! every heartbeat that comes or goes needs it.

use crate::{
    PeerId, frame::Digest, member::Members, neighbour::Replicas, replica::Kind,
    store::VersionVector,
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The replicas' revisions of which this is.
    revisions: [Option<u64>; Kind::COUNT],
    vectors: [VersionVector; Kind::COUNT],
    digest: Option<Digest>,
    /// The vectors when the links were last looked at.
    pumped: [VersionVector; Kind::COUNT],
}

impl Told {
    /// The vectors as they are now.
    pub(crate) fn vectors(
        &mut self,
        members: &Members,
        replicas: &Replicas<'_>,
    ) -> &[VersionVector; Kind::COUNT] {
        for (kind, source) in replicas.sources(members).into_iter().enumerate() {
            let revision = Some(source.revision());
            if self.revisions[kind] != revision {
                self.revisions[kind] = revision;
                self.vectors[kind] = source.announced();
                self.digest = None;
            }
        }
        &self.vectors
    }

    /// Per kind the origins that have something new since this was last asked for; `None` when one
    /// is there no more.
    pub(crate) fn fresh(
        &mut self,
        members: &Members,
        replicas: &Replicas<'_>,
    ) -> Option<[Vec<PeerId>; Kind::COUNT]> {
        self.vectors(members, replicas);
        let mut fresh: [Vec<PeerId>; Kind::COUNT] = Default::default();
        let mut dropped = false;
        for (kind, now) in self.vectors.iter().enumerate() {
            let before = &self.pumped[kind];
            if before == now {
                continue;
            }
            let (mut old, mut new) = (before.dots.iter().peekable(), 0);
            for (origin, counter) in &now.dots {
                dropped |= old.next_if(|(known, _)| *known < origin).is_some();
                let known = old.next_if(|(known, _)| *known == origin);
                if known.is_none_or(|(_, known)| known != counter) {
                    fresh[kind].push(*origin);
                }
                new += usize::from(known.is_none());
            }
            dropped |= before.dots.len() + new != now.dots.len();
            self.pumped[kind].clone_from(now);
        }
        (!dropped).then_some(fresh)
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
