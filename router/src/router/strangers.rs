//! Peers with the same token that are of another mesh: it was founded twice, by hosts that did not
//! hear of each other. Two meshes never mix, so nothing is taken from them.

use super::Router;
use crate::{
    Time,
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

    /// Whether the other end of a link is of this host's mesh. If not, it is not dialled for a
    /// while, and whoever dialled closes the link: the other end waits for that and listens no
    /// more, for else the one that dials might hear that the link is gone before it hears why.
    ///
    /// # Errors
    /// When it is of another mesh, and the link is to be closed.
    pub(super) fn meet(&mut self, link: LinkId, founding: u32, now: Time) -> Result<bool, String> {
        if founding == 0 || self.founding == 0 || founding == self.founding {
            return Ok(true);
        }
        let up = self.neighbours[&link].up.clone();
        let mut callees = vec![Callee::Peer(up.peer)];
        let targets = self.targets.iter().filter(|(_, found)| **found == Some(up.peer));
        callees.extend(targets.map(|(address, _)| Callee::Target(*address)));
        let error = DialError::OtherMesh;
        let refusal = (up.dialled.unwrap_or(up.remote), error.clone());
        for callee in callees {
            self.dialer.refused(callee, refusal.clone(), now, &mut self.rng);
        }
        if up.dialled.is_some() {
            return Err(error.to_string());
        }
        self.drop_link(link, now);
        self.notice(true, format!("{} is refused: {error}", up.remote));
        Ok(false)
    }
}
