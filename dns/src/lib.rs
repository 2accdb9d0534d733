//! The zone: which names exist, as a CRDT, and what a query is answered from it.
#![forbid(unsafe_code)]

/// A change of what the resolver answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ZoneChange;
