//! Who may connect: limits of connections per client, per hub and in total, and rates.
//!
//! Who is connected is in the [`ledger`](crate::ledger). It is asked with plain numbers and answers with one enum, so that
//! another authority can stand behind the same question.

mod client;
mod rate;
mod rejection;

use crate::clock::{Millis, Seconds};
use crate::http::Head;
use crate::hub::HubLabel;
use crate::ledger::{
    Admission, End, InstanceId, Lease, Ledger, LedgerFailure, Look, Opening, Reached, Session, TRIES, Terms, Tracked,
};
use crate::settings::{AbsentKey, Limits, Mode, OnError, Rate};
use crate::store::{Secret, Store};

pub use client::{ClientKey, Peer};
pub use rejection::{Limit, Rejection, reject};

use rate::{Ask, Bucket};

/// The limits of one worker thread, and what it holds.
#[derive(Debug)]
pub struct Limiter {
    secret: Secret,
    /// Whether no limit is enforced at present.
    pub lifted: bool,
    /// Who is connected.
    pub ledger: Ledger,
}

/// What was decided about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within every limit.
    Within,
    /// Over this one. It passes all the same in shadow mode.
    Over(Limit),
}

/// A connection that was let in.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Give it back with [`Limiter::end`].
    pub lease: Lease,
    /// Charged if the hub does not know the id, which passed without a token because of its age.
    on_trust: Option<Rate>,
}

impl Limiter {
    /// An instance with nothing held. `instance` is random, so that a VM that starts anew is a stranger to its past.
    pub fn new(instance: InstanceId, secret: Secret, limits: &Limits) -> Self {
        let tracked = Tracked { per_hub: limits.per_hub.is_some(), total: limits.total.is_some() };
        let mut ledger = Ledger::new(instance, secret, tracked);
        if limits.shared.is_some() {
            ledger.keep_journal();
        }
        Self { secret, lifted: false, ledger }
    }

    /// The key of the client that sent a request; `None` if it has none and is to be refused for that.
    pub fn client(&self, limits: &Limits, head: &Head, peer: &Peer) -> Option<ClientKey> {
        let is_limited =
            limits.per_client.is_some() || limits.negotiate_rate.is_some() || limits.connect_rate.is_some();
        if !is_limited && limits.client.absent == AbsentKey::Address {
            // No limit is for each client, so nothing is worth hashing.
            return Some(ClientKey([0; 8]));
        }
        client::key(&limits.client, head, peer, &self.secret)
    }

    /// Whether a client may negotiate: its rates, and then whether one more connection would fit. Of several limits that a request
    /// is over, the first in this order is reported.
    ///
    /// # Errors
    /// [`LedgerFailure`].
    pub fn negotiate(
        &mut self,
        limits: &Limits,
        client: ClientKey,
        hub: &HubLabel,
        now: Millis,
        store: &dyn Store,
    ) -> Result<Verdict, LedgerFailure> {
        if let Some(rate) = &limits.negotiate_rate
            && !rate::ask(Ask::Take, Bucket::Negotiate, *rate, client, now, store)?
        {
            return Ok(Verdict::Over(Limit::NegotiateRate));
        }
        // A connect that is refused makes clients fall back to a worse transport, and stay there; a negotiate does not.
        if let Some(rate) = &limits.connect_rate
            && !rate::ask(Ask::Look, Bucket::Connect, *rate, client, now, store)?
        {
            return Ok(Verdict::Over(Limit::ConnectRate));
        }
        let full = self.ledger.full(&terms(limits, self.lifted), client.0, hub, now.seconds(), store);
        Ok(full.map_or(Verdict::Within, |reached| Verdict::Over(reached.into())))
    }

