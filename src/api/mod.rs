//! The local API: HTTP/1.1 with JSON on a unix socket, under `/v1/`.
//!
//! [`types`] are the bodies, shared by meshd, meshctl and mesh-cni.

pub mod types;
