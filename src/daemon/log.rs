//! The log: to standard error, in text for people or JSON for programs.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::config::Log;
use crate::transport::QUIET_LOGS;

/// What is said without `RUST_LOG`: our own events, and only the warnings of libraries.
const FILTER: &str = "warn,meshwork=info";

/// Starts logging. Call it once.
pub fn init(form: Log) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new(format!("{FILTER},{QUIET_LOGS}")));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match form {
        Log::Text => builder.with_target(false).init(),
        Log::Json => builder.json().init(),
    }
}
