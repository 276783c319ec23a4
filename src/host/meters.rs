//! Envoy's metric ids, looked up by name once per worker thread.

use std::collections::HashMap;

use log::warn;
use proxy_wasm::hostcalls;
use proxy_wasm::types::MetricType;

use crate::metrics::Count;

#[derive(Default)]
pub(super) struct Meters(HashMap<String, u32>);

impl Meters {
    /// Defining a metric that another worker thread defined gives another id for the same number.
    pub(super) fn add(&mut self, counts: &[Count]) {
        for count in counts {
            let name = count.stat();
            let id = match self.0.get(&name) {
                Some(id) => *id,
                None => match hostcalls::define_metric(MetricType::Counter, &name) {
                    Ok(id) => {
                        self.0.insert(name, id);
                        id
                    }
                    Err(status) => {
                        warn!("envoy refused the metric {name}: {status:?}");
                        continue;
                    }
                },
            };
            if let Err(status) = hostcalls::increment_metric(id, 1) {
                warn!("envoy refused to count: {status:?}");
            }
        }
    }
}
