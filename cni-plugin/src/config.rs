//! The network configuration on standard input.
//!
//! A key that is neither ours nor the spec's is an error that names it: a typing error that is
//! silently passed over hurts later. Runtimes' own keys (with `/` or `.` in them) are passed over.

use std::{net::IpAddr, path::PathBuf};

use ipnetwork::IpNetwork;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    error::{self, CniError},
    version::Version,
};

/// Keys of ours.
const OURS: [&str; 9] =
    ["socket", "mtu", "isDefaultGateway", "hairpinMode", "ipMasq", "routes", "dns", "ipam", "mac"];

/// Keys of the spec and of its conventions, beside ours.
const SPEC: [&str; 12] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "args",
    "capabilities",
    "runtimeConfig",
    "prevResult",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "keyId",
];

/// Keys of `ipam` when we are called as another plugin's.
const OURS_AS_IPAM: [&str; 5] = ["type", "socket", "routes", "dns", "subnet"];

/// Whose configuration it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Ours: the container gets a link.
    Network,
    /// Another plugin's, which makes the link and has us for its addresses.
    Ipam,
}

/// What it says.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) version: Version,
    pub(crate) role: Role,
    pub(crate) name: String,
    pub(crate) socket: PathBuf,
    pub(crate) mtu: u32,
    pub(crate) is_default_gateway: bool,
    pub(crate) hairpin_mode: bool,
    pub(crate) ip_masq: bool,
    pub(crate) mac: Option<String>,
    pub(crate) routes: Vec<IpNetwork>,
    /// Parts of the mesh's ranges that the addresses are taken from.
    pub(crate) subnets: Vec<IpNetwork>,
    pub(crate) dns: DnsConfig,
    /// `args.cni.ips`, from the conventions.
    pub(crate) args_ips: Vec<String>,
    pub(crate) runtime: RuntimeConfig,
    pub(crate) previous: Option<PreviousResult>,
}

/// Resolvers, as configuration and results have them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DnsConfig {
    #[serde(default)]
    pub(crate) nameservers: Vec<String>,
    #[serde(default)]
    pub(crate) domain: Option<String>,
    #[serde(default)]
    pub(crate) search: Vec<String>,
    #[serde(default)]
    pub(crate) options: Vec<String>,
}

/// What the runtime says for our capabilities. Others' are passed over.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct RuntimeConfig {
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) ips: Vec<String>,
    #[serde(default)]
    pub(crate) mac: Option<String>,
    #[serde(default)]
    pub(crate) aliases: Option<Aliases>,
    #[serde(default)]
    pub(crate) dns: Option<RuntimeDns>,
}

/// Further names of a container; podman gives them per network.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Aliases {
    Flat(Vec<String>),
    PerNetwork(std::collections::BTreeMap<String, Vec<String>>),
}

/// The capability `dns`, as containerd gives it.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct RuntimeDns {
    #[serde(default, alias = "Servers", deserialize_with = "null_is_empty")]
    pub(crate) servers: Vec<String>,
    #[serde(default, alias = "Searches", deserialize_with = "null_is_empty")]
    pub(crate) searches: Vec<String>,
    #[serde(default, alias = "Options", deserialize_with = "null_is_empty")]
    pub(crate) options: Vec<String>,
}

/// What CHECK compares with.
#[derive(Debug, Deserialize)]
pub(crate) struct PreviousResult {
    #[serde(default, deserialize_with = "null_is_empty")]
    pub(crate) ips: Vec<PreviousIp>,
}

/// An address of a previous result.
#[derive(Debug, Deserialize)]
pub(crate) struct PreviousIp {
    pub(crate) address: IpNetwork,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    dst: IpNetwork,
    #[serde(default)]
    gw: Option<IpAddr>,
}

impl Config {
    /// Reads a configuration; `own_name` is what `type` calls us.
    ///
    /// # Errors
    /// 1 for the version, 6 for what is no JSON or has a wrong type, 7 for wrong values.
    pub(crate) fn parse(input: &[u8], own_name: &str) -> Result<Self, CniError> {
        let keys: Map<String, Value> = serde_json::from_slice(input).map_err(|error| {
            CniError::new(error::DECODE, "the network configuration is no JSON object")
                .because(error.to_string())
        })?;
        let version: Option<String> = take(&keys, "", "cniVersion")?;
        // Before 0.2.0 the key was optional; those versions are not supported anyway.
        let version = Version::parse(version.as_deref().unwrap_or("0.1.0"))?;
        let kind: String = take(&keys, "", "type")?.unwrap_or_else(|| own_name.to_owned());
        let ipam: Map<String, Value> = take(&keys, "", "ipam")?.unwrap_or_default();
        let ipam_kind: Option<String> = take(&ipam, "ipam.", "type")?;
        let role = match ipam_kind.as_deref() {
            Some(ipam_kind) if kind != own_name && ipam_kind == own_name => Role::Ipam,
            Some(ipam_kind) if ipam_kind != own_name => {
                return Err(CniError::config(
                    "ipam.type",
                    format!(
                        "{ipam_kind:?}: delegation to \
                    another plugin is not supported yet; leave ipam out, then the mesh gives the \
                    addresses"
                    ),
                ));
            }
            _ => Role::Network,
        };
        refuse_unknown(&ipam, "ipam.", &OURS_AS_IPAM, &[])?;
        let (own, prefix) = match role {
            Role::Ipam => (&ipam, "ipam."),
            Role::Network => {
                refuse_unknown(&keys, "", &OURS, &SPEC)?;
                (&keys, "")
            }
        };
        Ok(Self {
            version,
            role,
            name: network_name(&keys)?,
            socket: socket(own, prefix)?,
            mtu: take(own, prefix, "mtu")?.unwrap_or(0),
            is_default_gateway: take(own, prefix, "isDefaultGateway")?.unwrap_or(true),
            hairpin_mode: take(own, prefix, "hairpinMode")?.unwrap_or(true),
            ip_masq: take(own, prefix, "ipMasq")?.unwrap_or(true),
            mac: take(own, prefix, "mac")?,
            routes: routes(own, prefix)?,
            subnets: subnets(&ipam)?,
            args_ips: args_ips(&keys)?,
            dns: take(own, prefix, "dns")?.unwrap_or_default(),
            runtime: take(&keys, "", "runtimeConfig")?.unwrap_or_default(),
            previous: take(&keys, "", "prevResult")?,
        })
    }
}

