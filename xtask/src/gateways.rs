//! Three pods behind an Envoy without the filter and one with it: what the demo shows.
use anyhow::Result;
use testbed::envoy::{Envoy, EnvoyOptions, Filter, Hosts};
use testbed::hub::{Hub, three_hubs_with};
use testbed::process::free_port;

/// All of them. They end when this is dropped.
pub(crate) struct Gateways {
    pub(crate) hubs: Vec<Hub>,
    pub(crate) without: Envoy,
    pub(crate) with: Envoy,
    /// The chat page of the gateway with the filter. It knows the other one, and the metrics.
    pub(crate) page: String,
    /// What the filter counts, as text.
    pub(crate) metrics: String,
}

impl Gateways {
    pub(crate) fn start() -> Result<Self> {
        // The page connects through both, so the pods must know where it comes from, before there is a gateway.
        let port = free_port()?;
        let site = format!("http://127.0.0.1:{port}");
        let hubs = three_hubs_with(|hubs| hubs.iter_mut().for_each(|hub| hub.cors_origins = vec![site.clone()]))?;
        let without = Envoy::before(&hubs, Filter::Absent)?;
        let options = EnvoyOptions { port: Some(port), hosts: Hosts::of(&hubs), ..EnvoyOptions::default() };
        let with = Envoy::start(&options)?;
        let metrics = format!("{}/stats/prometheus?filter=signalr", with.metrics());
        let page = format!("{site}/?without={}&metrics={metrics}", without.url());
        Ok(Self { hubs, without, with, page, metrics })
    }
}
