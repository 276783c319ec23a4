//! The answers of Redis: any bytes decide a request that waits.
#![no_main]

use std::time::Duration;

use envoy_signalr::clock::Millis;
use envoy_signalr::hub::HubLabel;
use envoy_signalr::ledger::{InstanceId, Ledger, Tracked};
use envoy_signalr::limit::Verdict;
use envoy_signalr::settings::{Settings, Surroundings};
use envoy_signalr::shared::{Asked, Asker, Question, Shared};
use envoy_signalr::store::{Conflict, Secret, Store, Version};
use libfuzzer_sys::fuzz_target;

const SETTINGS: &str = r#"{"affinity": {"keys": [{"id": "1", "secret": {"value": "0123456789abcdef0123456789abcdef"}}]},
    "limits": {"negotiate_rate": {"requests": 1, "per": "1s", "burst": 1},
        "shared": {"redis": {"cluster": "redis", "namespace": "fuzz"}}}}"#;

/// Shared data that keeps nothing.
struct Nothing;

impl Store for Nothing {
    fn load(&self, _: &str) -> Option<(Vec<u8>, Version)> {
        None
    }

    fn swap(&self, _: &str, _: &[u8], _: Version) -> Result<(), Conflict> {
        Ok(())
    }
}

fuzz_target!(|answers: Vec<Vec<u8>>| {
    let secret = || Secret::new([0; 32]);
    let surroundings = Surroundings { env: &|_| None, process_secret: &secret };
    let settings = Settings::parse(SETTINGS.as_bytes(), &surroundings).unwrap();
    let (limits, redis) = (&settings.limits, settings.limits.shared.as_ref().unwrap());
    let mut ledger = Ledger::new(InstanceId::MIN, secret(), Tracked::default());
    let mut shared = Shared::new(limits);
    let mut decided = 0;
    for (second, answer) in (1..).zip(&answers) {
        let now = Millis::since_epoch(Duration::from_secs(second * 10));
        let asker = Asker { hub: HubLabel::other(), is_negotiate: true, origin: None };
        let client = Question::Negotiate(envoy_signalr::limit::ClientKey::default());
        let stream = second as u32;
        if shared.ask(stream, asker, &client, limits, redis, 1) == Asked::Decided(Verdict::Within) {
            decided += 1;
        }
        decided += shared.tick(redis, limits, &mut ledger, now, &Nothing).len();
        if shared.due(now).is_some_and(|due| due.is_zero()) {
            shared.start(redis, now);
            decided += shared.answered(Ok(answer), redis, limits, 1, now).len();
        }
    }
    // Some may wait for another call, because a node was not in charge: so many times and no more.
    assert!(decided + 12 >= answers.len(), "{decided} of {}", answers.len());
});
