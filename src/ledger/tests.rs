//! Several instances over one store: who counts what, and what becomes of it when one dies.

use std::sync::Mutex;
use std::time::Duration;

use super::*;
use crate::clock::Millis;
use crate::store::memory::MemoryStore;
use crate::store::{Conflict, Version};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const TERMS: Terms =
    Terms { per_client: None, per_hub: None, total: None, enforced: true, idle: Duration::from_secs(15), asks: false };
const ALL: Tracked = Tracked { per_hub: true, total: true };

fn at(seconds: u64) -> Seconds {
    Millis::since_epoch(Duration::from_secs(1_000_000 + seconds)).seconds()
}

fn ledger(instance: u32, tracked: Tracked) -> Ledger {
    Ledger::new(InstanceId::new(instance).unwrap(), Secret::new([7; 32]), tracked)
}

fn opening<'a>(id: Option<&'a [u8]>, transport: Transport, hub: &'a HubLabel) -> Opening<'a> {
    Opening { client: [1; 8], id, transport, hub, issued: None }
}

/// Admits a connection, or finds that there is no room.
fn admit(ledger: &mut Ledger, opening: &Opening<'_>, terms: &Terms, now: Seconds, store: &dyn Store) -> Option<Lease> {
    loop {
        let look = ledger.look(opening, terms, now, store).unwrap();
        match ledger.admit(&look, opening, terms, now, store).unwrap() {
            Admission::Admitted(lease, _) => return Some(lease),
            Admission::Refused(_) => return None,
            Admission::Conflict => {}
        }
    }
}

/// The example of [`tally`], with a death in the middle: the sum is right again when it is noticed, and places are free.
#[test]
fn a_session_that_three_instances_serve_is_one_connection_after_a_death() {
    let hub = HubLabel::learned(b"/chat");
    let poll = opening(Some(b"session"), Transport::LongPolling, &hub);
    let other = opening(Some(b"other"), Transport::WebSockets, &hub);
    let one = Terms { total: Some(1), per_hub: Some(1), ..TERMS };
    for dies in [None, Some(0), Some(1), Some(2)] {
        let store = MemoryStore::default();
        let mut all = [1, 2, 3, 4].map(|instance| ledger(instance, ALL));
        let tick = |all: &mut [Ledger; 4], from: u64, to: u64, dead: Option<usize>| {
            for second in from..to {
                for (_, ledger) in all.iter_mut().enumerate().filter(|(n, _)| Some(*n) != dead) {
                    ledger.tick(at(second), &store);
                }
            }
        };
        let counted = |all: &[Ledger; 4], dead: Option<usize>| {
            let living = all.iter().enumerate().filter(|(n, _)| Some(*n) != dead);
            living.map(|(_, ledger)| ledger.counted(&store)).sum::<u64>()
        };
        tick(&mut all, 0, 1, None);
        for n in [0, 1, 2, 0, 1] {
            let lease = admit(&mut all[n], &poll, &one, at(1), &store).unwrap();
            all[n].end(lease, End::BetweenPolls, at(1), &store);
            assert_eq!(counted(&all, None), 1, "{dies:?}");
        }
        let lease = admit(&mut all[2], &poll, &one, at(1), &store).unwrap();
        tick(&mut all, 1, 12, dies);
        // Of a client whose poll went with its instance nobody knows that it is still there, until it polls again.
        let left = if dies == Some(2) { 0 } else { 1 };
        assert_eq!(counted(&all, dies), left, "{dies:?}");
        if left == 1 {
            assert!(admit(&mut all[3], &other, &one, at(12), &store).is_none(), "{dies:?}: there is one already");
            all[2].end(lease, End::Over, at(12), &store);
            tick(&mut all, 12, 14, dies);
        }
        assert_eq!(counted(&all, dies), 0, "{dies:?}");
        assert!(admit(&mut all[3], &other, &one, at(14), &store).is_some(), "{dies:?}: its place is free");
        let more = opening(None, Transport::WebSockets, &hub);
        assert!(admit(&mut all[3], &more, &one, at(14), &store).is_none(), "{dies:?}");
    }
}

#[test]
fn connections_of_instances_without_permits_take_places_too() {
    let (store, hub) = (MemoryStore::default(), HubLabel::learned(b"/chat"));
    let [mut old, mut new] = [ledger(1, Tracked::default()), ledger(2, ALL)];
    let socket = opening(None, Transport::WebSockets, &hub);
    let _held: Vec<_> = (0..3).map(|_| admit(&mut old, &socket, &TERMS, at(0), &store)).collect();
    for ledger in [&mut old, &mut new] {
        ledger.tick(at(0), &store);
    }
    let terms = Terms { total: Some(5), ..TERMS };
    let admitted: Vec<_> = (0..5).filter_map(|_| admit(&mut new, &socket, &terms, at(0), &store)).collect();
    assert_eq!(admitted.len(), 2);
}

/// Shared data as threads see it.
struct Locked(Mutex<MemoryStore>);

impl Store for &Locked {
    fn load(&self, key: &str) -> Option<(Vec<u8>, Version)> {
        self.0.lock().unwrap().load(key)
    }

    fn swap(&self, key: &str, value: &[u8], expected: Version) -> Result<(), Conflict> {
        self.0.lock().unwrap().swap(key, value, expected)
    }
}

#[cfg(not(target_family = "wasm"))] // no threads there
#[test]
fn sixteen_threads_at_once_are_let_in_as_often_as_each_limit_says() {
    use std::sync::atomic::{AtomicU64, Ordering};
    let terms = Terms { per_client: Some(100), per_hub: Some(150), total: Some(200), ..TERMS };
    for run in 0..20_u32 {
        let store = Locked(Mutex::new(MemoryStore::default()));
        let refused_for_good = AtomicU64::new(0);
        let held: Vec<Vec<(u8, Lease)>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|thread| {
                    let (store, refused_for_good) = (&store, &refused_for_good);
                    scope.spawn(move || {
                        let mut ledger = ledger(run * 16 + thread + 1, ALL);
                        let hubs = ["/a", "/b"].map(|hub| HubLabel::learned(hub.as_bytes()));
                        let mut held = Vec::new();
                        let mut second = 0;
                        // Two clients at either hub, until nobody has been let in for three seconds of permits given back.
                        while refused_for_good.load(Ordering::SeqCst) < 16 * 3 {
                            second += 1;
                            let before = held.len();
                            for client in 0..4_u8 {
                                let hub = &hubs[usize::from(client % 2)];
                                let opening =
                                    Opening { client: [client; 8], ..opening(None, Transport::WebSockets, hub) };
                                held.extend(
                                    admit(&mut ledger, &opening, &terms, at(0), &store).map(|lease| (client, lease)),
                                );
                            }
                            ledger.rooms.settle(&mut ledger.instances, at(0), &store);
                            if held.len() > before {
                                refused_for_good.store(0, Ordering::SeqCst);
                            } else {
                                refused_for_good.fetch_add(1, Ordering::SeqCst);
                            }
                            assert!(second < 100_000, "no end");
                        }
                        held
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let of = |wanted: &dyn Fn(u8) -> bool| held.iter().flatten().filter(|(client, _)| wanted(*client)).count();
        let hubs = [of(&|client| client % 2 == 0), of(&|client| client % 2 == 1)];
        assert_eq!(of(&|_| true), 200, "run {run}: in total");
        assert!(hubs.iter().all(|hub| *hub <= 150), "run {run}: {hubs:?} at the hubs");
        assert!((0..4).all(|client| of(&|other| other == client) <= 100), "run {run}: of one client");
    }
}
