//! Join: how a host becomes a member of a mesh through others, and whom it dials by hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use mesh_ipam::Block;
use mesh_router::{MeshId, Mutation, Time, dialer::Callee, link::LinkUp, mutation};

use super::{
    Node,
    attaching::gateway_holder,
    event::{Credentials, DialError, RequestId},
    request::{Code, JoinTarget, Refusal, Reply},
};
use crate::api::types;

/// An asker with this much patience is not an asker but a configuration: it is never given up.
const PATIENCE_FOR_EVER: Duration = Duration::from_secs(1 << 31);
/// Targets that one host dials. Chosen: any few members lead to all the others.
const TARGETS_MAX: usize = 256;

/// A join that is under way.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) id: RequestId,
    /// `None`: go on for ever.
    until: Option<Time>,
    /// Through whom.
    targets: Vec<JoinTarget>,
    /// What became of each address so far.
    errors: BTreeMap<SocketAddr, Option<DialError>>,
    /// The host was in no mesh before, and is in none again if this comes to nothing.
    enters: bool,
    /// It has been told everything meanwhile. Then it is a member, whatever becomes of it.
    told: bool,
}

impl Joining {
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.until
    }

    /// Whether somebody must change something first. A configuration waits for that.
    fn is_refused(&self) -> bool {
        let refused = |error: &Option<DialError>| error.as_ref().is_some_and(DialError::is_refusal);
        self.until.is_some() && !self.errors.is_empty() && self.errors.values().all(refused)
    }
}

impl Node {
    /// Joins a mesh through hosts of it. Who is a member already dials these, too. A host that is
    /// alone in another mesh, and holds no addresses there, gives that up.
    pub(super) fn join(
        &mut self,
        id: RequestId,
        credentials: Credentials,
        targets: Vec<JoinTarget>,
        patience: Duration,
    ) {
        let enters = self.mesh_id() != Some(credentials.mesh);
        if let Err(refusal) = self.check_joining(&credentials, &targets) {
            return self.reply(id, Err(refusal));
        }
        if enters {
            self.give_up_mesh();
            self.enter(credentials);
            self.begin_recall();
            if mutation::on(Mutation::SettleUntold) {
                self.router.settle(self.now);
            }
        }
        let mut errors = BTreeMap::new();
        let found = targets.iter().filter_map(|target| target.found.as_ref().ok()).flatten();
        for target in found.take(TARGETS_MAX) {
            if let Err(refusal) = self.connect(*target) {
                return self.reply(id, Err(refusal));
            }
            errors.insert(*target, None);
        }
        let until = (patience < PATIENCE_FOR_EVER).then(|| self.now + patience);
        let before = self.joining.take();
        // A configuration's is never undone.
        let enters = before.as_ref().map_or(enters, |it| it.enters && it.until.is_some());
        self.joining = Some(Joining { id, until, targets, errors, enters, told: false });
        if let Some(before) = before {
            let text = "this host was told once more to join";
            let hint = "that is answered instead of this";
            let refusal = Refusal::new(Code::Superseded, text, hint);
            self.reply(before.id, Err(refusal));
        }
    }

    /// Whether a host may be told to join or found a mesh.
    pub(super) fn check_joining(
        &self,
        credentials: &Credentials,
        targets: &[JoinTarget],
    ) -> Result<(), Refusal> {
        if targets.is_empty() {
            let text = "no target to join through";
            return Err(Refusal::new(Code::Invalid, text, "name a host of the mesh"));
        }
        let Some(mesh) = self.mesh_id() else { return Ok(()) };
        let has = if self.is_leaving() {
            Some(", and is leaving it".to_owned())
        } else if mesh == credentials.mesh {
            None
        } else {
            self.ties()
        };
        has.map_or(Ok(()), |has| Err(in_a_mesh(mesh, &has)))
    }

    /// What a host would lose with its mesh, in words; `None` for nothing.
    fn ties(&self) -> Option<String> {
        let mut others = self.standing_members();
        others.remove(&self.config.me);
        let holders = self.slots.keys().filter(|holder| **holder != gateway_holder());
        let mut holders: Vec<String> = holders.map(ToString::to_string).collect();
        if !others.is_empty() {
            Some(format!(", with {}", self.names(&others)))
        } else if !holders.is_empty() {
            let more = holders.split_off(holders.len().min(3)).len();
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            Some(format!(", and holds addresses for {}{more}", holders.join(", ")))
        } else if self.zone.records().next().is_some() {
            Some(", and has published names".to_owned())
        } else {
            None
        }
    }

    /// Nobody is in it but this host.
    pub(super) fn give_up_mesh(&mut self) {
        if let Some(mesh) = self.mesh_id() {
            self.notice(true, format!("gave up mesh {mesh}: nobody else was in it"));
            self.exit();
        }
    }

    pub(super) fn connect(&mut self, target: SocketAddr) -> Result<Reply, Refusal> {
        if self.mesh.is_none() {
            return Err(super::not_in_a_mesh());
        }
        let known = self.router.targets().any(|(known, _)| known == target);
        if !known && self.router.targets().count() >= TARGETS_MAX {
            let text = format!("{TARGETS_MAX} targets are dialled already, as many as may be");
            return Err(Refusal::new(Code::Conflict, text, "`meshctl forget ADDR` makes room"));
        }
        self.router.add_target(target);
        self.write_target(target, true);
        Ok(Reply::Done)
    }

