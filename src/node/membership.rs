//! Being a member: founding a mesh alone, its ranges, and why a host is not ready. `joining` is how
//! it enters through others, `leaving` how it stops being one.

use std::collections::BTreeSet;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use mesh_ipam::{Block, Wanted, ring::RANGES_MAX};
use mesh_router::{
    MeshId, PeerId,
    member::{self, ENDPOINTS_MAX, Info},
};

use super::{
    Node,
    attaching::gateway_holder,
    event::{Credentials, Output, Underlay},
    joining::in_a_mesh,
    request::{Code, Refusal, Reply},
};
use crate::api::types;

/// Ranges that can be founded: from a /8 to a /29 in IPv4, from a /16 to a /112 in IPv6.
const IPV4_LENGTHS: std::ops::RangeInclusive<u8> = 8..=29;
const IPV6_LENGTHS: std::ops::RangeInclusive<u8> = 16..=112;
/// Loopback, link-local, multicast, and what stands for no address or for IPv4 (RFC 6890).
const SPECIAL: [&str; 7] =
    ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "::/16", "fe80::/10", "ff00::/8"];

impl Node {
    pub(super) fn mesh_id(&self) -> Option<MeshId> {
        self.mesh.as_ref().map(|mesh| mesh.mesh)
    }

    pub(super) fn init(
        &mut self,
        credentials: Credentials,
        ranges: &[IpNetwork],
    ) -> Result<Reply, Refusal> {
        self.check_outside()?;
        let ranges = self.checked_ranges(ranges, credentials.mesh)?;
        let blocks: Vec<Block> = ranges.iter().map(|range| Block::from(*range)).collect();
        self.ipam.found_leased(&blocks, self.lease_seconds()).map_err(|error| {
            Refusal::new(Code::Invalid, error.to_string(), "give other ranges with --range")
        })?;
        self.router.settle(self.now);
        self.remember();
        self.enter(credentials.clone());
        self.notice(false, format!("founded mesh {}", credentials.mesh));
        Ok(Reply::Joined(types::Joined { mesh_id: credentials.mesh, ranges }))
    }

    /// The ranges of a mesh that is to be founded.
    pub(super) fn checked_ranges(
        &self,
        ranges: &[IpNetwork],
        mesh: MeshId,
    ) -> Result<Vec<IpNetwork>, Refusal> {
        let ranges = complete_ranges(ranges, mesh)?;
        for range in &ranges {
            self.check_host_routes(range)?;
        }
        Ok(ranges)
    }

    pub(super) fn enter(&mut self, credentials: Credentials) {
        self.write_credentials(&credentials);
        self.mesh = Some(credentials.clone());
        self.keep_promises();
        self.outputs.push_back(Output::Membership(Some(credentials)));
    }

    fn check_outside(&self) -> Result<(), Refusal> {
        self.mesh_id().map_or(Ok(()), |mesh| Err(in_a_mesh(mesh, "")))
    }

    /// A range must not cover what the host reaches elsewhere: its traffic would be stolen.
    pub(super) fn check_host_routes(&self, range: &IpNetwork) -> Result<(), Refusal> {
        let routes = self.underlay.as_ref().map_or(&[][..], |underlay| &underlay.routes);
        match routes.iter().find(|route| overlap(range, route)) {
            None => Ok(()),
            Some(route) => Err(Refusal::new(
                Code::Conflict,
                format!("range {range} overlaps this host's route {route}"),
                "choose another range with --range, one that no host of the mesh has a route into",
            )),
        }
    }

    /// The first route of this host that the mesh's ranges overlap.
    pub(super) fn overlapped_route(&self) -> Option<(IpNetwork, IpNetwork)> {
        let routes = &self.underlay.as_ref()?.routes;
        let ranges = self.ipam.ranges();
        ranges.iter().map(Block::network).find_map(|range| {
            routes.iter().find(|route| overlap(&range, route)).map(|route| (range, *route))
        })
    }

    pub(super) fn token(&self) -> Result<Reply, Refusal> {
        self.mesh.clone().map(Reply::Token).ok_or_else(super::not_in_a_mesh)
    }

