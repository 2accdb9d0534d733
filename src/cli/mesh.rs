//! `init`, `join`, `leave` and `token`: being a member.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use ipnetwork::IpNetwork;

use super::{Global, table::list};
use crate::api::{
    token,
    types::{Done, InitRequest, JoinRequest, Joined, TokenBody},
};

/// Flags of `init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// A range of the mesh; repeatable, containers get addresses of the first of each family, and
    /// of the next when it is full [default: 10.32.0.0/12 and a /48 of fd00::/8]
    #[arg(long = "range", value_name = "CIDR")]
    ranges: Vec<IpNetwork>,
}

/// Flags of `join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// Members of the mesh, `host[:port]`
    #[arg(required = true, value_name = "ADDR")]
    targets: Vec<String>,
    /// The mesh's token, as a member's `meshctl token show` prints it
    #[arg(long, env = "MESHWORK_TOKEN", hide_env_values = true)]
    token: String,
}

/// What can be done with the token.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Print the token that other hosts join with
    Show,
    /// Draw the token of a mesh that does not exist yet, for hosts that found it together
    New,
}

pub(super) async fn init(args: InitArgs, global: &Global) -> anyhow::Result<()> {
    let body = InitRequest { ranges: args.ranges };
    let joined: Joined = global.patient_client().post("/v1/init", &body).await?;
    global.print(&joined, |joined| {
        format!(
            "founded mesh {} with {}\nother hosts join with: meshctl join THIS-HOST --token {}",
            joined.mesh_id,
            list(&joined.ranges),
            "\"$(meshctl token show)\"",
        )
    });
    Ok(())
}

pub(super) async fn join(args: JoinArgs, global: &Global) -> anyhow::Result<()> {
    let body = JoinRequest { targets: args.targets, token: args.token };
    let joined: Joined = global.patient_client().post("/v1/join", &body).await?;
    global.print(&joined, |joined| {
        let known = match joined.ranges.is_empty() {
            true => "its ranges come with the first connection; see `meshctl status`".to_owned(),
            false => format!("its ranges are {}", list(&joined.ranges)),
        };
        format!("joined mesh {}; {known}", joined.mesh_id)
    });
    Ok(())
}

pub(super) async fn leave(global: &Global) -> anyhow::Result<()> {
    let done: Done = global.patient_client().post("/v1/leave", &serde_json::json!({})).await?;
    global.print(&done, |_| "left the mesh".to_owned());
    Ok(())
}

pub(super) async fn token(command: TokenCommand, global: &Global) -> anyhow::Result<()> {
    let body: TokenBody = match command {
        TokenCommand::Show => global.client().get("/v1/token").await?,
        TokenCommand::New => {
            let drawn = token::draw().context("the system gives no random numbers")?;
            TokenBody { token: token::encode(&drawn) }
        }
    };
    global.print(&body, |body| body.token.clone());
    Ok(())
}
