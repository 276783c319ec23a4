//! Envoy's metric ids, looked up by name once per worker thread.

use std::collections::HashMap;

use log::warn;
use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

use crate::metrics::Count;

#[derive(Default)]
pub(super) struct Meters(HashMap<String, u32>);

impl Meters {
    pub(super) fn add(&mut self, counts: &[Count]) {
        for count in counts {
            if let Some(id) = self.id(MetricType::Counter, &count.stat())
                && let Err(status) = hostcalls::increment_metric(id, 1)
            {
                warn!("envoy refused to count: {status:?}");
            }
        }
    }

    pub(super) fn set(&mut self, gauge: &str, value: u64) {
        if let Some(id) = self.id(MetricType::Gauge, gauge)
            && let Err(status) = hostcalls::record_metric(id, value)
        {
            warn!("envoy refused to set a gauge: {status:?}");
        }
    }

    /// Defining a metric that another worker thread defined gives another id for the same number.
    fn id(&mut self, kind: MetricType, name: &str) -> Option<u32> {
        if let Some(id) = self.0.get(name) {
            return Some(*id);
        }
        match hostcalls::define_metric(kind, name) {
            Ok(id) => {
                self.0.insert(name.to_owned(), id);
                Some(id)
            }
            Err(status) => {
                warn!("envoy refused the metric {name}: {status:?}");
                None
            }
        }
    }
}
