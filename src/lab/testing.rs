//! Tests that run in labs of their own.
//!
//! A test calls [`in_lab`]. Outside, that runs the test's own binary again, for this one test, as
//! the first process of a lab; inside, it runs the body.

use std::{
    env,
    io::{Read, Write},
    process::ExitStatus,
    sync::{PoisonError, RwLock},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{enter, log_tails, needs, wait_until};

/// How many lines of each log a failure shows.
const LOG_LINES: usize = 40;

/// Labs under way in this process: those that measure time are alone.
static LABS: RwLock<()> = RwLock::new(());

/// How much of the machine a test wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// All of it, since it measures time or rates.
    Alone,
    /// Others may run at the same time.
    Shared,
}

/// Runs the body of a test in a lab.
///
/// The test's name is taken from the type of the closure, which must therefore be written in the
/// test function itself. Where the kernel forbids labs, the test is skipped with a loud line, or
/// fails where the variable `CI` is set.
///
/// # Panics
/// When the body fails, or the lab does not end within `deadline`.
pub fn in_lab<F: FnOnce() -> Result<()>>(load: Load, deadline: Duration, body: F) {
    if enter::is_inside() {
        let result = enter::begin().and_then(|()| body());
        if let Err(error) = result {
            panic!("{error:#}\n{}", log_tails(LOG_LINES));
        }
        return;
    }
    let name = test_name(std::any::type_name::<F>());
    let _alone =
        (load == Load::Alone).then(|| LABS.write().unwrap_or_else(PoisonError::into_inner));
    let _shared =
        (load == Load::Shared).then(|| LABS.read().unwrap_or_else(PoisonError::into_inner));
    let refusal = needs::check_tools().and_then(|()| needs::unshare_args().map(drop));
    if let Err(error) = refusal {
        skip(name, &error);
        return;
    }
    let (status, output) = run(name, deadline).expect("a lab can be started");
    print!("{output}");
    assert!(status.success(), "{name} failed in its lab: {status}");
    assert!(output.contains("1 passed"), "no test is called {name}");
}

/// `hosts::traffic::no_packet_is_lost::{{closure}}` is of the test `traffic::no_packet_is_lost`.
fn test_name(closure: &str) -> &str {
    let name = closure.split_once("::{{closure}}").map_or(closure, |(name, _)| name);
    name.split_once("::").map_or(name, |(_, name)| name)
}

fn skip(name: &str, error: &anyhow::Error) {
    assert!(env::var_os("CI").is_none(), "{name} cannot run: {error:#}");
    // Straight to the terminal: what print macros write is hidden when a test passes.
    let _ = writeln!(std::io::stderr(), "SKIP {name}: {error:#}");
}

fn run(name: &str, deadline: Duration) -> Result<(ExitStatus, String)> {
    let (mut reader, writer) = std::io::pipe()?;
    let args = ["--exact", name, "--nocapture", "--test-threads", "1"];
    let mut command = enter::command(args)?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let mut child = command.spawn().context("cannot start unshare")?;
    // The command holds ends of the pipe, which else would never end.
    drop(command);
    let lifeline = child.stdin.take();
    let output = thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = reader.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let ended = wait_until(name, deadline, || Ok(child.try_wait()?));
    drop(lifeline);
    let status = child.wait()?;
    let output = output.join().unwrap_or_default();
    if ended.is_err() {
        bail!("{name} was not done after {deadline:?}; it said:\n{output}");
    }
    Ok((status, output))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tests_come_from_their_closures() {
        assert_eq!(test_name("hosts::traffic::flows::{{closure}}"), "traffic::flows");
        assert_eq!(test_name("hosts::flows::{{closure}}::{{closure}}"), "flows");
    }
}
