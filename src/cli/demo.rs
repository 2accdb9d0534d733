//! `meshctl demo`: the main job, on this machine alone.
//!
//! Hosts made of network namespaces, a real `meshd` on each, containers attached through the real
//! `mesh-cni`, every container pinging every other, every name asked on every host. Every figure
//! that it prints was counted or measured in that very run. It cleans nothing up, because the
//! kernel does: see [`crate::lab`].
#![allow(clippy::disallowed_methods, reason = "a demonstration tells how long things took")]

use std::{
    io::Write,
    net::IpAddr,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use hickory_proto::rr::RecordType;
use serde::Serialize;

use crate::{
    api::types::Status,
    lab::{self, Container, Entered, Host, Lab, NameQuery, Programs, Underlay, mesh, wait_until},
};

/// Containers on each host.
const CONTAINERS_PER_HOST: usize = 2;
/// How long a step may take before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long one ping or one question waits for its answer.
const ANSWER: Duration = Duration::from_secs(2);
/// Lines of each log that a failure shows.
const LOG_LINES: usize = 15;

/// Options of `meshctl demo`.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// How many hosts to make.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    pub hosts: u8,
    /// End when done, instead of staying until ^C.
    #[arg(long)]
    pub exit: bool,
    /// Stay also when a step failed, to look around.
    #[arg(long, conflicts_with = "exit")]
    pub keep: bool,
}

/// What was done, for `--json`.
#[derive(Debug, Serialize)]
struct Report {
    hosts: Vec<HostReport>,
    pings: Counts,
    names: Counts,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct HostReport {
    name: String,
    address: IpAddr,
    containers: Vec<ContainerReport>,
    status: Status,
}

#[derive(Debug, Serialize)]
struct ContainerReport {
    name: String,
    addresses: Vec<IpAddr>,
}

/// Attempts and how many went well.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Counts {
    tried: usize,
    answered: usize,
}

/// Runs the demo. The exit code is 0 when every step went well.
///
/// # Errors
/// When something is missing on the system or a step failed; the message says which.
pub fn run(args: &DemoArgs, json: bool) -> Result<ExitCode> {
    if let Entered::Outside(code) = lab::enter()? {
        return Ok(ExitCode::from(code));
    }
    let mut demo = Demo { begin: Instant::now(), json, containers: Vec::new(), hosts: Vec::new() };
    match demo.play(args) {
        Ok(()) if args.exit => Ok(ExitCode::SUCCESS),
        Ok(()) => {
            demo.look_around();
            lab::enter::stay(0)
        }
        Err(error) => {
            eprint!("{}", lab::log_tails(LOG_LINES));
            if args.keep {
                eprintln!("\nerror: {error:#}");
                demo.look_around();
                lab::enter::stay(1)
            }
            Err(error)
        }
    }
}

/// A demo under way.
struct Demo {
    begin: Instant,
    json: bool,
    hosts: Vec<Host>,
    /// With the number of the host that each is on.
    containers: Vec<(usize, Container)>,
}

impl Demo {
    fn play(&mut self, args: &DemoArgs) -> Result<()> {
        self.say("Meshwork demo: hosts made of network namespaces; this machine's own network is");
        self.say("not touched, and nothing is left behind.\n");
        self.lay_hosts(args.hosts).context("step `hosts`")?;
        self.join_hosts().context("step `mesh`")?;
        self.attach_containers().context("step `containers`")?;
        let pings = self.ping_all().context("step `ping`")?;
        let names = self.ask_all().context("step `names`")?;
        self.show_status().context("step `status`")?;
        let seconds = self.begin.elapsed().as_secs_f64();
        if self.json {
            let report = self.report(pings, names, seconds)?;
            println!("{}", serde_json::to_string_pretty(&report)?);
        }
        self.say(&format!("\nAll of it worked, in {seconds:.1} s."));
        Ok(())
    }

