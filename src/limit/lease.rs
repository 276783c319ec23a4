//! A connection that wants in, and what it holds once it is in.

use super::slots::Slot;
use super::{ClientKey, Limit};
use crate::metrics::HubLabel;
use crate::settings::Limits;
use crate::signalr::Transport;

/// A connection id as the ledger knows it: 64 bits of a keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnectionKey(pub(super) [u8; 8]);

/// A connection admitted here. Give it back with [`Limiter::end`](super::Limiter::end).
#[must_use = "a lease that is not ended counts until its instance dies"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub(super) hold: u32,
    pub(super) client: ClientKey,
    pub(super) connection: ConnectionKey,
    pub(super) transport: Transport,
    pub(super) hub: HubLabel,
    pub(super) sharding: Sharding,
    pub(super) is_new: bool,
}

impl Lease {
    /// Whether the connection was not there before: no next poll, and no reconnect.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// How it connects.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Where.
    pub fn hub(&self) -> &HubLabel {
        &self.hub
    }
}

/// Which slot a connection stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharding {
    /// That of its client, so that one slot has all of them.
    ByClient,
    /// That of its id: without a limit per client, thousands behind one address should not share a slot.
    ByConnection,
}

impl Sharding {
    pub(super) fn of(limits: &Limits) -> Self {
        if limits.per_client.is_some() { Self::ByClient } else { Self::ByConnection }
    }

    pub(super) fn slot(self, client: ClientKey, connection: ConnectionKey) -> Slot {
        match self {
            Self::ByClient => Slot::of(client.0),
            Self::ByConnection => Slot::of(connection.0),
        }
    }
}

/// A connection that wants in.
#[derive(Debug)]
pub struct Opening<'a> {
    /// Whose it is.
    pub client: ClientKey,
    /// Its id; `None` for a WebSocket that skipped negotiation.
    pub id: Option<&'a [u8]>,
    /// How it connects.
    pub transport: Transport,
    /// Where.
    pub hub: &'a HubLabel,
}

/// A long-polling session that a request is to end: where the ledger has it, and whose it must be.
#[derive(Debug)]
pub struct Session {
    pub(super) slot: Slot,
    pub(super) connection: ConnectionKey,
    /// The hub that the request is for; another route may answer for another path as if it had ended the session.
    pub(super) hub: HubLabel,
    /// The client that sent it, where a client's sessions are its own.
    pub(super) client: Option<ClientKey>,
}

/// How a hold ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The connection is over.
    Over,
    /// A poll is over, and the next one may come.
    BetweenPolls,
}

/// What was decided about a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within every limit.
    Within,
    /// Over this one. It passes all the same in shadow mode.
    Over(Limit),
}

/// The ledger could not be read or written in [`TRIES`](super::TRIES) attempts.
#[derive(Debug, PartialEq, Eq)]
pub struct LedgerFailure;
