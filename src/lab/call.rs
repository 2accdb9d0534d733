//! One run of another program: with a deadline, and with its output in the error.

use std::{
    ffi::{OsStr, OsString},
    io::Write,
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{sys::signal, unistd::Pid};

use super::enter;

/// Chosen: ten times what the slowest command of a lab takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// What a program said and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Output {
    /// Whether it ended with code 0.
    pub fn success(&self) -> bool {
        self.code == Some(0)
    }
}

/// A program about to be run.
#[derive(Debug)]
pub struct Call {
    command: Command,
    input: Vec<u8>,
    deadline: Duration,
}

impl Call {
    /// A call without arguments or input, with a deadline of 20 s.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(program);
        command.env_remove(enter::MARKER);
        Self { command, input: Vec::new(), deadline: DEADLINE }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Sets what it reads from standard input.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = bytes.into();
        self
    }

    /// Sets after how long it is killed.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// The command line, for messages.
    fn line(&self) -> String {
        let words: Vec<OsString> = std::iter::once(self.command.get_program())
            .chain(self.command.get_args())
            .map(OsStr::to_owned)
            .collect();
        words.join(OsStr::new(" ")).to_string_lossy().into_owned()
    }

    /// The command itself, for a process that outlives the call.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started, or had to be killed at its deadline.
    pub fn output(mut self) -> Result<Output> {
        let line = self.line();
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().with_context(|| format!("cannot start `{line}`"))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a pid beyond the kernel's")?);
        let (done, ended) = mpsc::channel();
        let input = self.input;
        std::thread::spawn(move || {
            if let Some(mut stdin) = child.stdin.take() {
                // A program that does not read its input may have closed it.
                let _ = stdin.write_all(&input);
            }
            let _ = done.send(child.wait_with_output());
        });
        let Ok(output) = ended.recv_timeout(self.deadline) else {
            let _ = signal::kill(pid, signal::Signal::SIGKILL);
            bail!("`{line}` took more than {:?} and was killed", self.deadline);
        };
        let output = output.with_context(|| format!("lost sight of `{line}`"))?;
        Ok(Output {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs it and gives what it printed.
    ///
    /// # Errors
    /// As [`Call::output`], and when it ends with another code than 0; its output is in the error.
    pub fn ok(self) -> Result<String> {
        let line = self.line();
        let output = self.output()?;
        if !output.success() {
            let code = output.code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
            bail!("`{line}` ended with {code}: {}{}", output.err.trim(), output.out.trim());
        }
        Ok(output.out)
    }
}
