//! `cargo xtask bench ledger`: what a connect and its end cost in the ledger of connections, and what grows it.
//!
//! Native, over a table behind one lock, as Envoy's shared data is. Under V8 the same code takes a few times as long; what counts
//! here is what the cost depends on. All cases are measured in turn, several times over, so that a busy moment meets them all.
use std::collections::HashMap;
use std::hint::black_box;
use std::process::Command;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use envoy_signalr::clock::{Millis, Seconds};
use envoy_signalr::hub::HubLabel;
use envoy_signalr::ledger::{Admission, Ceilings, End, InstanceId, Lease, Ledger, Opening, Sharding, Tracked};
use envoy_signalr::signalr::Transport;
use envoy_signalr::store::{Conflict, Secret, Store, Version};

use crate::cargo;

/// What to measure.
#[derive(clap::Args, Debug)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand, Debug)]
enum What {
    /// The cost of a connect and its end, against hubs, instances, open connections and threads
    Ledger {
        /// How many times each case is measured.
        #[arg(long, default_value_t = 7)]
        rounds: usize,
    },
}

/// Measures, in a build with optimisation.
pub(crate) fn run(options: &Bench) -> Result<()> {
    if cfg!(debug_assertions) {
        let mut command = Command::new(env!("CARGO"));
        command.args(["run", "--release", "--quiet", "--package", "xtask", "--"]).args(std::env::args_os().skip(1));
        return cargo::run("the same, built with optimisation", &mut command);
    }
    match options.what {
        What::Ledger { rounds } => ledger(rounds),
    }
}

/// Connects and ends that one thread makes in a round.
const PAIRS: u32 = 2_000;

#[derive(Clone, Copy)]
struct Case {
    hubs: u8,
    instances: u32,
    entries: u32,
    threads: u32,
}

const USUAL: Case = Case { hubs: 20, instances: 4, entries: 10_000, threads: 1 };

fn cases() -> Vec<Case> {
    let mut cases = vec![USUAL];
    cases.extend([1, 65].map(|hubs| Case { hubs, ..USUAL }));
    cases.extend([1, 17].map(|instances| Case { instances, ..USUAL }));
    cases.extend([0, 100_000].map(|entries| Case { entries, ..USUAL }));
    cases.extend([2, 4, 16].map(|threads| Case { threads, instances: threads.max(USUAL.instances), ..USUAL }));
    cases
}

/// Limits as a configuration has them.
#[derive(Clone, Copy)]
enum Limits {
    None,
    PerClient,
    Shared,
}

impl Limits {
    const ALL: [Self; 3] = [Self::None, Self::PerClient, Self::Shared];

    fn ceilings(self) -> Ceilings {
        match self {
            Self::None => Ceilings::default(),
            Self::PerClient => Ceilings { per_client: Some(4_096), ..Ceilings::default() },
            Self::Shared => Ceilings { per_hub: Some(1_000_000), total: Some(1_000_000), per_client: None },
        }
    }
}

fn ledger(rounds: usize) -> Result<()> {
    let cases = cases();
    let mut times = vec![[const { Vec::new() }; Limits::ALL.len()]; cases.len()];
    let mut ticks = vec![Vec::new(); cases.len()];
    for round in 1..=rounds {
        eprintln!("round {round} of {rounds} …");
        for (case, (times, ticks)) in cases.iter().zip(times.iter_mut().zip(&mut ticks)) {
            for (limits, times) in Limits::ALL.into_iter().zip(times) {
                let (pair, tick) = measure(*case, limits);
                times.push(pair);
                ticks.push(tick);
            }
        }
    }
    println!(
        "| hubs | instances | connections | threads | no limit | `per_client` | `per_hub` and `total` | longest tick |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (case, (times, ticks)) in cases.iter().zip(times.iter_mut().zip(&mut ticks)) {
        let cells: Vec<_> = times.iter_mut().map(|times| format!("{:.1} µs", micros(median(times)))).collect();
        let Case { hubs, instances, entries, threads } = case;
        let tick = micros(ticks.iter().max().copied().unwrap_or_default());
        println!("| {hubs} | {instances} | {entries} | {threads} | {} | {tick:.0} µs |", cells.join(" | "));
    }
    Ok(())
}

