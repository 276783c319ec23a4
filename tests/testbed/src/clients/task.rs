//! What every client here is asked to do.
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::process::PATIENCE;

/// Where to connect, how often and for how long.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// The base URL, such as [`crate::envoy::Envoy::url`].
    pub url: String,
    /// The path of the hub, and a query if there is one.
    pub hub: String,
    /// How many connections the client makes.
    pub connects: u32,
    /// How many of them at the same time.
    pub parallel: u32,
    /// How long each connection stays open once it has proved itself.
    #[serde(rename = "holdMs", serialize_with = "milliseconds")]
    pub hold: Duration,
    /// How long one try may take, holding aside. One that is expected to fail is not worth much of it.
    #[serde(rename = "tryMs", serialize_with = "milliseconds")]
    pub try_timeout: Duration,
}

impl Task {
    /// So many connections to the chat hub behind this URL.
    pub fn of(url: String, connects: u32) -> Self {
        Self { url, hub: "/chat".into(), connects, parallel: 10, hold: Duration::ZERO, try_timeout: PATIENCE }
    }

    /// The time in which the client itself ends every try, and a little more.
    pub(super) fn allowance(&self) -> Duration {
        (self.try_timeout + self.hold) * self.connects.div_ceil(self.parallel.max(1)) + PATIENCE
    }
}

impl Default for Task {
    fn default() -> Self {
        Self::of(String::new(), 20)
    }
}

fn milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
