//! The plan of a run: which operation and which fault comes when. It follows from the seed alone.

use crate::{
    dice::Dice,
    queue::{Micros, SECOND},
    scenario::Scenario,
};

/// Something that people, programs or fate do to the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// Host 0 founds the mesh.
    Found,
    /// A host joins through others.
    Join(usize),
    Attach(usize),
    /// An attach that succeeded is asked for again.
    Repeat(usize),
    Detach(usize),
    Claim(usize),
    NameAdd(usize),
    NameRemove(usize),
    Leave(usize),
    /// The machine is destroyed; another takes its address.
    Recycle(usize),
    /// The machine is taken out of service, in an orderly way or not; another takes its address.
    Replace(usize),
    /// The state directory is lost; the host's key is not.
    Wipe(usize),
    /// The node dies, at once or before the output after so many.
    Crash(usize, Option<u64>),
    Restart(usize),
    DiskFault(usize),
    DiskMended(usize),
    Cut(Vec<(usize, usize)>),
    Mended(Vec<(usize, usize)>),
    /// A connection of the host dies.
    LinkDeath(usize),
    /// The host sees nothing until it is resumed.
    Suspend(usize),
    Resume(usize, Leap),
    PowerOff(usize),
    /// This host is asked to remove those that are switched off.
    Remove(usize),
    /// The first is asked to remove the second, whether that runs or not.
    Oust(usize, usize),
    RangeAdd(usize),
    /// A founder among several begins.
    FoundTogether(usize),
    /// An image of the host's disk is made; later the host is set back to it.
    Snapshot(usize),
    RestoreImage(usize),
    /// The first becomes a machine with the key and the disk of the second.
    Clone(usize, usize),
    /// The first is asked to remove the others by force.
    Force(usize, Vec<usize>),
}

impl Act {
    /// The host whose node is asked for something, if the act is that.
    pub(crate) fn asks(&self) -> Option<usize> {
        match self {
            Self::Join(host)
            | Self::Attach(host)
            | Self::Repeat(host)
            | Self::Detach(host)
            | Self::Claim(host)
            | Self::NameAdd(host)
            | Self::NameRemove(host)
            | Self::Leave(host)
            | Self::Replace(host)
            | Self::Remove(host)
            | Self::Oust(host, _)
            | Self::RangeAdd(host)
            | Self::FoundTogether(host) => Some(*host),
            Self::Found => Some(0),
            _ => None,
        }
    }
}

/// What the clock of a suspended host does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leap {
    /// It goes on.
    None,
    /// It stands still.
    Back,
    /// It is so many microseconds further than the time that passed.
    Ahead(i64),
}

/// A run's acts and their times, in no order.
pub(crate) fn acts(scenario: &Scenario, hosts: usize, dice: &mut Dice) -> Vec<(Micros, Act)> {
    let founders = usize::from(scenario.founders).min(hosts);
    let mut acts: Acts = (0..founders)
        .map(|host| (dice.below(4 * SECOND), Act::FoundTogether(host)))
        .chain((founders == 0).then_some((0, Act::Found)))
        .collect();
    let first = founders.max(1);
    acts.extend((first..hosts).map(|host| (dice.below(2 * SECOND), Act::Join(host))));
    let end = scenario.trouble_seconds * SECOND;
    workload(scenario, (hosts, end), dice, &mut acts);
    faults(scenario, (hosts, end), dice, &mut acts);
    partitions(scenario, (hosts, end), dice, &mut acts);
    rare(scenario, (hosts, end), dice, &mut acts);
    flaps(scenario, (hosts, end), dice, &mut acts);
    suspensions(scenario, (hosts, end), dice, &mut acts);
    machines(scenario, (hosts, end), dice, &mut acts);
    forces(scenario, (hosts, end), dice, &mut acts);
    acts
}

type Acts = Vec<(Micros, Act)>;

