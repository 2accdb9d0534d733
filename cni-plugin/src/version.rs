//! Versions of the CNI spec, and how they differ for us.

use serde::Deserialize;

use crate::error::{self, CniError};

/// The newest version.
pub(crate) const NEWEST: &str = "1.1.0";

/// All versions, oldest first.
pub(crate) const SUPPORTED: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// A supported version; later ones compare greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

impl Version {
    const ALL: [Self; 5] = [Self::V0_3_0, Self::V0_3_1, Self::V0_4_0, Self::V1_0_0, Self::V1_1_0];

    /// Reads a configuration's `cniVersion`.
    ///
    /// # Errors
    /// Code 1 with all supported versions.
    pub(crate) fn parse(text: &str) -> Result<Self, CniError> {
        let at = SUPPORTED.iter().position(|known| *known == text);
        at.map(|at| Self::ALL[at]).ok_or_else(|| {
            CniError::new(error::VERSION, format!("cniVersion {text:?} is not supported"))
                .because(format!("supported are {}", SUPPORTED.join(", ")))
        })
    }

    /// As in the spec.
    pub(crate) fn name(self) -> &'static str {
        SUPPORTED[self as usize]
    }

    /// Refuses a command that this version does not know.
    ///
    /// # Errors
    /// Code 1.
    pub(crate) fn require(self, least: Self, command: &str) -> Result<(), CniError> {
        if self >= least {
            return Ok(());
        }
        let text = format!("{command} needs cniVersion {} or later", least.name());
        Err(CniError::new(error::VERSION, text).because(format!("it is {}", self.name())))
    }
}

/// The version that an input claims, even when nothing else in it is right.
pub(crate) fn of_input(input: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(rename = "cniVersion")]
        version: String,
    }
    serde_json::from_slice::<Versioned>(input).ok().map(|versioned| versioned.version)
}
