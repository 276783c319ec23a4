//! The label `hub`: the only one that a client could make up, and therefore the one with a bound.

use crate::http;
use crate::settings::{Hubs, Settings};
use crate::store::{HubNames, Store};
use crate::token::Address;

/// Value of the label `hub`: a configured name, the path of a hub that answered a negotiate, or `other`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HubLabel(String);

impl HubLabel {
    /// The label of every hub that has no label of its own.
    pub const OTHER: &'static str = "other";
    /// Longest label; the rest of a longer path is left out.
    const MOST: usize = 64;

    /// The label of `hub`, a path as the client wrote it.
    pub fn of(hub: &[u8], settings: &Settings, names: &mut HubNames, store: &dyn Store) -> Self {
        let label = match &settings.hubs {
            Hubs::Any => Some(Self::learned(hub)).filter(|label| names.knows(&label.0, store)),
            Hubs::Listed(_) => settings.hubs.listed(hub).map(|listed| Self::clean(listed.name.as_bytes())),
        };
        label.unwrap_or_else(Self::other)
    }

    /// The label that `hub` has once it has answered a negotiate; paths that differ in case are one hub.
    pub fn learned(hub: &[u8]) -> Self {
        Self::clean(&http::without_slash(hub).to_ascii_lowercase())
    }

    /// Whether the hub is told apart from others.
    pub fn is_known(&self) -> bool {
        *self != Self::other()
    }

    /// A label that was written down before.
    pub(crate) fn restored(text: &str) -> Self {
        Self::clean(text.as_bytes())
    }

    /// 32 bits that stand for the label where bytes count (FNV-1a).
    pub(crate) fn hash(&self) -> u32 {
        self.0.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The label of a pod: its address.
    pub(crate) fn address(address: &Address) -> Self {
        Self::clean(address.as_bytes())
    }

    /// Every hub that has no label of its own.
    pub(crate) fn other() -> Self {
        Self(Self::OTHER.to_owned())
    }

    fn clean(text: &[u8]) -> Self {
        let plain = |byte: &u8| {
            if byte.is_ascii_alphanumeric() || b"/_.*-~:[]".contains(byte) { char::from(*byte) } else { '_' }
        };
        Self(text.iter().take(Self::MOST).map(plain).collect())
    }
}
