//! Re-entry: the current program again, as the first process of a lab's own namespaces.
//!
//! ```text
//!   outer process ──lifeline (pipe)──> first process of the lab ──> meshd, ping, ...
//!        └── unshare --kill-child ───────────┘
//! ```
//!
//! The outer process holds one end of a pipe and the inner one reads the other. When the outer one
//! dies, be it by SIGKILL, the inner one reads the end of the pipe and exits; when the inner one
//! exits or is killed, it was the first of its process namespace, so the kernel kills the rest and
//! with the last process frees namespaces, devices and mounts. Nobody has to clean up.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{BufRead, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicI32, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use tokio::signal::unix::{SignalKind, signal};

use super::needs;

/// Set for the first process of a lab. Its children may inherit it, but have other process ids.
pub const MARKER: &str = "MESHWORK_LAB";
/// What shells say of a program that ^C ended.
const INTERRUPTED: i32 = 130;
/// How long to look for the lab's first process.
const APPEARANCE: Duration = Duration::from_secs(2);

static EXIT_CODE: AtomicI32 = AtomicI32::new(INTERRUPTED);
static OUTSIDE_PID: OnceLock<u32> = OnceLock::new();

/// On which side of the entrance the caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// In a lab that is empty yet.
    Inside,
    /// The lab was, with the same arguments, and has ended with this exit code.
    Outside(u8),
}

/// Whether this process is the first of a lab.
pub fn is_inside() -> bool {
    env::var_os(MARKER).is_some() && std::process::id() == 1
}

/// Enters a lab: runs this program again inside of one, with the same arguments, unless it is there
/// already. Call it before anything else is done.
///
/// # Errors
/// One line when a tool is missing or the kernel forbids namespaces, with how to go on.
pub fn enter() -> Result<Entered> {
    if is_inside() {
        begin()?;
        return Ok(Entered::Inside);
    }
    needs::check_tools()?;
    let mut command = command(env::args_os().skip(1))?;
    // A runtime may already run on this thread; another cannot be started there.
    let status = thread::scope(|scope| {
        let outer = scope.spawn(|| wait_for_end_or_signal(&mut command));
        outer.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    Ok(Entered::Outside(exit_code(status)))
}

/// The process id of the lab's first process as it is numbered outside, for `nsenter`.
pub fn outside_pid() -> Option<u32> {
    OUTSIDE_PID.get().copied()
}

/// Stays until the outer process ends (^C there); the program's exit code is then `code`.
pub fn stay(code: u8) -> ! {
    EXIT_CODE.store(code.into(), Ordering::Relaxed);
    loop {
        thread::park();
    }
}

/// The command that runs this program, with these arguments, inside of a lab.
pub(super) fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Result<Command> {
    let program = env::current_exe().context("cannot tell where this program is")?;
    let mut command = Command::new("unshare");
    command.args(needs::unshare_args()?).arg("--").arg(program).args(args);
    command.env(MARKER, "1").env("PATH", needs::search_path());
    // Its own process group: ^C reaches the outer process alone, which ends the lab in order.
    command.stdin(Stdio::piped()).process_group(0);
    Ok(command)
}

/// What the first process of a lab does first.
pub(super) fn begin() -> Result<()> {
    thread::spawn(watch_lifeline);
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), Some("mode=0755"))
        .context("cannot mount a file system of the lab's own on /run")?;
    fs::create_dir_all(super::WORK_DIR).context("cannot make the lab's work directory")
}

/// Hands the lab the process id that it has outside.
pub(super) fn tell_pid(unshare: u32, lifeline: &mut ChildStdin) {
    let children = format!("/proc/{unshare}/task/{unshare}/children");
    let found = super::wait_until("the lab's first process", APPEARANCE, || {
        let text = fs::read_to_string(Path::new(&children))?;
        Ok(text.split_whitespace().next().map(str::to_owned))
    });
    if let Ok((pid, _)) = found {
        // A lab that has ended already needs no number.
        let _ = writeln!(lifeline, "{pid}");
    }
}

fn watch_lifeline() {
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        if let Ok(pid) = line.trim().parse() {
            let _ = OUTSIDE_PID.set(pid);
        }
    }
    std::process::exit(EXIT_CODE.load(Ordering::Relaxed));
}

fn wait_for_end_or_signal(command: &mut Command) -> Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut child = command.spawn().context("cannot start unshare")?;
        let mut lifeline = child.stdin.take().context("unshare has no standard input")?;
        let pid = child.id();
        let ended = tokio::task::spawn_blocking(move || child.wait());
        let lifeline = tokio::task::spawn_blocking(move || {
            tell_pid(pid, &mut lifeline);
            lifeline
        })
        .await?;
        tokio::pin!(ended);
        tokio::select! {
            status = &mut ended => return Ok(status??),
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        drop(lifeline);
        Ok(ended.await??)
    })
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(code).unwrap_or(1)
}
