//! `attach` and `detach`: what a container gets from the mesh.

use std::{net::IpAddr, path::Path};

use anyhow::Context as _;
use clap::{ArgGroup, Args};
use ipnetwork::IpNetwork;

use super::{
    Global,
    table::{list, or_dash},
};
use crate::api::types::{AttachRequest, Attachment, DetachRequest, Done};

/// Where `ip netns` keeps namespaces by name.
const NETNS_DIR: &str = "/run/netns";

/// Flags of `attach`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("where").required(true).args(["netns", "pid"]))]
pub struct AttachArgs {
    /// The container's id; what is attached under it is detached under it
    id: String,
    /// The container's network namespace, as a path or as `ip netns` names it
    #[arg(long, value_name = "PATH")]
    netns: Option<String>,
    /// A process in the container's network namespace
    #[arg(long)]
    pid: Option<u32>,
    /// A name, in the mesh's domain; repeatable
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// An exact address that is wanted; repeatable. A family of which none is named gets any
    #[arg(long = "ip", value_name = "ADDR")]
    addresses: Vec<IpAddr>,
    /// The part of a mesh's range that the address is taken from; once per family
    #[arg(long = "subnet", value_name = "CIDR")]
    subnets: Vec<IpNetwork>,
    /// The interface in the container
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    ifname: String,
}

/// Flags of `detach`.
#[derive(Debug, Args)]
pub struct DetachArgs {
    /// The container's id
    id: String,
    /// The interface in the container [default: all that it has]
    #[arg(long, value_name = "NAME")]
    ifname: Option<String>,
}

pub(super) async fn attach(args: AttachArgs, global: &Global) -> anyhow::Result<()> {
    let netns = match (args.netns, args.pid) {
        (Some(text), _) => netns_path(&text)?,
        (None, Some(pid)) => format!("/proc/{pid}/ns/net"),
        (None, None) => unreachable!("the group `where` is required"),
    };
    let mut request = AttachRequest::new(args.id);
    request.interface = args.ifname;
    request.netns = Some(netns);
    request.names = args.names;
    request.addresses = args.addresses;
    request.subnets = args.subnets;
    let attachment: Attachment = global.client().post("/v1/attach", &request).await?;
    global.print(&attachment, human);
    Ok(())
}

pub(super) async fn detach(args: DetachArgs, global: &Global) -> anyhow::Result<()> {
    let request = DetachRequest { container: args.id, interface: args.ifname };
    let done: Done = global.client().post("/v1/detach", &request).await?;
    global.print(&done, |_| format!("detached {}", request.container));
    Ok(())
}

/// A name without `/` is one of `ip netns`.
fn netns_path(text: &str) -> anyhow::Result<String> {
    if !text.contains('/') {
        return Ok(format!("{NETNS_DIR}/{text}"));
    }
    let path = std::path::absolute(Path::new(text)).with_context(|| format!("netns {text}"))?;
    path.into_os_string().into_string().ok().with_context(|| format!("netns {text} is not UTF-8"))
}

fn human(attachment: &Attachment) -> String {
    format!(
        "{} {}: {}\nnames      {}\ngateways   {}\nresolvers  {}\nhost end   {} on {}, mtu {}",
        attachment.container,
        attachment.interface,
        list(&attachment.addresses),
        list(&attachment.names),
        list(&attachment.gateways),
        list(&attachment.nameservers),
        or_dash(attachment.host_interface.as_deref()),
        attachment.bridge,
        attachment.mtu,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_without_a_slash_is_one_of_ip_netns() {
        assert_eq!(netns_path("c1").unwrap(), "/run/netns/c1");
        assert_eq!(netns_path("/proc/1/ns/net").unwrap(), "/proc/1/ns/net");
        assert!(netns_path("./c1").unwrap().starts_with('/'));
    }
}
