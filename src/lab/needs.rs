//! What a lab needs of the machine, and what to do where it is missing.

use std::{env, ffi::OsString, path::PathBuf};

use anyhow::{Result, bail};

use super::Call;

/// Programs and the Debian packages they are in.
const TOOLS: [(&str, &str); 6] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("ping", "iputils-ping"),
];

/// The search path with the system's own directories, which a user's often lacks.
pub fn search_path() -> OsString {
    let own = env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    env::join_paths(env::split_paths(&own).chain(system)).unwrap_or(own)
}

/// Checks that the tools are there.
///
/// # Errors
/// One line with what is missing and the command that gets it.
pub fn check_tools() -> Result<()> {
    let path = search_path();
    let missing: Vec<_> = TOOLS
        .iter()
        .filter(|(tool, _)| !env::split_paths(&path).any(|dir| dir.join(tool).is_file()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let tools: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    bail!(
        "missing on this system: {}; on Debian: `sudo apt-get install {}`",
        tools.join(", "),
        packages.join(" ")
    )
}

/// The arguments with which `unshare` makes a lab's namespaces here: the plain ones for root, and
/// in a user namespace for anybody else (and for a root whose rights were taken).
///
/// # Errors
/// One line that says why the kernel forbids it and how to go on.
pub fn unshare_args() -> Result<Vec<&'static str>> {
    const PLAIN: [&str; 6] =
        ["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let in_user_namespace = [&["--user", "--map-root-user"], &PLAIN[..]].concat();
    let mut refusal = String::new();
    for args in [PLAIN.to_vec(), in_user_namespace] {
        if args == PLAIN && !nix::unistd::geteuid().is_root() {
            continue;
        }
        let trial = Call::new("unshare").env("PATH", search_path()).args(&args);
        let output = trial.args(["mount", "-t", "tmpfs", "tmpfs", "/run"]).output()?;
        if output.success() {
            return Ok(args);
        }
        refusal = output.err.trim().replace('\n', "; ");
    }
    bail!(
        "the kernel does not let this user make namespaces ({refusal}); run it with sudo, or allow \
         user namespaces (`sysctl kernel.unprivileged_userns_clone=1`, on Ubuntu \
         `sysctl kernel.apparmor_restrict_unprivileged_userns=0`), or in a container start that \
         with --privileged"
    )
}
