//! meshd's configuration: flags over environment over file over defaults, checked as a whole.
//!
//! One table (`KEYS`) makes all three: key `state-dir` is the flag `--state-dir`, the variable
//! `MESHWORK_STATE_DIR` and the TOML key `state-dir`. Lists are repeated flags, comma-separated
//! variables and TOML arrays; an empty variable counts as unset. A wrong value is one line: which
//! key, which value, what is allowed.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Arg, ArgAction, ArgMatches, Command, parser::ValueSource};
use ipnetwork::IpNetwork;

use crate::{
    api::{target::Target, token},
    node::event::Credentials,
};

mod keys;
mod value;

use keys::{KEYS, Key, Kind};

/// Where the file is when nobody names another.
pub const DEFAULT_FILE: &str = "/etc/meshwork/meshd.toml";

/// What meshd runs with. Every value is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The host's name.
    pub name: String,
    /// Directory of the state and of the host's key.
    pub state_dir: PathBuf,
    /// The local API's socket.
    pub socket: PathBuf,
    /// Where the control plane listens; `[::]` means IPv4, too.
    pub listen: SocketAddr,
    /// Addresses that others use; empty: found by itself.
    pub advertise: Vec<IpAddr>,
    /// VXLAN's UDP port.
    pub data_port: u16,
    /// What a host without state does.
    pub start: Start,
    /// After how long unreachable hosts lose their addresses; `None`: never by themselves.
    pub lease: Option<Duration>,
    /// Trust the disk although no peer can tell whether it is an old image.
    pub serve_alone: bool,
    /// How long a released address rests.
    pub rest: Duration,
    /// The mesh's domain, without dots at its ends, lower case.
    pub dns_domain: String,
    /// Where the resolver listens; empty: port 53 on the bridge's gateway addresses.
    pub dns_listen: Vec<SocketAddr>,
    /// The file that names upstream resolvers.
    pub resolv_conf: PathBuf,
    /// Encryption of the data plane.
    pub encrypt: Encrypt,
    /// The containers' MTU; `None`: from the underlay.
    pub mtu_bytes: Option<u32>,
    /// The bridge's name.
    pub bridge: String,
    /// Where metrics are served over TCP, if at all.
    pub metrics: Option<SocketAddr>,
    /// The log's form.
    pub log: Log,
}

/// What a host that is in no mesh yet does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Wait for `meshctl init` or `meshctl join`.
    Wait,
    /// Found a mesh.
    Init {
        /// The first of each family is the default one; empty for the defaults.
        ranges: Vec<IpNetwork>,
    },
    /// Found a mesh together with others.
    Found {
        /// How many hosts, this one included.
        founders: u16,
        /// As in `Init`.
        ranges: Vec<IpNetwork>,
        /// The others; at least one.
        targets: Vec<Target>,
        /// From the token, which all share; `None` as in `Join`.
        credentials: Option<Credentials>,
    },
    /// Join a mesh.
    Join {
        /// Members of it; at least one.
        targets: Vec<Target>,
        /// From the token. `None` is right only with existing state: else end with
        /// [`ConfigError::token_missing`].
        credentials: Option<Credentials>,
    },
}

/// Encryption of the data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encrypt {
    /// Never.
    Off,
    /// Where both ends can.
    Prefer,
}

/// The log's form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Log {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// A configuration that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A key's value is wrong.
    #[error("{key} = {value:?} (from {source_name}): {allowed}")]
    Value {
        /// Which key.
        key: String,
        /// Its value.
        value: String,
        /// Where it was given.
        source_name: String,
        /// What is allowed.
        allowed: String,
    },
    /// Keys contradict or need each other.
    #[error("{0}")]
    Together(String),
    /// The file cannot be used.
    #[error("{}: {reason}", .path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl ConfigError {
    /// `join` without a token on a host without state.
    pub fn token_missing() -> Self {
        Self::Together(
            "join needs the mesh's token: give token-file or MESHWORK_TOKEN \
             (a member prints it with `meshctl token show`; founders draw one with `token new`)"
                .to_owned(),
        )
    }
}

/// Where a layer's values come from, and they themselves.
#[derive(Debug)]
struct Layer {
    name: String,
    values: BTreeMap<&'static str, Vec<String>>,
}

/// One key's values and where they were given.
#[derive(Debug)]
struct Given<'a> {
    key: &'static str,
    source_name: &'a str,
    values: &'a [String],
}

impl Given<'_> {
    fn wrong(&self, value: &str, allowed: impl Into<String>) -> ConfigError {
        ConfigError::Value {
            key: self.key.to_owned(),
            value: value.to_owned(),
            source_name: self.source_name.to_owned(),
            allowed: allowed.into(),
        }
    }
}

/// meshd's command line.
pub fn command() -> Command {
    let mut command =
        Command::new("meshd")
            .about("One per host: the router of a Meshwork mesh")
            .version(env!("CARGO_PKG_VERSION"))
            .arg(Arg::new("config").long("config").value_name("FILE").help(format!(
                "TOML file with these keys [default: {DEFAULT_FILE}, if it exists]"
            )));
    for key in KEYS {
        let help = format!("{} [env: {}]", key.help, key.variable());
        let arg = Arg::new(key.name).long(key.name).help(help);
        command = command.arg(match key.kind {
            Kind::Flag => arg.action(ArgAction::SetTrue),
            Kind::One => arg.value_name(key.value_name).action(ArgAction::Set),
            Kind::Many => arg.value_name(key.value_name).action(ArgAction::Append),
        });
    }
    command
}

