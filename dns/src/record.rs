//! The replicated records: key, value, and what may be written by whom.

use std::net::IpAddr;

use mesh_router::{PeerId, Register};
use serde::{Deserialize, Serialize};

use crate::Name;

/// The most addresses of one record; chosen: a container has one per family and network.
pub const ADDRESSES_PER_RECORD_MAX: usize = 64;
/// The longest holder, in bytes; chosen: a container id of 64 and an interface fit well.
pub const HOLDER_BYTES_MAX: usize = 255;
/// The holder of records that were added by hand.
pub const BY_HAND: &str = "by hand";

/// What a record is filed under. Sorted by holder before name: a holder's records lie together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordKey {
    /// The host that wrote it, the only one that may.
    pub origin: PeerId,
    /// For whom: a container, [`BY_HAND`]; empty for the origin's watermark.
    pub holder: String,
    /// The full name.
    pub name: Name,
}

/// What is written under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecordValue {
    /// The name has these addresses; never empty.
    Addresses(Vec<IpAddr>),
    /// The record was removed.
    Tombstone,
    /// All tombstones of the origin up to this counter are to be forgotten.
    Watermark(u64),
}

/// The kind of replicated data that the zone is.
#[derive(Debug, Clone, Copy)]
pub enum ZoneRegister {}

impl Register for ZoneRegister {
    type Key = RecordKey;
    type Value = RecordValue;

    const SINGLE_WRITER: bool = true;

    fn validate(origin: PeerId, key: &RecordKey, value: &RecordValue) -> Result<(), String> {
        if key.origin != origin {
            return Err(format!("{} may not write records of {}", origin.short(), key.origin));
        }
        if key.holder.len() > HOLDER_BYTES_MAX {
            return Err(format!("a holder has more than {HOLDER_BYTES_MAX} bytes"));
        }
        match value {
            RecordValue::Watermark(_) if *key == RecordKey::watermark(origin) => Ok(()),
            RecordValue::Watermark(_) => Err("a watermark under a record's key".to_owned()),
            _ if key.holder.is_empty() => Err("a record without a holder".to_owned()),
            RecordValue::Addresses(all) => check_addresses(all),
            RecordValue::Tombstone => Ok(()),
        }
    }
}

fn check_addresses(addresses: &[IpAddr]) -> Result<(), String> {
    match addresses.len() {
        0 => Err("a record without an address".to_owned()),
        1..=ADDRESSES_PER_RECORD_MAX => Ok(()),
        more => Err(format!("{more} addresses; a record has {ADDRESSES_PER_RECORD_MAX} at most")),
    }
}

impl RecordKey {
    /// The key of an origin's watermark.
    pub(crate) fn watermark(origin: PeerId) -> Self {
        let name = Name::parse("watermark").expect("a constant that is a name");
        Self { origin, holder: String::new(), name }
    }
}
