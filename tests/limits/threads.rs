//! Sixteen worker threads at once over one client, one hub and the total.
//!
//! In every run a crowd for each limit comes and goes until all places are taken. Then as many sockets live as there are places:
//! nobody was let in beyond a limit, and no place was lost, also when a VM traps or the configuration changes under the crowds.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;

use serde_json::{Value, json};
use testbed::envoy::{
    EnvoyOptions, Filter, Watched, balance_exactly, connection_manager, load_module, module_that_traps,
};
use testbed::process::wait_for;
use testbed::raw::{Client, NoSocket, Socket};

use crate::faults::trap;
use crate::gateway::Gateway;
use crate::patient::{self, returns};

const WORKERS: usize = 16;
const RUNS: usize = 20;
/// In these runs a VM traps.
const TRAPPED: [usize; 2] = [7, 17];
/// In these the filter's configuration changes.
const CONFIGURED: [usize; 2] = [13, 17];
/// Everybody leaves before one run in so many, and the gauges go down to zero and up again.
const EMPTIED: usize = 5;

const PER_CLIENT: usize = 16;
/// So many that 16 worker threads take their first permits in batches, and the last one by one.
const PER_HUB: usize = 300;
/// Leaves places for others than the one client and the one hub, and fewer than they want.
const TOTAL: usize = 400;
const PLACES: [usize; 3] = [PER_CLIENT, PER_HUB, TOTAL];

/// A limit, and how many sockets the clients have under it. Envoy has at least as many: a client counts a socket only after
/// Envoy's answer, and not any more before it lets go.
struct Limit {
    places: usize,
    taken: AtomicUsize,
}

impl Limit {
    fn of(places: usize) -> Self {
        Self { places, taken: AtomicUsize::new(0) }
    }

    fn is_reached(&self) -> bool {
        self.taken.load(SeqCst) >= self.places
    }
}

/// What all crowds share.
struct Limits {
    per_client: Limit,
    per_hub: Limit,
    total: Limit,
    /// Whether a VM has trapped: until it is loaded anew, Envoy answers 503 in its place.
    has_trapped: AtomicBool,
    /// Whether sockets that died with a VM may still be counted as taken.
    counts_the_dead: AtomicBool,
}

impl Limits {
    fn new() -> Self {
        Self {
            per_client: Limit::of(PER_CLIENT),
            per_hub: Limit::of(PER_HUB),
            total: Limit::of(TOTAL),
            has_trapped: AtomicBool::new(false),
            counts_the_dead: AtomicBool::new(false),
        }
    }

    fn taken(&self) -> [usize; 3] {
        [&self.per_client, &self.per_hub, &self.total].map(|limit| limit.taken.load(SeqCst))
    }
}

/// Who comes together: as many as there are worker threads, so that all of these may be asked for one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crowd {
    OneClient,
    /// Of many clients.
    OneHub,
    /// Many clients of another hub, whom only the total stops.
    Others,
}

impl Crowd {
    const ALL: [Self; 3] = [Self::OneClient, Self::OneHub, Self::Others];
}

/// One of a crowd.
struct Visitor<'a> {
    crowd: Crowd,
    number: usize,
    gateway: &'a Gateway,
    limits: &'a Limits,
    dice: fastrand::Rng,
    open: Vec<Socket>,
}

impl<'a> Visitor<'a> {
    fn new(crowd: Crowd, number: usize, gateway: &'a Gateway, limits: &'a Limits) -> Self {
        Self { crowd, number, gateway, limits, dice: fastrand::Rng::with_seed(number as u64), open: Vec::new() }
    }

    /// Comes back with as many sockets as there is room for, after some of its own have left. Until `is_over` it comes and goes.
    fn visit(&mut self, all_have_left: &Barrier, is_over: &AtomicBool) {
        let stay = match self.crowd {
            Crowd::OneClient | Crowd::OneHub => self.dice.usize(..=self.open.len()),
            // Those whom only the total stops may hold a place that the one client or the one hub is to have.
            Crowd::Others => 0,
        };
        self.leave_but(stay);
        all_have_left.wait();
        let Limits { per_client, per_hub, total, .. } = self.limits;
        if self.crowd == Crowd::Others {
            let may_enter = || is_over.load(SeqCst) && per_client.is_reached() && per_hub.is_reached();
            wait_for("the one client and the one hub to have their places", may_enter).unwrap();
        }
        wait_for("every place to be taken", || {
            while self.gets_in() {}
            if !is_over.load(SeqCst) {
                self.leave_but(self.open.len().saturating_sub(1));
                return false;
            }
            total.is_reached()
        })
        .unwrap();
        // Nobody leaves any more, so this must be refused.
        self.gets_in();
    }

