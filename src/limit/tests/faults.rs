//! Instances that die, stand still or meet, and clocks that are set.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Seconds until a death is noticed and repaired.
const HEALED: u64 = 7;

#[test]
fn what_a_dead_instance_held_is_dropped() {
    let mut envoy = Envoy::new(3, r#"{"connections": {"per_client": 4}}"#);
    for n in 0..4 {
        assert!(envoy.open(n % 2, ANN, &format!("id{n}")).is_some());
    }
    envoy.pass(3, &[0, 1, 2]);
    // Worker 1 traps: no end of its connections and no beat comes.
    envoy.pass(HEALED, &[0, 2]);
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
fn conflicts_are_tried_again_and_then_told() {
    let mut envoy = Envoy::new(1, r#"{"connections": {"per_client": 1}}"#);
    envoy.store.conflicts.set(5);
    let lease = envoy.open(0, ANN, "id").unwrap();
    envoy.store.conflicts.set(1_000);
    let opening =
        Opening { client: envoy.client(BOB).0, id: None, transport: Transport::WebSockets, hub: &hub(), issued: None };
    let failed = envoy.workers[0].connect(&envoy.limits, &opening, at(0), &envoy.store);
    assert_eq!(failed, Err(LedgerFailure));
    envoy.end(0, lease, End::Over);
    envoy.store.conflicts.set(0);
    assert_eq!(envoy.counted(), 1, "the end could not be written");
    envoy.pass(1, &[0]);
    assert_eq!(envoy.counted(), 0, "and was made up for");
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
                let lease = envoy.workers[1].ledger.leases().remove(0);
                envoy.end(1, Admitted { lease, on_trust: None }, End::Over);
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
            for lease in envoy.workers[1].ledger.leases() {
                envoy.end(1, Admitted { lease, on_trust: None }, End::Over);
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

/// Shared data in which something happens right after a slot was loaded for the first time.
struct Interrupted<'a> {
    store: &'a MemoryStore,
    loads: Cell<u32>,
    interruption: RefCell<Option<Box<dyn FnOnce() + 'a>>>,
}

impl Store for Interrupted<'_> {
    fn load(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        let loaded = self.store.load(key);
        self.loads.set(self.loads.get() + u32::from(key.contains("/slot/")));
        if self.loads.get() == 1
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
    let [mut one, mut other] =
        [1, 2].map(|id| Limiter::new(InstanceId::new(id).unwrap(), Secret::new([7; 32]), limits));
    one.ledger.tick(at(*now).seconds(), store);
    let (client, transport, hub) = (envoy.client(ANN).0, Transport::WebSockets, hub());
    let opening = |id: &'static [u8]| Opening { client, id: Some(id), transport, hub: &hub, issued: None };
    let begins = || {
        let first = other.connect(limits, &opening(b"of the other"), at(*now), store);
        assert!(first.is_ok_and(|(_, lease)| lease.is_some()));
    };
    let store = Interrupted { store, loads: Cell::new(0), interruption: RefCell::new(Some(Box::new(begins))) };
    let admitted = one.connect(limits, &opening(b"of one"), at(*now), &store);
    assert!(admitted.is_ok_and(|(_, lease)| lease.is_some()));
    assert_eq!((Ledger::entries(client, store.store), one.ledger.counted(store.store)), (2, 1));
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
fn polls_of_a_dead_instance_leave_the_numbers() {
    let mut envoy = Envoy::new(2, r#"{"connections": {"total": 100}}"#);
    for n in 0..100 {
        assert!(envoy.poll(1, ANN, &format!("session{n}")).is_some());
    }
    envoy.pass(HEALED, &[0]);
    assert_eq!(envoy.counted(), 0);
}

/// A session is counted by the instance of its first poll. Its later polls are held by others, of which one dies.
#[test]
fn a_death_is_repaired_by_those_that_count_or_hold_what_it_left() {
    let mut envoy = Envoy::new(4, r#"{"connections": {"total": 1000}, "long_polling_idle": "1h"}"#);
    let mut under_way = Vec::new();
    for n in 0..120 {
        let (first, second) = (n % 4, (n / 4) % 4);
        let poll = envoy.poll(first, ANN, &format!("session{n}")).unwrap();
        envoy.end(first, poll, End::BetweenPolls);
        under_way.push((second, envoy.poll(second, ANN, &format!("session{n}")).unwrap()));
    }
    envoy.pass(1, &[0, 1, 2, 3]);
    assert_eq!(envoy.counted(), 120);
    envoy.pass(HEALED, &[0, 1, 2]);
    let held = under_way.iter().filter(|(worker, _)| *worker != 3).count() as u64;
    assert_eq!(envoy.counted(), held);
    for (worker, poll) in under_way {
        envoy.end(worker, poll, End::Over);
    }
    envoy.pass(1, &[0, 1, 2]);
    assert_eq!(envoy.counted(), 0);
}

#[test]
fn a_session_that_another_instance_counts_ends_a_second_after_its_wait() {
    let mut envoy = Envoy::new(4, r#"{"connections": {"total": 100}}"#);
    for n in 0..100 {
        for worker in [0, 1] {
            let poll = envoy.poll(worker, ANN, &format!("session{n}")).unwrap();
            envoy.end(worker, poll, End::BetweenPolls);
        }
    }
    envoy.pass(14, &[0, 1, 2, 3]);
    assert_eq!(envoy.counted(), 100);
    envoy.pass(2, &[0, 1, 2, 3]);
    assert_eq!(envoy.counted(), 0);
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
fn permits_that_could_not_be_given_back_are_given_back_within_a_second() {
    let mut envoy = Envoy::new(2, r#"{"connections": {"total": 1}}"#);
    let lease = envoy.open(0, ANN, "id").unwrap();
    let contended = Contended { store: &envoy.store, key: "envoy-signalr/1/room/total" };
    envoy.workers[0].end(lease, End::Over, at(envoy.now).seconds(), &contended);
    assert_eq!(envoy.counted(), 0);
    assert!(envoy.open(1, ANN, "other").is_none(), "the permit is still the first instance's");
    envoy.pass(1, &[0, 1]);
    assert!(envoy.open(1, ANN, "other").is_some());
}
