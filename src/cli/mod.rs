//! meshctl: what a person types. One file per noun; each turns flags into requests of the local
//! API and its answers into a few readable lines, or with `--json` passes them on as they are.

use std::{io::Write as _, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

pub mod attach;
pub mod demo;
pub mod dns;
pub mod global;
pub mod ipam;
pub mod mesh;
pub mod peers;
pub mod status;
mod table;

pub use global::Global;

/// Shows and changes the mesh that this host is in.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Found a mesh, with this host as its first member
    Init(mesh::InitArgs),
    /// Join a mesh through some of its members
    Join(mesh::JoinArgs),
    /// Give addresses back, tell the others, remove everything from this host
    Leave,
    /// The join token
    #[command(subcommand)]
    Token(mesh::TokenCommand),
    /// How this host stands; exits 1 when it is not ready
    Status(status::StatusArgs),
    /// Give a container addresses, names and a link
    Attach(attach::AttachArgs),
    /// Take them back
    Detach(attach::DetachArgs),
    /// Names
    #[command(subcommand)]
    Dns(dns::DnsCommand),
    /// Addresses
    #[command(subcommand)]
    Ipam(ipam::IpamCommand),
    /// Dial a target now, and keep on
    Connect(peers::TargetArgs),
    /// Do not dial a target any more
    Forget(peers::TargetArgs),
    /// Hosts of the mesh
    #[command(subcommand)]
    Peer(peers::PeerCommand),
    /// Show a mesh of several hosts at work, on this machine alone
    Demo(demo::DemoArgs),
    /// Print a shell's completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// Runs meshctl with this process's arguments.
pub fn main() -> ExitCode {
    // Usage errors end the process here with 2, help and version with 0.
    let Cli { global, command } = Cli::parse();
    match run(command, &global) {
        Ok(code) => code,
        Err(error) => {
            global.complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => return demo::run(&args, global.json),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "meshctl", &mut script);
            // A reader that has gone (`| head`) is no error.
            drop(std::io::stdout().write_all(&script));
            return Ok(ExitCode::SUCCESS);
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ask(command, global))
}

async fn ask(command: Command, global: &Global) -> anyhow::Result<ExitCode> {
    match command {
        Command::Init(args) => mesh::init(args, global).await?,
        Command::Join(args) => mesh::join(args, global).await?,
        Command::Leave => mesh::leave(global).await?,
        Command::Token(command) => mesh::token(command, global).await?,
        Command::Status(args) => return status::run(args, global).await,
        Command::Attach(args) => attach::attach(args, global).await?,
        Command::Detach(args) => attach::detach(args, global).await?,
        Command::Dns(command) => dns::run(command, global).await?,
        Command::Ipam(command) => ipam::run(command, global).await?,
        Command::Connect(args) => peers::connect(args, global).await?,
        Command::Forget(args) => peers::forget(args, global).await?,
        Command::Peer(command) => peers::run(command, global).await?,
        Command::Demo(_) | Command::Completions { .. } => unreachable!("they ask nobody"),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_before_and_after_the_command() {
        for words in [["meshctl", "--json", "status"], ["meshctl", "status", "--json"]] {
            assert!(Cli::try_parse_from(words).unwrap().global.json);
        }
    }

    #[test]
    fn attach_needs_one_namespace() {
        for (flags, right) in [
            (&[][..], false),
            (&["--netns", "a"], true),
            (&["--pid", "1"], true),
            (&["--netns", "a", "--pid", "1"], false),
        ] {
            let words = [&["meshctl", "attach", "c1"], flags].concat();
            assert_eq!(Cli::try_parse_from(words).is_ok(), right, "{flags:?}");
        }
    }
}
