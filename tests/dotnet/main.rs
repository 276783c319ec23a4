//! Tier 6: Microsoft's .NET client, and what hubs of .NET 10 can do, through a real Envoy. Without .NET 10 these tests are skipped.

mod gate;
mod kit;
mod wire;

mod clients;
mod compression;
mod http2;
mod stateful;
