//! Requests: who answers each.

use std::time::Duration;

use super::{
    Node,
    event::{Notice, Output, RequestId},
    request::{Refusal, Reply, Request},
};

impl Node {
    pub(super) fn request(&mut self, id: RequestId, request: Request, patience: Duration) {
        let until = self.now + patience;
        let result = match request {
            Request::Init { credentials, ranges } => {
                let result = self.init(credentials, &ranges);
                return self.acknowledge(id, result);
            }
            Request::Join { credentials, targets } => {
                return self.join(id, credentials, targets, patience);
            }
            Request::Found { .. } | Request::PeerRemove { .. } | Request::RangeAdd(_) => {
                return self.council(id, request, until);
            }
            Request::Leave => return self.leave(id, until),
            Request::Token => self.token(),
            Request::Status => Ok(Reply::Status(Box::new(self.status()))),
            Request::Peers => Ok(Reply::Peers(self.peers())),
            Request::Check { container, interface } => self.check(container, interface),
            Request::Allocations => Ok(Reply::Allocations(self.allocations())),
            Request::DnsAdd { name, addresses } => {
                let result = self.dns_add(&name, addresses);
                return self.acknowledge(id, result);
            }
            Request::DnsRemove { name, addresses } => {
                let result = self.dns_remove(&name, &addresses);
                return self.acknowledge(id, result);
            }
            Request::DnsList => Ok(Reply::Records(self.dns_list())),
            Request::Connect(target) => {
                let result = self.connect(target);
                return self.acknowledge(id, result);
            }
            Request::Forget(target) => {
                let result = self.forget(target);
                return self.acknowledge(id, result);
            }
            Request::Detach { container, interface } => {
                return self.detach(id, &container, interface.as_deref());
            }
            Request::Release { holder } => return self.detach(id, &holder, Some("")),
            waits @ (Request::Attach(_) | Request::Claim { .. }) => {
                return self.enqueue(id, Box::new(waits), until);
            }
        };
        self.reply(id, result);
    }

    pub(super) fn reply(&mut self, id: RequestId, result: Result<Reply, Refusal>) {
        self.outputs.push_back(Output::Reply { id, result: result.map(Box::new) });
    }

    pub(super) fn notice(&mut self, warning: bool, text: String) {
        self.outputs.push_back(Output::Notice(Notice { warning, text }));
    }
}
