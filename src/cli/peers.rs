//! `connect`, `forget` and `peer`: the other hosts.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::{
    Global,
    table::{list, table},
};
use crate::api::types::{Done, Peer, RemoveRequest, Removed, TargetRequest};

/// How long a removal is waited for. A dead host's links end after 4 s; who is alive answers within
/// a second.
const REMOVAL: Duration = Duration::from_secs(15);
/// What is said after a removal by force.
const FORCE_RISK: &str = "\nby force: if one of them still runs, an address may be given to two \
    containers, as may what they gave to hosts that did not answer; `meshctl status` names each \
    address that two hosts hold";

/// Flags of `connect` and `forget`.
#[derive(Debug, Args)]
pub struct TargetArgs {
    /// Where a member is, `host[:port]`
    #[arg(value_name = "ADDR")]
    target: String,
}

/// What can be done with peers.
#[derive(Debug, Subcommand)]
pub enum PeerCommand {
    /// Who is in the mesh, this host included
    List,
    /// Take the addresses of dead hosts from them, for ever
    Remove {
        /// Names or ids of the hosts, as `meshctl peer list` shows them
        #[arg(required = true, value_name = "NAME|ID")]
        peers: Vec<String>,
        /// Go on without those who do not answer: addresses that the dead gave to one of them may
        /// then be held twice, and what they decide without knowing of this is void
        #[arg(long)]
        force: bool,
    },
}

pub(super) async fn connect(args: TargetArgs, global: &Global) -> anyhow::Result<()> {
    let request = TargetRequest { target: args.target };
    let done: Done = global.client().post("/v1/connect", &request).await?;
    global.print(&done, |_| {
        format!("dialling {}; `meshctl status targets` shows how it goes", request.target)
    });
    Ok(())
}

pub(super) async fn forget(args: TargetArgs, global: &Global) -> anyhow::Result<()> {
    let request = TargetRequest { target: args.target };
    let done: Done = global.client().post("/v1/forget", &request).await?;
    global.print(&done, |_| format!("{} is not dialled any more", request.target));
    Ok(())
}

pub(super) async fn run(command: PeerCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        PeerCommand::List => {
            let peers: Vec<Peer> = global.client().get("/v1/peers").await?;
            global.print(&peers, |peers| human(peers));
        }
        PeerCommand::Remove { peers, force } => {
            let request = RemoveRequest { peers, force };
            let client = global.client().with_patience(REMOVAL);
            let removed: Removed = client.post("/v1/peers/remove", &request).await?;
            global.print(&removed, |removed| {
                let Removed { addresses, epoch, .. } = removed;
                let risk = if request.force { FORCE_RISK } else { "" };
                format!(
                    "removed {}; {addresses} IPv4 addresses came back; the ring's epoch is \
                     {epoch}{risk}",
                    list(&request.peers),
                )
            });
        }
    }
    Ok(())
}

pub(super) fn human(peers: &[Peer]) -> String {
    let row = |peer: &Peer| {
        let (id, owned) = (peer.id.to_string(), peer.owned.to_string());
        vec![peer.name.clone(), id, peer.state.clone(), owned, list(&peer.addresses)]
    };
    table(&["name", "id", "state", "owned", "addresses"], peers.iter().map(row), "no peers")
}
