//! `ipam`: the addresses that this host has given away.

use std::net::IpAddr;

use clap::Subcommand;

use super::{
    Global,
    table::{or_dash, table},
};
use crate::api::types::{Allocation, ClaimRequest, Done, ReleaseRequest};

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