    pub(super) fn forget(&mut self, target: SocketAddr) -> Result<Reply, Refusal> {
        if !self.router.remove_target(target) {
            return Err(Refusal::new(
                Code::NotFound,
                format!("{target} is not a target"),
                "`meshctl status targets` lists them",
            ));
        }
        self.write_target(target, false);
        Ok(Reply::Done)
    }

    pub(super) fn joined_link(&mut self, up: &LinkUp) {
        if let (Some(joining), Some(target)) = (&mut self.joining, up.dialled) {
            joining.errors.insert(target, None);
        }
    }

    pub(super) fn dial_failed(&mut self, target: SocketAddr, error: DialError) {
        if let Some(slot) = self.joining.as_mut().and_then(|join| join.errors.get_mut(&target)) {
            *slot = Some(error.clone());
        }
        if error == DialError::Twin {
            self.note_twin(target);
        }
        self.router.dial_failed(target, error, self.now);
    }

    pub(super) fn progress_joining(&mut self) {
        let Some(joining) = &mut self.joining else { return };
        joining.told |= self.router.is_settled();
        let (id, until) = (joining.id, joining.until.unwrap_or(Time::MAX));
        let heard = joining.told || self.router.links().next().is_some();
        let refused = joining.is_refused();
        if let Some((range, route)) = self.overlapped_route() {
            let refusal = Refusal::new(
                Code::Conflict,
                format!("the mesh's range {range} overlaps this host's route {route}"),
                "remove that route, or found the mesh with another --range",
            );
            return self.stop_joining(id, refusal);
        }
        if self.is_ready() {
            let mesh_id = self.mesh_id().unwrap_or_default();
            let ranges = self.ipam.ranges().iter().map(Block::network).collect();
            if self.joining.take().is_some_and(|joining| joining.enters) {
                self.notice(false, format!("joined mesh {mesh_id}"));
            }
            return self.reply(id, Ok(Reply::Joined(types::Joined { mesh_id, ranges })));
        }
        if !heard && refused {
            let text = format!("the mesh refused this host: {}", self.absent_targets());
            let hint = "check the token with `meshctl token show` on a host of the mesh";
            self.stop_joining(id, Refusal::new(Code::Conflict, text, hint));
        } else if until <= self.now && !heard {
            let text = format!("no host of the mesh answered: {}", self.absent_targets());
            let hint = "check the address, and that UDP port 7780 is open between the hosts";
            self.stop_joining(id, Refusal::new(Code::Timeout, text, hint));
        } else if until <= self.now {
            let why = self.unready_because().unwrap_or_default();
            self.joining = None;
            let hint = "it goes on in the background; `meshctl status` tells when it is ready";
            let text = format!("joined, but not ready in time: {why}");
            self.reply(id, Err(Refusal::new(Code::Timeout, text, hint)));
        }
    }

    fn stop_joining(&mut self, id: RequestId, refusal: Refusal) {
        let enters = self.joining.take().is_some_and(|joining| joining.enters);
        self.notice(true, refusal.message.clone());
        self.reply(id, Err(refusal));
        if enters {
            self.exit();
        }
    }

    /// Each target to which there is no link, and why.
    pub(super) fn absent_targets(&self) -> String {
        let linked = |at: &SocketAddr| self.router.links().any(|up| up.remote == *at);
        let mut unnamed: BTreeSet<SocketAddr> =
            self.router.targets().map(|(target, _)| target).collect();
        let mut words = Vec::new();
        for JoinTarget { target, found } in self.joining.iter().flat_map(|joining| &joining.targets)
        {
            let addresses = match found {
                Ok(addresses) => addresses,
                Err(why) => {
                    words.push(why.clone());
                    continue;
                }
            };
            unnamed.retain(|address| !addresses.contains(address));
            let Some(first) = addresses.first().filter(|_| !addresses.iter().any(linked)) else {
                continue;
            };
            let named = !target.contains(&first.ip().to_string());
            let at = if named { format!("{target} ({first})") } else { first.to_string() };
            words.push(format!("{at}: {}", self.absence(*first)));
        }
        unnamed.retain(|address| !linked(address));
        words
            .extend(unnamed.iter().map(|address| format!("{address}: {}", self.absence(*address))));
        words.join("; ")
    }

    /// Why there is no link to an address.
    fn absence(&self, address: SocketAddr) -> String {
        let errors =
            self.joining.as_ref().and_then(|joining| joining.errors.get(&address)?.as_ref());
        let call = self.router.call(Callee::Target(address));
        errors
            .or_else(|| call?.error.as_ref())
            .map_or_else(|| "not answered yet".to_owned(), ToString::to_string)
    }

    /// For whom a host waits that was not told all.
    pub(super) fn deaf_words(&self) -> String {
        let absent = self.absent_targets();
        let mut others = self.standing_members();
        others.remove(&self.config.me);
        match (others.is_empty(), absent.is_empty()) {
            (true, false) => format!("waiting for a host of the mesh: {absent}"),
            (true, true) => "waiting for a host of the mesh".to_owned(),
            (false, _) => {
                let absent = if absent.is_empty() { absent } else { format!(" ({absent})") };
                let names = self.names(&others);
                format!(
                    "waiting for a host of the mesh that tells what was lost here: {names}{absent}"
                )
            }
        }
    }
}

/// Why a host may not enter a mesh.
pub(super) fn in_a_mesh(mesh: MeshId, has: &str) -> Refusal {
    let text = format!("this host is in mesh {mesh} already{has}");
    Refusal::new(Code::Conflict, text, "run `meshctl leave` first")
}