fn workload(s: &Scenario, (hosts, end): (usize, Micros), dice: &mut Dice, acts: &mut Acts) {
    let count = u64::from(s.operations_per_minute) * s.trouble_seconds * hosts as u64 / 60;
    // Some runs fill up, others come and go.
    let detaches = dice.between(5, 35);
    for _ in 0..count {
        let host = dice.index(hosts);
        if dice.chance(s.claims) {
            acts.push((dice.below(end), Act::Claim(host)));
            continue;
        }
        let act = match dice.below(100) {
            0..50 => Act::Attach(host),
            50..60 => Act::Repeat(host),
            60..65 => Act::NameAdd(host),
            other if other - 65 < detaches => Act::Detach(host),
            other if other % 2 == 0 => Act::NameRemove(host),
            _ => Act::Attach(host),
        };
        acts.push((dice.below(end), act));
    }
}

fn faults(s: &Scenario, (hosts, end): (usize, Micros), dice: &mut Dice, acts: &mut Acts) {
    for _ in 0..dice.below(s.crashes + 1) {
        let middle = dice.chance(700).then(|| dice.below(30));
        acts.push((dice.below(end), Act::Crash(dice.index(hosts), middle)));
    }
    for _ in 0..dice.below(s.disk_faults + 1) {
        let (host, from) = (dice.index(hosts), dice.below(end));
        acts.push((from, Act::DiskFault(host)));
        acts.push((from + dice.between(SECOND / 10, 3 * SECOND), Act::DiskMended(host)));
    }
    for _ in 0..dice.below(s.link_deaths + 1) {
        acts.push((dice.below(end), Act::LinkDeath(dice.index(hosts))));
    }
}

fn partitions(s: &Scenario, (hosts, end): (usize, Micros), dice: &mut Dice, acts: &mut Acts) {
    for _ in 0..dice.below(s.partitions + 1) {
        let side: Vec<bool> = (0..hosts).map(|_| dice.chance(500)).collect();
        let (one_way, pair) = (dice.chance(250), dice.chance(300));
        let (a, b) = (dice.index(hosts), dice.index(hosts));
        let mut ways = Vec::new();
        for (from, to) in (0..hosts).flat_map(|from| (0..hosts).map(move |to| (from, to))) {
            let apart = if pair {
                (from, to) == (a, b) || (to, from) == (a, b)
            } else {
                side[from] != side[to]
            };
            let counts = if pair { from == a || !one_way } else { side[from] || !one_way };
            if from != to && apart && counts {
                ways.push((from, to));
            }
        }
        let from = dice.below(end);
        acts.push((from, Act::Cut(ways.clone())));
        let most = (9 + 3 * u64::from(s.lease_seconds)) * SECOND;
        acts.push((from + dice.between(SECOND / 10, most), Act::Mended(ways)));
    }
}

fn rare(s: &Scenario, (hosts, end): (usize, Micros), dice: &mut Dice, acts: &mut Acts) {
    type Kind = (u32, fn(usize) -> Act);
    let kinds: [Kind; 3] = [(s.leave, Act::Leave), (s.recycle, Act::Recycle), (s.wipe, Act::Wipe)];
    for (chance, act) in kinds {
        if hosts >= 3 && dice.chance(chance) {
            acts.push((dice.between(end / 4, end), act(dice.index(hosts))));
        }
    }
}

/// A connection is cut and mended many times a second for a while, in one direction or both.
fn flaps(s: &Scenario, (hosts, end): (usize, Micros), dice: &mut Dice, acts: &mut Acts) {
    for _ in 0..dice.below(s.flaps + 1) {
        let (a, b) = (dice.index(hosts), dice.index(hosts));
        if a == b {
            continue;
        }
        let ways = if dice.chance(300) { vec![(a, b)] } else { vec![(a, b), (b, a)] };
        let (mut at, period) = (dice.below(end), dice.between(SECOND / 50, SECOND));
        let until = at + dice.between(SECOND / 2, 5 * SECOND);
        while at < until {
            acts.push((at, Act::Cut(ways.clone())));
            acts.push((at + dice.between(1, period), Act::Mended(ways.clone())));
            at += period + dice.below(period);
        }
    }
}

