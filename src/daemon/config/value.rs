//! What each key's value must be.

use std::{
    fs,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use ipnetwork::IpNetwork;
use mesh_ipam::{Block, ring::RANGES_MAX};

use super::{ConfigError, Encrypt, Given, KEYS, Kind, Log, Reader, Start, Target, token};

/// From INTERFACE: every address of both families.
pub(super) fn listen_default() -> SocketAddr {
    (Ipv6Addr::UNSPECIFIED, crate::api::target::CONTROL_PORT).into()
}

/// Chosen: IPv6 needs 1280 (RFC 8200 section 5).
const MTU_MIN: u32 = 1280;
/// The most that an IP packet's length can say.
const MTU_MAX: u32 = 65_535;
/// Hosts that can found a mesh together: a majority of more takes longer and is no safer.
const FOUNDERS: std::ops::RangeInclusive<u16> = 2..=9;
/// Seconds of a lease. Chosen: ten heartbeats, so that a hiccup removes nobody; thirty days.
const LEASE_SECS: std::ops::RangeInclusive<u64> = 10..=2_592_000;
/// How long a released address rests. Chosen: as long as most clients keep a dead connection.
const REST: Duration = Duration::from_secs(60);
/// The longest rest, in seconds: a day.
const REST_SECS_MAX: u64 = 86_400;

impl Reader<'_> {
    fn given(&self, key: &'static str) -> Option<Given<'_>> {
        self.layers.iter().find_map(|layer| {
            let values = layer.values.get(key)?;
            Some(Given { key, source_name: &layer.name, values })
        })
    }

    /// The one value of a key; empty counts as wrong.
    fn one(&self, key: &'static str) -> Result<Option<(Given<'_>, &str)>, ConfigError> {
        let Some(given) = self.given(key) else { return Ok(None) };
        let kind = KEYS.iter().find(|known| known.name == key).map(|known| known.kind);
        debug_assert_ne!(kind, Some(Kind::Many), "{key} is a list");
        match given.values {
            [value] if !value.is_empty() => Ok(Some((Given { ..given }, value))),
            values => Err(given.wrong(&values.join(","), "give one value that is not empty")),
        }
    }

    pub(super) fn name(&self) -> Result<String, ConfigError> {
        let label = "a name has 1 to 63 letters, digits, inner hyphens and dots";
        let proper = |name: &str| {
            name.len() <= 63
                && Target::parse(name)
                    .is_ok_and(|t| t.host == name && t.literal().is_none() && !name.ends_with('.'))
        };
        if let Some((given, value)) = self.one("name")? {
            return if proper(value) {
                Ok(value.to_owned())
            } else {
                Err(given.wrong(value, label))
            };
        }
        let hostname = fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let hostname = hostname.map(|name| name.trim().to_owned());
        hostname.filter(|name| proper(name)).ok_or_else(|| {
            ConfigError::Together(format!("the hostname is no proper name, set name: {label}"))
        })
    }

    pub(super) fn path(&self, key: &'static str, default: &str) -> Result<PathBuf, ConfigError> {
        let path = self.one(key)?.map_or(default, |(_, value)| value);
        std::path::absolute(path).map_err(|error| ConfigError::Together(format!("{key}: {error}")))
    }

    pub(super) fn socket_addresses(
        &self,
        key: &'static str,
    ) -> Result<Vec<SocketAddr>, ConfigError> {
        let Some(given) = self.given(key) else { return Ok(Vec::new()) };
        let many = KEYS.iter().any(|known| known.name == key && known.kind == Kind::Many);
        if given.values.len() != 1 && !many {
            return Err(given.wrong(&given.values.join(","), "give one ADDR:PORT"));
        }
        let parse = |text: &String| match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Ok(address),
            _ => Err(given.wrong(text, "give ADDR:PORT, such as 192.0.2.1:7780 or [::]:7780")),
        };
        given.values.iter().map(parse).collect()
    }

    pub(super) fn advertise(&self) -> Result<Vec<IpAddr>, ConfigError> {
        let Some(given) = self.given("advertise") else { return Ok(Vec::new()) };
        let usable = |ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast();
        let parse = |text: &String| {
            let address = text.parse::<IpAddr>().ok().filter(usable);
            address.ok_or_else(|| given.wrong(text, "give an address that others can reach"))
        };
        given.values.iter().map(parse).collect()
    }

    pub(super) fn data_port(&self) -> Result<u16, ConfigError> {
        let Some((given, value)) = self.one("data-port")? else { return Ok(7781) };
        let port = value.parse().ok().filter(|port| *port != 0);
        port.ok_or_else(|| given.wrong(value, "give a port from 1 to 65535"))
    }

    pub(super) fn start(&self, token: Option<String>) -> Result<Start, ConfigError> {
        let ranges = self.ranges()?;
        let targets = self.targets()?;
        let founders = self.founders()?;
        let together = |text: &str| Err(ConfigError::Together(text.to_owned()));
        match (self.flag("init")?, founders) {
            (true, Some(_)) => {
                together("init and founders exclude each other: init founds a mesh alone")
            }
            (true, None) if !targets.is_empty() => {
                together("init and join exclude each other: init founds a mesh, join finds one")
            }
            (true, None) => Ok(Start::Init { ranges }),
            (false, Some(_)) if targets.is_empty() => {
                together("founders needs join: name the other founders, once each")
            }
            (false, Some(founders)) => {
                let credentials = self.credentials(token)?;
                Ok(Start::Found { founders, ranges, targets, credentials })
            }
            (false, None) if !ranges.is_empty() => {
                together("range goes with init or founders: who joins takes the mesh's ranges")
            }
            (false, None) if targets.is_empty() => Ok(Start::Wait),
            (false, None) => Ok(Start::Join { targets, credentials: self.credentials(token)? }),
        }
    }

    pub(super) fn flag(&self, key: &'static str) -> Result<bool, ConfigError> {
        match self.one(key)? {
            None | Some((_, "false" | "0")) => Ok(false),
            Some((_, "true" | "1")) => Ok(true),
            Some((given, value)) => Err(given.wrong(value, "give true or false")),
        }
    }

    fn founders(&self) -> Result<Option<u16>, ConfigError> {
        let Some((given, value)) = self.one("founders")? else { return Ok(None) };
        let founders = value.parse().ok().filter(|founders| FOUNDERS.contains(founders));
        let (least, most) = (FOUNDERS.start(), FOUNDERS.end());
        let allowed = || format!("give {least} to {most}; later hosts join without founders");
        founders.map(Some).ok_or_else(|| given.wrong(value, allowed()))
    }

    pub(super) fn lease(&self) -> Result<Option<Duration>, ConfigError> {
        let Some((given, value)) = self.one("lease")? else { return Ok(None) };
        if value == "off" {
            return Ok(None);
        }
        let seconds = value.parse().ok().filter(|seconds| LEASE_SECS.contains(seconds));
        let (least, most) = (LEASE_SECS.start(), LEASE_SECS.end());
        let allowed = || format!("give off or {least} to {most} seconds");
        let seconds = seconds.ok_or_else(|| given.wrong(value, allowed()))?;
        Ok(Some(Duration::from_secs(seconds)))
    }

    pub(super) fn rest(&self) -> Result<Duration, ConfigError> {
        let Some((given, value)) = self.one("rest")? else { return Ok(REST) };
        let seconds = value.parse().ok().filter(|seconds| *seconds <= REST_SECS_MAX);
        let allowed = || format!("give 0 to {REST_SECS_MAX} seconds");
        seconds.map(Duration::from_secs).ok_or_else(|| given.wrong(value, allowed()))
    }

    fn ranges(&self) -> Result<Vec<IpNetwork>, ConfigError> {
        let Some(given) = self.given("range") else { return Ok(Vec::new()) };
        let mut ranges: Vec<IpNetwork> = Vec::new();
        for text in given.values {
            let range = text.contains('/').then(|| text.parse::<IpNetwork>().ok()).flatten();
            let range =
                range.ok_or_else(|| given.wrong(text, "give a CIDR, such as 10.32.0.0/12"))?;
            if range.network() != range.ip() {
                let exact = format!(
                    "bits are set behind the prefix; did you mean {}/{}?",
                    range.network(),
                    range.prefix()
                );
                return Err(given.wrong(text, exact));
            }
            if let Some(other) = ranges.iter().find(|other| overlap(**other, range)) {
                return Err(given.wrong(text, format!("it overlaps {other}; give ranges apart")));
            }
            if ranges.len() == RANGES_MAX {
                return Err(given.wrong(text, format!("give at most {RANGES_MAX} ranges")));
            }
            ranges.push(range);
        }
        Ok(ranges)
    }

    fn targets(&self) -> Result<Vec<Target>, ConfigError> {
        let Some(given) = self.given("join") else { return Ok(Vec::new()) };
        let parse = |text: &String| {
            let allowed = format!("give {}", crate::api::target::GRAMMAR);
            Target::parse(text).map_err(|_| given.wrong(text, allowed))
        };
        given.values.iter().map(parse).collect()
    }

    /// The token, which no message repeats.
    fn credentials(
        &self,
        token: Option<String>,
    ) -> Result<Option<crate::node::event::Credentials>, ConfigError> {
        if let Some((given, value)) = self.one("token-file")? {
            let text = fs::read_to_string(value)
                .map_err(|error| given.wrong(value, format!("cannot be read: {error}")))?;
            let read = token::decode(&text);
            return Ok(Some(read.map_err(|error| given.wrong(value, error.to_string()))?));
        }
        let decode = |text: String| {
            let wrong = |error| ConfigError::Together(format!("MESHWORK_TOKEN: {error}"));
            token::decode(&text).map_err(wrong)
        };
        token.map(decode).transpose()
    }

    pub(super) fn domain(&self) -> Result<String, ConfigError> {
        let Some((given, value)) = self.one("dns-domain")? else {
            return Ok("mesh.internal".to_owned());
        };
        let domain = value.trim_end_matches('.').to_ascii_lowercase();
        let proper = Target::parse(&domain).is_ok_and(|target| {
            target.host == domain && target.literal().is_none() && !domain.contains('_')
        });
        if !proper || domain.len() > 200 {
            return Err(given.wrong(value, "give a DNS name of at most 200 letters"));
        }
        Ok(domain)
    }

    pub(super) fn encrypt(&self) -> Result<Encrypt, ConfigError> {
        match self.one("encrypt")? {
            None | Some((_, "prefer")) => Ok(Encrypt::Prefer),
            Some((_, "off")) => Ok(Encrypt::Off),
            Some((given, "require")) => {
                let text = "not supported yet: the data plane is not encrypted; give off or prefer";
                Err(given.wrong("require", text))
            }
            Some((given, value)) => Err(given.wrong(value, "give off, prefer or require")),
        }
    }

    pub(super) fn mtu(&self) -> Result<Option<u32>, ConfigError> {
        let Some((given, value)) = self.one("mtu")? else { return Ok(None) };
        if value == "auto" {
            return Ok(None);
        }
        let bytes = value.parse().ok().filter(|bytes| (MTU_MIN..=MTU_MAX).contains(bytes));
        let allowed = || format!("give auto or {MTU_MIN} to {MTU_MAX} bytes");
        bytes.map(Some).ok_or_else(|| given.wrong(value, allowed()))
    }

    /// Linux's IFNAMSIZ less the final zero, and what `dev_valid_name` lets pass.
    pub(super) fn bridge(&self) -> Result<String, ConfigError> {
        let Some((given, value)) = self.one("bridge")? else { return Ok("mesh0".to_owned()) };
        let odd = |byte: u8| byte.is_ascii_whitespace() || b"/:".contains(&byte);
        if value.len() > 15 || [".", ".."].contains(&value) || value.bytes().any(odd) {
            return Err(given.wrong(value, "give a device name of at most 15 letters"));
        }
        Ok(value.to_owned())
    }

    pub(super) fn log(&self) -> Result<Log, ConfigError> {
        match self.one("log")? {
            None | Some((_, "text")) => Ok(Log::Text),
            Some((_, "json")) => Ok(Log::Json),
            Some((given, value)) => Err(given.wrong(value, "give text or json")),
        }
    }
}

fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    Block::from(a).overlaps(&Block::from(b))
}
