//! The table of keys: names, kinds and help of everything that meshd can be told.

/// How many values a key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// True or false.
    Flag,
    /// One.
    One,
    /// A list.
    Many,
}

/// A key.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) value_name: &'static str,
    pub(super) help: &'static str,
}

impl Key {
    /// `state-dir` is `MESHWORK_STATE_DIR`.
    pub(super) fn variable(&self) -> String {
        format!("MESHWORK_{}", self.name.replace('-', "_").to_uppercase())
    }
}

const fn one(name: &'static str, value_name: &'static str, help: &'static str) -> Key {
    Key { name, kind: Kind::One, value_name, help }
}

const fn many(name: &'static str, value_name: &'static str, help: &'static str) -> Key {
    Key { name, kind: Kind::Many, value_name, help }
}

/// All keys but `config`, in the order of the help.
pub(super) const KEYS: &[Key] = &[
    one("name", "NAME", "This host's name [default: the hostname]"),
    one("state-dir", "DIR", "Where state and key are kept [default: /var/lib/meshwork]"),
    one("socket", "PATH", "The local API, mode 0660 [default: /run/meshwork/meshd.sock]"),
    one("listen", "ADDR:PORT", "Control plane, QUIC over UDP [default: [::]:7780, IPv4 too]"),
    many("advertise", "ADDR", "An address that others use; repeatable [default: found by itself]"),
    one("data-port", "PORT", "VXLAN over UDP [default: 7781]"),
    Key { name: "init", kind: Kind::Flag, value_name: "", help: "Found a mesh" },
    many(
        "range",
        "CIDR",
        "With init or founders: a range of the mesh; repeatable, containers get addresses of the \
        first of each family, of the next when it is full \
        [default: 10.32.0.0/12 and a /48 of fd00::/8]",
    ),
    many("join", "ADDR[:PORT]", "Join a mesh through this member; repeatable"),
    one("token-file", "FILE", "With join: the file that holds the token (or MESHWORK_TOKEN does)"),
    one("founders", "N", "With join: found the mesh together, N hosts (2 to 9) that start at once"),
    one("lease", "SECONDS", "Remove hosts that were unreachable for so long [default: off]"),
    Key {
        name: "serve-alone",
        kind: Kind::Flag,
        value_name: "",
        help: "Trust this disk although no peer can tell whether it is an old image",
    },
    one(
        "rest",
        "SECONDS",
        "How long a released address goes to nobody else while others are free [default: 60]",
    ),
    one("dns-domain", "NAME", "The mesh's domain [default: mesh.internal]"),
    many(
        "dns-listen",
        "ADDR:PORT",
        "Where names are answered; repeatable [default: port 53 on \
        the bridge's gateway addresses]",
    ),
    one("resolv-conf", "FILE", "Names upstream resolvers [default: /etc/resolv.conf]"),
    one("encrypt", "off|prefer|require", "Data plane; control always is [default: prefer]"),
    one("mtu", "auto|BYTES", "The containers' MTU [default: auto, from the underlay]"),
    one("bridge", "NAME", "The bridge of this host's containers [default: mesh0]"),
    one("metrics", "ADDR:PORT", "Prometheus, read-only, over TCP [default: off]"),
    one("log", "text|json", "Form of the log; RUST_LOG says how much [default: text]"),
];

/// What to write instead of an unknown key.
pub(super) fn suggestion(name: &str) -> String {
    let spelled = name.replace('_', "-").to_lowercase();
    let likely = |key: &&Key| {
        key.name == spelled || key.name.starts_with(&spelled) || spelled.starts_with(key.name)
    };
    match KEYS.iter().find(likely) {
        Some(key) => format!("did you mean {:?}?", key.name),
        None => {
            let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
            format!("allowed are {}", names.join(", "))
        }
    }
}
