//! Start and stop of meshd: everything in the right order, and the loop.
//!
//! The state directory is locked before anything else is touched: a second meshd changes nothing.
//! SIGTERM stops the control plane and leaves the data plane standing.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use mesh_dns::Name;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::{
    clock::Clock,
    config::{Config, Start},
    driver::Driver,
    handle::{Ask, NodeHandle},
    keepsake::Keepsake,
};
use crate::{
    api::{
        server::{self, Api, ApiListener},
        target::Target,
        token,
    },
    kernel::{self, Kernel},
    node::{
        Node, NodeConfig,
        event::{Credentials, Disk, Input, Row},
        request::{Code, JoinTarget, Request},
    },
    resolver::{self, Resolver},
    storage::{Opened, Storage},
    transport::{Identity, Transport, TransportConfig},
};

/// Inputs that may wait for the loop; beyond it links and disk wait. Chosen: 4 MiB of frames.
const INPUTS: usize = 4096;
/// Inputs that are handled before the loop looks at the questions again.
const BURST: usize = 256;
/// How often the membership is kept for bad days.
const KEEP_EVERY: Duration = Duration::from_secs(1);
/// A configuration waits for ever.
const FOR_EVER: Duration = Duration::from_secs(1 << 31);
/// How long a configured name may take to be resolved.
const LOOK_UP: Duration = Duration::from_secs(3);
/// Pause before a configured join is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Runs meshd until it is told to stop.
///
/// # Errors
/// When it cannot start, or a part of it fails for good; the message says what to do.
#[tokio::main]
pub async fn run(config: Config) -> Result<()> {
    let (inputs, received) = mpsc::channel(INPUTS);
    let marker = config.socket.with_extension("mark");
    let Opened { storage, rows, recovered, trusted } =
        Storage::open(&config.state_dir, Some(&marker), inputs.clone())?;
    if let Some(line) = &recovered {
        tracing::warn!("{line}");
    }
    let identity = Identity::load_or_create(&config.state_dir)?;
    let listener = ApiListener::bind(&config.socket)
        .with_context(|| format!("cannot serve the API on {}", config.socket.display()))?;
    let disk = match (identity.is_new(), trusted) {
        (true, _) => Disk::New,
        (false, true) => Disk::Same,
        (false, false) => Disk::MayBeOld,
    };
    let mut driver = assemble(&config, identity, (storage, rows, disk), inputs)?;

    let (handle, asks) = NodeHandle::new();
    let api = Api::new(handle.clone(), config.dns_domain.clone(), &config.socket);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let until = |mut stopped: tokio::sync::watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    };
    let serving = tokio::spawn(server::serve(listener, api.clone(), until(stopped.clone())));
    if let Some(address) = config.metrics {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot serve metrics on {address}"))?;
        tokio::spawn(server::serve_metrics(listener, api, until(stopped)));
    }
    driver.carry_out();
    let fatal = enter(&config, &driver, &handle);
    let result = turn(&mut driver, received, asks, fatal).await;
    tracing::info!("stopping; containers keep their network");
    let _ = stop.send(true);
    let Driver { transport, storage, .. } = driver;
    transport.shutdown().await;
    let _ = tokio::task::spawn_blocking(move || storage.shutdown()).await;
    serving.abort();
    let _ = std::fs::remove_file(&config.socket);
    result
}

