//! What the CNI plugin refuses, with the spec's error objects, leaving nothing behind.

use anyhow::{Context, Result, ensure};
use meshwork::lab::{
    Host, Namespace,
    container::Cni,
    testing::{Load, in_lab},
};
use serde_json::Value;

use crate::fixture::{DEADLINE, meshed};

/// Codes of the CNI spec: a wrong variable, undecodable, wrong configuration, try again.
const ENVIRONMENT: u64 = 4;
const DECODE: u64 = 6;
const CONFIG: u64 = 7;
const TRY_AGAIN: u64 = 11;
/// From here on codes are the plugin's own.
const OWN: u64 = 100;

/// Runs the plugin, which must fail and leave nothing behind; gives code and message.
fn refused(host: &Host, cni: &Cni) -> Result<(u64, String)> {
    let before = host.status().map(|status| status.ipam.allocated).ok();
    let output = host.cni_call(cni).output()?;
    ensure!(!output.success(), "it was taken: {output:?}");
    let error: Value = serde_json::from_str(&output.out)
        .with_context(|| format!("no error object on standard output: {output:?}"))?;
    ensure!(error["cniVersion"].is_string(), "{error}");
    let after = host.status().map(|status| status.ipam.allocated).ok();
    ensure!(before == after, "a failed ADD left an address: {before:?}, {after:?}");
    let message = format!("{} {}", error["msg"], error["details"]);
    Ok((error["code"].as_u64().context("no code")?, message))
}

/// A host with a mesh of its own, and an ADD for a container without a link.
fn prepared() -> Result<(meshwork::lab::Lab, Vec<Host>, Namespace, Cni)> {
    let (lab, hosts) = meshed(1)?;
    let namespace = hosts[0].bare_container("c1")?;
    let cni = hosts[0].cni("ADD", "c1", &namespace);
    Ok((lab, hosts, namespace, cni))
}

/// The host's configuration with a key set.
fn config_with(host: &Host, key: &str, value: Value) -> Vec<u8> {
    let mut config = host.cni_config();
    config[key] = value;
    config.to_string().into_bytes()
}

#[test]
fn configurations_that_are_wrong_are_refused_by_the_key() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts, _namespace, good) = prepared()?;
        let host = &hosts[0];
        for config in [&b"{ \"cniVersion\": "[..], b"", b"[]", b"\xff\xfe"] {
            let (code, message) = refused(host, &Cni { config: config.into(), ..good.clone() })?;
            ensure!(code == DECODE || code == CONFIG, "{code} {message}");
        }
        for (key, value) in [("isDefaultGatway", true.into()), ("mtu", "big".into())] {
            let config = config_with(host, key, value);
            let (code, message) = refused(host, &Cni { config, ..good.clone() })?;
            ensure!(code == CONFIG || code == DECODE, "{code} {message}");
            ensure!(message.contains(key), "{key} is not named: {message}");
        }
        host.cni_call(&good).ok().map(drop)
    });
}

#[test]
fn places_that_are_no_namespace_are_refused() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts, _namespace, good) = prepared()?;
        for path in ["/nonexistent", "/etc/passwd", "/run"] {
            let cni = Cni { netns: path.into(), ..good.clone() };
            let (code, message) = refused(&hosts[0], &cni)?;
            ensure!(code == ENVIRONMENT || code >= OWN, "{code} {message}");
            ensure!(message.contains(path), "{path} is not named: {message}");
        }
        Ok(())
    });
}

#[test]
fn names_that_are_not_of_dns_are_refused() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts, _namespace, good) = prepared()?;
        let long = "x".repeat(64);
        for name in ["under_score!", "-dash", "a..b", long.as_str()] {
            let args = format!("IgnoreUnknown=1;MESH_NAME={name}");
            let (_, message) = refused(&hosts[0], &Cni { args, ..good.clone() })?;
            ensure!(message.contains(name), "{name} is not named: {message}");
        }
        Ok(())
    });
}

#[test]
fn addresses_outside_the_range_or_taken_are_refused() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts, namespace, good) = prepared()?;
        let host = &hosts[0];
        let first = host.cni_call(&good).ok()?;
        let path = namespace.path().to_string_lossy().into_owned();
        let first: Value = serde_json::from_str(&first)?;
        let taken = first["ips"][0]["address"].as_str().and_then(|ip| ip.split('/').next());
        let taken = taken.context("no address")?;
        for (address, why) in [("172.31.0.9", "outside"), (taken, "taken")] {
            let args = ["attach", "c2", "--netns", &path, "--ip", address, "--ifname", "eth1"];
            let output = host.meshctl(&args)?;
            ensure!(output.code == Some(1), "{why}: {output:?}");
            ensure!(output.err.contains(address), "{why}: {address} is not named: {output:?}");
        }
        ensure!(host.status()?.ipam.allocated <= 2, "a refused attach left an address");
        Ok(())
    });
}

#[test]
fn without_meshd_an_add_says_try_again_and_a_del_succeeds() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, mut hosts, namespace, good) = prepared()?;
        hosts[0].terminate()?;
        let (code, message) = refused(&hosts[0], &good)?;
        ensure!(code == TRY_AGAIN, "{code} {message}");
        hosts[0].cni_call(&hosts[0].cni("DEL", "c1", &namespace)).ok().map(drop)
    });
}

#[test]
fn the_same_add_twice_gives_the_same_answer() {
    in_lab(Load::Shared, DEADLINE, || {
        let (_lab, hosts, _namespace, good) = prepared()?;
        let first: Value = serde_json::from_str(&hosts[0].cni_call(&good).ok()?)?;
        let second: Value = serde_json::from_str(&hosts[0].cni_call(&good).ok()?)?;
        ensure!(first["ips"] == second["ips"], "{first} {second}");
        Ok(())
    });
}
