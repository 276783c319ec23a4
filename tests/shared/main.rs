//! Tier 6: limits that several gateways share through a real Redis.

mod counting;
mod faults;
mod gateways;
mod rates;
mod unreachable;
mod versions;
