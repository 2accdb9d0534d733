//! Options that every command has, and how every command prints.

use std::{io::Write as _, path::PathBuf, time::Duration};

use clap::Args;
use serde::Serialize;

use crate::{
    api::{
        client::{Client, ClientError},
        types::ErrorBody,
    },
    node::request::{Code, Refusal},
};

/// Options that every command has.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The socket of this host's meshd
    #[arg(long, global = true, value_name = "PATH", env = "MESHWORK_SOCKET")]
    #[arg(default_value = "/run/meshwork/meshd.sock")]
    pub socket: PathBuf,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
    /// Print nothing but errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

impl Global {
    /// A client of this host's meshd.
    pub fn client(&self) -> Client {
        Client::new(&self.socket)
    }

    /// The same for what takes longer than most: others are asked, too, and meshd itself gives up
    /// after 30 s at most, with a reason.
    pub fn patient_client(&self) -> Client {
        self.client().with_patience(Duration::from_secs(40))
    }

    /// Prints an answer, as JSON or in the words that `human` finds.
    pub fn print<T: Serialize>(&self, answer: &T, human: impl FnOnce(&T) -> String) {
        if self.quiet {
            return;
        }
        let text = match self.json {
            true => serde_json::to_string_pretty(answer).unwrap_or_else(|error| error.to_string()),
            false => human(answer),
        };
        // A reader that has gone (`| head`) is no error.
        drop(writeln!(std::io::stdout(), "{}", text.trim_end()));
    }

    /// Prints why nothing was done: one line with what, why and what next; with `--json` the
    /// error's body. To standard error.
    pub fn complain(&self, error: &anyhow::Error) {
        let client = error.downcast_ref::<ClientError>();
        let refusal = match client {
            Some(ClientError::Refused(refusal)) => refusal.clone(),
            Some(other) => {
                let code = match other {
                    ClientError::Timeout { .. } => Code::Timeout,
                    ClientError::Garbled { .. } => Code::Internal,
                    _ => Code::NotReady,
                };
                Refusal::new(code, other.to_string(), other.hint())
            }
            None => Refusal::new(Code::Invalid, format!("{error:#}"), ""),
        };
        let line = match (self.json, refusal.hint.is_empty()) {
            (true, _) => serde_json::to_string(&ErrorBody { error: refusal }).unwrap_or_default(),
            (false, true) => format!("meshctl: {}", refusal.message),
            (false, false) => format!("meshctl: {}; {}", refusal.message, refusal.hint),
        };
        drop(writeln!(std::io::stderr(), "{line}"));
    }
}