/// Starts every part around the node.
fn assemble(
    config: &Config,
    identity: Identity,
    (storage, rows, disk): (Storage, Vec<Row>, Disk),
    inputs: mpsc::Sender<Input>,
) -> Result<Driver> {
    let clock = Clock::start();
    let node_config = node_config(config, identity.peer_id(), disk)?;
    let incarnation = node_config.incarnation;
    let (name, me) = (node_config.name.clone(), node_config.me);
    let node = Node::restore(node_config, rows, clock.now()).map_err(|reason| {
        let dir = config.state_dir.display();
        anyhow!(
            "the state in {dir} was written by another version or is damaged: {reason}; \
             move {dir}/state.redb away to join anew"
        )
    })?;
    let transport = Transport::start(
        TransportConfig { listen: config.listen, identity, incarnation },
        inputs.clone(),
    )?;
    let port = transport.local_addr().map_or(config.listen.port(), |address| address.port());
    let kernel = Kernel::start(
        kernel::Config { advertise: config.advertise.clone(), control_port: port },
        inputs,
    )?;
    let resolver = Resolver::start(resolver::Config {
        domain: Name::parse(&config.dns_domain)?,
        resolv_conf: config.resolv_conf.clone(),
    });
    resolver.listen(config.dns_listen.clone());
    tracing::info!("meshd {} on {name} ({me}), control port {port}", env!("CARGO_PKG_VERSION"));
    Ok(Driver {
        node,
        clock,
        transport,
        storage,
        kernel,
        resolver,
        state_dir: config.state_dir.clone(),
        dns_listen: config.dns_listen.clone(),
        replies: BTreeMap::new(),
        next_request: 0,
        credentials: None,
        kept: None,
    })
}

fn node_config(config: &Config, me: mesh_router::PeerId, disk: Disk) -> Result<NodeConfig> {
    let mut bytes = [0; 16];
    rand::rand_core::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut bytes)
        .context("the system gives no random numbers")?;
    let [incarnation, seed] =
        [0, 8].map(|at| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at + byte])));
    Ok(NodeConfig {
        me,
        name: config.name.clone(),
        incarnation,
        seed,
        domain: Name::parse(&config.dns_domain)?,
        bridge: config.bridge.clone(),
        data_port: config.data_port,
        mtu_bytes: config.mtu_bytes,
        lease: config.lease,
        serve_alone: config.serve_alone,
        rest: config.rest,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        disk,
    })
}

/// The loop. It never waits for anything but the next event.
async fn turn(
    driver: &mut Driver,
    mut inputs: mpsc::Receiver<Input>,
    mut asks: mpsc::Receiver<Ask>,
    mut fatal: mpsc::Receiver<anyhow::Error>,
) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut keep = tokio::time::interval(KEEP_EVERY);
    // Before the underlay is known nothing can be founded or joined.
    let mut seen_underlay = false;
    let mut told_ready = false;
    loop {
        let sleeps = driver.sleeps();
        let sleep = async {
            match sleeps {
                Some(span) => tokio::time::sleep(span).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            Some(error) = fatal.recv() => {
                if driver.credentials.is_none() {
                    return Err(error);
                }
                tracing::error!("{error:#}");
            }
            input = inputs.recv() => {
                let Some(input) = input else { bail!("the inputs have ended") };
                let mut next = Some(input);
                for _ in 0..BURST {
                    let Some(input) = next.take() else { break };
                    seen_underlay |= matches!(input, Input::Underlay(_));
                    driver.input(input);
                    next = inputs.try_recv().ok();
                }
                if let Some(input) = next {
                    driver.input(input);
                }
            }
            Some(ask) = asks.recv(), if seen_underlay => driver.ask(ask),
            () = sleep => driver.input(Input::Timeout),
            _ = keep.tick() => driver.keep(),
        }
        if !told_ready && driver.node.is_ready() {
            told_ready = true;
            tracing::info!("ready");
            let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
        }
    }
}

