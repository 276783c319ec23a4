//! Tier 6: limits that several gateways share through a real Redis.

mod counting;
mod gateways;
mod unreachable;
mod versions;
