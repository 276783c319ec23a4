//! Many clients that do many things, against a model of what should be counted.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn whatever_happens_the_ledger_agrees_with_a_model() {
    for seed in 1..=20 {
        // Seeded, so that a failure can be played again.
        let mut dice = fastrand::Rng::with_seed(seed);
        let mut envoy = Envoy::new(4, r#"{"connections": {"per_client": 3, "total": 20}, "long_polling_idle": "1h"}"#);
        let mut held: Vec<(usize, usize, Admitted)> = Vec::new();
        let mut sessions: BTreeSet<(usize, usize)> = BTreeSet::new();
        for step in 0..400 {
            // The place of a session that has ended elsewhere is free a second later.
            envoy.pass(1, &[0, 1, 2, 3]);
            let (client, worker) = (dice.usize(..10), dice.usize(..4));
            let name = format!("192.0.2.{client}");
            let of_client = |held: &[(usize, usize, Admitted)], sessions: &BTreeSet<(usize, usize)>| {
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
        for (client, session) in sessions {
            envoy.delete(client % 4, &format!("192.0.2.{client}"), &format!("lp{client}-{session}"));
        }
        assert_eq!(envoy.counted(), 0, "seed {seed}: zero at the end");
    }
}

#[test]
fn a_million_clients_leave_no_memory_behind() {
    let mut envoy = Envoy::new(1, r#"{"connections": {"per_client": 1}}"#);
    // A hundredth here, because the loop is slow without optimisation; the slots are the same.
    for n in 0..10_000_u32 {
        let client = std::net::Ipv4Addr::from(n).to_string();
        let lease = envoy.open(0, &client, &format!("id{n}")).unwrap();
        envoy.end(0, lease, End::Over);
    }
    assert!(envoy.store.bytes() < 65_536 * 32, "{} bytes", envoy.store.bytes());
}
