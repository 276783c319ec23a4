//! Tier 6: limits that several gateways share through a real Redis.

mod churn;
mod cluster;
mod cost;
mod counting;
mod faults;
mod gateways;
mod rates;
mod same_id;
mod script;
mod unreachable;
mod versions;
