//! Real programs under random faults for a while. The seeded simulations do this with the same
//! node a million times over; what they cannot see is the disk, the network and the clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use meshwork::lab::{Host, Lab, cut, heal, mesh, testing::Load, testing::in_lab, wait_until};
use rand::{Rng, RngExt, SeedableRng, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::{
    api::Api,
    council::{ensure_equal, founded, held},
    fixture::{DEADLINE, PATIENCE},
};

/// For how many seconds there are faults.
const SPAN: &str = "MESHWORK_TEST_CHAOS_SECS";
/// Which faults, and when: the same number gives the same, as far as real programs allow.
const SEED: &str = "MESHWORK_TEST_CHAOS_SEED";
/// So many addresses are in the range.
const SPACE: u64 = 1024;
/// How long the mesh may take to be whole once all faults are over: a removal waits until the dead
/// are surely silent, and a leave for those whom it asked.
const HEALED: Duration = Duration::from_secs(60);

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

/// What `meshctl` is at, meanwhile.
struct Running {
    on: usize,
    child: Child,
}

impl Running {
    /// Whether it has ended, and if so what it refused.
    fn ended(&mut self) -> Result<Option<Option<String>>> {
        let Some(status) = self.child.try_wait()? else { return Ok(None) };
        let mut words = String::new();
        self.child.stderr.as_mut().context("a pipe")?.read_to_string(&mut words)?;
        Ok(Some((!status.success()).then_some(words)))
    }
}

struct Chaos {
    dice: ChaCha8Rng,
    hosts: Vec<Host>,
    token: String,
    /// Who surely holds which address: the number of the host, and the holder.
    held: BTreeMap<String, (usize, String)>,
    claims: usize,
    cuts: BTreeSet<(usize, usize)>,
    frozen: BTreeSet<usize>,
    leave: Option<Running>,
    /// A host whose disk is no more, and the attempt to remove it.
    dead: Option<String>,
    removal: Option<Running>,
    refused: String,
    done: BTreeMap<&'static str, usize>,
}

impl Chaos {
    fn new(hosts: Vec<Host>, seed: u64) -> Result<Self> {
        Ok(Self {
            dice: ChaCha8Rng::seed_from_u64(seed),
            token: hosts[0].token()?,
            hosts,
            held: BTreeMap::new(),
            claims: 0,
            cuts: BTreeSet::new(),
            frozen: BTreeSet::new(),
            leave: None,
            dead: None,
            removal: None,
            refused: String::new(),
            done: BTreeMap::new(),
        })
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    fn any_host(&mut self) -> usize {
        self.dice.random_range(0..self.hosts.len())
    }

    fn any_running(&mut self) -> Option<usize> {
        let frozen = &self.frozen;
        let hosts = self.hosts.iter_mut().enumerate();
        let running = hosts.filter_map(|(index, host)| host.is_running().then_some(index));
        running.filter(|index| !frozen.contains(index)).choose(&mut self.dice)
    }

    fn step(&mut self) -> Result<()> {
        match self.dice.random_range(0..100) {
            0..65 => self.claim()?,
            65..73 => self.release(),
            73..78 => self.stop()?,
            78..82 => self.freeze_or_thaw()?,
            82..87 => self.cut_one()?,
            87..92 => self.heal_one()?,
            92..93 if self.dice.random() => self.leave()?,
            92..93 => self.lose_state()?,
            93..94 => self.lose_disk()?,
            94..96 => self.remove(false)?,
            _ => {
                let index = self.any_host();
                self.start(index)?;
            }
        }
        self.look_after()
    }

    fn claim(&mut self) -> Result<()> {
        let Some(index) = self.any_running() else { return Ok(()) };
        let Ok(mut api) = Api::new(&self.hosts[index]) else { return Ok(()) };
        api.patience = Duration::from_millis(200);
        self.claims += 1;
        let holder = format!("x{}", self.claims);
        let Ok(address) = api.claim_any(&holder) else { return Ok(()) };
        self.count("claim");
        let before = self.held.insert(address.clone(), (index, holder.clone()));
        if let Some((other, first)) = before {
            bail!("{address} is {first}'s on h{} and {holder}'s on h{}", other + 1, index + 1);
        }
        Ok(())
    }

    fn release(&mut self) {
        let Some(address) = self.held.keys().choose(&mut self.dice).cloned() else { return };
        let Some((index, holder)) = self.held.remove(&address) else { return };
        if let Ok(mut api) = Api::new(&self.hosts[index])
            && !self.frozen.contains(&index)
        {
            let released = api.post("/v1/ipam/release", &json!({ "holder": holder }));
            released.into_iter().for_each(|_| self.count("release"));
        }
    }

    /// Ends a `meshd`, in one way or the other.
    fn stop(&mut self) -> Result<()> {
        let Some(index) = self.any_running() else { return Ok(()) };
        if self.dice.random() {
            self.count("kill");
            self.hosts[index].kill()
        } else {
            self.count("terminate");
            self.hosts[index].terminate().map(drop)
        }
    }

    /// Starts a host that does not run; one that is in no mesh joins, through any other.
    fn start(&mut self, index: usize) -> Result<()> {
        if self.hosts[index].is_running() {
            return Ok(());
        }
        self.count("start");
        let others = (0..self.hosts.len()).filter(|other| *other != index);
        let through = others.choose(&mut self.dice).context("another host")?;
        let through = self.hosts[through].address().to_string();
        let file = self.hosts[index].directory().join("token");
        std::fs::write(&file, &self.token)?;
        let file = file.to_string_lossy().into_owned();
        self.hosts[index].start(&["--join", &through, "--token-file", &file])
    }

    fn freeze_or_thaw(&mut self) -> Result<()> {
        if let Some(index) = self.frozen.pop_first() {
            return if self.hosts[index].is_running() {
                self.hosts[index].freeze(false)
            } else {
                Ok(())
            };
        }
        let Some(index) = self.any_running() else { return Ok(()) };
        self.count("freeze");
        self.frozen.insert(index);
        self.hosts[index].freeze(true)
    }

    fn cut_one(&mut self) -> Result<()> {
        let (a, b) = (self.any_host(), self.any_host());
        if a >= b || !self.cuts.insert((a, b)) {
            return Ok(());
        }
        self.count("cut");
        cut(&self.hosts[a], &self.hosts[b])
    }

    fn heal_one(&mut self) -> Result<()> {
        let Some((a, b)) = self.cuts.iter().copied().choose(&mut self.dice) else { return Ok(()) };
        self.cuts.remove(&(a, b));
        heal(&self.hosts[a], &self.hosts[b])
    }

    fn forget_held_on(&mut self, index: usize) {
        self.held.retain(|_, (on, _)| *on != index);
    }

    fn meshctl(&self, on: usize, args: &[&str]) -> Result<Running> {
        let mut command = self.hosts[on].meshctl_call(args).into_command();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(Running { on, child: child.spawn()? })
    }

    fn leave(&mut self) -> Result<()> {
        let Some(index) = self.any_running().filter(|_| self.leave.is_none()) else {
            return Ok(());
        };
        self.forget_held_on(index);
        self.count("leave");
        self.leave = Some(self.meshctl(index, &["leave"])?);
        Ok(())
    }

    /// Kills a host for ever: whatever runs there next is another one. One at a time, so that a
    /// majority is always left.
    fn lose_disk(&mut self) -> Result<()> {
        let Some(index) = self.any_running().filter(|_| self.dead.is_none()) else {
            return Ok(());
        };
        let Ok(status) = self.hosts[index].status() else { return Ok(()) };
        if status.mesh_id.is_none() {
            return Ok(());
        }
        self.hosts[index].kill()?;
        self.forget_held_on(index);
        std::fs::remove_dir_all(self.hosts[index].state_dir())?;
        self.dead = Some(status.peer.id.to_string());
        self.count("disk lost");
        Ok(())
    }

    /// A damaged state is moved aside, as `meshd` does; the key stays, so it is the same host.
    fn lose_state(&mut self) -> Result<()> {
        let Some(index) = self.any_running() else { return Ok(()) };
        self.hosts[index].kill()?;
        self.forget_held_on(index);
        std::fs::remove_file(self.hosts[index].state_dir().join("state.redb"))?;
        self.count("state lost");
        Ok(())
    }

    /// With `force` once nothing else helps: two electors may be left, one of them dead.
    fn remove(&mut self, force: bool) -> Result<()> {
        let Some(id) = self.dead.clone().filter(|_| self.removal.is_none()) else { return Ok(()) };
        let Some(index) = self.any_running() else { return Ok(()) };
        let force: &[&str] = if force { &["--force"] } else { &[] };
        self.removal = Some(self.meshctl(index, &[&["peer", "remove", &id], force].concat())?);
        self.count(if force.is_empty() { "remove" } else { "remove by force" });
        Ok(())
    }

    /// Whatever has ended since the last look.
    fn look_after(&mut self) -> Result<()> {
        if let Some(removal) = &mut self.removal
            && let Some(refused) = removal.ended()?
        {
            self.removal = None;
            match refused {
                Some(words) => self.refused = words,
                None => {
                    self.dead = None;
                    self.count("removal");
                }
            }
        }
        let Some(leave) = &mut self.leave else { return Ok(()) };
        let Some(refused) = leave.ended()? else { return Ok(()) };
        let index = leave.on;
        self.leave = None;
        if let Some(words) = refused {
            self.refused = words;
            return Ok(());
        }
        self.count("left");
        // It runs on, in no mesh; the next start has it join.
        if self.hosts[index].is_running() && !self.frozen.contains(&index) {
            self.hosts[index].terminate()?;
        }
        Ok(())
    }

    /// How each host stands, in words.
    fn states(&self) -> Vec<String> {
        let state = |host: &Host| match host.status() {
            Ok(status) => format!(
                "{}: {:?}, {:?}, electors {:?}, epoch {}",
                host.name(),
                status.reason,
                status.peers,
                status.ipam.electors,
                status.ipam.epoch
            ),
            Err(error) => format!("{}: {error:#}", host.name()),
        };
        self.hosts.iter().map(state).collect()
    }

    /// Ends all faults, and waits until the mesh is whole.
    fn end(&mut self) -> Result<()> {
        for index in std::mem::take(&mut self.frozen) {
            if self.hosts[index].is_running() {
                self.hosts[index].freeze(false)?;
            }
        }
        for (a, b) in std::mem::take(&mut self.cuts) {
            heal(&self.hosts[a], &self.hosts[b])?;
        }
        let begin = Instant::now();
        wait_until("what was begun to end", HEALED, || {
            self.look_after()?;
            (0..self.hosts.len()).try_for_each(|index| self.start(index))?;
            self.remove(begin.elapsed() > HEALED / 2)?;
            let (leave, dead) = (self.leave.is_some(), &self.dead);
            let states = || self.states().join("\n");
            let over = !leave && dead.is_none();
            ensure!(over, "leave {leave}, dead {dead:?}: {}\n{}", self.refused, states());
            Ok(Some(()))
        })?;
        // A leave that went on after a restart has nobody who waits for it.
        for index in 0..self.hosts.len() {
            let (status, _) = self.hosts[index].wait_status("settled", HEALED, |status| {
                status.ready || status.mesh_id.is_none()
            })?;
            if status.mesh_id.is_none() {
                self.hosts[index].terminate()?;
                self.start(index)?;
            }
        }
        mesh::wait_complete(&mut self.hosts, HEALED)?;
        wait_until("the rings to be equal", PATIENCE, || ensure_equal(&self.hosts).map(Some))?;
        Ok(())
    }

    /// Every address is held once, by who holds it, and somebody owns each.
    fn check(&self) -> Result<()> {
        let now = held(&self.hosts)?;
        let twice: Vec<_> = now.iter().filter(|(_, holders)| holders.len() > 1).collect();
        ensure!(twice.is_empty(), "held twice: {twice:?}");
        for (address, (on, holder)) in &self.held {
            let wanted = format!("{:?} on {}", holder, self.hosts[*on].name());
            let found = now.get(address);
            ensure!(found == Some(&vec![wanted.clone()]), "{address}: {wanted}, not {found:?}");
        }
        let statuses: Vec<_> = self.hosts.iter().map(Host::status).collect::<Result<_>>()?;
        let owned: u64 = statuses.iter().map(|status| status.ipam.owned).sum();
        ensure!(owned == SPACE, "of {SPACE} addresses {owned} are owned");
        for status in statuses {
            let name = &status.peer.name;
            ensure!(status.ipam.conflicts.is_empty(), "{name}: {:?}", status.ipam.conflicts);
            ensure!(status.ipam.stranded.is_empty(), "{name}: {:?}", status.ipam.stranded);
        }
        for host in &self.hosts {
            Api::new(host)?.claim_any("last")?;
        }
        Ok(())
    }
}

#[test]
fn a_mesh_that_is_treated_badly_gives_no_address_twice_and_loses_none() {
    let span = Duration::from_secs(number(SPAN).unwrap_or(20));
    in_lab(Load::Shared, DEADLINE + 2 * HEALED + span, || {
        let seed = number(SEED).unwrap_or_else(|| rand::rng().next_u64() >> 32);
        println!("{SEED}={seed} {SPAN}={}", span.as_secs());
        let (_lab, hosts): (Lab, _) = founded(5, &["--range", "10.40.0.0/22"])?;
        let mut chaos = Chaos::new(hosts, seed)?;
        let begin = Instant::now();
        while begin.elapsed() < span {
            chaos.step()?;
            thread::sleep(Duration::from_millis(chaos.dice.random_range(0..50)));
        }
        let begin = Instant::now();
        let ended = chaos.end();
        println!("{:?}; {} are held", chaos.done, chaos.held.len());
        ended?;
        println!("whole again after {:?}", begin.elapsed());
        chaos.check()
    });
}
