//! Tier 6: Microsoft's .NET client, and what hubs of .NET 10 can do, through a real Envoy. Without .NET 10 these tests are skipped.

#[path = "dotnet/gate.rs"]
mod gate;
#[path = "dotnet/kit.rs"]
mod kit;
#[path = "dotnet/wire.rs"]
mod wire;

#[path = "dotnet/clients.rs"]
mod clients;
#[path = "dotnet/compression.rs"]
mod compression;
#[path = "dotnet/http2.rs"]
mod http2;
#[path = "dotnet/stateful.rs"]
mod stateful;
