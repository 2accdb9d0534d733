//! Error objects as the CNI spec defines them (1.1.0, section 5 "Error"), and their codes.

use meshwork::{
    api::client::ClientError,
    node::request::{Code, Refusal},
};
use serde_json::json;

/// The configuration's version is not supported.
pub(crate) const VERSION: u32 = 1;
/// An environment variable is missing or wrong; the message names it.
pub(crate) const ENVIRONMENT: u32 = 4;
/// Reading or writing failed.
pub(crate) const IO: u32 = 5;
/// The configuration is no JSON, or a value has a wrong type.
pub(crate) const DECODE: u32 = 6;
/// The configuration is wrong.
pub(crate) const CONFIG: u32 = 7;
/// Something transient: the runtime should try again.
pub(crate) const TRY_AGAIN: u32 = 11;
/// STATUS: ADD cannot be served.
pub(crate) const UNAVAILABLE: u32 = 50;
/// CHECK: what stands is not what was given.
pub(crate) const CHANGED: u32 = 110;

/// An error object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CniError {
    pub(crate) code: u32,
    pub(crate) message: String,
    pub(crate) details: String,
}

impl CniError {
    /// An error without details.
    pub(crate) fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: String::new() }
    }

    /// The same with details: the cause, or what to do next.
    #[must_use]
    pub(crate) fn because(self, details: impl Into<String>) -> Self {
        Self { details: details.into(), ..self }
    }

    /// A key of the configuration is wrong.
    pub(crate) fn config(key: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(CONFIG, format!("network configuration: {key}: {problem}"))
    }

    /// A variable is wrong.
    pub(crate) fn environment(name: &str, problem: impl std::fmt::Display) -> Self {
        Self::new(ENVIRONMENT, format!("{name}: {problem}"))
    }

    /// The object's text, in the version that was asked in.
    pub(crate) fn json(&self, version: Option<String>) -> String {
        let version = version.unwrap_or_else(|| crate::version::NEWEST.to_owned());
        let mut object = json!({ "cniVersion": version, "code": self.code, "msg": self.message });
        if !self.details.is_empty() {
            object["details"] = self.details.clone().into();
        }
        object.to_string()
    }
}

impl From<Refusal> for CniError {
    /// Codes from 100 on are ours, one per kind of refusal.
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.code {
            Code::NotReady | Code::Timeout => TRY_AGAIN,
            Code::Invalid => 100,
            Code::NotFound => 101,
            Code::Conflict | Code::Superseded => 102,
            Code::Exhausted => 103,
            Code::Internal => 104,
        };
        Self::new(code, refusal.message).because(refusal.hint)
    }
}

impl From<ClientError> for CniError {
    fn from(error: ClientError) -> Self {
        let hint = error.hint().to_owned();
        match error {
            ClientError::Refused(refusal) => refusal.into(),
            ClientError::NotRunning { .. } => {
                Self::new(TRY_AGAIN, format!("{error}; try again later"))
                    .because("start meshd, or name its socket with the key \"socket\"")
            }
            ClientError::Forbidden(_) => Self::new(IO, error.to_string()).because(hint),
            _ => Self::new(TRY_AGAIN, format!("{error}; try again later")).because(hint),
        }
    }
}
