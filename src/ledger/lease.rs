//! A connection that asks to be admitted, and what it holds once it is.

use super::Member;
use super::slots::{Slot, UNUSED};
use super::tally::Series;
use crate::clock::{AHEAD, Millis, Seconds};
use crate::hub::HubLabel;
use crate::signalr::Transport;
use std::time::Duration;

/// A connection id as the ledger knows it: 64 bits of a keyed hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ConnectionKey(pub(super) [u8; 8]);

/// A connection admitted here. Give it back with [`Ledger::end`](super::Ledger::end).
#[must_use = "a lease that is not ended counts until its instance dies"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub(super) hold: u32,
    pub(super) client: [u8; 8],
    pub(super) connection: ConnectionKey,
    /// Where its entry is. `None` for a connection that needs none.
    pub(super) slot: Option<Slot>,
    pub(super) transport: Transport,
    pub(super) hub: HubLabel,
    /// The instance that counts its connection.
    pub(super) counter: u32,
    /// Whether nobody counted its connection before.
    pub(super) begins: bool,
    /// Whether it is still to be asked elsewhere.
    pub(super) asks: bool,
    pub(super) is_new: bool,
    pub(super) is_old: bool,
    pub(super) issued: Option<Millis>,
    pub(super) idle: Duration,
}

impl Lease {
    /// Whether the connection was not there before: no next poll, and no resume.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Whether it is to be asked elsewhere, too, before the hub sees it: [`Terms::asks`](super::Terms::asks).
    pub fn asks(&self) -> bool {
        self.asks
    }

    /// Whether nobody in this process counted its connection before.
    pub fn begins(&self) -> bool {
        self.begins
    }

    /// The instance that counts its connection.
    pub fn counter(&self) -> u32 {
        self.counter
    }

    /// Whether the age of its id shows that it was connected before, on this gateway or another.
    pub fn is_old(&self) -> bool {
        self.is_old
    }

    /// The connection, as it is journalled.
    pub fn member(&self) -> Member {
        Member { connection: self.connection.0, client: self.client, hub: self.hub.clone(), slot: self.slot }
    }

    /// How it connects.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Where.
    pub fn hub(&self) -> &HubLabel {
        &self.hub
    }

    /// What a connection of this hold is counted as, unless an earlier hold has begun it.
    pub(super) fn series(&self) -> Series {
        Series { hub: self.hub.clone(), transport: self.transport }
    }

    /// The client's key.
    pub(crate) fn client(&self) -> [u8; 8] {
        self.client
    }

    /// Whether its id must be remembered beyond its end, because its age does not yet show that it was connected.
    pub(super) fn is_young(&self, now: Seconds) -> bool {
        self.issued.is_none_or(|issued| !is_older_than_unused(issued, now))
    }
}

/// A connection that asks to be admitted.
#[derive(Debug)]
pub struct Opening<'a> {
    /// Whose it is.
    pub client: [u8; 8],
    /// Its id. `None` for a WebSocket that skipped the negotiate.
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
    pub(super) client: Option<[u8; 8]>,
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

/// The ledger could not be read or written in [`TRIES`](super::TRIES) attempts.
#[derive(Debug, PartialEq, Eq)]
pub struct LedgerFailure;
