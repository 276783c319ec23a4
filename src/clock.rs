//! Points in time, as the core sees them.
//!
//! The core never reads a clock: the host asks Envoy once per callback and passes the answer down,
//! so that every decision can be tested at any moment.

use std::time::Duration;

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(u64);

impl Millis {
    /// The point `since_epoch` after the Unix epoch; saturates after 500 million years.
    pub fn since_epoch(since_epoch: Duration) -> Self {
        Self(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    /// The point at whole `seconds` and `rest` milliseconds.
    pub(crate) fn at(seconds: Seconds, rest: u16) -> Self {
        Self(u64::from(seconds.0).saturating_mul(1_000).saturating_add(u64::from(rest)))
    }

    /// The milliseconds beyond the whole second.
    pub(crate) fn rest(self) -> u16 {
        u16::try_from(self.0 % 1_000).unwrap_or(0)
    }

    /// Milliseconds since `earlier`; zero when it lies ahead.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The same point in microseconds.
    pub(crate) fn micros(self) -> u64 {
        self.0.saturating_mul(1_000)
    }

    /// The same point in whole seconds, rounded down.
    pub fn seconds(self) -> Seconds {
        Seconds(u32::try_from(self.0 / 1_000).unwrap_or(u32::MAX))
    }
}

/// Whole seconds since the Unix epoch. 32 bits, because every sealed route carries two of them; they last until 2106.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(u32);

/// By how much one thread's present may be ahead of another's.
pub(crate) const AHEAD: Duration = Duration::from_secs(2);

impl Seconds {
    /// The Unix epoch.
    pub(crate) const MIN: Self = Self(0);
    /// How many bytes [`Seconds::to_bytes`] gives.
    pub(crate) const LEN: usize = 4;

    /// The point `later` after this one; saturates in 2106.
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(u32::try_from(later.as_secs()).unwrap_or(u32::MAX)))
    }

    /// How long ago `earlier` was; zero when it lies ahead, as it may when two gateways' clocks differ.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(u64::from(self.0.saturating_sub(earlier.0)))
    }

    /// Whether `seen` was less than `life` ago. What lies ahead was seen before the clock was set back, and is over; but for the
    /// little by which one thread's present differs from another's.
    pub fn is_within(self, life: Duration, seen: Self) -> bool {
        seen <= self.plus(AHEAD) && self.since(seen) < life
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        self.0.to_be_bytes()
    }

    pub(crate) fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(u32::from_be_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn seconds_saturate_instead_of_wrapping() {
        let late = Millis::since_epoch(Duration::MAX).seconds();
        assert_eq!(late.plus(Duration::MAX), late);
        assert_eq!(Seconds::from_bytes([0; 4]).since(late), Duration::ZERO);
    }
}
