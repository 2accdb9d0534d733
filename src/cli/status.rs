//! `status`: first whether attaches can be served and if not why, then the rest in a few lines.

use std::{process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    Global, peers,
    table::{count, list, or_dash, table},
};
use crate::api::types::{Ipam, Peer, Repair, Status};

/// Flags of `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// One part in full
    view: Option<View>,
}

/// Parts of the status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum View {
    /// Hosts of the mesh
    Peers,
    /// Links of the control plane
    Connections,
    /// Ways of containers' packets to other hosts
    Paths,
    /// Addresses
    Ipam,
    /// Names
    Dns,
    /// What is dialled
    Targets,
}

pub(super) async fn run(args: StatusArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let client = global.client();
    let status: Status = client.get("/v1/status").await?;
    match args.view {
        None => global.print(&status, |status| summary(status, now())),
        Some(View::Peers) => {
            let known: Vec<Peer> = client.get("/v1/peers").await?;
            global.print(&known, |known| peers::human(known));
        }
        Some(View::Connections) => global.print(&status.connections, |_| connections(&status)),
        Some(View::Paths) => global.print(&status.paths, |_| paths(&status)),
        Some(View::Ipam) => global.print(&status.ipam, |ipam| {
            let conflicts = ipam.conflicts.iter().map(|text| format!("\nconflict: {text}"));
            let stranded = ipam.stranded.iter().map(|text| format!("\nstranded: {text}"));
            format!("{}{}", addresses(ipam), conflicts.chain(stranded).collect::<String>())
        }),
        Some(View::Dns) => global.print(&status.dns, |_| names(&status)),
        Some(View::Targets) => global.print(&status.targets, |_| targets(&status)),
    }
    if status.ready {
        return Ok(ExitCode::SUCCESS);
    }
    if args.view.is_some() && !global.quiet {
        eprintln!("meshctl: {}", headline(&status));
    }
    Ok(ExitCode::FAILURE)
}

fn headline(status: &Status) -> String {
    if status.ready {
        return "ready".to_owned();
    }
    let reason = status.reason.as_deref().or(status.ipam.reason.as_deref());
    let why = match (reason, status.mesh_id) {
        (Some(reason), _) => reason,
        (None, None) => {
            "this host is in no mesh; `meshctl init` founds one, `meshctl join` finds one"
        }
        (None, Some(_)) => "meshd does not say why; look at its log",
    };
    format!("not ready: {why}")
}

fn summary(status: &Status, now: Duration) -> String {
    let own = &status.peer;
    let mesh = status.mesh_id.map_or("none".to_owned(), |id| id.to_string());
    let peers = &status.peers;
    let away = [(peers.suspect, "suspect"), (peers.unreachable, "unreachable")];
    let away = away.into_iter().filter(|(number, _)| *number > 0);
    let away: String = away.map(|(number, word)| format!(", {number} {word}")).collect();
    let established = status.connections.iter().filter(|link| link.state == "established").count();
    let up = status.paths.iter().filter(|path| path.state == "up").count();
    let mut lines = vec![
        headline(status),
        format!("host         {} ({}), meshd {}", own.name, own.id.short(), status.version),
        format!("addresses    {}", list(&own.addresses)),
        format!("mesh         {mesh}"),
        format!("peers        {} of {} alive{away}", peers.alive, peers.total),
        format!("connections  {established} of {} established", status.connections.len()),
        format!("paths        {up} of {} up", status.paths.len()),
        format!("ipam         {}", addresses(&status.ipam)),
        format!("dns          {}", names(status)),
    ];
    lines.extend(status.ipam.told_anew.iter().map(|text| format!("told anew    {text}")));
    lines.extend(status.ipam.lease.iter().map(|text| format!("lease        {text}")));
    lines.extend(status.ipam.conflicts.iter().map(|text| format!("conflict     {text}")));
    lines.extend(status.ipam.stranded.iter().map(|text| format!("stranded     {text}")));
    let troubled = status.paths.iter().filter(|path| path.state != "up");
    lines.extend(
        troubled.map(|path| {
            format!("path         to {} is {}: {}", path.name, path.state, path.reason)
        }),
    );
    if let Some(Repair { at_secs, what }) = status.repairs.last() {
        let ago = now.saturating_sub(Duration::from_secs(*at_secs));
        let number = count(status.repairs.len(), "repair");
        lines.push(format!("repaired     {what}, {} ago ({number} remembered)", span(ago)));
    }
    lines.join("\n")
}

fn addresses(ipam: &Ipam) -> String {
    let reason = ipam.reason.as_ref().map_or(String::new(), |reason| format!(" ({reason})"));
    format!(
        "{}{reason}: {} held, {} owned in {}, {} in the ring, of {}",
        ipam.state,
        ipam.allocated,
        ipam.owned,
        count(ipam.blocks, "block"),
        ipam.ring_entries,
        list(&ipam.ranges),
    )
}

fn names(status: &Status) -> String {
    let dns = &status.dns;
    format!(
        "{} with {} on {}, else {}",
        dns.domain,
        count(dns.records, "record"),
        list(&dns.listen),
        list(&dns.upstream),
    )
}

fn connections(status: &Status) -> String {
    let rows = status.connections.iter().map(|link| {
        let rtt = link
            .rtt_ms
            .map_or("-".to_owned(), |ms| span(Duration::from_secs_f64((ms / 1000.0).max(0.0))));
        let reason = or_dash(link.reason.as_deref());
        vec![link.name.clone(), link.address.to_string(), link.state.clone(), rtt, reason]
    });
    table(&["peer", "address", "state", "rtt", "reason"], rows, "no connections")
}

fn paths(status: &Status) -> String {
    let rows = status.paths.iter().map(|path| {
        let (via, mtu) = (or_dash(path.via.as_deref()), path.mtu.to_string());
        let (kind, state) = (path.kind.clone(), path.state.clone());
        vec![path.name.clone(), kind, via, mtu, state, or_dash(Some(&path.reason))]
    });
    table(&["peer", "kind", "via", "mtu", "state", "reason"], rows, "no paths")
}

fn targets(status: &Status) -> String {
    let rows = status.targets.iter().map(|target| {
        let reason = or_dash(target.reason.as_deref());
        vec![target.address.to_string(), target.state.clone(), reason]
    });
    table(&["target", "state", "reason"], rows, "no targets")
}

/// A span in the unit that keeps it short.
fn span(span: Duration) -> String {
    let secs = span.as_secs();
    match secs {
        0 if span.as_micros() < 1000 => format!("{} us", span.as_micros()),
        0 => format!("{:.1} ms", span.as_secs_f64() * 1000.0),
        1..120 => format!("{secs} s"),
        120..7_200 => format!("{} min", secs / 60),
        7_200..172_800 => format!("{} h", secs / 3_600),
        _ => format!("{} days", secs / 86_400),
    }
}

#[allow(clippy::disallowed_methods, reason = "people read `2 min ago`, from the same host's clock")]
fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
