//! `mesh-simulations`: runs seeded simulations and says which seed fails.

use std::{
    io::Write,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::Context;
use clap::Parser;
use mesh_router::Mutation;
use mesh_simulations::{plot, report::Summary, run, scenario::Scenario};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs many nodes of a mesh in a made-up world and checks what must always hold.
#[derive(Debug, Parser)]
struct Arguments {
    /// A scenario's name, or a JSON file that says what differs from the default.
    #[arg(long, default_value = "default")]
    scenario: String,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many hosts, or a range of which each seed draws its own, such as 3..7.
    #[arg(long, default_value = "3..7", value_parser = parse_hosts)]
    hosts: RangeInclusive<usize>,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Where to write results.jsonl and plots.
    #[arg(long)]
    out: Option<PathBuf>,
    /// How many runs at once; all cores by default.
    #[arg(long)]
    threads: Option<usize>,
    /// Print what happened, of the first seed only.
    #[arg(long)]
    trace: bool,
    /// Break a rule, to see that a checker notices; in a build with the feature `mutations`.
    #[arg(long)]
    mutation: Option<String>,
    /// Go on after a seed that failed.
    #[arg(long)]
    keep_going: bool,
}

fn parse_hosts(text: &str) -> Result<RangeInclusive<usize>, String> {
    let (first, last) = text.split_once("..").unwrap_or((text, text));
    let number = |text: &str| text.trim_start_matches('=').parse::<usize>().ok();
    match (number(first), number(last)) {
        (Some(first), Some(last)) if 1 <= first && first <= last && last <= 2000 => {
            Ok(first..=last)
        }
        _ => Err("give a number from 1 to 2000, or a range such as 3..7".to_owned()),
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut scenario = Scenario::load(&arguments.scenario)?;
    anyhow::ensure!(
        cfg!(feature = "mutations") || !scenario.cut_deltas,
        "{} cuts deltas: build with `--features mutations` for that",
        scenario.name
    );
    scenario.mutation = arguments.mutation.as_deref().map(mutation).transpose()?;
    println!("seed {}, commit {}, command: {}", arguments.seed, commit(), command());
    if arguments.trace {
        let hosts = run::hosts_of(arguments.seed, &arguments.hosts);
        let outcome = run::one(&scenario, arguments.seed, hosts, true);
        let mut out = std::io::stdout().lock();
        for line in &outcome.trace {
            writeln!(out, "{line}")?;
        }
        writeln!(out, "{}", serde_json::to_string(&outcome.line)?)?;
        return Ok(code(usize::from(outcome.line.failure.is_some())));
    }
    let begin = now();
    let mut results = Vec::new();
    let mut failed = Vec::new();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = arguments.threads.unwrap_or(cores);
    let seeds = (arguments.seed, arguments.count);
    run::many(&scenario, seeds, &arguments.hosts, threads, |outcome| {
        let line = serde_json::to_string(&outcome.line).unwrap_or_default();
        println!("{line}");
        if let Some(failure) = &outcome.line.failure {
            failed.push((outcome.line.seed, outcome.line.hosts, failure.clone()));
        }
        results.push((line, outcome.line.settled_seconds()));
        failed.is_empty() || arguments.keep_going
    });
    let seconds = begin.elapsed().as_secs_f64();
    let runs = results.len() as u64;
    let seeds_per_second = runs as f64 / seconds;
    let summary = Summary { runs, failed: failed.len(), seconds, seeds_per_second };
    println!("{}", serde_json::to_string(&summary)?);
    if let Some(out) = &arguments.out {
        write_results(out, &scenario.name, &results)?;
    }
    for (seed, hosts, failure) in &failed {
        eprintln!("seed {seed} FAILED: {failure}");
        eprintln!(
            "  again: cargo run --release -p mesh-simulations{FEATURES} -- --scenario {} \
             --seed {seed} --hosts {hosts} --trace",
            arguments.scenario
        );
    }
    Ok(code(failed.len()))
}

/// What a build like this one was asked for.
const FEATURES: &str = if cfg!(feature = "mutations") { " --features mutations" } else { "" };

/// The machine's time, for the rate alone.
#[expect(clippy::disallowed_methods, reason = "how many runs a second this machine makes")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// A rule by its name.
fn mutation(name: &str) -> anyhow::Result<Mutation> {
    anyhow::ensure!(cfg!(feature = "mutations"), "build with `--features mutations` for this");
    let found = Mutation::ALL.into_iter().find(|mutation| format!("{mutation:?}") == name);
    found.with_context(|| format!("{name} is none of {:?}", Mutation::ALL))
}

fn code(failures: usize) -> ExitCode {
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn write_results(out: &Path, name: &str, results: &[(String, f64)]) -> anyhow::Result<()> {
    let seconds: Vec<f64> = results.iter().map(|(_, seconds)| *seconds).collect();
    let title = format!("{name}, {} runs: seconds until all is well again", results.len());
    let lines: String = results.iter().map(|(line, _)| format!("{line}\n")).collect();
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    std::fs::write(out.join("results.jsonl"), lines)
        .and_then(|()| std::fs::write(out.join("settled.svg"), plot::histogram(&title, &seconds)))
        .with_context(|| format!("cannot write into {}", out.display()))
}

/// The command that was typed.
fn command() -> String {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    format!("cargo run --release -p mesh-simulations{FEATURES} -- {}", arguments.join(" "))
}

/// The commit of the working directory, if git knows it.
fn commit() -> String {
    let output = Command::new("git").args(["rev-parse", "--short", "HEAD"]).output().ok();
    let text = output.filter(|output| output.status.success());
    let text = text.and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| "unknown".to_owned(), |text| text.trim().to_owned())
}
