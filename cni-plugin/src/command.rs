//! What each command does.

use std::{future::Future, time::Duration};

use meshwork::api::{
    client::{Client, ClientError},
    spool::Spool,
    types::{Attachment, CheckRequest, DetachRequest, Done, Holder, Status},
};
use serde_json::json;

use crate::{
    config::Config,
    environment::Environment,
    error::{self, CniError},
    request,
    result::CniResult,
    version::{self, Version},
};

/// How long a detach may take before it is left to meshd. Runtimes wait for DEL.
const DEL_PATIENCE: Duration = Duration::from_secs(5);

/// Runs the command of the environment; gives the text for standard output.
///
/// # Errors
/// As the spec says; see [`crate::error`].
pub(crate) fn run(env: &Environment, input: &[u8]) -> Result<String, CniError> {
    let command = env
        .command
        .as_deref()
        .ok_or_else(|| CniError::new(error::ENVIRONMENT, "CNI_COMMAND is not set"))?;
    if command == "VERSION" {
        return Ok(versions(input));
    }
    if !["ADD", "DEL", "CHECK", "STATUS"].contains(&command) {
        let problem = match command {
            "GC" => "GC is not supported yet; DEL releases everything".to_owned(),
            _ => format!("{command:?} is none of ADD, DEL, CHECK, STATUS, VERSION"),
        };
        return Err(CniError::environment("CNI_COMMAND", problem));
    }
    let config = Config::parse(input, &env.own_name)?;
    match command {
        "ADD" => add(env, &config),
        "DEL" => del(env, &config),
        "CHECK" => check(env, &config),
        _ => status(&config),
    }
}

fn versions(input: &[u8]) -> String {
    let version = version::of_input(input);
    let version = version.as_deref().filter(|text| version::SUPPORTED.contains(text));
    json!({
        "cniVersion": version.unwrap_or(version::NEWEST),
        "supportedVersions": version::SUPPORTED,
    })
    .to_string()
}

fn add(env: &Environment, config: &Config) -> Result<String, CniError> {
    let request = request::attach(env, config)?;
    let patience = Duration::from_millis(request.patience_ms);
    let client = Client::new(&config.socket).with_patience(patience);
    let attached: Result<Attachment, _> = block_on(client.post("/v1/attach", &request))?;
    match attached {
        Ok(attachment) => json_text(&CniResult::new(config, attachment)),
        Err(error) => {
            // Nobody knows whether it was carried out: a failed ADD must leave nothing behind.
            if matches!(error, ClientError::Timeout { .. } | ClientError::Garbled { .. }) {
                let holder = Holder { container: request.container, interface: request.interface };
                drop(Spool::beside(&config.socket).add(&holder));
            }
            Err(error.into())
        }
    }
}

fn del(env: &Environment, config: &Config) -> Result<String, CniError> {
    let container = env.container()?.to_owned();
    let interface = env.interface()?.to_owned();
    let client = Client::new(&config.socket).with_patience(DEL_PATIENCE);
    let request =
        DetachRequest { container: container.clone(), interface: Some(interface.clone()) };
    let detached: Result<Done, _> = block_on(client.post("/v1/detach", &request))?;
    let Err(error) = detached else { return Ok(String::new()) };
    let later = match &error {
        ClientError::Refused(refusal) => {
            use meshwork::node::request::Code;
            match refusal.code {
                Code::NotFound => return Ok(String::new()),
                // Wrong for ever: asking again later would not help.
                Code::Invalid => return Err(error.into()),
                _ => true,
            }
        }
        ClientError::Forbidden(_) => false,
        _ => true,
    };
    let spool = Spool::beside(&config.socket);
    if later && spool.add(&Holder { container, interface }).is_ok() {
        eprintln!("mesh-cni: {error}; meshd releases it later");
        return Ok(String::new());
    }
    Err(error.into())
}

fn check(env: &Environment, config: &Config) -> Result<String, CniError> {
    config.version.require(Version::V0_4_0, "CHECK")?;
    let container = env.container()?.to_owned();
    let interface = env.interface()?.to_owned();
    let previous = config.previous.as_ref().ok_or_else(|| {
        CniError::config("prevResult", "it is missing; CHECK compares with ADD's result")
    })?;
    let client = Client::new(&config.socket);
    let request = CheckRequest { container, interface };
    let attachment: Attachment = block_on(client.post("/v1/check", &request))??;
    for address in &attachment.addresses {
        if !previous.ips.iter().any(|ip| ip.address.ip() == address.ip()) {
            let text = format!("{address} is the container's now, but not in prevResult.ips");
            return Err(CniError::new(error::CHANGED, text));
        }
    }
    Ok(String::new())
}

fn status(config: &Config) -> Result<String, CniError> {
    config.version.require(Version::V1_1_0, "STATUS")?;
    let client = Client::new(&config.socket);
    let unavailable = |text: String| CniError::new(error::UNAVAILABLE, text);
    // Without meshd the data plane stands: existing containers keep their connections, so 50 and
    // not 51.
    let status: Status = block_on(client.get("/v1/status"))?
        .map_err(|error| unavailable(error.to_string()).because(error.hint()))?;
    match status.ready {
        true => Ok(String::new()),
        false => {
            let reason = status.reason.unwrap_or_else(|| "meshd does not say why".to_owned());
            Err(unavailable(format!("the mesh is not ready: {reason}")))
        }
    }
}

/// One small runtime for one request; threads would cost more than the request.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, CniError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()
        .map_err(|error| CniError::new(error::IO, format!("no runtime: {error}")))?;
    Ok(runtime.block_on(future))
}

fn json_text(result: &CniResult) -> Result<String, CniError> {
    serde_json::to_string(result)
        .map_err(|error| CniError::new(error::IO, format!("the result cannot be written: {error}")))
}
