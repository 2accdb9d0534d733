//! Environment and configuration as a request to meshd.

use std::net::IpAddr;

use meshwork::api::types::AttachRequest;

use crate::{
    config::{Aliases, Config, Role},
    environment::{Args, Environment},
    error::CniError,
};

/// What to ask for at ADD.
///
/// # Errors
/// Code 4 or 7, naming the variable or key that is wrong.
pub(crate) fn attach(env: &Environment, config: &Config) -> Result<AttachRequest, CniError> {
    let args = env.args()?;
    let mut request = AttachRequest::new(env.container()?);
    request.interface = env.interface()?.to_owned();
    request.netns = match config.role {
        Role::Network => Some(env.netns()?.to_owned()),
        Role::Ipam => None,
    };
    request.names = names(&args, config);
    request.addresses = addresses(&args, config)?;
    let mac = config.runtime.mac.clone().or(args.mac).or_else(|| config.mac.clone());
    request.mac = mac.filter(|mac| !mac.is_empty());
    request.mtu = config.mtu;
    request.default_gateway = config.is_default_gateway;
    request.hairpin = config.hairpin_mode;
    request.masquerade = config.ip_masq;
    request.routes = config.routes.clone();
    request.subnets = config.subnets.clone();
    Ok(request)
}

/// `web` is `web`, a pod is `pod.namespace`. Names that runtimes make up (`MESH_NAME` is a
/// person's) and that DNS cannot have are left out: a container must start whatever its engine
/// calls it.
fn names(args: &Args, config: &Config) -> Vec<String> {
    let mut derived: Vec<String> = Vec::new();
    match (&args.pod, &args.pod_namespace) {
        (Some(pod), Some(namespace)) => derived.push(format!("{pod}.{namespace}")),
        (Some(pod), None) => derived.push(pod.clone()),
        (None, _) => {}
    }
    match &config.runtime.aliases {
        Some(Aliases::Flat(aliases)) => derived.extend(aliases.iter().cloned()),
        Some(Aliases::PerNetwork(networks)) => {
            derived.extend(networks.get(&config.name).into_iter().flatten().cloned());
        }
        None => {}
    }
    derived.retain(|name| {
        let usable = is_host_name(name);
        if !usable {
            eprintln!("mesh-cni: {name:?} is no DNS name and is left out");
        }
        usable
    });
    let mut names: Vec<String> = args.name.iter().cloned().chain(derived).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.to_ascii_lowercase()));
    names
}

fn is_host_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 200 && name.split('.').all(label)
}

/// All that are named, wherever that is: the capability `ips`, `args.cni.ips`, and `IP` in
/// `CNI_ARGS`. A prefix behind an address is the mesh's matter.
fn addresses(args: &Args, config: &Config) -> Result<Vec<IpAddr>, CniError> {
    let parse = |text: &str| text.split('/').next().unwrap_or("").trim().parse::<IpAddr>().ok();
    let mut addresses = Vec::new();
    for (key, texts) in
        [("runtimeConfig.ips", &config.runtime.ips), ("args.cni.ips", &config.args_ips)]
    {
        for text in texts {
            let wrong = || CniError::config(key, format!("{text:?} is no address"));
            addresses.push(parse(text).ok_or_else(wrong)?);
        }
    }
    for text in args.ip.iter().flat_map(|list| list.split(',')) {
        let wrong = || CniError::environment("CNI_ARGS", format!("IP={text} is no address"));
        addresses.push(parse(text).ok_or_else(wrong)?);
    }
    let mut seen = std::collections::BTreeSet::new();
    addresses.retain(|address| seen.insert(*address));
    Ok(addresses)
}
