//! `cargo xtask bench ledger`: what a connect and its end cost in the ledger of connections, and what grows it.
//!
//! Native code over a table behind one lock, as Envoy's shared data is. Under V8 the same code takes a few times as long; what
//! counts here is what the cost depends on. The cases take turns, so that a busy moment meets them all, and CPU time is measured,
//! so that waiting for a core is not.
use std::collections::HashMap;
use std::hint::black_box;
use std::ops::RangeInclusive;
use std::process::Command;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use envoy_signalr::clock::{Millis, Seconds};
use envoy_signalr::hub::HubLabel;
use envoy_signalr::ledger::{Admission, End, InstanceId, Lease, Ledger, Opening, Terms, Tracked};
use envoy_signalr::signalr::Transport;
use envoy_signalr::store::{Conflict, Secret, Store, Version};
use nix::time::{ClockId, clock_gettime};

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
/// Seconds that pass before connects are measured: all slots are swept in them.
const SETTLED: u64 = 20;
/// Seconds in which the others notice that an instance has died, and drop its connections.
const HEALED: u64 = SETTLED + 30;

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
    cases.push(Case { hubs: 65, instances: 17, entries: 100_000, threads: 1 });
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

    fn terms(self) -> Terms {
        let none = Terms { enforced: true, idle: Duration::from_secs(15), ..Terms::default() };
        match self {
            Self::None => none,
            Self::PerClient => Terms { per_client: Some(4_096), ..none },
            Self::Shared => Terms { per_hub: Some(1_000_000), total: Some(1_000_000), ..none },
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
                let (pair, tick) = measure(*case, limits)?;
                times.push(pair);
                ticks.push(tick);
            }
        }
    }
    println!("CPU time of one connect and its end: the median of {rounds} rounds, with the quartiles.\n");
    println!(
        "| hubs | instances | connections | threads | no limit | `per_client` | `per_hub` and `total` | longest tick |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut medians = [const { Vec::new() }; Limits::ALL.len()];
    for (case, (times, ticks)) in cases.iter().zip(times.iter_mut().zip(&mut ticks)) {
        let cells = times.iter_mut().zip(&mut medians).map(|(times, medians)| {
            times.sort();
            let [low, median, high] = [1, 2, 3].map(|quarter| micros(times[times.len() * quarter / 4]));
            medians.push(median);
            format!("{median:.1} µs ({low:.1} to {high:.1})")
        });
        let cells: Vec<_> = cells.collect();
        let Case { hubs, instances, entries, threads } = case;
        ticks.sort();
        let tick = micros(ticks[ticks.len() / 2]);
        println!("| {hubs} | {instances} | {entries} | {threads} | {} | {tick:.0} µs |", cells.join(" | "));
    }
    let ratios = medians.map(|medians| {
        let largest = medians.iter().copied().fold(0.0, f64::max);
        let smallest = medians.iter().copied().fold(f64::INFINITY, f64::min);
        format!("{:.2}", largest / smallest)
    });
    println!("| the largest, in smallest | | | | {} | |", ratios.join(" | "));
    Ok(())
}

/// The CPU time of one connect and its end, and of the longest tick, also when an instance dies.
fn measure(case: Case, limits: Limits) -> Result<(Duration, Duration)> {
    let store = Table::default();
    let tracked = matches!(limits, Limits::Shared);
    let tracked = Tracked { per_hub: tracked, total: tracked };
    let mut ledgers: Vec<_> = (1..=case.instances.max(case.threads))
        .filter_map(|id| Some(Ledger::new(InstanceId::new(id)?, Secret::new([7; 32]), tracked)))
        .collect();
    let hubs: Vec<_> = (0..case.hubs).map(|hub| HubLabel::learned(format!("/hub{hub}").as_bytes())).collect();
    let count = ledgers.len();
    for n in 0..case.entries {
        let (at, hub) = (n as usize % count, &hubs[n as usize % hubs.len()]);
        drop(connect(&mut ledgers[at], n, hub, limits, 0, &store));
    }
    let mut longest = Duration::ZERO;
    let mut pass = |ledgers: &mut [Ledger], seconds: RangeInclusive<u64>| -> Result<()> {
        for second in seconds {
            for ledger in &mut *ledgers {
                let began = cpu_time()?;
                black_box(ledger.tick(at(second), &store));
                longest = longest.max(cpu_time()?.saturating_sub(began));
            }
        }
        Ok(())
    };
    pass(&mut ledgers, 1..=SETTLED)?;
    let barrier = Barrier::new(case.threads as usize);
    let times = thread::scope(|scope| {
        let threads = ledgers.iter_mut().take(case.threads as usize).enumerate().map(|(thread, ledger)| {
            let (store, hubs, barrier) = (&store, &hubs, &barrier);
            scope.spawn(move || -> Result<Duration> {
                barrier.wait();
                let began = cpu_time()?;
                for n in 0..PAIRS {
                    let id = case.entries + thread as u32 * PAIRS + n;
                    let lease = connect(ledger, id, &hubs[n as usize % hubs.len()], limits, SETTLED, store);
                    ledger.end(lease, End::Over, at(SETTLED), store);
                }
                Ok((cpu_time()?.saturating_sub(began)) / PAIRS)
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().filter_map(|thread| thread.join().ok()).collect::<Result<Vec<_>>>()
    });
    let mut times = times?;
    times.sort();
    ledgers.pop();
    pass(&mut ledgers, SETTLED + 1..=HEALED)?;
    Ok((times[times.len() / 2], longest))
}

/// CPU time of this thread.
fn cpu_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn connect(ledger: &mut Ledger, n: u32, hub: &HubLabel, limits: Limits, second: u64, store: &Table) -> Lease {
    let id = n.to_be_bytes();
    let opening = Opening {
        // As a hash spreads them.
        client: u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(),
        id: Some(&id),
        transport: Transport::WebSockets,
        hub,
        issued: None,
    };
    let terms = limits.terms();
    loop {
        let look = ledger.look(&opening, &terms, at(second), store).expect("the table is written at once");
        match ledger.admit(&look, &opening, &terms, at(second), store) {
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
