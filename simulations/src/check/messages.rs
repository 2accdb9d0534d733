//! What nodes say to each other, as far as checkers look at it.

use mesh_ipam::{SpaceMessage, council::message::CouncilMessage};
use mesh_router::{PeerId, codec, frame::Frame};
use serde::{Deserialize, Serialize};

/// First byte of a routed frame.
const ROUTED: u8 = 5;

/// The first variants of what a node makes of a routed frame's payload.
#[derive(Serialize, Deserialize)]
pub(super) enum Message {
    Space(SpaceMessage),
    Council(CouncilMessage),
}

/// A message in a frame, with its ends: who sent it, and who is to get it.
pub(super) fn of(frame: &[u8]) -> Option<(PeerId, PeerId, Message)> {
    if frame.first() != Some(&ROUTED) {
        return None;
    }
    let Ok(Frame::Routed { from, to, payload, .. }) = Frame::decode(frame) else { return None };
    Some((from, to, codec::decode(&payload).ok()?))
}