    fn lay_hosts(&mut self, count: u8) -> Result<()> {
        let mut lab = Lab::new(Underlay::Both, Programs::beside_this_one()?)?;
        self.hosts = lab.hosts(count)?;
        let words: Vec<_> = self
            .hosts
            .iter()
            .map(|host| format!("{} at {}", host.name(), words(host.addresses())))
            .collect();
        self.tell("hosts", &words.join("\n"));
        Ok(())
    }

    fn join_hosts(&mut self) -> Result<()> {
        let begin = Instant::now();
        mesh::form(&mut self.hosts, PATIENCE)?;
        let took = begin.elapsed().as_millis();
        let first = &self.hosts[0];
        let mesh = first.status()?.mesh_id.map(|id| id.to_string()).unwrap_or_default();
        let founded = format!("{} founded mesh {mesh}", first.name());
        let joined = match self.hosts.len() {
            1 => String::new(),
            total => format!("; {} joined through {} with its token", total - 1, first.address()),
        };
        self.tell("mesh", &format!("{founded}{joined}\nall ready, with paths, after {took} ms"));
        Ok(())
    }

    fn attach_containers(&mut self) -> Result<()> {
        let mut lines = Vec::new();
        for (number, host) in self.hosts.iter().enumerate() {
            for role in ["web", "db"].iter().take(CONTAINERS_PER_HOST) {
                let name = format!("{role}{}", number + 1);
                let begin = Instant::now();
                let container = host.container(&name)?;
                lines.push(format!(
                    "{name} on {} has {} ({} ms)",
                    host.name(),
                    words(&container.addresses),
                    begin.elapsed().as_millis()
                ));
                self.containers.push((number, container));
            }
        }
        self.tell("containers", &lines.join("\n"));
        Ok(())
    }

