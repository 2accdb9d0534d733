//! Flags over environment over file over defaults, and the one line for each mistake.

use std::net::Ipv4Addr;

use super::*;
use crate::node::event::Secret;

/// A directory of its own per test, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("mesh-config-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn load(flags: &[&str], variables: &[(&str, &str)], file: &Path) -> Result<Config, ConfigError> {
    let matches = command().try_get_matches_from([&["meshd"], flags].concat()).unwrap();
    let variable = |name: &str| {
        variables.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
    };
    Config::from_matches(&matches, variable, file)
}

fn flags(flags: &[&str]) -> Result<Config, ConfigError> {
    load(flags, &[], Path::new("/nonexistent/meshd.toml"))
}

#[test]
fn the_command_line_is_well_formed_and_shows_variables() {
    command().debug_assert();
    let help = command().render_help().to_string();
    assert!(help.contains("--state-dir <DIR>") && help.contains("MESHWORK_STATE_DIR"), "{help}");
}

#[test]
fn an_empty_variable_counts_as_unset() {
    let variables = [("MESHWORK_NAME", "a"), ("MESHWORK_BRIDGE", ""), ("MESHWORK_TOKEN", "")];
    assert_eq!(load(&[], &variables, Path::new("/nonexistent")).unwrap().bridge, "mesh0");
}

#[test]
fn without_any_option_the_defaults_hold() {
    let config = flags(&["--name", "a"]).unwrap();
    assert_eq!(config.state_dir, Path::new("/var/lib/meshwork"));
    assert_eq!(config.socket, Path::new("/run/meshwork/meshd.sock"));
    assert_eq!(config.listen.to_string(), "[::]:7780");
    assert_eq!((config.data_port, config.mtu_bytes, config.metrics), (7781, None, None));
    assert_eq!(
        (config.start, config.encrypt, config.log),
        (Start::Wait, Encrypt::Prefer, Log::Text)
    );
    assert_eq!((config.dns_domain.as_str(), config.bridge.as_str()), ("mesh.internal", "mesh0"));
    assert_eq!(config.resolv_conf, Path::new("/etc/resolv.conf"));
    assert_eq!((config.advertise, config.dns_listen), (vec![], vec![]));
}

#[test]
fn flag_beats_variable_beats_file_beats_default() {
    let scratch = Scratch::new("order");
    let file = scratch.file("meshd.toml", "name = \"file\"\ndata-port = 1\nbridge = \"br-file\"\n");
    let variables = [("MESHWORK_NAME", "variable"), ("MESHWORK_DATA_PORT", "2")];
    let config = load(&["--name", "flag"], &variables, &file).unwrap();
    assert_eq!(config.name, "flag");
    assert_eq!(config.data_port, 2);
    assert_eq!(config.bridge, "br-file");
    assert_eq!(config.log, Log::Text);
}

#[test]
fn lists_are_repeated_flags_comma_separated_variables_and_arrays() {
    let scratch = Scratch::new("lists");
    let want = vec![IpAddr::from(Ipv4Addr::new(192, 0, 2, 1)), "2001:db8::1".parse().unwrap()];
    let repeated = ["--advertise", "192.0.2.1", "--advertise", "2001:db8::1"];
    assert_eq!(flags(&repeated).unwrap().advertise, want);
    let variables = [("MESHWORK_ADVERTISE", "192.0.2.1, 2001:db8::1")];
    assert_eq!(load(&[], &variables, Path::new("/nonexistent")).unwrap().advertise, want);
    let file = scratch.file("a.toml", "advertise = [\"192.0.2.1\", \"2001:db8::1\"]");
    assert_eq!(load(&[], &[], &file).unwrap().advertise, want);
}

#[test]
fn init_and_join_take_what_belongs_to_them() {
    let scratch = Scratch::new("join");
    let credentials =
        Credentials { mesh: mesh_router::MeshId::new([3; 16]), secret: Secret([4; 32]) };
    let file = scratch.file("token", &format!("{}\n", token::encode(&credentials)));
    let init = flags(&["--init", "--range", "10.0.0.0/16", "--range", "fd00::/48"]).unwrap();
    let ranges = vec!["10.0.0.0/16".parse().unwrap(), "fd00::/48".parse().unwrap()];
    assert_eq!(init.start, Start::Init { ranges });
    let join = flags(&["--join", "node-1", "--token-file", file.to_str().unwrap()]).unwrap();
    let targets = vec![Target::parse("node-1").unwrap()];
    let wanted = Start::Join { targets: targets.clone(), credentials: Some(credentials.clone()) };
    assert_eq!(join.start, wanted);
    let variables =
        [("MESHWORK_TOKEN", &*token::encode(&credentials)), ("MESHWORK_JOIN", "node-1")];
    assert_eq!(load(&[], &variables, Path::new("/nonexistent")).unwrap().start, wanted);
    let without = flags(&["--join", "node-1"]).unwrap();
    assert_eq!(without.start, Start::Join { targets, credentials: None });
}

