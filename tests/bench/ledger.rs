//! What a connect and its end cost in the ledger of connections, and what the cost grows with. `cargo xtask bench ledger` runs it.
//!
//! The table behind the ledger has one lock, as Envoy's shared data has. The cases that are compared are built first and then measured
//! by turns, a few milliseconds each, so that a busy moment of the machine meets them all. CPU time is measured, so that waiting for a
//! core is not. Between two connects a thread does something else for 20 µs, as Envoy does for longer: without it, threads would do
//! nothing but wait for the lock. With `--v8` this program runs as WebAssembly in Node.js, where there is one thread only.

use std::collections::HashMap;
use std::hint::black_box;
use std::ops::RangeInclusive;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Duration;

use envoy_signalr::clock::{Millis, Seconds};
use envoy_signalr::hub::HubLabel;
use envoy_signalr::ledger::{Admission, End, InstanceId, Lease, Ledger, Opening, Terms, Tracked};
use envoy_signalr::signalr::Transport;
use envoy_signalr::store::{Conflict, Secret, Store, Version};

const HAS_THREADS: bool = cfg!(not(target_family = "wasm"));

fn main() {
    // Cargo passes `--bench` as well.
    let rounds = std::env::args().find_map(|argument| argument.parse().ok()).unwrap_or(31);
    ledger(rounds);
}

/// Connects and ends that one thread makes in a round.
const PAIRS: u32 = 2_000;
/// How often the ticks of a case are measured.
const LIVES: usize = 7;
/// What a thread does between two of them.
const PAUSE: Duration = Duration::from_micros(20);
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
/// For the longest tick.
const LARGEST: Case = Case { hubs: 65, instances: 17, entries: 100_000, threads: 1 };