/// Runtimes are written in Go, whose empty lists may be `null`.
fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A key's value; `null` counts as absent.
fn take<T: DeserializeOwned>(
    keys: &Map<String, Value>,
    prefix: &str,
    key: &str,
) -> Result<Option<T>, CniError> {
    match keys.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => T::deserialize(value).map(Some).map_err(|error| {
            let text = format!("network configuration: {prefix}{key}: {error}");
            CniError::new(error::DECODE, text)
        }),
    }
}

/// CNI 1.1.0 section 1: begins with a letter or digit, then those, `_`, `.`, `-`.
fn network_name(keys: &Map<String, Value>) -> Result<String, CniError> {
    let name: String = take(keys, "", "name")?
        .ok_or_else(|| CniError::config("name", "it is missing; give the network a name"))?;
    let proper = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    match proper {
        true => Ok(name),
        false => {
            let rule = "begins with a letter or digit and has those, `_`, `.` and `-` only";
            Err(CniError::config("name", format!("{name:?}: it {rule}")))
        }
    }
}

fn socket(keys: &Map<String, Value>, prefix: &str) -> Result<PathBuf, CniError> {
    let path: PathBuf =
        take(keys, prefix, "socket")?.unwrap_or_else(|| "/run/meshwork/meshd.sock".into());
    match path.is_absolute() {
        true => Ok(path),
        false => Err(CniError::config("socket", format!("{path:?} is no absolute path"))),
    }
}

fn routes(keys: &Map<String, Value>, prefix: &str) -> Result<Vec<IpNetwork>, CniError> {
    let routes: Vec<Route> = take(keys, prefix, "routes")?.unwrap_or_default();
    let mut found = Vec::new();
    for (at, route) in routes.iter().enumerate() {
        if let Some(gw) = route.gw {
            let problem = format!("{gw} cannot be chosen; leave it out: the way is the mesh's");
            return Err(CniError::config(&format!("{prefix}routes[{at}].gw"), problem));
        }
        found.push(route.dst);
    }
    Ok(found)
}

/// `ipam.subnet`: one CIDR, or one per family in a list.
fn subnets(ipam: &Map<String, Value>) -> Result<Vec<IpNetwork>, CniError> {
    let texts: Vec<String> = match ipam.get("subnet") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(_)) => take(ipam, "ipam.", "subnet")?.unwrap_or_default(),
        Some(_) => take(ipam, "ipam.", "subnet")?.into_iter().collect(),
    };
    let wrong = |text: &String, what: &str| {
        let problem = format!("{text:?}: {what}; give a part of a mesh's range, as 10.32.1.0/24");
        CniError::config("ipam.subnet", problem)
    };
    let read = |text: &String| {
        let subnet: Option<IpNetwork> = text.contains('/').then(|| text.parse().ok()).flatten();
        let subnet = subnet.ok_or_else(|| wrong(text, "it is no CIDR"))?;
        if subnet.ip() == subnet.network() {
            Ok(subnet)
        } else {
            Err(wrong(text, "bits are set behind the prefix"))
        }
    };
    texts.iter().map(read).collect()
}

fn args_ips(keys: &Map<String, Value>) -> Result<Vec<String>, CniError> {
    let args: Option<Map<String, Value>> = take(keys, "", "args")?;
    let cni: Option<Map<String, Value>> = match args {
        Some(args) => take(&args, "args.", "cni")?,
        None => None,
    };
    Ok(match cni {
        Some(cni) => take(&cni, "args.cni.", "ips")?.unwrap_or_default(),
        None => Vec::new(),
    })
}

fn refuse_unknown(
    keys: &Map<String, Value>,
    prefix: &str,
    ours: &[&str],
    spec: &[&str],
) -> Result<(), CniError> {
    for key in keys.keys() {
        let known = ours.contains(&key.as_str()) || spec.contains(&key.as_str());
        if known || key.contains(['/', '.']) {
            continue;
        }
        let nearest = ours.iter().chain(spec).min_by_key(|known| distance(key, known));
        let hint = match nearest {
            Some(nearest) if distance(key, nearest) <= 3 => format!("did you mean {nearest:?}?"),
            _ => format!("known are {}", ours.join(", ")),
        };
        return Err(CniError::config(&format!("{prefix}{key}"), "unknown key").because(hint));
    }
    Ok(())
}

/// Levenshtein's distance, capital letters counting as small ones.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<u8> = b.bytes().map(|byte| byte.to_ascii_lowercase()).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().take(64).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let swap = diagonal + usize::from(x.to_ascii_lowercase() != *y);
            diagonal = row[j + 1];
            row[j + 1] = swap.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