#[test]
fn a_mesh_can_have_several_ranges_in_the_order_given() {
    let given = ["--init", "--range=10.2.0.0/16", "--range=10.1.0.0/16", "--range=fd00::/48"];
    let ranges = ["10.2.0.0/16", "10.1.0.0/16", "fd00::/48"].map(|text| text.parse().unwrap());
    assert_eq!(flags(&given).unwrap().start, Start::Init { ranges: ranges.to_vec() });
    let many: Vec<String> = (0..17).map(|n| format!("--range=10.{n}.0.0/16")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain(["--init"]).collect();
    assert!(flags(&many).unwrap_err().to_string().contains("at most 16 ranges"));
}

#[test]
fn founders_share_a_token_and_know_each_other() {
    let credentials =
        Credentials { mesh: mesh_router::MeshId::new([3; 16]), secret: Secret([4; 32]) };
    let variables = [("MESHWORK_TOKEN", &*token::encode(&credentials))];
    let given = ["--founders=3", "--join=a", "--join=b", "--range=10.2.0.0/16"];
    let config = load(&given, &variables, Path::new("/nonexistent")).unwrap();
    let wanted = Start::Found {
        founders: 3,
        ranges: vec!["10.2.0.0/16".parse().unwrap()],
        targets: ["a", "b"].map(|name| Target::parse(name).unwrap()).to_vec(),
        credentials: Some(credentials),
    };
    assert_eq!(config.start, wanted);
}

#[test]
fn times_are_seconds_and_have_defaults() {
    let config = flags(&[]).unwrap();
    let minute = Duration::from_secs(60);
    assert_eq!((config.lease, config.serve_alone, config.rest), (None, false, minute));
    let config = flags(&["--lease=120", "--serve-alone", "--rest=0"]).unwrap();
    let twice = Some(Duration::from_secs(120));
    assert_eq!((config.lease, config.serve_alone, config.rest), (twice, true, Duration::ZERO));
    assert_eq!(flags(&["--lease=off"]).unwrap().lease, None);
}

#[test]
fn a_wrong_value_is_one_line_that_names_key_value_and_what_is_allowed() {
    for (key, value, allowed) in [
        ("name", "a b", "1 to 63 letters"),
        ("state-dir", "", "not empty"),
        ("listen", "7780", "ADDR:PORT"),
        ("listen", "[::]:0", "ADDR:PORT"),
        ("advertise", "0.0.0.0", "others can reach"),
        ("data-port", "0", "1 to 65535"),
        ("data-port", "65536", "1 to 65535"),
        ("range", "10.0.0.1/8", "did you mean 10.0.0.0/8"),
        ("range", "10.0.0.0", "give a CIDR"),
        ("join", "host:0", "host[:port]"),
        ("token-file", "/nonexistent", "cannot be read"),
        ("founders", "1", "2 to 9"),
        ("founders", "10", "2 to 9"),
        ("lease", "9", "10 to 2592000 seconds"),
        ("lease", "soon", "10 to 2592000 seconds"),
        ("rest", "86401", "0 to 86400 seconds"),
        ("dns-domain", "a..b", "a DNS name"),
        ("dns-listen", "x", "ADDR:PORT"),
        ("encrypt", "require", "not supported yet"),
        ("encrypt", "yes", "off, prefer or require"),
        ("mtu", "1279", "1280 to 65535"),
        ("bridge", "a-name-that-is-too-long", "at most 15"),
        ("metrics", "9100", "ADDR:PORT"),
        ("log", "xml", "text or json"),
    ] {
        let flag = format!("--{key}");
        let join = if key == "token-file" { ["--join", "a"].as_slice() } else { &[] };
        let error = flags(&[&[&*flag, value], join].concat()).unwrap_err().to_string();
        let start = format!("{key} = {value:?} (from command line): ");
        assert!(error.starts_with(&start) && error.contains(allowed), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    for (given, word) in [
        (["--init", "--join=a"].as_slice(), "exclude each other"),
        (&["--range=10.0.0.0/8"], "goes with init or founders"),
        (&["--init", "--range=10.0.0.0/8", "--range=10.1.0.0/16"], "overlaps 10.0.0.0/8"),
        (&["--founders=3"], "founders needs join"),
        (&["--init", "--founders=3"], "exclude each other"),
    ] {
        let error = flags(given).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn a_wrong_file_is_named_with_the_line_or_the_key() {
    let scratch = Scratch::new("file");
    for (text, word) in [
        ("name = \"a\"\nlisten = \n", "line 2"),
        ("state_dir = \"/x\"", "did you mean \"state-dir\"?"),
        ("colour = 1", "allowed are name, state-dir"),
        ("data-port = 1.5", "data-port cannot be a float"),
        ("name = [\"a\"]", "name cannot be a array"),
        ("log = \"xml\"", "log = \"xml\""),
    ] {
        let file = scratch.file("wrong.toml", text);
        let error = load(&[], &[], &file).unwrap_err().to_string();
        assert!(error.contains(file.to_str().unwrap()) && error.contains(word), "{error}");
    }
    let missing = flags(&["--config", "/nonexistent/x.toml"]).unwrap_err().to_string();
    assert!(missing.starts_with("/nonexistent/x.toml: "), "{missing}");
}

#[test]
fn a_wrong_token_is_refused_without_being_repeated() {
    let variables = [("MESHWORK_TOKEN", "mw1hunter2"), ("MESHWORK_JOIN", "a")];
    let error = load(&[], &variables, Path::new("/nonexistent")).unwrap_err().to_string();
    assert!(error.starts_with("MESHWORK_TOKEN: ") && !error.contains("hunter2"), "{error}");
}
