//! The pure node: router, ring and zone behind one closed pair of enums.

pub mod desired;
pub mod event;
pub mod request;
