//! Envoy's metric ids, looked up by name once per worker thread.

use std::collections::{BTreeMap, HashMap};

use log::warn;
use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

use crate::metrics::{Change, Count};

#[derive(Default)]
pub(super) struct EnvoyMetrics {
    ids: HashMap<String, u32>,
}

impl EnvoyMetrics {
    pub(super) fn add(&mut self, counts: &[Count]) {
        for count in counts {
            let done = match count.change() {
                // Envoy takes an increment of zero for a mistake.
                Change::Add(0) => continue,
                Change::Add(amount) => self
                    .id(MetricType::Counter, &count.stat())
                    .map(|id| hostcalls::increment_metric(id, i64::try_from(amount).unwrap_or(i64::MAX))),
                Change::Observe(value) => {
                    self.id(MetricType::Histogram, &count.stat()).map(|id| hostcalls::record_metric(id, value))
                }
            };
            if let Some(Err(status)) = done {
                warn!("envoy refused to count: {status:?}");
            }
        }
    }

    /// Sets these gauges.
    pub(super) fn set(&mut self, gauges: &BTreeMap<String, u64>) {
        for (name, value) in gauges {
            if let Some(id) = self.id(MetricType::Gauge, name)
                && let Err(status) = hostcalls::record_metric(id, *value)
            {
                warn!("envoy refused to set a gauge: {status:?}");
            }
        }
    }

    /// Defining a metric that another worker thread defined gives another id for the same number.
    fn id(&mut self, kind: MetricType, name: &str) -> Option<u32> {
        if let Some(id) = self.ids.get(name) {
            return Some(*id);
        }
        match hostcalls::define_metric(kind, name) {
            Ok(id) => {
                self.ids.insert(name.to_owned(), id);
                Some(id)
            }
            Err(status) => {
                warn!("envoy refused the metric {name}: {status:?}");
                None
            }
        }
    }
}