    /// Asks for a place, and says whether there was one.
    fn gets_in(&mut self) -> bool {
        let (has_trapped, counts_the_dead) = (&self.limits.has_trapped, &self.limits.counts_the_dead);
        match self.client().try_socket(None) {
            Ok(socket) => {
                self.open.push(socket);
                let taken = |limit: &Limit| (limit.taken.fetch_add(1, SeqCst) + 1, limit.places);
                let taken: Vec<_> = self.counted_under().map(taken).collect();
                // If nobody has died by now, all of these live at the same moment.
                let are_within = taken.iter().all(|(taken, places)| taken <= places);
                assert!(are_within || counts_the_dead.load(SeqCst), "{:?}: {taken:?}", self.crowd);
                true
            }
            Err(NoSocket::Answered(answer)) if answer.is_refusal() => false,
            Err(NoSocket::Answered(answer)) if answer.status() == 503 && has_trapped.load(SeqCst) => false,
            Err(NoSocket::Broken(_)) if counts_the_dead.load(SeqCst) => false,
            Err(failure) => panic!("{:?}: {failure:?}", self.crowd),
        }
    }

    fn client(&self) -> Client {
        let nobody_else = || format!("{:?}-{}-{}", self.crowd, self.number, self.open.len());
        match self.crowd {
            Crowd::OneClient => self.gateway.user("ann").hub("/notifications"),
            Crowd::OneHub => self.gateway.user(&nobody_else()).hub("/chat"),
            Crowd::Others => self.gateway.user(&nobody_else()).hub("/notifications"),
        }
    }

    fn leave_but(&mut self, stay: usize) {
        while self.open.len() > stay {
            self.count_off();
            self.open.pop();
        }
    }

    /// Asks on every socket, keeps those that live, and returns how many do not.
    fn drop_the_dead(&mut self) -> usize {
        let before = self.open.len();
        self.open.retain_mut(|socket| returns(socket, "hello"));
        let dead = before - self.open.len();
        (0..dead).for_each(|_| self.count_off());
        dead
    }

    fn count_off(&self) {
        self.counted_under().for_each(|limit| _ = limit.taken.fetch_sub(1, SeqCst));
    }

    fn counted_under(&self) -> impl Iterator<Item = &'a Limit> + use<'a> {
        let own = match self.crowd {
            Crowd::OneClient => Some(&self.limits.per_client),
            Crowd::OneHub => Some(&self.limits.per_hub),
            Crowd::Others => None,
        };
        own.into_iter().chain([&self.limits.total])
    }
}

