//! What this host may tell of all three kinds, kept so that it is made anew only when it changed:
//! every heartbeat that comes or goes needs it.

use crate::{
    frame::Digest,
    member::Members,
    neighbour::Replicas,
    replica::{Kind, Replica},
    store::VersionVector,
};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The replicas' revisions of which this is.
    revisions: [Option<u64>; Kind::COUNT],
    vectors: [VersionVector; Kind::COUNT],
    digest: Option<Digest>,
}

impl Told {
    /// The vectors as they are now.
    pub(crate) fn vectors(
        &mut self,
        members: &Members,
        replicas: &Replicas<'_>,
    ) -> &[VersionVector; Kind::COUNT] {
        let all = [members as &dyn Replica, &*replicas.ring, &*replicas.zone];
        for (kind, replica) in all.into_iter().enumerate() {
            let revision = Some(replica.revision());
            if self.revisions[kind] != revision {
                self.revisions[kind] = revision;
                self.vectors[kind] = replica.announced();
                self.digest = None;
            }
        }
        &self.vectors
    }

    /// The vectors as they are now, and their digest.
    pub(crate) fn with_digest(
        &mut self,
        members: &Members,
        replicas: &Replicas<'_>,
    ) -> (&[VersionVector; Kind::COUNT], Digest) {
        self.vectors(members, replicas);
        (&self.vectors, *self.digest.get_or_insert_with(|| Digest::of(&self.vectors)))
    }
}
