//! What the mesh decides together: its founding, the removal of dead hosts, new ranges.

use mesh_router::Time;

use super::{
    Node,
    event::RequestId,
    request::{Code, Refusal, Request},
};

impl Node {
    /// Takes a request that needs the agreement of others.
    pub(super) fn council(&mut self, id: RequestId, request: Request, _until: Time) {
        let what = match request {
            Request::Found { .. } => "founding together",
            Request::PeerRemove { .. } => "removing a peer",
            _ => "adding a range",
        };
        let text = format!("{what} is not supported yet");
        self.reply(id, Err(Refusal::new(Code::Invalid, text, "see the changelog")));
    }
}