/// What the cost may depend on, each with the cases that differ in it alone.
fn dimensions() -> Vec<(&'static str, Vec<Case>)> {
    let threads = if HAS_THREADS { vec![2, 4, 16] } else { Vec::new() };
    vec![
        ("hubs", [1, 65].map(|hubs| Case { hubs, ..USUAL }).to_vec()),
        ("instances", [1, 17].map(|instances| Case { instances, ..USUAL }).to_vec()),
        ("connections", [0, 100_000].map(|entries| Case { entries, ..USUAL }).to_vec()),
        ("threads", threads.into_iter().map(|threads| Case { threads, instances: 16, ..USUAL }).collect()),
    ]
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

fn ledger(rounds: u32) {
    println!("CPU time of one connect and its end: the median of {rounds} rounds, with the quartiles.\n");
    println!(
        "| hubs | instances | connections | threads | no limit | `per_client` | `per_hub` and `total` | longest tick |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut ratios = Vec::new();
    for (at, (name, cases)) in dimensions().into_iter().enumerate() {
        eprintln!("{name} …");
        let cases: Vec<Case> = [USUAL].into_iter().chain(cases).collect();
        let costs = measure(&cases, rounds);
        // The usual case is part of each dimension, and printed once.
        let own = usize::from(at > 0);
        cases.iter().zip(&costs).skip(own).for_each(|(case, costs)| print_row(case, costs));
        ratios.push((name, costs));
    }
    eprintln!("the largest case …");
    measure(&[LARGEST], rounds).iter().for_each(|costs| print_row(&LARGEST, costs));
    for (name, costs) in ratios {
        let ratios = [0, 1, 2].map(|limits| {
            let medians = || costs.iter().map(|costs| costs[limits][1]);
            format!("{:.2}", medians().fold(0.0, f64::max) / medians().fold(f64::INFINITY, f64::min))
        });
        println!("| {name}: the largest in the smallest | | | | {} | |", ratios.join(" | "));
    }
}

/// Quartiles in µs, for each of [`Limits::ALL`].
type Costs = [[f64; 3]; Limits::ALL.len()];

/// Measures cases by turns. Only theirs is in memory, as a gateway's is: others would take the caches from them at each turn.
fn measure(cases: &[Case], rounds: u32) -> Vec<Costs> {
    let mut worlds: Vec<_> = cases.iter().map(|case| Limits::ALL.map(|limits| World::new(*case, limits))).collect();
    let mut times = vec![[const { Vec::new() }; Limits::ALL.len()]; cases.len()];
    for round in 1..=rounds {
        for (worlds, times) in worlds.iter_mut().zip(&mut times) {
            for (world, times) in worlds.iter_mut().zip(times) {
                times.push(world.pair(round));
            }
        }
    }
    let quartiles = |mut times: Vec<Duration>| {
        times.sort();
        [1, 2, 3].map(|quarter| micros(times[times.len() * quarter / 4]))
    };
    times.into_iter().map(|times| times.map(quartiles)).collect()
}

fn print_row(case: &Case, costs: &Costs) {
    let cells = costs.map(|[low, median, high]| format!("{median:.1} µs ({low:.1} to {high:.1})"));
    let tick = micros(longest_tick(*case));
    let Case { hubs, instances, entries, threads } = case;
    println!("| {hubs} | {instances} | {entries} | {threads} | {} | {tick:.0} µs |", cells.join(" | "));
}

/// Instances of one gateway with their connections.
struct World {
    case: Case,
    limits: Limits,
    hubs: Vec<HubLabel>,
    ledgers: Vec<Ledger>,
    store: Table,
    ticks: Vec<Duration>,
}

impl World {
    fn new(case: Case, limits: Limits) -> Self {
        let tracked = matches!(limits, Limits::Shared);
        let tracked = Tracked { per_hub: tracked, total: tracked };
        let ledgers = (1..=case.instances.max(case.threads))
            .filter_map(|id| Some(Ledger::new(InstanceId::new(id)?, Secret::new([7; 32]), tracked)));
        let hubs = (0..case.hubs).map(|hub| HubLabel::learned(format!("/hub{hub}").as_bytes()));
        let mut world = Self {
            case,
            limits,
            hubs: hubs.collect(),
            ledgers: ledgers.collect(),
            store: Table::default(),
            ticks: Vec::new(),
        };
        let (hubs, count) = (world.hubs.len(), world.ledgers.len());
        for n in 0..case.entries {
            let (at, hub) = (n as usize % count, &world.hubs[n as usize % hubs]);
            drop(connect(&mut world.ledgers[at], n, hub, limits, 0, &world.store));
        }
        world.tick(1..=SETTLED);
        world
    }

    fn tick(&mut self, seconds: RangeInclusive<u64>) {
        for second in seconds {
            for ledger in &mut self.ledgers {
                let began = clock();
                black_box(ledger.tick(at(second), &self.store));
                self.ticks.push(clock().saturating_sub(began));
            }
        }
    }

    /// The CPU time of one connect and its end: of several threads, of the one in the middle.
    fn pair(&mut self, round: u32) -> Duration {
        let Self { case, limits, hubs, ledgers, store, .. } = self;
        let barrier = Barrier::new(case.threads as usize);
        let pairs = &|thread: u32, ledger: &mut Ledger| {
            barrier.wait();
            let (mut spent, mut reading) = (Duration::ZERO, Duration::ZERO);
            for n in 0..PAIRS {
                let id = case.entries + (round * case.threads + thread) * PAIRS + n;
                pause();
                // Reading the clock takes time, too.
                let (began, read) = (clock(), clock());
                let lease = connect(ledger, id, &hubs[n as usize % hubs.len()], *limits, SETTLED, store);
                ledger.end(lease, End::Over, at(SETTLED), store);
                spent += clock() - read;
                reading += read - began;
            }
            spent.saturating_sub(reading) / PAIRS
        };
        if !HAS_THREADS {
            return pairs(0, &mut ledgers[0]);
        }
        let mut times: Vec<Duration> = thread::scope(|scope| {
            let threads = (0..case.threads).zip(ledgers);
            let threads: Vec<_> = threads.map(|(thread, ledger)| scope.spawn(move || pairs(thread, ledger))).collect();
            threads.into_iter().map(|thread| thread.join().expect("no thread panics")).collect()
        });
        times.sort();
        times[times.len() / 2]
    }
}

/// The CPU time of the longest tick, also when an instance dies. Each tick's time is the median of some lives of a gateway, in
/// which it does the same work.
fn longest_tick(case: Case) -> Duration {
    let lives = [(); LIVES].map(|()| {
        let mut world = World::new(case, Limits::Shared);
        // Kept, because the allocator's work after so much is freed would be in the next tick.
        let _dead = world.ledgers.pop();
        world.tick(SETTLED + 1..=HEALED);
        world.ticks
    });
    let median = |tick: usize| {
        let mut times = lives.each_ref().map(|life| life[tick]);
        times.sort();
        times[LIVES / 2]
    };
    (0..lives[0].len()).map(median).max().unwrap_or_default()
}

fn pause() {
    let began = clock();
    while clock() - began < PAUSE {}
}

/// The CPU time of this thread.
#[cfg(unix)]
fn clock() -> Duration {
    use nix::time::{ClockId, clock_gettime};
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

/// The time that `wasi.mjs` gives, which is the CPU time of the process.
#[cfg(not(unix))]
fn clock() -> Duration {
    use std::sync::OnceLock;
    use std::time::Instant;
    static BEGAN: OnceLock<Instant> = OnceLock::new();
    BEGAN.get_or_init(Instant::now).elapsed()
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