    /// Admits a connection, or finds the limit that it is over. In shadow mode it is admitted all the same.
    ///
    /// # Errors
    /// [`LedgerFailure`]; then nothing is held.
    pub fn connect(
        &mut self,
        limits: &Limits,
        opening: &Opening<'_>,
        now: Millis,
        store: &dyn Store,
    ) -> Result<(Verdict, Option<Admitted>), LedgerFailure> {
        let terms = terms(limits, self.lifted);
        // Asked once, however often the rest is tried.
        let (mut rate_left, mut over_rate, mut on_trust) = (limits.connect_rate, None, None);
        for _ in 0..TRIES {
            let look = self.ledger.look(opening, &terms, now.seconds(), store)?;
            if let Some(rate) = rate_left.take_if(|_| !look.is_there) {
                on_trust = look.is_old.then_some(rate);
                if !pays(rate, &look, ClientKey(opening.client), now, store)? {
                    over_rate = Some(Limit::ConnectRate);
                }
            }
            if let (Some(limit), true) = (over_rate, terms.enforced) {
                return Ok((Verdict::Over(limit), None));
            }
            match self.ledger.admit(&look, opening, &terms, now.seconds(), store)? {
                Admission::Admitted(lease, reached) => {
                    let over = over_rate.or(reached.map(Limit::from));
                    return Ok((over.map_or(Verdict::Within, Verdict::Over), Some(Admitted { lease, on_trust })));
                }
                Admission::Refused(reached) => return Ok((Verdict::Over(reached.into()), None)),
                Admission::Conflict => {}
            }
        }
        Err(LedgerFailure)
    }

    /// The hub did not take the connection. Call before its end. Returns the rate that was charged, if one was.
    pub fn refused(&self, admitted: &Admitted, now: Millis, store: &dyn Store) -> Option<Rate> {
        let rate = admitted.on_trust?;
        // It cannot be refused any more, and without the charge one old id would be a way round the rate.
        let client = ClientKey(admitted.lease.client());
        let take = |bucket| rate::ask(Ask::Take, bucket, rate, client, now, store);
        let _ = take(Bucket::Connect).is_ok_and(|taken| taken || take(Bucket::Trust).unwrap_or(false));
        Some(rate)
    }

    /// Ends a hold.
    pub fn end(&mut self, admitted: Admitted, end: End, now: Seconds, store: &dyn Store) {
        self.ledger.end(admitted.lease, end, now, store);
    }

    /// The long-polling session `id` of a hub, as the client that sent a request may end it.
    pub fn session(&self, limits: &Limits, head: &Head, peer: &Peer, id: &[u8], hub: &HubLabel) -> Option<Session> {
        let client = self.client(limits, head, peer)?;
        Some(self.ledger.session(&terms(limits, self.lifted), client.0, id, hub))
    }
}

/// Whether the connect rate lets a connection in that is not there. An id whose age shows that it was connected before takes no
/// token: a resume that is refused would be the connection's end.
fn pays(rate: Rate, look: &Look, client: ClientKey, now: Millis, store: &dyn Store) -> Result<bool, LedgerFailure> {
    let (ask, bucket) = if look.is_old { (Ask::Look, Bucket::Trust) } else { (Ask::Take, Bucket::Connect) };
    rate::ask(ask, bucket, rate, client, now, store)
}

fn terms(limits: &Limits, lifted: bool) -> Terms {
    Terms {
        per_client: limits.per_client,
        per_hub: limits.per_hub,
        total: limits.total,
        enforced: limits.mode == Mode::Enforce && !lifted,
        idle: limits.long_polling_idle,
        asks: limits.shared.is_some(),
    }
}

impl From<Reached> for Limit {
    fn from(reached: Reached) -> Self {
        match reached {
            Reached::PerClient => Self::PerClient,
            Reached::PerHub => Self::PerHub,
            Reached::Total => Self::Total,
        }
    }
}

/// Whether a request passes although the ledger failed.
pub fn passes_without_ledger(limits: &Limits) -> bool {
    match limits.on_error {
        OnError::Allow => true,
        OnError::Deny => false,
    }
}

#[cfg(test)]
mod tests;
