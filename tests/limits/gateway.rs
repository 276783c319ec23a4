//! An Envoy with limits before real hubs, and what its gauges say.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch};
use testbed::hub::{Hub, three_hubs};
use testbed::process::wait_until;

use crate::wire::{Client, Transport};

/// Within this the numbers are right again after whatever ends a connection orderly: the gauge is set every second.
pub(crate) const SOON: Duration = Duration::from_secs(3);
/// Within this after a fault.
pub(crate) const AFTER_A_FAULT: Duration = Duration::from_secs(10);
/// Two refreshes of the gauges: what is wrong shows.
pub(crate) const A_WHILE: Duration = Duration::from_millis(2_300);
/// What a machine that does much else may add to any of them.
pub(crate) const BUSY: Duration = Duration::from_secs(3);

pub(crate) struct Gateway {
    pub(crate) envoy: Envoy,
}

/// Hubs that all tests share; they end with this process.
pub(crate) fn hubs() -> &'static [Hub] {
    static HUBS: OnceLock<Vec<Hub>> = OnceLock::new();
    HUBS.get_or_init(|| three_hubs().unwrap())
}

pub(crate) fn addresses(hubs: &[Hub]) -> Hosts {
    Hosts::Fixed(hubs.iter().map(Hub::address).collect())
}

pub(crate) fn settings(limits: &Value) -> Filter {
    Filter::With(json!({ "limits": limits }))
}

impl Gateway {
    /// The newest Envoy with four worker threads and these limits.
    pub(crate) fn with(limits: &Value) -> Self {
        Self::start(EnvoyOptions { filter: settings(limits), ..EnvoyOptions::default() })
    }

    /// The same with a change to the bootstrap.
    pub(crate) fn patched(limits: &Value, patch: Patch) -> Self {
        Self::start(EnvoyOptions { filter: settings(limits), patch: Some(patch), ..EnvoyOptions::default() })
    }

    /// Any Envoy, before the shared hubs if it has no others.
    pub(crate) fn start(mut options: EnvoyOptions) -> Self {
        if matches!(&options.hosts, Hosts::Fixed(none) if none.is_empty()) {
            options.hosts = addresses(hubs());
        }
        Self { envoy: Envoy::start(&options).unwrap() }
    }

    pub(crate) fn client(&self) -> Client {
        Client::of(&self.envoy.url())
    }

    pub(crate) fn user(&self, name: &str) -> Client {
        self.client().header("x-user", name)
    }

    /// `signalr_gateway_connections_active` for each of [`Transport::ALL`].
    pub(crate) fn active(&self) -> [u64; 3] {
        Transport::ALL.map(|transport| {
            let labels = [("signalr_transport", transport.label())];
            number(self.envoy.metric("signalr_gateway_connections_active", &labels).unwrap())
        })
    }

    pub(crate) fn rejected(&self, limit: &str, mode: &str) -> u64 {
        let labels = [("signalr_limit", limit), ("signalr_mode", mode)];
        number(self.envoy.metric("signalr_gateway_rejected_total", &labels).unwrap())
    }

    pub(crate) fn ledger_failures(&self) -> u64 {
        number(self.envoy.metric("signalr_gateway_internal_errors_total", &[("signalr_kind", "ledger")]).unwrap())
    }

    /// Waits until the gauges say this. Returns how long it took.
    pub(crate) fn settles(&self, name: &str, expected: [u64; 3], within: Duration) -> Duration {
        let began = Instant::now();
        let reached = wait_until(within + BUSY, "the gauges", || self.active() == expected);
        assert!(reached.is_ok(), "{name}: {:?} instead of {expected:?} after {within:?}", self.active());
        began.elapsed()
    }

    /// The gauges say this all the time.
    pub(crate) fn stays(&self, name: &str, expected: [u64; 3], time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until {
            assert_eq!(self.active(), expected, "{name}: did not last");
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Ends Envoy and returns its log.
    pub(crate) fn end(self) -> String {
        self.envoy.finish().unwrap()
    }
}

fn number(value: f64) -> u64 {
    value as u64
}