/// Hosts are stopped for a while; their clocks then stand still, go on, or leap by hours.
fn suspensions(s: &Scenario, (hosts, end): (usize, Micros), dice: &mut Dice, acts: &mut Acts) {
    for _ in 0..dice.below(s.suspensions + 1) {
        let (host, from) = (dice.index(hosts), dice.below(end));
        // From a hiccup, over what links survive, to what they do not.
        let span = ((SECOND / 10) << dice.below(8)) + 2 * u64::from(s.lease_seconds) * SECOND;
        let leap = match dice.below(3) {
            0 => Leap::None,
            1 if s.lease_seconds == 0 => Leap::Back,
            1 => Leap::None,
            _ => Leap::Ahead(i64::try_from(dice.below(12 * 3600) * SECOND).unwrap_or(0)),
        };
        acts.push((from, Act::Suspend(host)));
        acts.push((from + dice.between(span / 2, span), Act::Resume(host, leap)));
    }
}

/// Machines that are switched off and removed, set back, cloned; ranges that are added.
fn machines(s: &Scenario, (hosts, end): (usize, Micros), dice: &mut Dice, acts: &mut Acts) {
    if hosts >= 3 && dice.chance(s.remove) {
        let dead = dice.index(hosts);
        let at = dice.between(end / 4, end / 2);
        acts.push((at, Act::PowerOff(dead)));
        for _ in 0..dice.between(1, 4) {
            acts.push((dice.between(at, end), Act::Remove(dice.index(hosts))));
        }
    }
    if dice.chance(s.oust) {
        for _ in 0..dice.between(1, 4) {
            let act = Act::Oust(dice.index(hosts), dice.index(hosts));
            acts.push((dice.between(end / 4, end), act));
        }
    }
    if dice.chance(s.range_add) {
        let at = dice.between(end / 4, end);
        for _ in 0..dice.between(1, 4) {
            // Some of them at once.
            let later = if dice.chance(500) { dice.below(SECOND / 2) } else { dice.below(end / 4) };
            acts.push((at + later, Act::RangeAdd(dice.index(hosts))));
        }
    }
    if dice.chance(s.restore) {
        let (host, from) = (dice.index(hosts), dice.below(end));
        acts.push((from, Act::Snapshot(host)));
        acts.push((dice.between(from, end), Act::RestoreImage(host)));
    }
    if hosts >= 3 && dice.chance(s.clone) {
        let (host, from) = (dice.index(hosts), dice.index(hosts));
        acts.push((dice.between(end / 4, end), Act::Clone(host, from)));
    }
    for turn in 0..s.recycles {
        let host = usize::try_from(turn).unwrap_or(0) % hosts;
        acts.push((end / 20 + (end - end / 10) * turn / s.recycles, Act::Replace(host)));
    }
}

/// Two sides are cut off until all faults end; each removes the other, or the same dead host, by
/// force.
fn forces(s: &Scenario, (hosts, end): (usize, Micros), dice: &mut Dice, acts: &mut Acts) {
    if hosts < 4 || !dice.chance(s.force) {
        return;
    }
    let (turn, split) = (dice.index(hosts), 1 + dice.index(hosts - 1));
    let is_left = |host: usize| (host + turn) % hosts < split;
    let all = (0..hosts).flat_map(|from| (0..hosts).map(move |to| (from, to)));
    let at = dice.between(end / 4, end / 2);
    acts.push((at, Act::Cut(all.filter(|(from, to)| is_left(*from) != is_left(*to)).collect())));
    let dead = dice.chance(500).then(|| dice.index(hosts));
    acts.extend(dead.map(|dead| (at - end / 8, Act::PowerOff(dead))));
    for left in [true, false] {
        let side = (0..hosts).filter(|host| is_left(*host) == left && dead != Some(*host));
        let side: Vec<usize> = side.collect();
        let others = (0..hosts).filter(|host| is_left(*host) != left).collect();
        let whom = dead.map_or(others, |dead| vec![dead]);
        if !side.is_empty() && dice.chance(800) {
            acts.push((dice.between(at, end), Act::Force(side[dice.index(side.len())], whom)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calm_plan_has_no_faults() {
        let calm = Scenario::named("calm").unwrap();
        for seed in 0..50 {
            let acts = acts(&calm, 5, &mut Dice::new(seed, 0));
            let fault = |act: &Act| matches!(act, Act::Crash(..) | Act::Cut(_) | Act::Wipe(_));
            assert!(!acts.iter().any(|(_, act)| fault(act)));
            assert!(acts.len() > 100);
        }
    }
}