/// All visit at once, and while they come and go something else happens.
fn visit_all(visitors: &mut [Visitor<'_>], meanwhile: impl FnOnce()) {
    let (all_have_left, is_over) = (Barrier::new(visitors.len() + 1), AtomicBool::new(false));
    thread::scope(|scope| {
        for visitor in visitors {
            scope.spawn(|| visitor.visit(&all_have_left, &is_over));
        }
        all_have_left.wait();
        meanwhile();
        is_over.store(true, SeqCst);
    });
}

fn drop_the_dead(visitors: &mut [Visitor<'_>]) -> usize {
    thread::scope(|scope| {
        let asked: Vec<_> = visitors.iter_mut().map(|visitor| scope.spawn(|| visitor.drop_the_dead())).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).sum()
    })
}

/// The same limits, and a number by which refusals show their configuration.
fn settings(number: usize) -> Value {
    json!({
        "hubs": [{ "path": "/chat" }, { "path": "/notifications" }],
        "limits": {
            "client": { "key": { "header": "x-user" } },
            "connections": { "per_client": PER_CLIENT, "per_hub": PER_HUB, "total": TOTAL },
            "reject": { "retry_after": format!("{number}s") },
            // So nothing is let in uncounted.
            "on_error": "deny",
        },
    })
}

fn start(watched: &Watched) -> Gateway {
    let (watched, module) = (watched.clone(), module_that_traps().unwrap());
    Gateway::start(EnvoyOptions {
        filter: Filter::With(settings(0)),
        hosts: patient::start(),
        concurrency: WORKERS as u32,
        patch: Some(Box::new(move |bootstrap| {
            load_module(bootstrap, &module);
            balance_exactly(bootstrap);
            // Nothing is said on the sockets for as long as a run takes.
            connection_manager(bootstrap)["stream_idle_timeout"] = "0s".into();
            watched.take_filter(bootstrap);
        })),
        ..EnvoyOptions::default()
    })
}

/// Whether a refusal shows the configuration with this number.
fn shows(gateway: &Gateway, number: usize) -> bool {
    match gateway.user("ann").try_socket(None) {
        Err(NoSocket::Answered(answer)) => answer.head.one("retry-after") == Some(number.to_string().as_str()),
        Ok(_) | Err(NoSocket::Broken(_)) => false,
    }
}

/// How many worker threads have connections.
fn busy_workers(gateway: &Gateway) -> usize {
    let stats = gateway.envoy.stats().unwrap();
    let active = stats.lines().filter_map(|line| line.split_once(".downstream_cx_active: "));
    active.filter(|(name, number)| name.contains(".worker_") && *number != "0").count()
}

/// What changes under the crowds in this run.
fn change(run: usize, gateway: &Gateway, watched: &Watched, limits: &Limits) {
    let is_configured = CONFIGURED.contains(&run);
    if is_configured {
        watched.configure(&settings(run));
    }
    if TRAPPED.contains(&run) {
        let half = || limits.per_hub.taken.load(SeqCst) >= PER_HUB / 2;
        wait_for("sockets that a trap can end", half).unwrap();
        limits.has_trapped.store(true, SeqCst);
        limits.counts_the_dead.store(true, SeqCst);
        trap(&gateway.client());
    }
    if is_configured {
        wait_for("the new configuration", || shows(gateway, run)).unwrap();
    }
}

/// Nobody has been let in too many, and the places of the dead are taken again.
fn recover(name: &str, visitors: &mut [Visitor<'_>], limits: &Limits) {
    // Envoy resets what died with the VM when something comes on it. Whatever answers now lives at the same moment.
    let dead = drop_the_dead(visitors);
    println!("{name}: {dead} ended by a trap");
    assert!((1..TOTAL / 2).contains(&dead), "{name}: {dead} ended by a trap");
    let living = limits.taken();
    assert!(living.iter().zip(PLACES).all(|(living, places)| *living <= places), "{name}: {living:?}");
    limits.counts_the_dead.store(false, SeqCst);
    visit_all(visitors, || ());
}

#[test]
fn sixteen_worker_threads_admit_exactly_as_many_as_the_limits_say() {
    let watched = Watched::new("threads").unwrap();
    let gateway = start(&watched);
    let limits = Limits::new();
    let crowd_of = |crowd| (0..WORKERS).map(move |number| (crowd, number));
    let everybody = Crowd::ALL.into_iter().flat_map(crowd_of);
    let mut visitors: Vec<_> =
        everybody.map(|(crowd, number)| Visitor::new(crowd, number, &gateway, &limits)).collect();
    for run in 1..=RUNS {
        let name = format!("run {run}");
        if run % EMPTIED == 0 {
            visitors.iter_mut().for_each(|visitor| visitor.leave_but(0));
            gateway.settles(&name, [0; 3]);
        }
        visit_all(&mut visitors, || change(run, &gateway, &watched, &limits));
        if TRAPPED.contains(&run) {
            recover(&name, &mut visitors, &limits);
        }
        assert_eq!(drop_the_dead(&mut visitors), 0, "{name}");
        assert_eq!(limits.taken(), PLACES, "{name}");
        gateway.settles(&name, [TOTAL as u64, 0, 0]);
    }
    assert_eq!(busy_workers(&gateway), WORKERS);
    for limit in ["per_client", "per_hub", "total"] {
        assert!(gateway.rejected(limit, "enforce") > 0, "{limit}");
    }
    visitors.clear();
    gateway.settles("all have left", [0; 3]);
    assert_eq!(gateway.ledger_failures(), 0);
}
