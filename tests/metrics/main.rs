//! Tiers 5 and 6: every metric of the public interface, in a real Envoy before real hubs, against traffic whose numbers are
//! known; and the kit in `envoy/prometheus` and `envoy/grafana` against a real Prometheus, where there is one.

mod client;
mod obedient;
mod scrape;

mod access_log;
mod bounds;
mod counting;
mod endings;
mod failures;
mod faults;
mod kit;
mod messages;
mod odd_frames;
mod upstreams;
