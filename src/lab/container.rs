//! Containers: namespaces that the real CNI plugin gives a link, addresses and names.

use std::{net::IpAddr, path::PathBuf};

use anyhow::{Context, Result, bail};
use ipnetwork::IpNetwork;
use serde_json::{Value, json};

use super::{Call, Host, Namespace};

/// The interface that containers get.
pub const INTERFACE: &str = "eth0";

/// A container on a host.
#[derive(Debug, Clone)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// The network namespace.
    pub namespace: Namespace,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// What the plugin answered.
    pub result: Value,
}

impl Container {
    /// Its IPv4 address.
    ///
    /// # Errors
    /// When it has none.
    pub fn v4(&self) -> Result<IpAddr> {
        self.address(IpAddr::is_ipv4)
    }

    /// Its IPv6 address.
    ///
    /// # Errors
    /// When it has none.
    pub fn v6(&self) -> Result<IpAddr> {
        self.address(IpAddr::is_ipv6)
    }

    fn address(&self, of_family: fn(&IpAddr) -> bool) -> Result<IpAddr> {
        let found = self.addresses.iter().copied().find(of_family);
        found.with_context(|| format!("{} has only {:?}", self.id, self.addresses))
    }
}

/// One run of the CNI plugin.
#[derive(Debug, Clone)]
pub struct Cni {
    /// `ADD`, `DEL`, and so on.
    pub command: &'static str,
    /// Container id.
    pub id: String,
    /// Path of the container's namespace.
    pub netns: PathBuf,
    /// `CNI_ARGS`.
    pub args: String,
    /// The network's configuration.
    pub config: Vec<u8>,
}

impl Host {
    /// The network's configuration, as an orchestrator of this host would have it.
    pub fn cni_config(&self) -> Value {
        json!({
            "cniVersion": "1.0.0",
            "name": "mesh",
            "type": "mesh-cni",
            "socket": self.socket(),
        })
    }

    /// A run of the plugin for a container of that id, with the host's own configuration.
    pub fn cni(&self, command: &'static str, id: &str, namespace: &Namespace) -> Cni {
        Cni {
            command,
            id: id.to_owned(),
            netns: namespace.path(),
            args: format!("IgnoreUnknown=1;MESH_NAME={id}"),
            config: self.cni_config().to_string().into_bytes(),
        }
    }

    /// The call of such a run.
    pub fn cni_call(&self, cni: &Cni) -> Call {
        let directory = self.programs().mesh_cni.parent().map(PathBuf::from).unwrap_or_default();
        self.namespace()
            .call(&self.programs().mesh_cni)
            .env("CNI_COMMAND", cni.command)
            .env("CNI_CONTAINERID", &cni.id)
            .env("CNI_NETNS", &cni.netns)
            .env("CNI_IFNAME", INTERFACE)
            .env("CNI_PATH", directory)
            .env("CNI_ARGS", &cni.args)
            .input(cni.config.clone())
    }

    /// Makes a namespace for a container of this host, without any link yet.
    ///
    /// # Errors
    /// When there is one already.
    pub fn bare_container(&self, id: &str) -> Result<Namespace> {
        Namespace::add(&format!("{}-{id}", self.name()))
    }

    /// Makes a container and attaches it; its name is its id.
    ///
    /// # Errors
    /// When the plugin refuses, with the error that it printed.
    pub fn container(&self, id: &str) -> Result<Container> {
        let namespace = self.bare_container(id)?;
        self.attach(id, namespace)
    }

    /// Attaches a namespace as the container of that id.
    ///
    /// # Errors
    /// As [`Host::container`].
    pub fn attach(&self, id: &str, namespace: Namespace) -> Result<Container> {
        let text = self
            .cni_call(&self.cni("ADD", id, &namespace))
            .ok()
            .with_context(|| format!("cannot attach {id} on {}", self.name()))?;
        let result: Value = serde_json::from_str(&text)
            .with_context(|| format!("the plugin printed no JSON: {text}"))?;
        let addresses = addresses(&result)?;
        Ok(Container { id: id.to_owned(), namespace, addresses, result })
    }

    /// Detaches a container.
    ///
    /// # Errors
    /// When the plugin refuses.
    pub fn detach(&self, container: &Container) -> Result<()> {
        self.cni_call(&self.cni("DEL", &container.id, &container.namespace)).ok().map(drop)
    }
}

/// The addresses in a CNI result, IPv4 first.
fn addresses(result: &Value) -> Result<Vec<IpAddr>> {
    let ips = result["ips"].as_array().into_iter().flatten();
    let networks = ips.filter_map(|ip| ip["address"].as_str()?.parse::<IpNetwork>().ok());
    let mut addresses: Vec<IpAddr> = networks.map(|network| network.ip()).collect();
    if addresses.is_empty() {
        bail!("no addresses in the plugin's result {result}");
    }
    addresses.sort_by_key(IpAddr::is_ipv6);
    Ok(addresses)
}
