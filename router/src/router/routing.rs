//! Messages from peer to peer: over a link if there is one, else over others. They may be lost.

use super::Router;
use crate::{PeerId, frame::Frame, link::LinkId, neighbour::WINDOW_BYTES};

/// How often a routed message may be passed on. Chosen: no sane mesh is wider.
const HOPS_MAX: u8 = 16;
/// Bytes on their way into a link beyond which routed messages are dropped: whoever sends them asks
/// again. Chosen: four windows of replication.
pub(super) const ROUTED_BYTES_MAX: usize = 4 * WINDOW_BYTES;
/// Peers to whom a way back is remembered. Chosen: as many as join or leave at once.
pub(super) const WAYS_BACK_MAX: usize = 256;

impl Router {
    /// Sends a message to a peer, over other peers if need be. Returns whether there is a way
    /// that is not choked; the message may be lost all the same.
    pub fn send_to(&mut self, to: PeerId, payload: Vec<u8>) -> bool {
        let frame = Frame::Routed { from: self.me, to, hops_left: HOPS_MAX, payload };
        self.route(to, frame)
    }

    pub(super) fn route(&mut self, to: PeerId, frame: Frame) -> bool {
        let path = self.paths.get(&to).and_then(|hop| self.by_peer.get(&hop.via));
        let Some(&link) = path.or_else(|| self.ways_back.get(&to)) else { return false };
        if self.neighbours[&link].in_flight >= ROUTED_BYTES_MAX {
            return false;
        }
        self.send(link, true, &frame);
        true
    }

    /// Who is not known yet, or says that it leaves, is answered the way its messages came.
    pub(super) fn note_way_back(&mut self, from: PeerId, link: LinkId) {
        if self.paths.contains_key(&from) || self.ways_back.insert(from, link).is_some() {
            return;
        }
        if self.ways_back.len() > WAYS_BACK_MAX {
            self.ways_back.pop_first();
        }
    }
}
