//! The zone: which names exist, as a CRDT, and what a query is answered from it.
//!
//! PURE: no clock, no socket, no file and no thread; randomness is an argument.
//!
//! * [`name`]: a validated DNS name; [`query`]: what was asked, reduced to what matters here.
//! * [`record`]: key, value and bounds of the replicated records.
//! * [`zone`]: the replica: own records are written, others' are absorbed, tombstones collected.
//! * [`table`]: what queries are answered from, kept up to date by [`ZoneChange`]s.
//!
//! The zone does not know what a container is: a record's holder is a string.
#![forbid(unsafe_code)]

pub mod name;
pub mod query;
pub mod record;
pub mod table;
pub mod zone;

pub use name::{Name, NameError};
pub use query::{QueryName, QueryType};
pub use record::{BY_HAND, HOLDER_BYTES_MAX, RecordKey, RecordValue, ZoneRegister};
pub use table::{Answer, Table};
pub use zone::{PutError, Zone, ZoneChange};
mod replica;
