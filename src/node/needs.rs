//! What an attach asks for: whether it makes sense, and which addresses it comes to.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use mesh_dns::{HOLDER_BYTES_MAX, Name};
use mesh_ipam::{Block, Family, Holder, Wanted};

use super::{
    Node,
    attaching::gateway_holder,
    attachment::{Record, Slot},
    desired::Mac,
    request::{Code, Refusal},
};
use crate::api::types::AttachRequest;

/// Names that one container may have. Chosen: far above any orchestrator's use.
const NAMES_MAX: usize = 32;
/// Addresses that one attach may name. Chosen: a container is no host of virtual servers.
const ADDRESSES_MAX: usize = 16;
/// Routes that one attach may name. Chosen: its row on disk stays under 64 KiB.
const ROUTES_MAX: usize = 256;
/// Bytes of the path of a namespace, from PATH_MAX.
const PATH_BYTES_MAX: usize = 4096;
/// Bytes of a container id or a claim's holder, so that the zone takes it with an interface.
/// Container ids are 64 hexadecimal digits.
pub(super) const ID_BYTES_MAX: usize = HOLDER_BYTES_MAX - 1 - INTERFACE_BYTES_MAX;
/// Bytes of an interface name, from IFNAMSIZ less its NUL.
const INTERFACE_BYTES_MAX: usize = 15;

/// One address that a slot is to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// From the ring.
    Own(Wanted),
    /// From any of the mesh's ranges of a family.
    Of(Family),
    /// Claimed for it, and held by the claim.
    Claimed(IpAddr),
}

impl Node {
    pub(super) fn check_attach(&self, request: &AttachRequest) -> Result<(), Refusal> {
        let invalid = |message: String, hint: &str| Err(Refusal::new(Code::Invalid, message, hint));
        if request.container.is_empty() || request.container.len() > ID_BYTES_MAX {
            return invalid(
                format!("a container id has 1 to {ID_BYTES_MAX} bytes"),
                "give the container's id",
            );
        }
        let name = &request.interface;
        let odd = |c: char| c == '/' || c.is_whitespace() || c.is_control();
        if name.is_empty() || name.len() > INTERFACE_BYTES_MAX || name.chars().any(odd) {
            return invalid(
                format!("{name:?} is not the name of an interface"),
                "use 1 to 15 bytes without spaces and slashes, such as eth0",
            );
        }
        if request.container == gateway_holder().container && *name == gateway_holder().interface {
            return invalid(
                "meshd/gateway holds this host's own addresses".to_owned(),
                "use another container id",
            );
        }
        if request.addresses.len() > ADDRESSES_MAX {
            return invalid(format!("more than {ADDRESSES_MAX} addresses"), "give fewer");
        }
        let path = request.netns.as_ref().map_or(0, String::len);
        if request.routes.len() > ROUTES_MAX || path > PATH_BYTES_MAX {
            return invalid(
                format!("more than {ROUTES_MAX} routes, or a very long path"),
                "give fewer",
            );
        }
        self.check_subnets(request)?;
        if request.names.len() > NAMES_MAX {
            return invalid(format!("more than {NAMES_MAX} names"), "give fewer names");
        }
        for name in &request.names {
            self.parse_name(name)?;
        }
        if let Some(mac) = &request.mac
            && Mac::parse(mac).is_none()
        {
            return invalid(
                format!("{mac:?} is not a hardware address"),
                "use six bytes such as 02:00:00:00:00:01, not a multicast one",
            );
        }
        Ok(())
    }

    pub(super) fn parse_name(&self, text: &str) -> Result<Name, Refusal> {
        Name::in_domain(text, &self.config.domain).map_err(|error| {
            Refusal::new(
                Code::Invalid,
                error.to_string(),
                format!("use letters, digits and '-', such as web or web.{}", self.config.domain),
            )
        })
    }

    /// Subnets are parts of the mesh's ranges, one per family, and named addresses lie in them.
    fn check_subnets(&self, request: &AttachRequest) -> Result<(), Refusal> {
        let invalid = |message: String, hint: &str| Err(Refusal::new(Code::Invalid, message, hint));
        for (at, subnet) in request.subnets.iter().enumerate() {
            if subnet.network() != subnet.ip() {
                let hint = format!("did you mean {}/{}?", subnet.network(), subnet.prefix());
                return invalid(format!("subnet {subnet} has host bits"), &hint);
            }
            let same = |other: &IpNetwork| other.is_ipv4() == subnet.is_ipv4();
            if request.subnets[..at].iter().any(same) {
                let text = format!("{subnet} is a second subnet of its family");
                return invalid(text, "give one per family at most");
            }
            if !self.ipam.is_inside(&Block::from(*subnet)) {
                let ranges = self.ipam.ranges().iter().map(ToString::to_string);
                let ranges = ranges.collect::<Vec<_>>().join(", ");
                return invalid(
                    format!("subnet {subnet} is in no range of the mesh, which has {ranges}"),
                    "choose a part of a range, or add one with `meshctl ipam range add CIDR`",
                );
            }
            let mut named = request.addresses.iter();
            if let Some(ip) = named.find(|ip| same(&(**ip).into()) && !subnet.contains(**ip)) {
                let text = format!("{ip} is not in subnet {subnet}");
                return invalid(text, "leave out one of them");
            }
        }
        Ok(())
    }