    /// Every container pings every other; each one's pings are sent one after the other.
    fn ping_all(&self) -> Result<Counts> {
        let all = &self.containers;
        let failed: Vec<Result<Vec<String>>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                all.iter().map(|(_, from)| scope.spawn(|| ping_others(from, all))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|p| std::panic::resume_unwind(p)))
                .collect()
        });
        let failed: Vec<String> =
            failed.into_iter().collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        let tried = all.len() * (all.len() - 1) * 2;
        ensure!(failed.is_empty(), "no answer to {} of {tried} pings: {failed:?}", failed.len());
        let counts = Counts { tried, answered: tried };
        self.tell(
            "ping",
            &format!("every container to every other, IPv4 and IPv6: {tried} of {tried} answered"),
        );
        Ok(counts)
    }

    /// Every host's resolver is asked for every name and every address.
    fn ask_all(&self) -> Result<Counts> {
        let mut counts = Counts::default();
        let mut slowest = Duration::ZERO;
        for host in &self.hosts {
            let dns = host.status()?.dns;
            let server = *dns.listen.first().context("the resolver listens nowhere")?;
            let resolver = NameQuery::new(host.namespace(), server)?;
            for (_, container) in &self.containers {
                let name = format!("{}.{}", container.id, dns.domain);
                let took = ask_about(&resolver, container, &name)
                    .with_context(|| format!("{} asked about {name}", host.name()))?;
                slowest = slowest.max(took);
                counts.tried += 4;
                counts.answered += 4;
            }
        }
        self.tell(
            "names",
            &format!(
                "every name on every host, A, AAAA and both PTR: {} of {} right, slowest \
                 {:.1} ms",
                counts.answered,
                counts.tried,
                slowest.as_secs_f64() * 1e3
            ),
        );
        Ok(counts)
    }

    fn show_status(&self) -> Result<()> {
        for host in &self.hosts {
            let output = host.meshctl(&["status"])?;
            if !output.success() {
                bail!("meshctl status on {}: {}{}", host.name(), output.out, output.err);
            }
            self.say(&format!("\n$ meshctl status          # on {}", host.name()));
            self.say(output.out.trim_end());
        }
        Ok(())
    }

    fn report(&self, pings: Counts, names: Counts, seconds: f64) -> Result<Report> {
        let mut hosts = Vec::new();
        for (number, host) in self.hosts.iter().enumerate() {
            let own = self.containers.iter().filter(|(at, _)| *at == number);
            hosts.push(HostReport {
                name: host.name().to_owned(),
                address: host.address(),
                containers: own
                    .map(|(_, container)| ContainerReport {
                        name: container.id.clone(),
                        addresses: container.addresses.clone(),
                    })
                    .collect(),
                status: host.status()?,
            });
        }
        Ok(Report { hosts, pings, names, seconds })
    }

    /// How to come in from another terminal.
    fn look_around(&self) {
        let Some(pid) = lab::enter::outside_pid() else {
            return self.say("\nStays until ^C.");
        };
        // A lab in a user namespace belongs to its maker; one of root's does not.
        let root = std::fs::read_to_string("/proc/self/uid_map")
            .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]));
        let enter = if root {
            format!("sudo nsenter --target {pid} --mount --pid --net")
        } else {
            let user = "--user --preserve-credentials";
            format!("nsenter --target {pid} {user} --mount --pid --net")
        };
        self.say("\nStays until ^C. From another terminal, look around:");
        for host in self.hosts.iter().take(1) {
            let meshctl = lab::Programs::beside_this_one()
                .map_or_else(|_| "meshctl".into(), |p| p.meshctl.display().to_string());
            let socket = host.socket();
            self.say(&format!("  {enter} {meshctl} --socket {} status", socket.display()));
            let path = host.namespace().path();
            self.say(&format!("  {enter} nsenter --net={} ip route", path.display()));
        }
        if let Some(((_, from), (_, to))) = self.containers.first().zip(self.containers.last()) {
            let (path, to) = (from.namespace.path(), words(&to.addresses[..1]));
            self.say(&format!("  {enter} nsenter --net={} ping {to}", path.display()));
        }
    }

    /// Prints one step with the time since the beginning.
    fn tell(&self, step: &str, lines: &str) {
        let at = format!("{:5.1} s", self.begin.elapsed().as_secs_f64());
        for (number, line) in lines.lines().enumerate() {
            let (at, step) = if number == 0 { (at.as_str(), step) } else { ("", "") };
            self.say(&format!("{at:>7}  {step:<11} {line}"));
        }
    }

    fn say(&self, text: &str) {
        if !self.json {
            // A reader that has gone (`| head`) is no error.
            let _ = writeln!(std::io::stdout(), "{text}");
        }
    }
}

fn words(addresses: &[IpAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

/// The pings of one container that had no answer.
fn ping_others(from: &Container, all: &[(usize, Container)]) -> Result<Vec<String>> {
    let mut failed = Vec::new();
    for (_, to) in all.iter().filter(|(_, to)| to.id != from.id) {
        for address in [to.v4()?, to.v6()?] {
            if !from.namespace.ping(address, ANSWER)? {
                failed.push(format!("{} to {} at {address}", from.id, to.id));
            }
        }
    }
    Ok(failed)
}

/// Asks for all that a resolver should know about a container; gives the slowest answer's time.
fn ask_about(resolver: &NameQuery, container: &Container, name: &str) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    for (kind, address) in [(RecordType::A, container.v4()?), (RecordType::AAAA, container.v6()?)] {
        // The name of a container on another host may still be on its way.
        wait_until(&format!("{kind} {name}"), PATIENCE, || {
            let begin = Instant::now();
            let answer = resolver.ask(name, kind, ANSWER)?;
            ensure!(answer.records == [address.to_string()], "{kind} {name}: {answer:?}");
            slowest = slowest.max(begin.elapsed());
            Ok(Some(()))
        })?;
        let answer = resolver.ask_reverse(address, ANSWER)?;
        ensure!(answer.records == [name], "PTR {address}: {answer:?}");
    }
    Ok(slowest)
}
