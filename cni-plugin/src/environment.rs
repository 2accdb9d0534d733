//! The variables that the runtime sets (CNI 1.1.0, section 2 "Parameters").

use std::path::Path;

use crate::error::{self, CniError};

/// As they were set; nothing is checked yet.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) command: Option<String>,
    pub(crate) container: Option<String>,
    pub(crate) netns: Option<String>,
    pub(crate) interface: Option<String>,
    pub(crate) args: Option<String>,
    /// How the plugin was called: the name that a configuration's `type` has for it.
    pub(crate) own_name: String,
}

/// What `CNI_ARGS` says to us.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Args {
    pub(crate) pod: Option<String>,
    pub(crate) pod_namespace: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) ip: Option<String>,
    pub(crate) mac: Option<String>,
}

impl Environment {
    /// This process's.
    pub(crate) fn of_process() -> Self {
        let set = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
        let called = std::env::args().next();
        let own_name = called.as_deref().map(Path::new).and_then(Path::file_name);
        Self {
            command: set("CNI_COMMAND"),
            container: set("CNI_CONTAINERID"),
            netns: set("CNI_NETNS"),
            interface: set("CNI_IFNAME"),
            args: set("CNI_ARGS"),
            own_name: own_name.and_then(|name| name.to_str()).unwrap_or("mesh-cni").to_owned(),
        }
    }

    /// `CNI_CONTAINERID`.
    ///
    /// # Errors
    /// Code 4 when it is missing or has letters that the spec forbids.
    pub(crate) fn container(&self) -> Result<&str, CniError> {
        let id = required("CNI_CONTAINERID", self.container.as_deref())?;
        let first = id.as_bytes()[0].is_ascii_alphanumeric();
        if !first || !id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        {
            let rule = "begins with a letter or digit and has letters, digits, `_`, `.`, `-` only";
            return Err(CniError::environment("CNI_CONTAINERID", format!("{id:?}: it {rule}")));
        }
        Ok(id)
    }

    /// `CNI_IFNAME`.
    ///
    /// # Errors
    /// Code 4 when it is missing or no name of a Linux device.
    pub(crate) fn interface(&self) -> Result<&str, CniError> {
        let name = required("CNI_IFNAME", self.interface.as_deref())?;
        let odd = |byte: u8| byte.is_ascii_whitespace() || b"/:".contains(&byte);
        if name.len() > 15 || [".", ".."].contains(&name) || name.bytes().any(odd) {
            let rule = "no name of a device: at most 15 letters, no `/`, `:` or space";
            return Err(CniError::environment("CNI_IFNAME", format!("{name:?}: {rule}")));
        }
        Ok(name)
    }

    /// `CNI_NETNS`.
    ///
    /// # Errors
    /// Code 4 when it is missing or nothing is there.
    pub(crate) fn netns(&self) -> Result<&str, CniError> {
        let path = required("CNI_NETNS", self.netns.as_deref())?;
        if !Path::new(path).exists() {
            let problem = format!("{path:?}: there is no network namespace");
            return Err(CniError::environment("CNI_NETNS", problem));
        }
        Ok(path)
    }

    /// `CNI_ARGS`: `KEY=value;KEY=value`.
    ///
    /// # Errors
    /// Code 4 when it is malformed, or has a key that is not ours without `IgnoreUnknown`.
    pub(crate) fn args(&self) -> Result<Args, CniError> {
        let mut args = Args::default();
        let mut unknown = None;
        let mut ignore_unknown = false;
        for pair in self.args.as_deref().unwrap_or("").split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(CniError::environment("CNI_ARGS", format!("{pair:?} is no KEY=value")));
            };
            let value = Some(value.to_owned()).filter(|value| !value.is_empty());
            match key {
                "K8S_POD_NAME" => args.pod = value,
                "K8S_POD_NAMESPACE" => args.pod_namespace = value,
                "MESH_NAME" => args.name = value,
                "IP" => args.ip = value,
                "MAC" => args.mac = value,
                "IgnoreUnknown" => ignore_unknown = truth(value.as_deref())?,
                // All runtimes of Kubernetes set more of these, at times without IgnoreUnknown.
                key if key.starts_with("K8S_") => {}
                _ => unknown = unknown.or(Some(key)),
            }
        }
        match unknown {
            Some(key) if !ignore_unknown => {
                let known = "K8S_POD_NAME, K8S_POD_NAMESPACE, MESH_NAME, IP, MAC, IgnoreUnknown";
                let problem = format!("unknown key {key:?}; known are {known}");
                Err(CniError::environment("CNI_ARGS", problem))
            }
            _ => Ok(args),
        }
    }
}

fn required<'a>(name: &str, value: Option<&'a str>) -> Result<&'a str, CniError> {
    value.ok_or_else(|| CniError::new(error::ENVIRONMENT, format!("{name} is not set")))
}

/// What libcni takes for a boolean.
fn truth(value: Option<&str>) -> Result<bool, CniError> {
    match value.unwrap_or("").to_ascii_lowercase().as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => {
            Err(CniError::environment("CNI_ARGS", format!("IgnoreUnknown={other}: give 1 or 0")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Result<Args, CniError> {
        Environment { args: Some(text.to_owned()), ..Environment::default() }.args()
    }

    #[test]
    fn args_are_read_and_unknown_ones_ignored_only_on_demand() {
        let read = args("IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_NAMESPACE=shop;X=1;IP=").unwrap();
        let (pod, pod_namespace) = (Some("web".to_owned()), Some("shop".to_owned()));
        assert_eq!(read, Args { pod, pod_namespace, ..Args::default() });
        assert!(args("X=1").unwrap_err().message.contains("\"X\""));
        assert!(args("IP").unwrap_err().message.contains("KEY=value"));
        assert!(args("IgnoreUnknown=maybe").is_err());
        assert!(args("K8S_POD_UID=1").is_ok());
    }

    #[test]
    fn names_that_the_spec_forbids_are_refused() {
        let with = |container: &str, interface: &str| Environment {
            container: Some(container.to_owned()),
            interface: Some(interface.to_owned()),
            ..Environment::default()
        };
        for wrong in ["-a", ".a", "a/b", "a b", "ä"] {
            assert_eq!(with(wrong, "eth0").container().unwrap_err().code, 4, "{wrong}");
        }
        for wrong in ["sixteen-letters!", ".", "..", "a/b", "a:b", "a b"] {
            assert_eq!(with("a", wrong).interface().unwrap_err().code, 4, "{wrong}");
        }
        assert!(with("0a_.-", "eth0").container().is_ok());
    }
}