    /// The addresses that a slot asks for: each that was named, and one of each family of which
    /// none was: what is claimed for it, else what it had before, else any.
    pub(super) fn needs(&self, slot: &Slot) -> Vec<Need> {
        let holder = &slot.record.holder;
        let Some(request) = slot.request.as_deref() else {
            return self.families().map(Need::Of).collect();
        };
        let exact = |address: &IpAddr| Need::Own(Wanted::Exact(*address));
        if holder.interface.is_empty() {
            return match &request.addresses[..] {
                [] => self.families().take(1).map(Need::Of).collect(),
                named => named.iter().map(exact).collect(),
            };
        }
        let claimed = self.claimed_for(holder, request);
        let need = |address: &IpAddr| match claimed.contains(address) {
            true => Need::Claimed(*address),
            false => exact(address),
        };
        let mut needs: Vec<Need> = Vec::new();
        for address in &request.addresses {
            if !needs.contains(&need(address)) {
                needs.push(need(address));
            }
        }
        for family in self.families() {
            let v4 = family == Family::V4;
            if request.addresses.iter().any(|address| address.is_ipv4() == v4) {
                continue;
            }
            let subnet = request.subnets.iter().find(|subnet| subnet.is_ipv4() == v4);
            let subnet = subnet.map(|subnet| Block::from(*subnet));
            let fits = |ip: &&IpAddr| {
                ip.is_ipv4() == v4 && subnet.is_none_or(|subnet| subnet.contains(**ip))
            };
            let any = subnet.map_or(Need::Of(family), |subnet| Need::Own(Wanted::Any(subnet)));
            needs.push(match claimed.iter().find(fits) {
                Some(address) => Need::Claimed(*address),
                None => {
                    let parts = subnet.map_or_else(|| self.ipam.ranges_of(family), |it| vec![it]);
                    self.former(&parts, holder, request).map_or(any, |ip| exact(&ip))
                }
            });
        }
        needs
    }

    /// The families of which the mesh has a range.
    pub(super) fn families(&self) -> impl Iterator<Item = Family> {
        let there = |of: &Family| self.ipam.ranges().iter().any(|range| range.family() == *of);
        Family::ALL.into_iter().filter(there)
    }

    /// The address in any of these parts of ranges that a holder without one there had before, if
    /// it is there still.
    fn former(&self, parts: &[Block], holder: &Holder, request: &AttachRequest) -> Option<IpAddr> {
        let inside = |address: IpAddr| parts.iter().any(|part| part.contains(address));
        if self.ipam.addresses_of(holder).any(inside) {
            return None;
        }
        let name = request.names.first().and_then(|name| self.parse_name(name).ok());
        let names: Vec<Holder> =
            std::iter::once(holder.clone()).chain(name.map(|name| named(&name, holder))).collect();
        parts.iter().find_map(|part| self.ipam.former(&names, part))
    }

    /// Takes a slot's addresses from it: they rest, and who comes back in time gets them again.
    /// What a claim holds stays the claim's; what a claim lent out goes to who uses it.
    pub(super) fn let_go(&mut self, record: &Record) {
        let holder = &record.holder;
        self.waiting_due = true;
        self.in_kernel.remove(holder);
        for address in &record.addresses {
            if let Some(user) = self.lent.remove(address)
                && user != *holder
            {
                self.ipam.hand_over(*address, &user);
            }
        }
        self.ipam.release(holder, &also_known_as(record), self.now + self.config.rest);
    }
}

/// Under which other names a record's addresses are remembered.
pub(super) fn also_known_as(record: &Record) -> Vec<Holder> {
    record.names.first().map(|name| named(name, &record.holder)).into_iter().collect()
}

/// Another name of a holder, under which its addresses are remembered: a container that is made
/// anew often has another id.
fn named(name: &Name, holder: &Holder) -> Holder {
    Holder { container: format!("name {name}"), interface: holder.interface.clone() }
}
