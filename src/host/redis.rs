//! The calls to the Redis through which gateways share limits, and what they decide for streams that wait.
//!
//! Envoy gives an answer to the context that made the call, and a stream may be over by then. So all calls are made by the root: a
//! stream that has something to ask wakes it by a queue of Envoy's, which costs microseconds, or by the next tick.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use log::warn;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{BufferType, MapType};

use super::envoy_metrics::EnvoyMetrics;
use super::root::BEAT;
use super::{abi, body, now, store};
use crate::clock::Millis;
use crate::metrics::Count;
use crate::settings::Settings;
use crate::shared::{CallFailure, Decided};
use crate::stream::Worker;

/// The calls of one worker thread.
#[derive(Default)]
pub(super) struct Redis {
    worker: Rc<RefCell<Worker>>,
    metrics: Rc<RefCell<EnvoyMetrics>>,
    /// The queue that wakes the root, and this instance's place in the ledger, which names it.
    queue: Cell<Option<(usize, u32)>>,
    /// Envoy's token of the call that is under way.
    call: Cell<Option<u32>>,
    /// Whether Redis was away when that was last logged, and when that was.
    logged: Cell<(bool, Option<Millis>)>,
}

/// Each call is one connection of raw TCP: `TcpConnectionPoolProto` sends no headers.
const HEADERS: [(&str, &str); 3] = [(":method", "POST"), (":path", "/"), (":authority", "redis")];

impl Redis {
    pub(super) fn new(worker: Rc<RefCell<Worker>>, metrics: Rc<RefCell<EnvoyMetrics>>) -> Self {
        Self { worker, metrics, ..Self::default() }
    }

    /// Has the root call, now or when a call is due. From any context.
    pub(super) fn wake(&self) {
        match self.worker.borrow().shared.due(now()) {
            Some(Duration::ZERO) if self.queue().is_some_and(abi::enqueue) => {}
            Some(due) => abi::tick_after(due.max(LEAST_TICK)),
            None => {}
        }
    }

    /// Makes the call that is due. In the root's context. Returns when the next one is due.
    pub(super) fn call(&self, settings: &Settings) -> Option<Duration> {
        let shared = settings.limits.shared.as_ref()?;
        let due = self.worker.borrow().shared.due(now())?;
        if !due.is_zero() {
            return Some(due);
        }
        let body = self.worker.borrow_mut().shared.start(shared, now());
        let headers = HEADERS.to_vec();
        match hostcalls::dispatch_http_call(&shared.cluster, headers, Some(&body), Vec::new(), shared.timeout) {
            Ok(token) => self.call.set(Some(token)),
            // Envoy does not know the cluster.
            Err(_) => self.ended(Err(CallFailure::Unreachable), settings),
        }
        None
    }

    /// Envoy has an answer. In the root's context.
    pub(super) fn answered(&self, token: u32, headers: usize, size: usize, settings: &Settings) {
        if self.call.get() == Some(token) {
            let bytes = body(BufferType::HttpCallResponseBody, 0, size);
            // No header at all: nothing came in time, or the connection broke off. To ask for one would be a trap.
            let answer = match headers {
                0 => Err(CallFailure::TimedOut),
                _ if abi::head(MapType::HttpCallResponseHeaders).get(":status") == Some(b"200") => Ok(bytes.as_slice()),
                _ => Err(CallFailure::Unreachable),
            };
            self.ended(answer, settings);
        }
        // Not at once: Envoy would take the connection of this call again, which Redis has closed and Envoy has not noticed yet.
        self.wake();
    }

    /// Call once a second.
    pub(super) fn tick(&self, settings: &Settings) {
        let Some(shared) = &settings.limits.shared else { return };
        let decided = {
            let Worker { limiter: Some(limiter), shared: state, .. } = &mut *self.worker.borrow_mut() else { return };
            state.tick(shared, &settings.limits, &mut limiter.ledger, now(), store())
        };
        if !self.worker.borrow().shared.is_under_way() {
            // An answer that comes now is too late.
            self.call.set(None);
        }
        self.carry_out(decided, settings);
    }

    fn ended(&self, answer: Result<&[u8], CallFailure>, settings: &Settings) {
        self.call.set(None);
        let Some(shared) = &settings.limits.shared else { return };
        let decided = {
            let Worker { limiter: Some(limiter), shared: state, .. } = &mut *self.worker.borrow_mut() else { return };
            state.answered(answer, shared, &settings.limits, limiter.ledger.instance(), now())
        };
        self.carry_out(decided, settings);
    }

    fn carry_out(&self, decided: Vec<Decided>, settings: &Settings) {
        for decided in decided {
            if !abi::enter(decided.stream) {
                continue;
            }
            let Some(exceeded) = decided.exceeded(&settings.limits) else {
                abi::resume_request();
                continue;
            };
            for (name, value) in exceeded.log {
                abi::set_log_field(name, value);
            }
            self.metrics.borrow_mut().add(&[exceeded.count]);
            match exceeded.rejection {
                Some(rejection) => abi::send_response(&rejection),
                None => abi::resume_request(),
            }
        }
        let counts: Vec<Count> = self.worker.borrow_mut().shared.take_counts();
        self.metrics.borrow_mut().add(&counts);
        self.report_state();
    }

    /// Logs that Redis has gone and that it is back, at most once a minute in each worker thread.
    fn report_state(&self) {
        let is_away = self.worker.borrow().shared.is_away();
        let ((was_away, last), now) = (self.logged.get(), now());
        if was_away != is_away && last.is_none_or(|last| now.since(last) >= QUIET) {
            self.logged.set((is_away, Some(now)));
            match is_away {
                true => warn!("redis does not answer: limits.shared.redis.on_error holds"),
                false => warn!("redis answers again: limits are shared"),
            }
        }
    }

    /// The queue that wakes the root. Its name is used again by the next instance at this place, because Envoy keeps each for ever.
    fn queue(&self) -> Option<u32> {
        let place = self.worker.borrow().limiter.as_ref()?.ledger.place()?;
        if let Some((_, queue)) = self.queue.get().filter(|(at, _)| *at == place) {
            return Some(queue);
        }
        let queue = abi::register_queue(&format!("envoy-signalr/wake/{place}"))?;
        self.queue.set(Some((place, queue)));
        Some(queue)
    }
}

/// Between two lines of the log, in milliseconds.
const QUIET: u64 = 60_000;

/// A tick after no time at all is none for Envoy.
const LEAST_TICK: Duration = Duration::from_millis(1);

/// The root's next tick, when the next call is due.
pub(super) fn next_tick(due: Option<Duration>) -> Duration {
    due.map_or(BEAT, |due| due.clamp(LEAST_TICK, BEAT))
}
