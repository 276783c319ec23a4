//! An instance's row as it is published: its connections by hub and transport, and its open WebSockets by pod.
//!
//! Binary, because every instance reads those of all others each second. A row of another format is a row without numbers:
//! the keys of shared data carry the format's version.

use super::tally::Series;
use super::upstreams::Upstream;
use crate::hub::HubLabel;
use crate::signalr::Transport;
use crate::small_map::SmallMap;

/// Which of the limits that many clients share an instance keeps permits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracked {
    /// `per_hub`.
    pub per_hub: bool,
    /// `total`.
    pub total: bool,
}

/// Whether an instance that shares limits reaches Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Its last call was answered, or it has made none.
    Connected,
    /// Its last call was not.
    Away,
}

/// What one row says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) tracked: Tracked,
    pub(super) redis: Option<Reach>,
    pub(super) connections: SmallMap<Series, u64>,
    pub(super) upstreams: SmallMap<Upstream, u64>,
}

const PER_HUB: u8 = 1;
const TOTAL: u8 = 2;
const CONNECTED: u8 = 4;
const AWAY: u8 = 8;
/// Marks a row of pods; the others are marked by their transport.
const POD: u8 = 3;

pub(super) fn encode(Numbers { tracked, redis, connections, upstreams }: &Numbers) -> Vec<u8> {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    let reach = match redis {
        None => 0,
        Some(Reach::Connected) => CONNECTED,
        Some(Reach::Away) => AWAY,
    };
    let mut bytes = vec![flag(tracked.per_hub, PER_HUB) | flag(tracked.total, TOTAL) | reach];
    for (Series { hub, transport }, number) in connections.iter() {
        bytes.push(transport.code());
        bytes.extend(number.to_be_bytes());
        put(&mut bytes, hub.as_bytes());
    }
    for (Upstream { hub, address }, number) in upstreams.iter() {
        bytes.push(POD);
        bytes.extend(number.to_be_bytes());
        put(&mut bytes, hub.as_bytes());
        put(&mut bytes, address.as_bytes());
    }
    bytes
}

pub(super) fn decode(bytes: &[u8]) -> Numbers {
    let mut numbers = Numbers::default();
    let Some((flags, mut bytes)) = bytes.split_first() else { return numbers };
    numbers.tracked = Tracked { per_hub: flags & PER_HUB != 0, total: flags & TOTAL != 0 };
    numbers.redis = match flags & (CONNECTED | AWAY) {
        CONNECTED => Some(Reach::Connected),
        AWAY => Some(Reach::Away),
        _ => None,
    };
    while let Some(rest) = decode_one(bytes, &mut numbers) {
        bytes = rest;
    }
    numbers
}

fn decode_one<'a>(bytes: &'a [u8], numbers: &mut Numbers) -> Option<&'a [u8]> {
    let (kind, bytes) = bytes.split_first()?;
    let (number, bytes) = bytes.split_first_chunk()?;
    let (hub, bytes) = take(bytes)?;
    if *kind == POD {
        let (address, bytes) = take(bytes)?;
        numbers.upstreams.insert(Upstream { hub, address }, u64::from_be_bytes(*number));
        return Some(bytes);
    }
    numbers.connections.insert(Series { hub, transport: Transport::from_code(*kind)? }, u64::from_be_bytes(*number));
    Some(bytes)
}

/// A label, with its length before it.
pub(super) fn put(bytes: &mut Vec<u8>, label: &[u8]) {
    bytes.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
    bytes.extend_from_slice(label);
}

/// The label at the start of `bytes`, and what follows.
pub(super) fn take(bytes: &[u8]) -> Option<(HubLabel, &[u8])> {
    take_bytes(bytes).map(|(label, rest)| (HubLabel::restored(label), rest))
}

/// The same, borrowed.
pub(super) fn take_bytes(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, bytes) = bytes.split_first()?;
    bytes.split_at_checked(usize::from(*length))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_was_published_is_read_and_what_is_cut_is_left_out() {
        let hub = HubLabel::learned(b"/chat");
        let series = |transport| Series { hub: hub.clone(), transport };
        let connections =
            SmallMap::from_iter([(series(Transport::LongPolling), 2), (series(Transport::WebSockets), 7)]);
        let address = HubLabel::restored(b"10.0.0.1:80");
        let upstreams = SmallMap::from_iter([(Upstream { hub: hub.clone(), address }, 5)]);
        let tracked = Tracked { per_hub: false, total: true };
        let mut bytes = Vec::new();
        for redis in [None, Some(Reach::Connected), Some(Reach::Away)] {
            let numbers = Numbers { tracked, redis, connections: connections.clone(), upstreams: upstreams.clone() };
            bytes = encode(&numbers);
            assert_eq!(decode(&bytes), numbers);
        }
        let cut = decode(bytes.get(..bytes.len() - 1).unwrap());
        assert_eq!((cut.connections, cut.upstreams.len()), (connections, 0));
        assert_eq!(decode(b""), Numbers::default());
    }
}
