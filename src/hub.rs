//! The labels by which metrics and limits identify hubs. It is the only label that a client could make up, and therefore the
//! one with a bound.

mod names;
mod strangers;

use crate::http;
use crate::settings::{Hubs, Settings};
use crate::store::Store;
use crate::token::Address;

pub use names::{HubNames, Learned};
pub use strangers::Strangers;

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

    /// The label that `hub` has once it has answered a negotiate. Paths that a hub takes for one have one label.
    pub fn learned(hub: &[u8]) -> Self {
        Self(Self::characters(http::decode_path(http::without_slash(hub))).collect())
    }

    /// Whether `hub` would be learned under this name. Asked of every request, so it copies nothing.
    fn is_name_of(name: &str, hub: &[u8]) -> bool {
        Self::characters(http::decode_path(http::without_slash(hub))).eq(name.chars())
    }

    /// Whether the hub has a label of its own.
    pub fn is_known(&self) -> bool {
        *self != Self::other()
    }

    /// A label that was written down before.
    pub(crate) fn restored(text: &[u8]) -> Self {
        Self::clean(text)
    }

    /// The label as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The label as it is written down.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The label of a pod: its address.
    pub(crate) fn address(address: &Address) -> Self {
        Self::clean(address.as_bytes())
    }

    /// Every hub that has no label of its own.
    pub fn other() -> Self {
        Self(Self::OTHER.to_owned())
    }

    fn clean(text: &[u8]) -> Self {
        Self(text.iter().take(Self::MOST).copied().map(Self::character).collect())
    }

    fn characters(path: impl Iterator<Item = u8>) -> impl Iterator<Item = char> {
        path.take(Self::MOST).map(|byte| Self::character(byte.to_ascii_lowercase()))
    }

    /// A byte as it may stand in a stat's name.
    fn character(byte: u8) -> char {
        if byte.is_ascii_alphanumeric() || b"/_.*-~:[]".contains(&byte) { char::from(byte) } else { '_' }
    }
}
