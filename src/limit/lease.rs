//! A connection that wants in, and what it holds once it is in.

use super::slots::{Slot, UNUSED};
use super::{ClientKey, Limit};
use crate::clock::{AHEAD, Millis, Seconds};
use crate::hub::HubLabel;
use crate::settings::{Limits, Rate};
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
    /// When its id was issued, if that is known.
    pub(super) issued: Option<Millis>,
    /// Charged if the hub does not know the id, which passed without a token because of its age.
    pub(super) on_trust: Option<Rate>,
}

impl Lease {
    /// Whether the connection was not there before: no next poll, and no reconnect.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether its id must be remembered beyond its end, because its age does not yet show that it was connected.
    pub(super) fn is_young(&self, now: Seconds) -> bool {
        self.issued.is_none_or(|issued| !is_older_than_unused(issued, now))
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
    /// When the id was issued, if that is known.
    pub issued: Option<Millis>,
}

/// Whether a hub that still knows an id of this age has had a connection with it.
pub(super) fn is_older_than_unused(issued: Millis, now: Seconds) -> bool {
    now.since(issued.seconds()) > UNUSED.saturating_add(AHEAD)
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
    /// The connection is over, and may be resumed with the same id.
    Resumable,
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
