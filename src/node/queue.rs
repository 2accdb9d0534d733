//! Requests that wait until the host is ready.

use mesh_router::Time;

use super::{
    Node, QUEUED_MAX,
    event::RequestId,
    not_in_a_mesh,
    request::{Code, Refusal, Request},
};

impl Node {
    /// Serves a request now if the host is ready, else as soon as it is.
    pub(super) fn enqueue(&mut self, id: RequestId, request: Box<Request>, until: Time) {
        if self.mesh.is_none() {
            self.reply(id, Err(not_in_a_mesh()));
        } else if self.is_ready() {
            self.serve(id, *request, until);
        } else if self.queued.len() >= QUEUED_MAX {
            self.reply(id, Err(self.not_ready()));
        } else {
            self.queued.push((id, request, until));
        }
    }

    pub(super) fn progress_queue(&mut self) {
        if self.queued.is_empty() {
            return;
        }
        let ready = self.is_ready();
        for (id, request, until) in std::mem::take(&mut self.queued) {
            if ready {
                self.serve(id, *request, until);
            } else if until <= self.now || self.mesh.is_none() {
                self.reply(id, Err(self.not_ready()));
            } else {
                self.queued.push((id, request, until));
            }
        }
    }

    pub(super) fn serve(&mut self, id: RequestId, request: Request, until: Time) {
        match request {
            Request::Attach(attach) => self.attach(id, attach, until),
            Request::Claim { address, holder } => self.claim(id, address, holder, until),
            _ => unreachable!("only attaches and claims are queued"),
        }
    }

    pub(super) fn not_ready(&self) -> Refusal {
        let why = self.unready_because().unwrap_or_else(|| "it is not ready".to_owned());
        Refusal::new(
            Code::NotReady,
            format!("this host cannot serve yet: {why}"),
            "try again in a moment; `meshctl status` tells how it stands",
        )
    }
}
