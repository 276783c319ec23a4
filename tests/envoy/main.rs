//! Tier 5: the filter in a real Envoy with several worker threads, byte for byte.
//!
//! Behind it stand small scripted HTTP/1.1 servers of our own: a fake, because ASP.NET Core cannot be made to answer a
//! negotiate in single bytes, with 64 KiB, compressed or broken, nor show the bytes of a request that reached it. Where
//! the hub's own behaviour is the point (`http2`), a real one answers. Clients are bytes on a socket for the same reason.

mod gateway;
mod upstream;

mod admin;
mod autobahn;
mod capacity;
mod client_cookie;
mod configurations;
mod connection_cookie;
mod cookie;
mod forging;
mod health;
mod http2;
mod hub_routes;
mod negotiate;
mod override_host;
mod pin;
mod redirects;
mod retries;
mod steering;
mod tool;
mod troubleshooting;
mod untouched;
mod workers;
