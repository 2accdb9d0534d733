//! Peers with the same token that are of another mesh: it was founded twice, by hosts that did not
//! hear of each other. Two meshes never mix, so nothing is taken from them.

use super::Router;
use crate::{
    PeerId, Time,
    dialer::Callee,
    frame::Frame,
    link::{DialError, LinkId},
    neighbour::Replicas,
};

impl Router {
    /// This host is in the mesh of this founding: tells all peers before it tells them anything
    /// else. Zero is none.
    pub fn set_founding(&mut self, founding: u32, replicas: &Replicas<'_>) {
        if founding == 0 || founding == self.founding {
            return;
        }
        self.founding = founding;
        let vectors = self.told.vectors(&self.members, replicas).clone();
        let links: Vec<_> = self.neighbours.keys().copied().collect();
        for link in links {
            let vectors = vectors.clone();
            self.send(link, false, &Frame::Hello { vectors, founding });
        }
    }

    /// Whether the other end of a link is of this host's mesh.
    ///
    /// # Errors
    /// When it is of another; it is not dialled for a while then.
    pub(super) fn meet(&mut self, link: LinkId, founding: u32, now: Time) -> Result<(), String> {
        if founding == 0 || self.founding == 0 || founding == self.founding {
            return Ok(());
        }
        let up = &self.neighbours[&link].up;
        let (peer, remote): (PeerId, _) = (up.peer, up.dialled.unwrap_or(up.remote));
        let mut callees = vec![Callee::Peer(peer)];
        let targets = self.targets.iter().filter(|(_, found)| **found == Some(peer));
        callees.extend(targets.map(|(address, _)| Callee::Target(*address)));
        let error = DialError::OtherMesh;
        for callee in callees {
            self.dialer.refused(callee, (remote, error.clone()), now, &mut self.rng);
        }
        Err(error.to_string())
    }
}
