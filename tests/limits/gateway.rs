//! An Envoy with limits before real hubs, and what its gauges say.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts, Patch};
use testbed::hub::shared_hubs;
use testbed::process::{cores, wait_for};
use testbed::raw::Client;

/// How many clients act at the same moment where worker threads are to meet.
pub(crate) fn crowd() -> usize {
    30 * cores()
}

/// Clients from here are not counted with those that come without an address.
pub(crate) const ANOTHER_HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

pub(crate) struct Gateway {
    pub(crate) envoy: Envoy,
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
            options.hosts = Hosts::of(shared_hubs().unwrap());
        }
        Self { envoy: Envoy::start(&options).unwrap() }
    }

    pub(crate) fn client(&self) -> Client {
        Client::of(&self.envoy.url())
    }

    pub(crate) fn user(&self, name: &str) -> Client {
        self.client().header("x-user", name)
    }

    /// `signalr_gateway_connections_active` for each transport.
    pub(crate) fn active(&self) -> [u64; 3] {
        ["web_sockets", "server_sent_events", "long_polling"].map(|transport| {
            let labels = [("signalr_transport", transport)];
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

    /// Waits until the gauges say this.
    pub(crate) fn settles(&self, name: &str, expected: [u64; 3]) {
        let reached = wait_for("the gauges", || self.active() == expected);
        assert!(reached.is_ok(), "{name}: {:?} instead of {expected:?}", self.active());
    }

    /// The gauges say this for good: they are set anew for a visitor who comes and for one who goes, and nothing else changes.
    pub(crate) fn stays(&self, name: &str, expected: [u64; 3]) {
        let [sockets, events, sessions] = expected;
        let visited = [sockets + 1, events, sessions];
        for _ in 0..2 {
            let mut visitor = None;
            // Where a VM has trapped, Envoy answers until it is loaded anew.
            wait_for("a visitor", || {
                visitor = self.client().from(ANOTHER_HOST).bare_socket(None).ok();
                visitor.is_some()
            })
            .unwrap();
            self.goes_from_to(name, expected, visited);
            drop(visitor);
            self.goes_from_to(name, visited, expected);
        }
    }

    fn goes_from_to(&self, name: &str, from: [u64; 3], to: [u64; 3]) {
        let gone = || match self.active() {
            active if active == to => true,
            active if active == from => false,
            active => panic!("{name}: {active:?} between {from:?} and {to:?}"),
        };
        wait_for(name, gone).unwrap();
    }

    /// Ends Envoy and returns its log.
    pub(crate) fn end(self) -> String {
        self.envoy.finish().unwrap()
    }
}

fn number(value: f64) -> u64 {
    value as u64
}
