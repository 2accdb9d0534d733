//! mesh-cni: CNI in, one request to meshd, CNI out.
//!
//! It keeps no state and touches no kernel object: meshd does, so that a failed ADD is undone by
//! the one who began it. What cannot be asked for because meshd is away is refused with "try again
//! later"; only DEL succeeds then, and leaves a note that meshd works off.
//!
//! * [`environment`]: the variables that the runtime sets; [`config`]: the JSON on standard input.
//! * [`request`]: both as a request to meshd; [`result`]: meshd's answer in a version's shape.
//! * [`command`]: what each command does; [`error`]: the error object.

use std::{
    io::{Read as _, Write as _},
    process::ExitCode,
};

mod command;
mod config;
mod environment;
mod error;
mod request;
mod result;
mod version;

use environment::Environment;
use error::CniError;

/// The longest network configuration that is read, in bytes. Chosen: real ones are under 4 KiB, a
/// previous result of many interfaces included.
const INPUT_LEN_MAX: u64 = 1024 * 1024;

fn main() -> ExitCode {
    let environment = Environment::of_process();
    let mut input = Vec::new();
    let read = std::io::stdin().lock().take(INPUT_LEN_MAX + 1).read_to_end(&mut input);
    let (output, code) = match read {
        Err(error) => {
            let error = CniError::new(error::IO, "the configuration cannot be read")
                .because(error.to_string());
            (error.json(None), ExitCode::FAILURE)
        }
        Ok(_) if input.len() as u64 > INPUT_LEN_MAX => {
            let text = format!("the configuration is longer than {INPUT_LEN_MAX} bytes");
            (CniError::new(error::DECODE, text).json(None), ExitCode::FAILURE)
        }
        Ok(_) => match command::run(&environment, &input) {
            Ok(output) => (output, ExitCode::SUCCESS),
            Err(error) => (error.json(version::of_input(&input)), ExitCode::FAILURE),
        },
    };
    // A runtime that does not read its answer is not waited for.
    drop(std::io::stdout().write_all(output.as_bytes()));
    code
}
