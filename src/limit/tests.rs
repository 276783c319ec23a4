//! Tier 2: several instances over one store.

mod faults;
mod model;

use super::*;
use crate::http::Head;
use crate::ledger::MOST_HOLDS;
use crate::settings::{Settings, Surroundings};
use crate::signalr::Transport;
use crate::store::memory::MemoryStore;
use crate::store::{Conflict, Version};
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

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
        let limits = settings(json).limits;
        let worker = |id: u32| Limiter::new(InstanceId::new(id + 1).unwrap(), Secret::new([7; 32]), &limits);
        Self {
            workers: (0..workers).map(worker).collect(),
            store: MemoryStore::default(),
            limits: settings(json).limits,
            now: 0,
        }
    }

    fn client(&self, name: &str) -> ClientKey {
        self.workers[0].client(&self.limits, &Head::default(), &peer(name)).unwrap()
    }

    fn delete(&mut self, worker: usize, client: &str, id: &str) {
        self.delete_at(worker, client, id, &hub());
    }

    fn delete_at(&mut self, worker: usize, client: &str, id: &str, hub: &HubLabel) {
        let session =
            self.workers[worker].session(&self.limits, &Head::default(), &peer(client), id.as_bytes(), hub).unwrap();
        self.workers[worker].ledger.delete(&session, at(self.now).seconds(), &self.store);
    }

    fn connect(
        &mut self,
        worker: usize,
        client: &str,
        id: Option<&str>,
        transport: Transport,
    ) -> (Verdict, Option<Admitted>) {
        let opening =
            Opening { client: self.client(client).0, id: id.map(str::as_bytes), transport, hub: &hub(), issued: None };
        self.workers[worker].connect(&self.limits, &opening, at(self.now), &self.store).unwrap()
    }

    fn open(&mut self, worker: usize, client: &str, id: &str) -> Option<Admitted> {
        self.connect(worker, client, Some(id), Transport::WebSockets).1
    }

    fn poll(&mut self, worker: usize, client: &str, id: &str) -> Option<Admitted> {
        self.connect(worker, client, Some(id), Transport::LongPolling).1
    }

    fn end(&mut self, worker: usize, lease: Admitted, end: End) {
        self.workers[worker].end(lease, end, at(self.now).seconds(), &self.store);
    }

    /// Lets time pass for the workers that live.
    fn pass(&mut self, seconds: u64, living: &[usize]) {
        for _ in 0..seconds {
            self.now += 1;
            for worker in living {
                self.workers[*worker].ledger.tick(at(self.now).seconds(), &self.store);
            }
        }
    }

    /// What all would publish that are not taken for dead.
    fn counted(&self) -> u64 {
        let living = self.workers.iter().filter(|worker| worker.ledger.is_listed(&self.store));
        living.map(|worker| worker.ledger.counted(&self.store)).sum()
    }

    fn negotiate(&mut self, client: &str) -> Verdict {
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
    assert_eq!(envoy.negotiate(ANN), Verdict::Over(Limit::PerClient), "refused at the negotiate already");
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
fn a_session_is_ended_at_its_own_hub_by_its_own_client_only() {
    let mut envoy = Envoy::new(2, r#"{"connections": {"per_client": 2}}"#);
    let poll = envoy.poll(0, ANN, "session").unwrap();
    envoy.end(0, poll, End::BetweenPolls);
    envoy.delete_at(1, ANN, "session", &HubLabel::learned(b"/other"));
    envoy.delete(1, BOB, "session");
    assert_eq!(envoy.counted(), 1);
    envoy.delete(1, ANN, "session");
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
fn shadow_mode_admits_and_reports() {
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
fn a_negotiate_is_refused_while_a_connect_would_be() {
    let mut envoy = Envoy::new(2, r#"{"connect_rate": {"requests": 1, "per": "10s", "burst": 1}}"#);
    assert_eq!(envoy.negotiate(ANN), Verdict::Within);
    assert_eq!(envoy.negotiate(ANN), Verdict::Within, "a negotiate takes no token");
    assert!(envoy.open(0, ANN, "a").is_some());
    assert_eq!(envoy.negotiate(ANN), Verdict::Over(Limit::ConnectRate));
    envoy.now += 10;
    assert_eq!(envoy.negotiate(ANN), Verdict::Within);
}

#[test]
fn a_resume_takes_no_token_and_is_no_new_connection() {
    let mut envoy = Envoy::new(
        2,
        r#"{"connections": {"per_client": 1, "total": 1}, "connect_rate": {"requests": 1, "per": "1h", "burst": 1}}"#,
    );
    let mut lease = envoy.open(0, ANN, "id").unwrap();
    assert!(lease.lease.is_new());
    for n in 0..20 {
        envoy.end(n % 2, lease, End::Resumable);
        assert_eq!(envoy.counted(), 0, "a memory is no connection");
        lease = envoy.open((n + 1) % 2, ANN, "id").expect("the same id");
        assert!(!lease.lease.is_new());
        assert_eq!(envoy.counted(), 1);
    }
    envoy.end(0, lease, End::Resumable);
    assert!(envoy.open(0, ANN, "other").is_none(), "no token is left for a new connection");
    envoy.pass(30, &[0, 1]);
    assert!(envoy.open(1, ANN, "id").is_none(), "forgotten, as the hub has it");
}

#[test]
fn an_id_that_is_old_was_connected_before_or_is_paid_for() {
    let mut envoy = Envoy::new(1, r#"{"connect_rate": {"requests": 1, "per": "1h", "burst": 2}}"#);
    let hub = hub();
    let resume = |envoy: &mut Envoy, id: &[u8], age: u64| {
        let issued = Some(at(envoy.now));
        let opening =
            Opening { client: envoy.client(ANN).0, id: Some(id), transport: Transport::WebSockets, hub: &hub, issued };
        let now = at(envoy.now + age);
        envoy.workers[0].connect(&envoy.limits, &opening, now, &envoy.store).unwrap().1
    };
    assert!(
        resume(&mut envoy, b"a", 0).unwrap().lease.is_new() && resume(&mut envoy, b"b", 14).unwrap().lease.is_new()
    );
    assert!(resume(&mut envoy, b"c", 14).is_none(), "young ids take tokens");
    for n in 0..=2_u8 {
        let lease = resume(&mut envoy, &[n], 20);
        let Some(lease) = lease else {
            assert_eq!(n, 2, "as many as the bucket holds are trusted");
            return;
        };
        assert!(!lease.lease.is_new());
        envoy.workers[0].refused(&lease, at(envoy.now), &envoy.store);
        envoy.end(0, lease, End::Over);
    }
    panic!("ids that no hub knows are never paid for");
}

#[test]
fn clients_that_come_and_go_leave_a_bounded_memory() {
    let mut envoy = Envoy::new(1, r#"{"connections": {"per_client": 1}}"#);
    for n in 0..1_000 {
        let lease = envoy.open(0, ANN, &format!("id{n}")).unwrap();
        envoy.end(0, lease, End::Resumable);
    }
    assert!(envoy.store.bytes() < 10_000, "{} bytes", envoy.store.bytes());
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
fn who_is_exempt_ends_nobody_elses_session() {
    let json = r#"{"connections": {"per_client": 1}, "long_polling_idle": "60s"}"#;
    let mut envoy = Envoy::new(1, json);
    let session = envoy.poll(0, ANN, "session").unwrap();
    envoy.end(0, session, End::BetweenPolls);
    envoy.now += 20;
    let of_same_slot = |id: &String| envoy.workers[0].ledger.share_slot(id.as_bytes(), envoy.client(ANN).0);
    let id = (0..).map(|n| format!("id{n}")).find(of_same_slot).unwrap();
    let (client, id, hub) = (envoy.client(BOB).0, Some(id.as_bytes()), hub());
    let opening = Opening { client, id, transport: Transport::WebSockets, hub: &hub, issued: None };
    let exempt = settings(json);
    let opened = envoy.workers[0].connect(exempt.limits_for(true), &opening, at(envoy.now), &envoy.store);
    assert!(opened.is_ok_and(|(_, lease)| lease.is_some()));
    assert!(envoy.poll(0, ANN, "other").is_none(), "the session is still the one connection");
}
