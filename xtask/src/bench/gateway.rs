//! `cargo xtask bench gateway`: what SignalR's requests and messages cost in a gateway.
//!
//! The CPU time of the one worker thread is measured, not the time of an answer: it is what a machine's size follows from, and
//! another process that takes the core does not change it. All sides take turns within each round, a few hundred operations
//! at a time, and a ratio is that of two sides of the same round, so that a busy moment of the machine meets both. The client and
//! the hub run in this process; bind it and Envoy to cores of their own where there are enough.

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, module, module_that_does_nothing};
use testbed::stand_in;

use super::load::{Clients, Load};
use super::report::{Report, Samples, Spread};
use super::sides::{EMPTY, ENVOY, OTHER, OURS, Side, Sides};

#[derive(clap::Args, Debug)]
pub(crate) struct Options {
    /// How many times each side is measured
    #[arg(long, default_value_t = 25)]
    rounds: u32,
    /// A few rounds, in two minutes: for the direction, not for publication
    #[arg(long)]
    quick: bool,
    /// Only loads whose name contains this
    #[arg(long)]
    load: Option<String>,
    /// Also measure another module, such as one of before a change
    #[arg(long, value_name = "MODULE")]
    against: Option<PathBuf>,
    /// Also draw the ratios as an SVG file
    #[arg(long)]
    plot: Option<PathBuf>,
}

/// What follows an answer in the worker thread, such as its log line, belongs to it.
const AFTERMATH: Duration = Duration::from_millis(20);

pub(crate) fn run(options: &Options) -> Result<()> {
    let rounds = if options.quick { 5 } else { options.rounds };
    let hub = stand_in::quick_hub()?;
    let sides = Sides::start(&hub.to_string(), options.against.as_deref())?;
    let chosen = |load: &Load| options.load.as_ref().is_none_or(|name| load.name().contains(name));
    let mut report = Report::default();
    for load in Load::ALL.into_iter().filter(chosen) {
        eprintln!("{} …", load.name());
        let mut clients: Vec<_> = sides.all.iter().map(|side| Clients::new(&side.url, load)).collect();
        let mut samples: Samples = sides.all.iter().map(|side| (side.name, Vec::new())).collect();
        // The first round fills caches, and is not counted.
        for round in 0..=rounds as usize {
            for turn in 0..sides.all.len() {
                let at = (turn + round) % sides.all.len();
                let micros = measure(&sides.all[at], &mut clients[at], load)?;
                if round > 0 {
                    samples[at].1.push(micros);
                }
            }
        }
        report.add(load.name(), samples);
    }
    print!("{}", report.markdown(rounds));
    if options.load.is_none() {
        start_up(rounds.min(7), options.against.as_ref())?;
    }
    if let Some(file) = &options.plot {
        report.draw(file)?;
        println!("\n{}", file.display());
    }
    Ok(())
}

/// The CPU time of one operation, in µs.
pub(super) fn measure(side: &Side, clients: &mut Clients, load: Load) -> Result<f64> {
    let began = side.cpu_time()?;
    clients.run(load.operations());
    thread::sleep(AFTERMATH);
    Ok((side.cpu_time()? - began).as_secs_f64() * 1e6 / f64::from(load.operations()))
}

/// The CPU time that Envoy takes until it serves, which is the time to compile the module.
fn start_up(rounds: u32, against: Option<&PathBuf>) -> Result<()> {
    eprintln!("starts …");
    let (ours, empty) = (module()?, module_that_does_nothing()?);
    let other = against.map(|module| (OTHER, Some(module)));
    let variants = [(ENVOY, None), (EMPTY, Some(&empty)), (OURS, Some(&ours))].into_iter().chain(other);
    let variants: Vec<_> = variants.collect();
    let mut samples: Vec<_> = variants.iter().map(|_| (Vec::new(), Vec::new())).collect();
    for _ in 0..rounds {
        for ((_, module), (cpu, wall)) in variants.iter().zip(&mut samples) {
            let started = start(*module)?;
            cpu.push(started.cpu);
            wall.push(started.wall);
        }
    }
    println!("\n| start | CPU until it serves | time until it serves | module |\n|---|---|---|---|");
    for ((cpu, wall), (name, module)) in samples.into_iter().zip(variants) {
        let size = module.map_or(Ok(0), |path| fs::metadata(path).map(|file| file.len()))?;
        let [cpu, wall] = [cpu, wall].map(|samples| Spread::of(samples).median());
        println!("| {name} | {cpu:.0} ms | {wall:.0} ms | {} KiB |", size / 1024);
    }
    Ok(())
}

/// What a start took, in ms.
struct Start {
    /// CPU time of the whole process.
    cpu: f64,
    /// From the start of the process to its first answer, which is asked for every 20 ms.
    wall: f64,
}

fn start(module: Option<&PathBuf>) -> Result<Start> {
    let module = module.cloned();
    let started = Instant::now();
    let envoy = Envoy::start(&EnvoyOptions {
        filter: if module.is_some() { Filter::With(serde_json::json!({})) } else { Filter::Absent },
        hosts: Hosts::Fixed(Vec::new()),
        concurrency: 1,
        patch: Some(Box::new(move |bootstrap| {
            if let Some(module) = &module {
                testbed::envoy::load_module(bootstrap, module);
            }
        })),
        ..EnvoyOptions::default()
    })?;
    let wall = started.elapsed().as_secs_f64() * 1_000.0;
    // A thread that has ended is no longer listed, so the whole process is asked: fields 14 and 15, after the name.
    let stat = fs::read_to_string(format!("/proc/{}/stat", envoy.pid()))?;
    let (_, fields) = stat.rsplit_once(") ").context("a process has a name")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    ensure!(fields.len() > 12, "{stat}");
    let ticks: u32 = fields[11..13].iter().filter_map(|field| field.parse::<u32>().ok()).sum();
    // Linux has 100 of them in a second, for programs.
    Ok(Start { cpu: f64::from(ticks) * 10.0, wall })
}