impl Config {
    /// The configuration of this process. Prints help, version and usage errors itself and then
    /// gives the exit code, as it does for a configuration that cannot be used: one line, and 2.
    ///
    /// # Errors
    /// The exit code to end with.
    pub fn from_process() -> Result<Self, ExitCode> {
        let matches = command().try_get_matches().map_err(|error| {
            drop(error.print());
            ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
        })?;
        let variables = |name: &str| std::env::var_os(name);
        Self::from_matches(&matches, variables, Path::new(DEFAULT_FILE)).map_err(|error| {
            eprintln!("meshd: {error}");
            ExitCode::from(2)
        })
    }

    fn from_matches(
        matches: &ArgMatches,
        variable: impl Fn(&str) -> Option<OsString>,
        default_file: &Path,
    ) -> Result<Self, ConfigError> {
        let flags = flags_layer(matches);
        let variables = variables_layer(&variable)?;
        let named = match matches.get_one::<String>("config") {
            Some(path) => Some(PathBuf::from(path)),
            None => variable("MESHWORK_CONFIG").map(PathBuf::from),
        };
        let mut layers = vec![flags, variables];
        layers.extend(file_layer(named.as_deref(), default_file)?);
        let token = match variable("MESHWORK_TOKEN").filter(|text| !text.is_empty()) {
            Some(text) => Some(
                text.into_string()
                    .map_err(|_| ConfigError::Together("MESHWORK_TOKEN is not UTF-8".to_owned()))?,
            ),
            None => None,
        };
        Self::build(&layers, token)
    }

    fn build(layers: &[Layer], token: Option<String>) -> Result<Self, ConfigError> {
        let read = Reader { layers };
        Ok(Self {
            name: read.name()?,
            state_dir: read.path("state-dir", "/var/lib/meshwork")?,
            socket: read.path("socket", "/run/meshwork/meshd.sock")?,
            listen: read.socket_addresses("listen")?.pop().unwrap_or_else(value::listen_default),
            advertise: read.advertise()?,
            data_port: read.data_port()?,
            start: read.start(token)?,
            lease: read.lease()?,
            serve_alone: read.flag("serve-alone")?,
            rest: read.rest()?,
            dns_domain: read.domain()?,
            dns_listen: read.socket_addresses("dns-listen")?,
            resolv_conf: read.path("resolv-conf", "/etc/resolv.conf")?,
            encrypt: read.encrypt()?,
            mtu_bytes: read.mtu()?,
            bridge: read.bridge()?,
            metrics: read.socket_addresses("metrics")?.pop(),
            log: read.log()?,
        })
    }
}

/// Reads keys from layers, the strongest first.
#[derive(Debug)]
struct Reader<'a> {
    layers: &'a [Layer],
}

fn flags_layer(matches: &ArgMatches) -> Layer {
    let mut values = BTreeMap::new();
    for key in KEYS {
        if matches.value_source(key.name) != Some(ValueSource::CommandLine) {
            continue;
        }
        let given = match key.kind {
            Kind::Flag => vec![matches.get_flag(key.name).to_string()],
            Kind::One | Kind::Many => {
                matches.get_many::<String>(key.name).into_iter().flatten().cloned().collect()
            }
        };
        values.insert(key.name, given);
    }
    Layer { name: "command line".to_owned(), values }
}

fn variables_layer(variable: impl Fn(&str) -> Option<OsString>) -> Result<Layer, ConfigError> {
    let mut values = BTreeMap::new();
    for key in KEYS {
        let Some(text) = variable(&key.variable()).filter(|text| !text.is_empty()) else {
            continue;
        };
        let text = text
            .into_string()
            .map_err(|_| ConfigError::Together(format!("{} is not UTF-8", key.variable())))?;
        let given = match key.kind {
            Kind::Many => text.split(',').map(|part| part.trim().to_owned()).collect(),
            Kind::One | Kind::Flag => vec![text],
        };
        values.insert(key.name, given);
    }
    Ok(Layer { name: "environment".to_owned(), values })
}

/// The file's layer: the named file must exist, the default one may be absent.
fn file_layer(named: Option<&Path>, default: &Path) -> Result<Option<Layer>, ConfigError> {
    let path = named.unwrap_or(default);
    let wrong = |reason: String| ConfigError::File { path: path.to_owned(), reason };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
            return Ok(None);
        }
        Err(error) => return Err(wrong(error.to_string())),
    };
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        wrong(format!("line {line}: {}", error.message().replace('\n', ", ")))
    })?;
    let mut values = BTreeMap::new();
    for (name, item) in &table {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            return Err(wrong(format!("unknown key {name:?}; {}", keys::suggestion(name))));
        };
        values.insert(key.name, texts(key, item).map_err(wrong)?);
    }
    Ok(Some(Layer { name: path.display().to_string(), values }))
}

fn texts(key: &Key, item: &toml::Value) -> Result<Vec<String>, String> {
    use toml::Value;
    let plain = |item: &Value| match item {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Boolean(flag) if key.kind == Kind::Flag => Ok(flag.to_string()),
        other => Err(format!("{} cannot be a {}", key.name, other.type_str())),
    };
    match (key.kind, item) {
        (Kind::Many, Value::Array(items)) => items.iter().map(plain).collect(),
        (_, item) => Ok(vec![plain(item)?]),
    }
}

#[cfg(test)]
mod tests;
