//! meshctl: what a person types. All of it is in `meshwork::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    meshwork::cli::main()
}
