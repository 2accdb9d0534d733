//! Records that people add by hand on this host.

use std::net::IpAddr;

use mesh_dns::{BY_HAND, PutError};

use super::{
    Node,
    request::{Code, Refusal, Reply},
};
use crate::api::types::Record;

impl Node {
    pub(super) fn dns_add(&mut self, name: &str, addresses: Vec<IpAddr>) -> Result<Reply, Refusal> {
        if self.mesh.is_none() || !self.router.is_settled() || self.is_leaving() {
            return Err(self.not_ready());
        }
        let name = self.parse_name(name)?;
        if addresses.is_empty() {
            let text = format!("no address for {name}");
            return Err(Refusal::new(Code::Invalid, text, "give at least one address"));
        }
        self.zone.add_by_hand(&name, &addresses).map_err(|error| put_refusal(&error))?;
        Ok(Reply::Done)
    }

    pub(super) fn dns_remove(
        &mut self,
        name: &str,
        addresses: &[IpAddr],
    ) -> Result<Reply, Refusal> {
        if self.recalling {
            return Err(self.not_ready());
        }
        let name = self.parse_name(name)?;
        if !self.zone.remove_by_hand(&name, addresses) {
            return Err(Refusal::new(
                Code::NotFound,
                format!("no such record of {name} was added by hand on this host"),
                "`meshctl dns list` shows which host wrote a record; remove it there",
            ));
        }
        Ok(Reply::Done)
    }

    pub(super) fn dns_remove_all(&mut self) {
        self.zone.remove_holder(BY_HAND);
    }

    pub(super) fn dns_list(&self) -> Vec<Record> {
        let records = self.zone.records().map(|(key, addresses)| Record {
            name: key.name.to_string(),
            addresses: addresses.to_vec(),
            origin: key.origin,
            host: self.router.name_of(key.origin),
            holder: key.holder.clone(),
            hidden: self.zone.is_hidden(key.origin),
        });
        records.collect()
    }
}

pub(super) fn put_refusal(error: &PutError) -> Refusal {
    Refusal::new(Code::Exhausted, error.to_string(), "remove names that are no longer needed")
}