/// A host without state does what the configuration says, or comes back to the mesh it was in. One
/// with state goes on, and dials whom the configuration names. What it gives says why that is
/// impossible; a host that is in no mesh then ends.
fn enter(config: &Config, driver: &Driver, handle: &NodeHandle) -> mpsc::Receiver<anyhow::Error> {
    let (fatal, failed) = mpsc::channel(1);
    let handle = handle.clone();
    let member = driver.credentials.clone();
    let kept = Keepsake::read(&config.state_dir).filter(|_| member.is_none());
    if let Some((credentials, kept)) = kept.and_then(|kept| Some((kept.credentials()?, kept))) {
        let mesh = credentials.mesh;
        let targets = kept.and_given(&config.start);
        if targets.is_empty() {
            drop(fatal.try_send(anyhow!(
                "this host was in mesh {mesh}, its state is lost, and no other host of the mesh is \
                 known; start it with --join and a host of the mesh, or, if it was the only one, \
                 remove {} and start it again",
                Keepsake::path(&config.state_dir).display()
            )));
            return failed;
        }
        let words =
            targets.iter().map(|target| target.host.as_str()).collect::<Vec<_>>().join(", ");
        tracing::warn!(
            "this host was in mesh {mesh} and its state is lost: joining it again, through {words}"
        );
        tokio::spawn(join(handle, fatal, Entry::Join, credentials, targets));
        return failed;
    }
    let (entry, given, targets) = match config.start.clone() {
        Start::Wait | Start::Init { .. } if member.is_some() => return failed,
        Start::Wait => {
            tracing::info!("waiting for `meshctl init` or `meshctl join`");
            return failed;
        }
        Start::Init { ranges } => {
            tokio::spawn(async move {
                if let Err(error) = init(handle, ranges).await {
                    let _ = fatal.send(error).await;
                }
            });
            return failed;
        }
        Start::Join { targets, credentials } => (Entry::Join, credentials, targets),
        Start::Found { founders, ranges, targets, credentials } => {
            (Entry::Found { founders, ranges }, credentials, targets)
        }
    };
    match given.or(member) {
        Some(credentials) => drop(tokio::spawn(join(handle, fatal, entry, credentials, targets))),
        None => drop(fatal.try_send(super::config::ConfigError::token_missing().into())),
    }
    failed
}

async fn init(handle: NodeHandle, ranges: Vec<ipnetwork::IpNetwork>) -> Result<()> {
    let credentials = token::draw().context("the system gives no random numbers")?;
    let request = Request::Init { credentials, ranges };
    match handle.ask(request, Duration::from_secs(10)).await {
        Ok(_) => Ok(()),
        Err(refusal) => bail!("init: {}; {}", refusal.message, refusal.hint),
    }
}

/// How a mesh is entered through others.
#[derive(Debug)]
enum Entry {
    /// It exists.
    Join,
    /// It is founded with them.
    Found { founders: u16, ranges: Vec<ipnetwork::IpNetwork> },
}

impl Entry {
    fn word(&self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Found { .. } => "founders",
        }
    }

    fn request(&self, credentials: Credentials, targets: Vec<JoinTarget>) -> Request {
        match self {
            Self::Join => Request::Join { credentials, targets },
            Self::Found { founders, ranges } => {
                let (founders, ranges) = (*founders, ranges.clone());
                Request::Found { credentials, ranges, founders, targets }
            }
        }
    }
}

/// Joins or founds for ever: a configuration has no patience that ends. While a name cannot be
/// resolved that is tried again, and the node is told what came of it.
async fn join(
    handle: NodeHandle,
    fatal: mpsc::Sender<anyhow::Error>,
    entry: Entry,
    credentials: Credentials,
    targets: Vec<Target>,
) {
    let word = entry.word();
    let mut told = Vec::new();
    let mut answer = None;
    loop {
        let lookups = futures::future::join_all(targets.iter().map(|t| t.look_up(LOOK_UP))).await;
        let waiting = match answer.take().filter(|_| told == lookups) {
            Some(waiting) => waiting,
            None => {
                for why in lookups.iter().filter_map(|lookup| lookup.found.as_ref().err()) {
                    tracing::warn!("{word}: {why}");
                }
                Box::pin(handle.ask(entry.request(credentials.clone(), lookups.clone()), FOR_EVER))
            }
        };
        told = lookups;
        let resolved = told.iter().all(|lookup| lookup.found.is_ok());
        let mut waiting = waiting;
        tokio::select! {
            result = &mut waiting => match result {
                Ok(_) => return,
                // It would be refused again, word by word.
                Err(refusal) if matches!(refusal.code, Code::Conflict | Code::Invalid) => {
                    let error = anyhow!("{word}: {}; {}", refusal.message, refusal.hint);
                    return drop(fatal.send(error).await);
                }
                Err(refusal) if refusal.code == Code::Superseded => {
                    return tracing::info!("{word}: {}", refusal.message);
                }
                Err(refusal) => {
                    tracing::warn!("{word}: {}", refusal.message);
                    tokio::time::sleep(RETRY).await;
                }
            },
            () = tokio::time::sleep(RETRY), if !resolved => answer = Some(waiting),
        }
    }
}
