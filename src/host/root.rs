//! The root context: one per worker thread and configuration. Reads the configuration, makes the exchanges.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use log::{error, warn};
use proxy_wasm::hostcalls;
use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use super::envoy_metrics::EnvoyMetrics;
use super::exchange::HttpExchange;
use super::redis::{self, Redis};
use super::shared::SharedData;
use super::{abi, now, random, store};
use crate::clock::Millis;
use crate::ledger::InstanceId;
use crate::limit::Limiter;
use crate::metrics::Gauges;
use crate::settings::{OWN_SECRET_WARNING, Settings, SettingsError, Surroundings};
use crate::shared::Shared;
use crate::store::{self, Secret, SecretUse};
use crate::stream::{Stream, Worker};

#[derive(Default)]
pub(super) struct Root {
    settings: Option<Rc<Settings>>,
    worker: Rc<RefCell<Worker>>,
    metrics: Rc<RefCell<EnvoyMetrics>>,
    redis: Rc<Redis>,
    gauges: Gauges,
    /// When the last whole tick was: those between only serve Redis.
    beaten: Millis,
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, headers: usize, size: usize, _: usize) {
        if let Some(settings) = &self.settings {
            self.redis.answered(token, headers, size, settings);
        }
    }
}

impl RootContext for Root {
    /// Runs in a trial VM, on the main thread and in each worker thread, so it counts nothing and speaks once.
    fn on_configure(&mut self, _: usize) -> bool {
        let json = self.get_plugin_configuration().unwrap_or_default();
        let Some(candidate) = random().map(Secret::new) else {
            error!("envoy gives no randomness, so nothing can be sealed");
            return false;
        };
        match configure(&json, candidate) {
            Ok(settings) => {
                let mut worker = self.worker.borrow_mut();
                worker.limiter = limiter(candidate, &settings);
                worker.shared = Shared::new(&settings.limits);
                drop(worker);
                self.redis = Rc::new(Redis::new(self.worker.clone(), self.metrics.clone()));
                self.gauges = Gauges::new(settings.per_upstream);
                self.set_tick_period(BEAT);
                self.settings = Some(Rc::new(settings));
                true
            }
            Err(refusal) => {
                error!("configuration refused: {refusal}");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        let Some(settings) = self.settings.clone() else { return };
        if settings.limits.shared.is_none() {
            return self.beat();
        }
        let now = now();
        if now.since(self.beaten) >= MOST_BEAT {
            self.beaten = now;
            self.beat();
            self.redis.tick(&settings);
        }
        abi::tick_after(redis::next_tick(self.redis.call(&settings)));
    }

    fn on_queue_ready(&mut self, queue: u32) {
        while hostcalls::dequeue_shared_queue(queue).is_ok_and(|item| item.is_some()) {}
        if let Some(settings) = &self.settings {
            self.redis.call(settings);
        }
    }

    fn create_http_context(&self, id: u32) -> Option<Box<dyn HttpContext>> {
        let settings = self.settings.clone()?;
        let stream = Stream::new(id, settings.clone(), self.worker.clone());
        Some(Box::new(HttpExchange::new(stream, self.redis.clone(), settings, self.metrics.clone())))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

impl Root {
    /// What is done once a second.
    fn beat(&mut self) {
        let mut worker = self.worker.borrow_mut();
        let mut metrics = self.metrics.borrow_mut();
        let now = now();
        worker.now = now;
        metrics.add(&worker.traffic.take());
        metrics.add(&[SharedData::take_conflicts()]);
        if let Some(present) = worker.limiter.as_mut().and_then(|limiter| limiter.ledger.tick(now.seconds(), store())) {
            metrics.set(&self.gauges.emit(&present, store()));
        }
    }
}

/// How often an instance shows that it lives; others take it for dead after five beats.
pub(super) const BEAT: Duration = Duration::from_secs(1);
/// A tick that comes after so many milliseconds is a beat. A timer may be early by a little.
const MOST_BEAT: u64 = 990;

/// The ledger's book-keeper for this thread, under a name that nobody had before.
fn limiter(candidate: Secret, settings: &Settings) -> Option<Limiter> {
    let instance = InstanceId::new(u32::from_be_bytes(random()?)).unwrap_or(InstanceId::MIN);
    let secret = match &settings.limits.shared {
        Some(shared) => shared.secret,
        None => store::process_secret(store(), SecretUse::Ledger, candidate).secret,
    };
    Some(Limiter::new(instance, secret, &settings.limits))
}

fn configure(json: &[u8], candidate: Secret) -> Result<Settings, SettingsError> {
    let created = Cell::new(false);
    let process_secret = || {
        let process = store::process_secret(store(), SecretUse::Routes, candidate);
        created.set(process.created);
        process.secret
    };
    let settings = Settings::parse(json, &Surroundings { env: &environment, process_secret: &process_secret })?;
    if created.get() {
        warn!("{OWN_SECRET_WARNING}");
    }
    Ok(settings)
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the module's environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
