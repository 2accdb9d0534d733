//! `ipam`: the addresses that this host has given away.

use std::net::IpAddr;

use clap::Subcommand;
use ipnetwork::IpNetwork;

use super::{
    Global,
    table::{or_dash, table},
};
use crate::api::types::{Allocation, ClaimRequest, Done, RangeRequest, ReleaseRequest};

/// What can be done with addresses.
#[derive(Debug, Subcommand)]
pub enum IpamCommand {
    /// Which addresses are held on this host, and by whom
    List,
    /// Set an address aside for somebody who is no container
    Claim {
        /// The address
        #[arg(value_name = "ADDR")]
        address: IpAddr,
        /// For whom
        #[arg(long = "for", value_name = "ID")]
        holder: String,
    },
    /// Give back what was claimed
    Release {
        /// For whom it was claimed
        #[arg(value_name = "ID")]
        holder: String,
    },
    /// The mesh's ranges
    #[command(subcommand)]
    Range(RangeCommand),
}

/// What can be done with ranges.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum RangeCommand {
    /// Which ranges the mesh has
    List,
    /// Add a range to the mesh
    Add {
        /// The range; no host of the mesh may have a route into it
        #[arg(value_name = "CIDR")]
        range: IpNetwork,
    },
}

pub(super) async fn run(command: IpamCommand, global: &Global) -> anyhow::Result<()> {
    let client = global.client();
    match command {
        IpamCommand::List => {
            let held: Vec<Allocation> = client.get("/v1/ipam").await?;
            global.print(&held, |held| human(held));
        }
        IpamCommand::Claim { address, holder } => {
            let request = ClaimRequest { address: Some(address), holder };
            let claimed: Allocation = client.post("/v1/ipam/claim", &request).await?;
            global.print(&claimed, |claimed| {
                format!("{} is set aside for {}", claimed.address, claimed.holder)
            });
        }
        IpamCommand::Release { holder } => {
            let request = ReleaseRequest { holder };
            let done: Done = client.post("/v1/ipam/release", &request).await?;
            global.print(&done, |_| format!("released what {} had", request.holder));
        }
        IpamCommand::Range(command) => range(command, global).await?,
    }
    Ok(())
}

async fn range(command: RangeCommand, global: &Global) -> anyhow::Result<()> {
    match command {
        RangeCommand::List => {
            let ranges: Vec<IpNetwork> = global.client().get("/v1/ipam/ranges").await?;
            global.print(&ranges, |ranges| match ranges.is_empty() {
                true => "no range is known yet".to_owned(),
                false => ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            });
        }
        RangeCommand::Add { range } => {
            let request = RangeRequest { range };
            let client = global.patient_client();
            let done: Done = client.post("/v1/ipam/ranges", &request).await?;
            global.print(&done, |_| format!("{range} is a range of the mesh now"));
        }
    }
    Ok(())
}

fn human(held: &[Allocation]) -> String {
    let row = |held: &Allocation| {
        let interface = or_dash(Some(&held.interface));
        vec![held.address.to_string(), held.holder.clone(), interface]
    };
    table(&["address", "holder", "interface"], held.iter().map(row), "no addresses are held")
}
