//! What goes over a link: one enum, encoded by the one codec.

use serde::{Deserialize, Serialize};

use crate::{
    PeerId,
    codec::{self, CodecError},
    member::{self, Members},
    replica::Kind,
    store::VersionVector,
};

/// A hash of three version vectors, without those who left: what these said goes some time later,
/// at each host by its own clock, and is not worth asking for. It is the sum of a hash of each
/// element, so that what one write costs does not grow with the hosts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Digest(pub u128);

impl Digest {
    /// Whether what a host has of an origin is in its digest. What is in the ring stays.
    pub fn covers(kind: Kind, origin: PeerId, members: &Members) -> bool {
        kind == Kind::Ring || member::is_present(members, origin)
    }

    /// The digest of all that a host may tell.
    #[cfg(test)]
    pub(crate) fn of(vectors: &[VersionVector; Kind::COUNT], members: &Members) -> Self {
        let kinds = Kind::ALL.into_iter().zip(vectors);
        let elements = kinds.flat_map(|(kind, vector)| vector.dots.iter().map(move |e| (kind, e)));
        let covered = elements.filter(|(kind, (origin, _))| Self::covers(*kind, **origin, members));
        covered.fold(Self::default(), |digest, (kind, (origin, counter))| {
            digest.with(kind, *origin, (0, *counter))
        })
    }

    /// The digest in which an element takes the place of another; a counter of 0 is none.
    #[must_use]
    pub fn with(self, kind: Kind, origin: PeerId, (before, after): (u64, u64)) -> Self {
        use siphasher::sip128::{Hasher128, SipHasher13};
        use std::hash::Hasher;
        let of = |counter: u64| {
            let mut hasher = SipHasher13::new();
            hasher.write(origin.as_bytes());
            hasher.write_u64(counter);
            hasher.write_u8(kind as u8);
            if counter == 0 { 0 } else { hasher.finish128().as_u128() }
        };
        Self(self.0.wrapping_sub(of(before)).wrapping_add(of(after)))
    }
}

/// What the word of a host is worth that it has told everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Word {
    /// It was told by somebody whose disk may be an old one; maybe by whoever asks.
    Hearsay,
    /// It is what was on its disk, which may be an old one.
    Disk,
    /// It is settled.
    Settled,
}

/// A message between neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// The first on each link; again when the sender learns in which mesh it is.
    Hello {
        /// Per kind, what the sender has.
        vectors: [VersionVector; Kind::COUNT],
        /// Which mesh of all that have this token, zero for none yet.
        founding: u32,
    },
    /// Each second.
    Heartbeat {
        /// Of all that the sender has.
        digest: Digest,
    },
    /// Asks for everything that the sender lacks; answered by deltas and `Synced`.
    Want {
        /// Per kind, what the sender has.
        vectors: [VersionVector; Kind::COUNT],
        /// The sender's number for it.
        pull: u64,
    },
    /// All that was asked for has been sent.
    Synced {
        /// The number of the `Want` that this answers.
        pull: u64,
        /// What that is worth.
        word: Word,
    },
    /// Entries.
    Delta {
        /// Of which kind.
        kind: Kind,
        /// As [`crate::Store::delta`] encoded them.
        #[serde(with = "codec::whole")]
        bytes: Vec<u8>,
    },
    /// A message from one peer to another that may have no link to it.
    Routed {
        /// Who sent it.
        from: PeerId,
        /// Who is to get it.
        to: PeerId,
        /// How many more times it may be passed on.
        hops_left: u8,
        /// What the node above makes of it.
        #[serde(with = "codec::whole")]
        payload: Vec<u8>,
    },
    /// What the sender has, of what is not passed on over this link: see `router::relay`.
    Have {
        /// Per kind, origins and how far it has their entries.
        names: Names,
    },
    /// The sender is being told itself what it once wrote, and cannot say yet that it has sent all:
    /// others are to be asked meanwhile.
    Unsettled {
        /// The number of the `Want` that this answers.
        pull: u64,
    },
}

/// Per kind, origins and how far somebody has their entries.
pub type Names = [Vec<(PeerId, u64)>; Kind::COUNT];

impl Frame {
    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// The frame of these bytes.
    ///
    /// # Errors
    /// When the bytes are no frame.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        codec::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let frame = Frame::Routed {
            from: PeerId::new([1; 16]),
            to: PeerId::new([2; 16]),
            hops_left: 3,
            payload: vec![1, 2, 3],
        };
        assert_eq!(Frame::decode(&frame.encode()).unwrap(), frame);
        let same = codec::encode(&(5_u8, [1_u8; 16], [2_u8; 16], 3_u8, vec![1_u8, 2, 3]));
        assert_eq!(frame.encode(), same, "the payload is a list of bytes");
    }

    #[test]
    fn the_wire_form_of_a_heartbeat_is_fixed() {
        let bytes = Frame::Heartbeat { digest: Digest(5) }.encode();
        assert_eq!(bytes, [1, 5], "variant 1, then a variable-length integer");
    }
}
