//! Tier 2: several instances over one store, against a model of what should be counted.

use super::*;
use crate::http::Head;
use crate::settings::{Settings, Surroundings};
use crate::store::memory::MemoryStore;
use crate::store::{Conflict, Version};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const IDLE: Duration = Duration::from_secs(15);

fn settings(json: &str) -> Settings {
    let json = format!(r#"{{"limits": {json}}}"#);
    let surroundings = Surroundings { env: &|_| None, process_secret: &|| Secret::new([0; 32]) };
    Settings::parse(json.as_bytes(), &surroundings).unwrap()
}

fn at(seconds: u64) -> Millis {
    Millis::since_epoch(Duration::from_secs(1_000_000 + seconds))
}

fn hub() -> HubLabel {
    HubLabel::learned(b"/chat")
}

fn peer(address: &str) -> Peer {
    Peer::new(format!("{address}:1").as_bytes())
}

/// Worker threads of one Envoy.
struct Envoy {
    workers: Vec<Limiter>,
    store: MemoryStore,
    limits: Limits,
    now: u64,
}

impl Envoy {
    fn new(workers: u32, json: &str) -> Self {
        let worker = |id: u32| Limiter::new(InstanceId::new(id + 1).unwrap(), Secret::new([7; 32]));
        Self {
            workers: (0..workers).map(worker).collect(),
            store: MemoryStore::default(),
            limits: settings(json).limits,
            now: 0,
        }
    }

    fn client(&self, name: &str) -> ClientKey {
        self.workers[0].client(&self.limits, &Head::default(), &peer(name))
    }

    fn delete(&mut self, worker: usize, client: &str, id: &str) {
        let session = self.workers[worker].session(&self.limits, &Head::default(), &peer(client), id.as_bytes());
        self.workers[worker].delete(&session, at(self.now).seconds(), &self.store);
    }

    fn connect(
        &mut self,
        worker: usize,
        client: &str,
        id: Option<&str>,
        transport: Transport,
    ) -> (Verdict, Option<Lease>) {
        let opening = Opening { client: self.client(client), id: id.map(str::as_bytes), transport, hub: &hub() };
        self.workers[worker].connect(&self.limits, &opening, at(self.now), &self.store).unwrap()
    }

    fn open(&mut self, worker: usize, client: &str, id: &str) -> Option<Lease> {
        self.connect(worker, client, Some(id), Transport::WebSockets).1
    }

    fn poll(&mut self, worker: usize, client: &str, id: &str) -> Option<Lease> {
        self.connect(worker, client, Some(id), Transport::LongPolling).1
    }

    fn end(&mut self, worker: usize, lease: Lease, end: End) {
        self.workers[worker].end(lease, end, at(self.now).seconds(), &self.store);
    }

    /// Lets time pass for the workers that live.
    fn pass(&mut self, seconds: u64, living: &[usize]) {
        for _ in 0..seconds {
            self.now += 1;
            for worker in living {
                self.workers[*worker].tick(IDLE, at(self.now).seconds(), &self.store);
            }
        }
    }

    fn counted(&self) -> u64 {
        Counts::load(&self.store).by_hub().iter().map(|(_, _, count)| count).sum()
    }

    fn negotiate(&self, client: &str) -> Verdict {
        let client = self.client(client);
        self.workers[0].negotiate(&self.limits, client, &hub(), at(self.now), &self.store).unwrap()
    }
}

const ANN: &str = "192.0.2.1";
const BOB: &str = "192.0.2.2";

#[test]
fn a_client_has_as_many_connections_as_its_limit_over_all_workers() {
    let mut envoy = Envoy::new(4, r#"{"connections": {"per_client": 20}}"#);
    let leases: Vec<_> = (0..200).map(|n| (n % 4, envoy.open(n % 4, ANN, &format!("id{n}")))).collect();
    let mut open: Vec<_> = leases.into_iter().filter_map(|(worker, lease)| Some((worker, lease?))).collect();
    assert_eq!((open.len(), envoy.counted()), (20, 20));
    assert_eq!(envoy.negotiate(ANN), Verdict::Over(Limit::PerClient), "told at negotiate already");
    assert_eq!(envoy.negotiate(BOB), Verdict::Within);
    for (worker, lease) in open.drain(..5) {
        envoy.end(worker, lease, End::Over);
    }
    let again = (0..10).filter(|n| envoy.open(n % 4, ANN, &format!("more{n}")).is_some()).count();
    assert_eq!((again, envoy.counted()), (5, 20));
    assert!(envoy.open(0, BOB, "bob").is_some(), "another client is not concerned");
}

#[test]
fn a_long_polling_session_is_one_connection_however_often_it_polls() {
    let mut envoy = Envoy::new(4, r#"{"connections": {"per_client": 1}}"#);
    for n in 0..500 {
        let lease = envoy.poll(n % 4, ANN, "session").unwrap();
        assert_eq!(envoy.counted(), 1, "poll {n}");
        assert!(envoy.poll(0, ANN, "other").is_none(), "poll {n}");
        envoy.end(n % 4, lease, End::BetweenPolls);
    }
    envoy.pass(14, &[0, 1, 2, 3]);
    assert_eq!(envoy.counted(), 1, "the next poll may still come");
    envoy.pass(10, &[0, 1, 2, 3]);
    assert_eq!(envoy.counted(), 0, "silence ends it");

    let lease = envoy.poll(1, ANN, "session").unwrap();
    envoy.delete(2, ANN, "session");
    assert_eq!(envoy.counted(), 0, "DELETE ends it");
    envoy.end(1, lease, End::BetweenPolls);
    assert_eq!(envoy.counted(), 0, "the poll that was under way does not bring it back");
}

#[test]
fn a_poll_that_takes_over_is_not_ended_by_the_one_before() {
    let mut envoy = Envoy::new(2, r#"{"connections": {"per_client": 1}}"#);
    let first = envoy.poll(0, ANN, "session").unwrap();
    let second = envoy.poll(1, ANN, "session").unwrap();
    envoy.end(0, first, End::BetweenPolls);
    envoy.pass(30, &[0, 1]);
    assert_eq!(envoy.counted(), 1, "the second is still under way");
    envoy.end(1, second, End::Over);
    assert_eq!(envoy.counted(), 0);
}

#[test]
fn the_same_id_coming_back_replaces_and_never_adds() {
    let mut envoy = Envoy::new(2, r#"{"connections": {"per_client": 1, "total": 1}}"#);
    let half_open = envoy.open(0, ANN, "id").unwrap();
    let back = envoy.open(1, ANN, "id").unwrap();
    assert_eq!(envoy.counted(), 1);
    envoy.end(0, half_open, End::Over);
    assert_eq!(envoy.counted(), 1, "the old socket does not end the new one");
    envoy.end(1, back, End::Over);
    assert_eq!(envoy.counted(), 0);
}

#[test]
fn what_a_dead_instance_held_is_dropped_within_ten_seconds() {
    let mut envoy = Envoy::new(3, r#"{"connections": {"per_client": 4}}"#);
    for n in 0..4 {
        assert!(envoy.open(n % 2, ANN, &format!("id{n}")).is_some());
    }
    envoy.pass(3, &[0, 1, 2]);
    // Worker 1 traps: no end is ever told, no beat comes.
    envoy.pass(10, &[0, 2]);
    assert_eq!(envoy.counted(), 2);
    assert!(envoy.open(0, ANN, "a").is_some() && envoy.open(2, ANN, "b").is_some());
    assert!(envoy.open(0, ANN, "c").is_none());
}

#[test]
fn an_instance_that_was_only_stuck_gets_its_connections_back() {
    let mut envoy = Envoy::new(2, r#"{"connections": {"per_client": 2}}"#);
    let lease = envoy.open(1, ANN, "id").unwrap();
    envoy.pass(1, &[0, 1]);
    envoy.pass(20, &[0]);
    assert_eq!(envoy.counted(), 0);
    envoy.pass(1, &[0, 1]);
    assert_eq!(envoy.counted(), 1);
    envoy.end(1, lease, End::Over);
    assert_eq!(envoy.counted(), 0);
}

#[test]
fn hubs_and_the_whole_have_limits_of_their_own() {
    for (json, limit) in
        [(r#"{"connections": {"per_hub": 3}}"#, Limit::PerHub), (r#"{"connections": {"total": 3}}"#, Limit::Total)]
    {
        let mut envoy = Envoy::new(2, json);
        let lease = envoy.open(0, ANN, "id0").unwrap();
        for n in 1..3 {
            assert!(envoy.open(n % 2, &format!("192.0.2.{n}"), &format!("id{n}")).is_some());
        }
        let (verdict, lease4) = envoy.connect(1, BOB, Some("id4"), Transport::ServerSentEvents);
        assert_eq!((verdict, lease4), (Verdict::Over(limit), None));
        assert_eq!(envoy.negotiate(BOB), Verdict::Over(limit));
        envoy.end(0, lease, End::Over);
        assert!(envoy.open(1, BOB, "id5").is_some());
    }
}

#[test]
fn shadow_mode_admits_and_tells() {
    let mut envoy = Envoy::new(1, r#"{"mode": "shadow", "connections": {"per_client": 1, "total": 1}}"#);
    for n in 0..5 {
        let (verdict, lease) = envoy.connect(0, ANN, Some(&format!("id{n}")), Transport::WebSockets);
        assert!(lease.is_some());
        assert_eq!(verdict, if n == 0 { Verdict::Within } else { Verdict::Over(Limit::PerClient) });
    }
    assert_eq!(envoy.counted(), 5);
}

#[test]
fn rates_hold_for_new_connections_only() {
    let mut envoy = Envoy::new(2, r#"{"connect_rate": {"requests": 1, "per": "10s", "burst": 2}}"#);
    let poll = envoy.poll(0, ANN, "session").unwrap();
    envoy.end(0, poll, End::BetweenPolls);
    for n in 0..10 {
        let poll = envoy.poll(n % 2, ANN, "session").expect("a poll of a session is no new connection");
        envoy.end(n % 2, poll, End::BetweenPolls);
    }
    assert!(envoy.open(0, ANN, "a").is_some());
    assert_eq!(envoy.connect(1, ANN, Some("b"), Transport::WebSockets).0, Verdict::Over(Limit::ConnectRate));
    envoy.now += 10;
    assert!(envoy.open(1, ANN, "b").is_some());
}

#[test]
fn conflicts_are_tried_again_and_then_told() {
    let mut envoy = Envoy::new(1, r#"{"connections": {"per_client": 1}}"#);
    envoy.store.conflicts.set(5);
    let lease = envoy.open(0, ANN, "id").unwrap();
    envoy.store.conflicts.set(1_000);
    let opening = Opening { client: envoy.client(BOB), id: None, transport: Transport::WebSockets, hub: &hub() };
    let failed = envoy.workers[0].connect(&envoy.limits, &opening, at(0), &envoy.store);
    assert_eq!(failed, Err(LedgerFailure));
    envoy.end(0, lease, End::Over);
    envoy.store.conflicts.set(0);
    assert_eq!(envoy.counted(), 1, "the end could not be written");
    envoy.pass(1, &[0]);
    assert_eq!(envoy.counted(), 0, "and was made up for");
}

#[test]
fn a_refused_request_with_the_id_of_an_open_socket_does_not_hide_it() {
    let mut envoy = Envoy::new(2, r#"{"connections": {"per_client": 1}}"#);
    let socket = envoy.open(0, ANN, "id").unwrap();
    for transport in [Transport::WebSockets, Transport::LongPolling, Transport::ServerSentEvents] {
        let (_, again) = envoy.connect(1, ANN, Some("id"), transport);
        assert_eq!(envoy.counted(), 1, "{transport:?}");
        // 404 from a pod that does not know the id, or 409.
        envoy.end(1, again.unwrap(), End::Over);
        assert_eq!(envoy.counted(), 1, "{transport:?}: the socket is still open");
        assert!(envoy.open(1, ANN, "other").is_none(), "{transport:?}");
    }
    envoy.delete(1, ANN, "id");
    assert_eq!(envoy.counted(), 1, "DELETE ends sessions, not sockets");
    envoy.end(0, socket, End::Over);
    assert_eq!(envoy.counted(), 0);
}

#[test]
fn an_id_stands_for_a_few_sockets_and_not_for_any_number() {
    let mut envoy = Envoy::new(2, r#"{"connections": {"per_client": 2}}"#);
    let open: Vec<_> = (0..20).map(|n| (n % 2, envoy.open(n % 2, ANN, "id"))).collect();
    let open: Vec<_> = open.into_iter().filter_map(|(worker, lease)| Some((worker, lease?))).collect();
    assert_eq!((open.len(), envoy.counted()), (MOST_HOLDS + 1, 2));
    for (worker, lease) in open {
        envoy.end(worker, lease, End::Over);
    }
    assert_eq!(envoy.counted(), 0);
}

#[test]
fn sockets_without_ids_spread_over_the_slots() {
    let mut envoy = Envoy::new(1, r#"{"connections": {"total": 6000}}"#);
    let leases: Vec<_> = (0..6_000).filter_map(|_| envoy.connect(0, ANN, None, Transport::WebSockets).1).collect();
    assert_eq!((leases.len(), envoy.counted()), (6_000, 6_000));
}

#[test]
fn an_instance_that_was_stuck_for_a_moment_begins_anew() {
    type Wake = fn(&mut Envoy);
    let wakes: [(&str, Wake, u64); 3] = [
        ("by a tick", |envoy| envoy.pass(1, &[1]), 6),
        ("by a connection", |envoy| assert!(envoy.open(1, BOB, "new").is_some()), 7),
        (
            "by an end",
            |envoy| {
                let lease = envoy.workers[1].held.values().next().unwrap().clone();
                envoy.end(1, lease, End::Over);
            },
            5,
        ),
    ];
    for stuck in [5, 6, 20] {
        for (name, wake, expected) in wakes {
            let mut envoy = Envoy::new(2, r#"{"connections": {"per_client": 3}}"#);
            let mut leases: Vec<_> = (0..2).map(|n| envoy.open(1, ANN, &format!("id{n}")).unwrap()).collect();
            leases.push(envoy.poll(1, ANN, "poll").unwrap());
            for n in 0..3 {
                assert!(envoy.open(0, BOB, &format!("other{n}")).is_some());
            }
            envoy.limits = settings(r#"{"connections": {"per_client": 9}}"#).limits;
            envoy.pass(1, &[0, 1]);
            envoy.pass(stuck, &[0]);
            wake(&mut envoy);
            envoy.pass(10, &[0, 1]);
            assert_eq!(envoy.counted(), expected, "{name} after {stuck} s");
            for lease in envoy.workers[1].held.values().cloned().collect::<Vec<_>>() {
                envoy.end(1, lease, End::Over);
            }
            assert_eq!(envoy.counted(), 3, "{name} after {stuck} s, at the end");
        }
    }
}

#[test]
fn when_the_whole_process_stood_still_nothing_is_lost() {
    let mut envoy = Envoy::new(4, r#"{"connections": {"per_client": 20}}"#);
    let leases: Vec<_> = (0..20).map(|n| (n % 4, envoy.open(n % 4, ANN, &format!("id{n}")).unwrap())).collect();
    envoy.pass(2, &[0, 1, 2, 3]);
    envoy.now += 60;
    envoy.pass(1, &[0, 1, 2, 3]);
    assert_eq!(envoy.counted(), 20);
    envoy.pass(10, &[0, 1, 2, 3]);
    assert!(envoy.open(0, ANN, "more").is_none());
    for (worker, lease) in leases {
        envoy.end(worker, lease, End::Over);
    }
    assert_eq!(envoy.counted(), 0);
}

#[test]
fn a_delete_that_wakes_a_stuck_instance_loses_no_count() {
    let mut envoy = Envoy::new(2, r#"{"connections": {"per_client": 9}}"#);
    let socket = envoy.open(1, ANN, "id").unwrap();
    let poll = envoy.poll(0, ANN, "session").unwrap();
    envoy.end(0, poll, End::BetweenPolls);
    envoy.pass(1, &[0, 1]);
    envoy.pass(6, &[0]);
    envoy.delete(1, ANN, "session");
    envoy.pass(1, &[0, 1]);
    assert_eq!(envoy.counted(), 1);
    envoy.end(1, socket, End::Over);
    assert_eq!(envoy.counted(), 0);
}

/// Shared data in which something happens right after its numbers were loaded for the second time: the first is for the look
/// whether the instance itself lives.
struct Interrupted<'a> {
    store: &'a MemoryStore,
    loads: Cell<u32>,
    interruption: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl Store for Interrupted<'_> {
    fn load(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        let loaded = self.store.load(key);
        self.loads.set(self.loads.get() + u32::from(key == "envoy-signalr/counts"));
        if self.loads.get() == 2
            && let Some(interruption) = self.interruption.take()
        {
            interruption();
        }
        loaded
    }

    fn swap(&self, key: &str, value: &[u8], expected: Version) -> Result<(), Conflict> {
        self.store.swap(key, value, expected)
    }
}

#[test]
fn an_instance_that_begins_in_the_middle_of_an_admission_is_not_taken_for_dead() {
    let envoy = Envoy::new(2, r#"{"connections": {"per_client": 9}}"#);
    let Envoy { store, limits, now, .. } = &envoy;
    let [mut one, mut other] = [1, 2].map(|id| Limiter::new(InstanceId::new(id).unwrap(), Secret::new([7; 32])));
    one.tick(IDLE, at(*now).seconds(), store);
    let (client, transport, hub) = (envoy.client(ANN), Transport::WebSockets, hub());
    let opening = |id: &'static [u8]| Opening { client, id: Some(id), transport, hub: &hub };
    let begins = || {
        let first = other.connect(limits, &opening(b"of the other"), at(*now), store);
        assert!(first.is_ok_and(|(_, lease)| lease.is_some()));
    };
    let store = Interrupted { store, loads: Cell::new(0), interruption: RefCell::new(Some(Box::new(begins))) };
    let admitted = one.connect(limits, &opening(b"of one"), at(*now), &store);
    assert!(admitted.is_ok_and(|(_, lease)| lease.is_some()));
    let entries = slots::load(Slot::of(client.0), store.store).0;
    assert_eq!((entries.len(), envoy.counted()), (2, 2));
}

#[test]
fn who_is_exempt_ends_nobody_elses_session() {
    let json = r#"{"connections": {"per_client": 1}, "long_polling_idle": "60s"}"#;
    let mut envoy = Envoy::new(1, json);
    let session = envoy.poll(0, ANN, "session").unwrap();
    envoy.end(0, session, End::BetweenPolls);
    envoy.now += 20;
    let of_same_slot =
        |id: &String| Slot::of(envoy.workers[0].connection(id.as_bytes()).0) == Slot::of(envoy.client(ANN).0);
    let id = (0..).map(|n| format!("id{n}")).find(of_same_slot).unwrap();
    let (client, id, hub) = (envoy.client(BOB), Some(id.as_bytes()), hub());
    let opening = Opening { client, id, transport: Transport::WebSockets, hub: &hub };
    let exempt = settings(json);
    let opened = envoy.workers[0].connect(exempt.limits_for(true), &opening, at(envoy.now), &envoy.store);
    assert!(opened.is_ok_and(|(_, lease)| lease.is_some()));
    assert!(envoy.poll(0, ANN, "other").is_none(), "the session is still the one connection");
}

#[test]
fn a_clock_that_is_set_back_keeps_the_living_and_not_the_dead() {
    let mut envoy = Envoy::new(3, r#"{"connections": {"per_client": 3}}"#);
    envoy.now = 10_000;
    let held = envoy.open(0, ANN, "held").unwrap();
    assert!(envoy.open(1, ANN, "of the dead").is_some());
    let poll = envoy.poll(2, ANN, "a silent session").unwrap();
    envoy.end(2, poll, End::BetweenPolls);
    envoy.now = 1_000;
    envoy.pass(10, &[0, 2]);
    assert_eq!(envoy.counted(), 1);
    assert!(["one", "two"].iter().all(|id| envoy.open(2, ANN, id).is_some()) && envoy.open(2, ANN, "three").is_none());
    envoy.end(0, held, End::Over);
    assert_eq!(envoy.counted(), 2);
}

#[test]
fn a_poll_of_a_dead_instance_leaves_the_numbers_within_ten_seconds() {
    for start in 0..4 {
        let mut envoy = Envoy::new(2, r#"{"connections": {"total": 1}}"#);
        envoy.now = start;
        assert!(envoy.poll(1, ANN, "session").is_some());
        envoy.pass(10, &[0]);
        assert_eq!(envoy.counted(), 0, "from {start}");
    }
}

/// Shared data in which one key is always somebody else's.
struct Contended<'a> {
    store: &'a MemoryStore,
    key: &'a str,
}

impl Store for Contended<'_> {
    fn load(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.store.load(key)
    }

    fn swap(&self, key: &str, value: &[u8], expected: Version) -> Result<(), Conflict> {
        if key == self.key { Err(Conflict) } else { self.store.swap(key, value, expected) }
    }
}

#[test]
fn numbers_that_could_not_be_written_are_made_up_for() {
    let mut envoy = Envoy::new(1, r#"{"connections": {"per_client": 1}}"#);
    let lease = envoy.open(0, ANN, "id").unwrap();
    let contended = Contended { store: &envoy.store, key: "envoy-signalr/counts" };
    envoy.workers[0].end(lease, End::Over, at(envoy.now).seconds(), &contended);
    assert_eq!(envoy.counted(), 1, "the entry is gone, its number not");
    envoy.pass(1, &[0]);
    assert_eq!(envoy.counted(), 0);
}

#[test]
fn whatever_happens_the_ledger_agrees_with_a_model() {
    for seed in 1..=20 {
        // Seeded, so that a failure can be played again.
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut envoy = Envoy::new(4, r#"{"connections": {"per_client": 3, "total": 20}}"#);
        let mut held: Vec<(usize, usize, Lease)> = Vec::new();
        let mut sessions: BTreeSet<(usize, usize)> = BTreeSet::new();
        for step in 0..400 {
            let (client, worker) = (dice.usize(..10), dice.usize(..4));
            let name = format!("192.0.2.{client}");
            let of_client = |held: &[(usize, usize, Lease)], sessions: &BTreeSet<(usize, usize)>| {
                held.iter().filter(|(_, owner, _)| *owner == client).count()
                    + sessions.iter().filter(|(owner, _)| *owner == client).count()
            };
            match dice.usize(..4) {
                0 => {
                    let room = of_client(&held, &sessions) < 3 && held.len() + sessions.len() < 20;
                    let lease = envoy.open(worker, &name, &format!("ws{step}"));
                    assert_eq!(lease.is_some(), room, "seed {seed} step {step}");
                    held.extend(lease.map(|lease| (worker, client, lease)));
                }
                1 if !held.is_empty() => {
                    let (worker, _, lease) = held.swap_remove(dice.usize(..held.len()));
                    envoy.end(worker, lease, End::Over);
                }
                2 => {
                    let session = (client, dice.usize(..2));
                    let known = sessions.contains(&session);
                    let room = known || (of_client(&held, &sessions) < 3 && held.len() + sessions.len() < 20);
                    let lease = envoy.poll(worker, &name, &format!("lp{client}-{}", session.1));
                    assert_eq!(lease.is_some(), room, "seed {seed} step {step}");
                    if let Some(lease) = lease {
                        envoy.end(worker, lease, End::BetweenPolls);
                        sessions.insert(session);
                    }
                }
                _ => {
                    if let Some(session) = sessions.pop_first() {
                        let name = format!("192.0.2.{}", session.0);
                        envoy.delete(worker, &name, &format!("lp{}-{}", session.0, session.1));
                    }
                }
            }
            assert_eq!(envoy.counted(), u64::try_from(held.len() + sessions.len()).unwrap(), "seed {seed} step {step}");
        }
        for (worker, _, lease) in held {
            envoy.end(worker, lease, End::Over);
        }
        envoy.pass(30, &[0, 1, 2, 3]);
        assert_eq!(envoy.counted(), 0, "seed {seed}: zero at the end");
    }
}

#[test]
fn a_million_clients_leave_no_memory_behind() {
    let mut envoy = Envoy::new(1, r#"{"connections": {"per_client": 1}}"#);
    // A hundredth here, because the loop is slow without optimisation; the slots are the same 1,024.
    for n in 0..10_000_u32 {
        let client = std::net::Ipv4Addr::from(n).to_string();
        let lease = envoy.open(0, &client, &format!("id{n}")).unwrap();
        envoy.end(0, lease, End::Over);
    }
    assert!(envoy.store.bytes() < 1_024 * 32, "{} bytes", envoy.store.bytes());
}
