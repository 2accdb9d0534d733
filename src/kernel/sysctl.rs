//! Settings under `/proc/sys/net`, of the network namespace of the thread that asks.
//!
//! Everything is read first and written only when it differs: a host whose `/proc/sys` is read-only
//! but right is served all the same.

use std::{fs, io, path::PathBuf};

use super::link::Link;

/// One setting: its path below `/proc/sys/net` and what it shall be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Sysctl {
    /// For example `ipv4/conf/mesh0/proxy_arp`.
    pub(super) path: String,
    /// As it is written.
    pub(super) value: String,
}

impl Sysctl {
    /// Makes one.
    pub(super) fn new(path: impl Into<String>, value: &str) -> Self {
        Self { path: path.into(), value: value.to_owned() }
    }
}

fn file(path: &str) -> PathBuf {
    PathBuf::from("/proc/sys/net").join(path)
}

/// What a setting is; `None` when there is no such setting (a kernel without IPv6).
pub(super) fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(file(path)).ok()?.trim().to_owned())
}

/// Writes a setting, unless it is as wanted or does not exist.
pub(super) fn ensure(sysctl: &Sysctl) -> io::Result<()> {
    match read(&sysctl.path) {
        Some(value) if value != sysctl.value => fs::write(file(&sysctl.path), &sysctl.value),
        _ => Ok(()),
    }
}

/// What must hold for packets to pass between bridge, tunnel and underlay.
pub(super) fn wanted(bridge: &str, tunnel: &str) -> Vec<Sysctl> {
    let mut all = vec![
        Sysctl::new("ipv4/ip_forward", "1"),
        Sysctl::new(FORWARDING_V6, "1"),
        // The host answers ARP for whatever it routes elsewhere, at once.
        Sysctl::new(format!("ipv4/conf/{bridge}/proxy_arp"), "1"),
        Sysctl::new(format!("ipv4/neigh/{bridge}/proxy_delay"), "0"),
        Sysctl::new(format!("ipv6/conf/{bridge}/accept_ra"), "0"),
        Sysctl::new(format!("ipv6/conf/{bridge}/autoconf"), "0"),
    ];
    for device in [bridge, tunnel] {
        for (name, value) in [("forwarding", "1"), ("rp_filter", "0"), ("send_redirects", "0")] {
            all.push(Sysctl::new(format!("ipv4/conf/{device}/{name}"), value));
        }
        for (name, value) in [("disable_ipv6", "0"), ("accept_dad", "0")] {
            all.push(Sysctl::new(format!("ipv6/conf/{device}/{name}"), value));
        }
    }
    all
}

/// The switch that makes the host an IPv6 router.
pub(super) const FORWARDING_V6: &str = "ipv6/conf/all/forwarding";

/// Makes the host an IPv6 router without losing what it learned from router advertisements: a host
/// that forwards ignores them and drops the default routes that it has, unless told otherwise.
pub(super) fn keep_advertised_routes<'a>(links: impl Iterator<Item = &'a Link>) -> io::Result<()> {
    for link in links.filter(|link| !link.loopback) {
        let path = format!("ipv6/conf/{}/accept_ra", link.name);
        if read(&path).as_deref() == Some("1") {
            ensure(&Sysctl::new(path, "2"))?;
        }
    }
    Ok(())
}
