//! meshd's answer in the shape of each version of the spec.
//!
//! 0.3.x and 0.4.0 have `ips[].version`; from 1.0.0 on it is gone; 1.1.0 knows an interface's
//! `mtu`.
//! An IPAM plugin's result has no interfaces, and so no indexes into them.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use meshwork::api::types::Attachment;
use serde::Serialize;

use crate::{
    config::{Config, DnsConfig, Role, RuntimeDns},
    version::Version,
};

/// A result; serialises as the spec's.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CniResult {
    cni_version: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<Interface>,
    ips: Vec<Ip>,
    routes: Vec<Route>,
    dns: Dns,
}

#[derive(Debug, Serialize)]
struct Interface {
    name: String,
    mac: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sandbox: Option<String>,
}

#[derive(Debug, Serialize)]
struct Ip {
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'static str>,
    address: IpNetwork,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interface: Option<usize>,
}

#[derive(Debug, Serialize)]
struct Route {
    dst: IpNetwork,
    #[serde(skip_serializing_if = "Option::is_none")]
    gw: Option<IpAddr>,
}

#[derive(Debug, Serialize)]
struct Dns {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    nameservers: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    domain: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    search: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<String>,
}

impl CniResult {
    /// The result of an ADD.
    pub(crate) fn new(config: &Config, attachment: Attachment) -> Self {
        let gateways = attachment.gateways.clone();
        let gateway = |family: &IpNetwork| {
            gateways.iter().copied().find(|gateway| gateway.is_ipv4() == family.is_ipv4())
        };
        let interfaces = interfaces(config, &attachment);
        let inside = interfaces.iter().position(|interface| interface.sandbox.is_some());
        let ip = |address: &IpNetwork| Ip {
            version: (config.version < Version::V1_0_0).then_some(if address.is_ipv4() {
                "4"
            } else {
                "6"
            }),
            address: *address,
            gateway: gateway(address),
            interface: inside,
        };
        Self {
            cni_version: config.version.name(),
            ips: attachment.addresses.iter().map(ip).collect(),
            routes: attachment
                .routes
                .iter()
                .map(|dst| Route { dst: *dst, gw: gateway(dst) })
                .collect(),
            dns: dns(config, attachment),
            interfaces,
        }
    }
}

/// The bridge, the host's end, and the container's end (the only one with a sandbox).
fn interfaces(config: &Config, attachment: &Attachment) -> Vec<Interface> {
    if config.role == Role::Ipam {
        return Vec::new();
    }
    let mtu = (config.version >= Version::V1_1_0).then_some(attachment.mtu);
    let host = attachment.host_interface.iter().map(|name| Interface {
        name: name.clone(),
        mac: String::new(),
        mtu,
        sandbox: None,
    });
    let bridge = Interface {
        name: attachment.bridge.clone(),
        mac: attachment.bridge_mac.clone(),
        mtu,
        sandbox: None,
    };
    let inside = Interface {
        name: attachment.interface.clone(),
        mac: attachment.mac.clone(),
        mtu,
        sandbox: Some(attachment.netns.clone().unwrap_or_default()),
    };
    std::iter::once(bridge).chain(host).chain([inside]).collect()
}

/// The mesh's resolvers, unless runtime or configuration say otherwise; search domains add up.
fn dns(config: &Config, attachment: Attachment) -> Dns {
    let none = RuntimeDns::default();
    let runtime = config.runtime.dns.as_ref().unwrap_or(&none);
    let DnsConfig { nameservers, domain, search, options } = config.dns.clone();
    let first = |lists: [Vec<String>; 3]| {
        lists.into_iter().find(|list| !list.is_empty()).unwrap_or_default()
    };
    let ours = attachment.nameservers.iter().map(ToString::to_string).collect();
    let domain = domain.or(Some(attachment.domain));
    let mut all_search = [runtime.searches.clone(), search].concat();
    all_search.extend(domain.iter().cloned());
    let mut seen = std::collections::BTreeSet::new();
    all_search.retain(|domain| seen.insert(domain.clone()));
    Dns {
        nameservers: first([runtime.servers.clone(), nameservers, ours]),
        domain,
        search: all_search,
        options: [runtime.options.clone(), options].concat(),
    }
}
