//! The ring: which host owns which block of addresses, and who holds which address on this host.
#![forbid(unsafe_code)]

use serde::{Deserialize, Serialize};

/// Who holds an address: the key of an attachment.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Holder {
    /// Container id, or the name that an address was claimed for.
    pub container: String,
    /// Interface in the container; empty for a claim.
    pub interface: String,
}