/// The time of one connect and its end, as one thread sees it, and the longest tick.
fn measure(case: Case, limits: Limits) -> (Duration, Duration) {
    let store = Table::default();
    let tracked = matches!(limits, Limits::Shared);
    let tracked = Tracked { per_hub: tracked, total: tracked };
    let mut ledgers: Vec<_> = (1..=case.instances.max(case.threads))
        .filter_map(|id| Some(Ledger::new(InstanceId::new(id)?, Secret::new([7; 32]), tracked)))
        .collect();
    let hubs: Vec<_> = (0..case.hubs).map(|hub| HubLabel::learned(format!("/hub{hub}").as_bytes())).collect();
    let mut held = Vec::new();
    let count = ledgers.len();
    for n in 0..case.entries {
        let (at, hub) = (n as usize % count, &hubs[n as usize % hubs.len()]);
        held.push(connect(&mut ledgers[at], n, hub, limits, &store));
    }
    let mut longest = Duration::ZERO;
    for second in 0..2 {
        for ledger in &mut ledgers {
            let began = Instant::now();
            black_box(ledger.tick(at(second), &store));
            longest = longest.max(began.elapsed());
        }
    }
    let barrier = Barrier::new(case.threads as usize);
    let times: Vec<Duration> = thread::scope(|scope| {
        let threads = ledgers.iter_mut().take(case.threads as usize).enumerate().map(|(thread, ledger)| {
            let (store, hubs, barrier) = (&store, &hubs, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let began = Instant::now();
                for n in 0..PAIRS {
                    let id = case.entries + thread as u32 * PAIRS + n;
                    let lease = connect(ledger, id, &hubs[n as usize % hubs.len()], limits, store);
                    ledger.end(lease, End::Over, at(1), store);
                }
                began.elapsed() / PAIRS
            })
        });
        threads.collect::<Vec<_>>().into_iter().filter_map(|thread| thread.join().ok()).collect()
    });
    drop(held);
    (median(&mut times.clone()), longest)
}

fn connect(ledger: &mut Ledger, n: u32, hub: &HubLabel, limits: Limits, store: &Table) -> Lease {
    let id = n.to_be_bytes();
    let sharding = if matches!(limits, Limits::PerClient) { Sharding::ByClient } else { Sharding::ByConnection };
    let opening = Opening {
        // As a hash spreads them.
        client: u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(),
        id: Some(&id),
        transport: Transport::WebSockets,
        hub,
        issued: None,
        idle: Duration::from_secs(15),
        sharding,
    };
    loop {
        let look = ledger.look(&opening, at(1), store).expect("the table is written at once");
        match ledger.admit(look, &opening, &limits.ceilings(), true, at(1), store) {
            Ok(Admission::Admitted(lease, _)) => return lease,
            Ok(Admission::Conflict) => {}
            Ok(Admission::Refused(reached)) => panic!("no limit is near, but {reached:?} was reached"),
            Err(failure) => panic!("{failure:?}"),
        }
    }
}

fn at(second: u64) -> Seconds {
    Millis::since_epoch(Duration::from_secs(1_000_000 + second)).seconds()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// A table with versions behind one lock.
#[derive(Default)]
struct Table(Mutex<HashMap<String, (Vec<u8>, u32)>>);

impl Store for Table {
    fn load(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        let table = self.0.lock().ok()?;
        table.get(key).map(|(value, version)| (value.clone(), Version(*version)))
    }

    fn swap(&self, key: &str, value: &[u8], expected: Version) -> Result<(), Conflict> {
        let mut table = self.0.lock().map_err(|_| Conflict)?;
        match table.get_mut(key) {
            Some((_, version)) if *version != expected.0 => Err(Conflict),
            Some(entry) => {
                *entry = (value.to_vec(), entry.1.wrapping_add(1));
                Ok(())
            }
            None => {
                table.insert(key.to_owned(), (value.to_vec(), 1));
                Ok(())
            }
        }
    }
}
