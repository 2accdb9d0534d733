//! meshd: one per host.

use std::process::ExitCode;

use meshwork::daemon::{config::Config, log, start};

fn main() -> ExitCode {
    let config = match Config::from_process() {
        Ok(config) => config,
        Err(code) => return code,
    };
    log::init(config.log);
    match start::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("meshd: {error:#}");
            ExitCode::FAILURE
        }
    }
}