    pub(super) fn underlay_changed(&mut self, mut underlay: Underlay) {
        underlay.endpoints.truncate(ENDPOINTS_MAX);
        self.underlay = Some(underlay);
        self.describe_due = true;
        self.replan();
    }

    /// Goes on with joining, describing oneself and leaving.
    pub(super) fn progress_membership(&mut self) {
        if self.mesh.is_none() {
            return;
        }
        self.describe_self();
        self.progress_joining();
        self.progress_leaving();
    }

    /// Says anew what this host is, if that is due.
    pub(super) fn describe_self(&mut self) {
        // Not before it is known: nobody could dial whoever publishes no endpoint.
        let due = self.router.is_settled() && self.leaving.is_none() && self.describe_due;
        let Some(underlay) = self.underlay.as_ref().filter(|_| due) else { return };
        self.describe_due = false;
        let info = member::info(self.router.members(), self.config.me);
        let had_left = info.is_some_and(|info| info.left);
        self.router.describe(Info {
            name: self.config.name.clone(),
            endpoints: underlay.endpoints.clone(),
            incarnation: self.config.incarnation,
            left: false,
        });
        if had_left {
            // It did not come to an end: others may have dropped all that this host had said.
            self.router.members_mut().write_anew();
            self.zone.store_mut().write_anew();
        }
    }

    /// Why attaches cannot be served now; `None` when they can.
    pub fn unready_because(&self) -> Option<String> {
        if self.mesh.is_none() {
            return Some("it is in no mesh: run `meshctl init` or `meshctl join`".to_owned());
        }
        if let Some(reason) = self.journal.failure() {
            return Some(format!("the state cannot be written: {reason}"));
        }
        if self.is_leaving() {
            return Some("it is leaving the mesh".to_owned());
        }
        if let Some(why) = self.twin_words() {
            return Some(why);
        }
        if !self.router.is_settled() {
            return Some(self.unsettled_words());
        }
        if let Some(why) = self.unsure_because() {
            return Some(why);
        }
        if self.gateway_addresses().is_empty() {
            let waiting = self.registration_words().unwrap_or_else(|| self.waiting_words());
            return Some(format!("waiting for addresses: {waiting}"));
        }
        if self.gateway_waits() {
            return Some("the state is being written".to_owned());
        }
        (!self.programmed).then(|| "the kernel is being set up".to_owned())
    }

    pub(super) fn unsettled_words(&self) -> String {
        let why = self.founding_words().or_else(|| self.before_words());
        let why = why.or_else(|| self.comparing_words());
        if let Some(why) = why.or_else(|| self.leave_words()) {
            return why;
        }
        if self.router.is_hearsay() {
            let greeted: BTreeSet<PeerId> = self.router.greeted().collect();
            let silent = &self.standing_members() - &greeted;
            return format!(
                "those who told what was lost here may have old disks themselves: waiting for one \
                 that has compared its own, or for {} (if these are gone for good, start one that \
                 surely has its last disk with --serve-alone)",
                self.names(&silent)
            );
        }
        let deaf = self.deaf_words();
        self.recall_reason.as_ref().map_or_else(|| deaf.clone(), |why| format!("{why}; {deaf}"))
    }

    /// Why no address may be given away, neither to containers nor to peers, although there are
    /// some: what this host believes to own may be somebody else's by now.
    pub(super) fn unsure_because(&self) -> Option<String> {
        self.twin_words().or_else(|| self.comparing_words()).or_else(|| self.lease_lost())
    }

    /// Whether [`Node::unsure_because`] has something to say.
    pub(super) fn is_doubtful(&self) -> bool {
        let doubtful = self.has_twin() || self.is_comparing() || self.lost_majority().is_some();
        debug_assert_eq!(doubtful, self.unsure_because().is_some(), "it is said why");
        doubtful
    }

