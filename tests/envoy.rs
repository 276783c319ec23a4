//! Tier 5: the filter in a real Envoy with several worker threads, byte for byte.
//!
//! Behind it stand small scripted HTTP/1.1 servers of our own: a fake, because ASP.NET Core cannot be made to answer a
//! negotiate in single bytes, with 64 KiB, compressed or broken, nor show the bytes of a request that reached it. Where
//! the hub's own behaviour is the point (`http2`), a real one answers. Clients are bytes on a socket for the same reason.

#[path = "envoy/client.rs"]
mod client;
#[path = "envoy/gateway.rs"]
mod gateway;
#[path = "http2/tunnel.rs"]
mod tunnel;
#[path = "envoy/upstream.rs"]
mod upstream;
#[path = "envoy/wire.rs"]
mod wire;

#[path = "envoy/autobahn.rs"]
mod autobahn;
#[path = "envoy/client_cookie.rs"]
mod client_cookie;
#[path = "envoy/configurations.rs"]
mod configurations;
#[path = "envoy/connection_cookie.rs"]
mod connection_cookie;
#[path = "envoy/cookie.rs"]
mod cookie;
#[path = "envoy/forging.rs"]
mod forging;
#[path = "envoy/http2.rs"]
mod http2;
#[path = "envoy/negotiate.rs"]
mod negotiate;
#[path = "envoy/override_host.rs"]
mod override_host;
#[path = "envoy/pin.rs"]
mod pin;
#[path = "envoy/steering.rs"]
mod steering;
#[path = "envoy/untouched.rs"]
mod untouched;
#[path = "envoy/workers.rs"]
mod workers;
