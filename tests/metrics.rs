//! Tiers 5 and 6: every metric of the public interface, in a real Envoy before real hubs, against traffic whose numbers are
//! known; and the kit in `envoy/prometheus` and `envoy/grafana` against a real Prometheus, where there is one.

#[path = "metrics/client.rs"]
mod client;
#[path = "metrics/obedient.rs"]
mod obedient;
#[path = "metrics/scrape.rs"]
mod scrape;
#[path = "http2/tunnel.rs"]
mod tunnel;

#[path = "metrics/access_log.rs"]
mod access_log;
#[path = "metrics/bounds.rs"]
mod bounds;
#[path = "metrics/counting.rs"]
mod counting;
#[path = "metrics/endings.rs"]
mod endings;
#[path = "metrics/failures.rs"]
mod failures;
#[path = "metrics/faults.rs"]
mod faults;
#[path = "metrics/kit.rs"]
mod kit;
#[path = "metrics/messages.rs"]
mod messages;
#[path = "metrics/odd_frames.rs"]
mod odd_frames;
#[path = "metrics/upstreams.rs"]
mod upstreams;