    /// Whom this host asked for space, in words; empty when it waits for nobody.
    pub(super) fn waiting_words(&self) -> String {
        let each = self.ipam.waiting_for().into_iter().map(|waiting| {
            let what = match waiting.wanted {
                Wanted::Any(range) => format!("space in {range}"),
                Wanted::Exact(address) => address.to_string(),
            };
            let asked = waiting.asked.map_or_else(
                || "nobody can be asked at the moment".to_owned(),
                |peer| format!("asked {}", self.router.name_of(peer)),
            );
            let refused = waiting.refused.map_or_else(String::new, |(peer, reason)| {
                format!(", {} said: {reason}", self.router.name_of(peer))
            });
            format!("{what}: {asked}{refused}")
        });
        each.collect::<Vec<_>>().join("; ")
    }

    fn gateway_waits(&self) -> bool {
        self.slots
            .get(&gateway_holder())
            .is_some_and(|slot| matches!(slot.stage, super::attachment::Stage::Making { .. }))
    }

    /// Whether this host has its own addresses, and they are on its disk.
    pub(super) fn has_gateway(&self) -> bool {
        let gateway = self.slots.get(&gateway_holder());
        gateway.is_some_and(|slot| {
            let made = !matches!(slot.stage, super::attachment::Stage::Making { .. });
            made && !slot.record.addresses.is_empty()
        })
    }
}

/// Whether a range can be a mesh's at all.
pub(super) fn check_range(range: &IpNetwork) -> Result<(), Refusal> {
    let invalid = |text: String, hint: &str| Err(Refusal::new(Code::Invalid, text, hint));
    if range.ip() != range.network() {
        let hint = format!("did you mean {}/{}?", range.network(), range.prefix());
        return invalid(format!("{range} has host bits"), &hint);
    }
    let lengths = if range.is_ipv4() { IPV4_LENGTHS } else { IPV6_LENGTHS };
    if !lengths.contains(&range.prefix()) {
        let (least, most) = (lengths.start(), lengths.end());
        let hint = format!("use a prefix from /{least} to /{most}");
        return invalid(format!("{range} is too large or too small"), &hint);
    }
    let special = SPECIAL.map(|text| text.parse().expect("a network"));
    match special.iter().find(|special| overlap(special, range)) {
        Some(special) => invalid(
            format!("{range} overlaps {special}, of which no container can have addresses"),
            "use a private range, such as a part of 10.0.0.0/8 or of fd00::/8",
        ),
        None => Ok(()),
    }
}

/// The given ranges with the default for each family that is not among them: IPv4 first, else in
/// their order, for the first of each family is the one that is used by default.
fn complete_ranges(given: &[IpNetwork], mesh: MeshId) -> Result<Vec<IpNetwork>, Refusal> {
    let invalid = |text: String, hint: &str| Err(Refusal::new(Code::Invalid, text, hint));
    let mut ranges: Vec<IpNetwork> = Vec::new();
    for range in given {
        check_range(range)?;
        if let Some(other) = ranges.iter().find(|other| overlap(other, range)) {
            return invalid(format!("the ranges {other} and {range} overlap"), "give ranges apart");
        }
        ranges.push(*range);
    }
    for default in default_ranges(mesh) {
        if !ranges.iter().any(|range| range.is_ipv4() == default.is_ipv4()) {
            ranges.push(default);
        }
    }
    if ranges.len() > RANGES_MAX {
        let text = format!("{} ranges, those by default included", ranges.len());
        return invalid(text, &format!("give at most {RANGES_MAX}"));
    }
    ranges.sort_by_key(IpNetwork::is_ipv6);
    Ok(ranges)
}

/// 10.32.0.0/12 (Weave's, so that who comes from there keeps it), and a unique local /48 whose 40
/// global bits (RFC 4193, 3.2) are the mesh id's first.
fn default_ranges(mesh: MeshId) -> [IpNetwork; 2] {
    let b = mesh.as_bytes();
    let word = |i: usize| u16::from_be_bytes([b[i], b[i + 1]]);
    let v6 = std::net::Ipv6Addr::new(0xfd00 | u16::from(b[0]), word(1), word(3), 0, 0, 0, 0, 0);
    [
        Ipv4Network::new(std::net::Ipv4Addr::new(10, 32, 0, 0), 12).expect("12 <= 32").into(),
        Ipv6Network::new(v6, 48).expect("48 <= 128").into(),
    ]
}

fn overlap(a: &IpNetwork, b: &IpNetwork) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a.contains(b.network()) || b.contains(a.network()))
}
