//! Real Envoy, real ASP.NET Core hubs and clients that others wrote, for the demo and the tests.
