//! Limits that hold over all gateways of a namespace, through Redis.
//!
//! The [`ledger`](crate::ledger) decides first: what is over a limit by the connections of this process alone is over it
//! everywhere, and Redis is not asked. What passes there, and begins a connection, waits for Redis' word:
//!
//! ```text
//! client       filter                          Redis: a row for each instance
//!   | connect    |  ledger: within the limit         a   c1: k1 k2     /chat 2
//!   |----------->|  call: connect c1 k3 /chat ---->  b   c1: k3        /chat 1     3 of c1 in all rows
//!   |            |  <---------------------- admitted
//!   |            |  the request goes to its hub
//!   |            |  …
//!   |   closes   |  ledger: k3 has ended
//!   |            |  call: leave c1 k3 ------------>  b                             2 of c1
//! ```
//!
//! An instance is a worker thread's filter, as in the ledger: it writes down what it counts, and a dead instance's row expires. The
//! script `limits.lua` runs in Redis, so no two gateways decide at once. While Redis does not answer, `on_error` decides. When it is
//! back, every instance writes its row anew.

mod link;
mod resp;

use std::collections::HashMap;
use std::time::Duration;

use crate::clock::Millis;
use crate::hub::HubLabel;
use crate::ledger::{Event, Lease, Ledger, Member, Reach};
use crate::limit::{self, ClientKey, Limit, Rejection, Verdict};
use crate::metrics::{Count, SharedCall};
use crate::settings::{Limits, Mode, Rate, SharedLimits, SharedOnError};
use crate::store::Store;

pub use link::CallFailure;
use link::{Command, Link};

/// An instance that is not heard of for 15 s is dead to the others.
const BEAT: u64 = 3_000;
/// While Redis is away, it is asked so often.
const PROBE: u64 = 1_000;
/// Connections that are written in one command, and that are looked at in a tick.
const PAGE: usize = 16;
/// Pages in one call.
const PAGES: usize = 16;

/// What one worker thread shares.
#[derive(Debug, Default)]
pub struct Shared {
    link: Link,
    /// Whether there is a limit for each client, so that a row has a client's connections together.
    by_client: bool,
    /// What the row of this instance holds, or will when Redis is back.
    row: HashMap<[u8; 8], Member>,
    /// Connections of the row that are still to be looked at in this round.
    unseen: Vec<[u8; 8]>,
    /// Connections that the row has lost, to be written again.
    unwritten: Vec<[u8; 8]>,
    /// Requests that wait, by their streams, and those that were refused, until their streams are over.
    streams: HashMap<u32, Waiting>,
    is_away: bool,
    /// How often Redis has not answered: what was asked before may arrive late, and is not done then.
    epoch: u32,
    beaten: Option<Millis>,
    counts: Vec<Count>,
}

/// A request that waits for Redis, or has waited.
#[derive(Debug)]
enum Waiting {
    Asked {
        asker: Asker,
        /// The connection that it would begin, if this instance is to count it.
        member: Option<Member>,
    },
    /// Its stream is over. Another request with its id may go on.
    Abandoned(Option<Member>),
    Refused,
}

/// What a rejection of a request depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Where the request goes.
    pub hub: HubLabel,
    /// Whether it is a negotiate.
    pub is_negotiate: bool,
    /// The header `origin`.
    pub origin: Option<Vec<u8>>,
}

/// A request whose wait is over.
#[derive(Debug, PartialEq, Eq)]
pub struct Decided {
    /// Its stream.
    pub stream: u32,
    /// What its rejection depends on.
    pub asker: Asker,
    /// Within the limits, or over one.
    pub verdict: Verdict,
}

/// What is done about a request that is over a limit.
#[derive(Debug, PartialEq, Eq)]
pub struct Exceeded {
    /// For the access log: the limit, and what has decided so.
    pub log: [(&'static str, &'static str); 2],
    /// What is counted.
    pub count: Count,
    /// The answer; `None` in shadow mode, where the request goes on.
    pub rejection: Option<Rejection>,
}

impl Decided {
    /// `None` if the request is within the limits.
    pub fn exceeded(self, limits: &Limits) -> Option<Exceeded> {
        let Verdict::Over(limit) = self.verdict else { return None };
        let decided_by = if limit == Limit::Shared { "on_error" } else { "redis" };
        Some(Exceeded::new(limit, decided_by, self.asker, limits, limits.mode))
    }
}

impl Exceeded {
    /// In `mode`, which may be another than that of the limits while these are lifted.
    pub fn new(limit: Limit, decided_by: &'static str, asker: Asker, limits: &Limits, mode: Mode) -> Self {
        let Asker { hub, is_negotiate, origin } = asker;
        let rejection = || limit::reject(limits, limit, is_negotiate, origin.as_deref());
        Self {
            log: [("signalr_limit", limit.label()), ("signalr_limit_by", decided_by)],
            count: Count::Rejected { hub, limit, mode },
            rejection: (mode == Mode::Enforce).then(rejection),
        }
    }
}

/// What is asked for a request.
#[derive(Debug)]
pub enum Question<'a> {
    /// A negotiate of a client.
    Negotiate(ClientKey),
    /// A connection that the ledger has admitted.
    Connect(&'a Lease),
}

/// What becomes of a request at once.
#[derive(Debug, PartialEq, Eq)]
pub enum Asked {
    /// It waits.
    Waits,
    /// Redis is away, so this is decided without it.
    Decided(Verdict),
}

impl Shared {
    /// Nothing to share yet.
    pub fn new(limits: &Limits) -> Self {
        Self { by_client: limits.per_client.is_some(), ..Self::default() }
    }

    /// Whether no limit holds at present: Redis is away, and `on_error` is `allow`.
    pub fn lifts_limits(&self, shared: &SharedLimits) -> bool {
        self.is_away && shared.on_error == SharedOnError::Allow
    }

    /// Asks for a request.
    pub fn ask(
        &mut self,
        stream: u32,
        asker: Asker,
        question: &Question<'_>,
        limits: &Limits,
        shared: &SharedLimits,
        instance: u32,
    ) -> Asked {
        let mut arguments = Vec::new();
        let member = match question {
            Question::Negotiate(ClientKey(client)) => {
                arguments.extend(self.head("negotiate", instance, instance));
                arguments.extend([client.to_vec(), asker.hub.as_bytes().to_vec()]);
                arguments.extend(bounds(limits));
                arguments.extend(rate(limits.negotiate_rate));
                arguments.extend(rate(limits.connect_rate));
                None
            }
            Question::Connect(lease) => {
                let member = lease.member();
                arguments.extend(self.head("connect", lease.counter(), instance));
                arguments.extend(self.names(&member));
                arguments.push(member.client.to_vec());
                arguments.extend(bounds(limits));
                arguments.extend(rate(limits.connect_rate));
                arguments.extend([flag(lease.is_old()), flag(limits.mode == Mode::Enforce)]);
                Some(member).filter(|_| lease.counter() == instance)
            }
        };
        let waits = !self.is_away && self.link.push(Command::new(Some(stream), arguments));
        if !waits {
            let verdict = without_redis(shared);
            self.settle(stream, member, &verdict, limits);
            return Asked::Decided(verdict);
        }
        self.streams.insert(stream, Waiting::Asked { asker, member });
        Asked::Waits
    }

    /// Writes down a connection that is there, whatever the limits.
    pub fn write(&mut self, member: Member, instance: u32) {
        let arguments = self.head("write", instance, instance).into_iter().chain(self.names(&member));
        self.say(arguments.collect());
        self.row.insert(member.connection, member);
    }

    /// The hub did not know an id that has passed without a token because of its age.
    pub fn charge(&mut self, client: [u8; 8], connect_rate: Rate, instance: u32) {
        let arguments = self.head("charge", instance, instance).into_iter().chain([client.to_vec()]);
        self.say(arguments.chain(rate(Some(connect_rate))).collect());
    }

    /// Whether the request of this stream was refused by Redis' word.
    pub fn has_refused(&self, stream: u32) -> bool {
        matches!(self.streams.get(&stream), Some(Waiting::Refused))
    }

    /// A stream is over, or its request is decided in another way. Returns whether its request still waited or was refused, so that
    /// its connection never began.
    pub fn forget(&mut self, stream: u32) -> bool {
        match self.streams.remove(&stream) {
            Some(Waiting::Asked { member, .. } | Waiting::Abandoned(member)) => {
                self.streams.insert(stream, Waiting::Abandoned(member));
                true
            }
            Some(Waiting::Refused) => true,
            None => false,
        }
    }

    /// Carries over what has happened in the ledger.
    pub fn follow(&mut self, ledger: &mut Ledger) {
        let instance = ledger.instance();
        for event in ledger.take_events() {
            match event {
                Event::Reborn => self.row.clear(),
                Event::Adopted(member) => self.write(member, instance),
                Event::Ended { counter, member, is_remembered } => {
                    self.row.remove(&member.connection);
                    self.say(self.leave(instance, counter, &member, is_remembered));
                }
            }
        }
    }

    /// Call at least once a second.
    pub fn tick(
        &mut self,
        shared: &SharedLimits,
        limits: &Limits,
        ledger: &mut Ledger,
        now: Millis,
        store: &dyn Store,
    ) -> Vec<Decided> {
        self.follow(ledger);
        ledger.redis = Some(if self.is_away { Reach::Away } else { Reach::Connected });
        let instance = ledger.instance();
        self.look_through_row(ledger, store);
        let is_overdue = self.link.is_overdue(shared.timeout, now);
        let decided = if is_overdue { self.failed(CallFailure::TimedOut, shared, limits, now) } else { Vec::new() };
        let pause = if self.is_away { PROBE } else { BEAT };
        if self.beaten.is_none_or(|beaten| now.since(beaten) >= pause) {
            self.beaten = Some(now);
            let act = if self.is_away { "reset" } else { "beat" };
            let _ = self.link.push(Command::new(None, self.head(act, instance, instance).into()));
        }
        decided
    }

    /// After how long a call is due. `None` if there is nothing to ask, or a call is under way.
    pub fn due(&self, now: Millis) -> Option<Duration> {
        self.link.due(now)
    }

    /// The body of a call, which is now under way.
    pub fn start(&mut self, shared: &SharedLimits, now: Millis) -> Vec<u8> {
        let key = format!("envoy-signalr:{{{}}}:rows", shared.namespace);
        self.link.start(key.as_bytes(), shared.login.as_ref(), now)
    }

    /// The present call has ended.
    pub fn answered(
        &mut self,
        answer: Result<&[u8], CallFailure>,
        shared: &SharedLimits,
        limits: &Limits,
        instance: u32,
        now: Millis,
    ) -> Vec<Decided> {
        let answers = match answer.and_then(|bytes| self.link.answered(bytes, shared, now)) {
            Ok(answers) => answers,
            Err(failure) => return self.failed(failure, shared, limits, now),
        };
        if answers.is_empty() {
            // All of it is to be asked again: nothing is known of Redis yet.
            return Vec::new();
        }
        self.count(SharedCall::Answered, now);
        let was_away = std::mem::take(&mut self.is_away);
        let was_lost = answers.iter().any(|(_, number)| number & LOST != 0);
        if was_away || was_lost {
            self.unwritten = self.row.keys().copied().collect();
        }
        self.write_pages(instance);
        let mut decided = Vec::new();
        for (stream, number) in answers {
            let Some(stream) = stream else { continue };
            let verdict = reached(number & !LOST).map_or(Verdict::Within, Verdict::Over);
            decided.extend(self.decide(stream, verdict, limits));
        }
        decided
    }

    /// What was counted since the last call.
    pub fn take_counts(&mut self) -> Vec<Count> {
        std::mem::take(&mut self.counts)
    }

    /// Whether a call is under way.
    pub fn is_under_way(&self) -> bool {
        self.link.is_under_way()
    }

    /// Whether Redis is away.
    pub fn is_away(&self) -> bool {
        self.is_away
    }

    fn failed(&mut self, failure: CallFailure, shared: &SharedLimits, limits: &Limits, now: Millis) -> Vec<Decided> {
        // Envoy does not say what kept the answer from coming.
        let in_time = Duration::from_millis(self.link.took(now)) < shared.timeout;
        let failure = if in_time && failure == CallFailure::TimedOut { CallFailure::Unreachable } else { failure };
        self.count(SharedCall::Failed(failure), now);
        self.is_away = true;
        self.epoch = self.epoch.saturating_add(1);
        self.unwritten.clear();
        // Everybody else who waits would wait in vain as long again.
        let streams = self.link.give_up();
        streams.into_iter().filter_map(|stream| self.decide(stream, without_redis(shared), limits)).collect()
    }

    fn decide(&mut self, stream: u32, verdict: Verdict, limits: &Limits) -> Option<Decided> {
        match self.streams.remove(&stream)? {
            Waiting::Asked { asker, member } => {
                self.settle(stream, member, &verdict, limits);
                Some(Decided { stream, asker, verdict })
            }
            // If the connection goes on, the row keeps it; else the next look through the row ends it.
            Waiting::Abandoned(member) => {
                self.keep(member);
                None
            }
            Waiting::Refused => None,
        }
    }

    fn keep(&mut self, member: Option<Member>) {
        if let Some(member) = member {
            self.row.insert(member.connection, member);
        }
    }

    fn settle(&mut self, stream: u32, member: Option<Member>, verdict: &Verdict, limits: &Limits) {
        if *verdict == Verdict::Within || limits.mode == Mode::Shadow {
            self.keep(member);
        } else {
            self.streams.insert(stream, Waiting::Refused);
        }
    }

    /// A command whose answer nobody waits for. While Redis is away it is not needed: the row is written anew when it is back.
    fn say(&mut self, arguments: Vec<Vec<u8>>) {
        if !self.is_away {
            // If it does not fit, the next look through the row makes up for it, or the row is written anew.
            let _ = self.link.push(Command::new(None, arguments));
        }
    }

    /// Writes what the row has lost, as fast as Redis takes it, and leaves room in each call for requests that wait.
    fn write_pages(&mut self, instance: u32) {
        while !self.unwritten.is_empty() && self.link.waiting() < PAGES {
            let page = self.unwritten.split_off(self.unwritten.len().saturating_sub(PAGE));
            let members: Vec<_> = page.iter().filter_map(|connection| self.row.get(connection)).collect();
            if !members.is_empty() {
                let members = members.into_iter().flat_map(|member| self.names(member));
                let arguments = self.head("write", instance, instance).into_iter().chain(members).collect();
                let _ = self.link.push(Command::urgent(arguments));
            }
        }
    }

    /// Looks whether the next connections of the row are still counted here: another instance may have ended one without its word's
    /// having reached Redis.
    fn look_through_row(&mut self, ledger: &Ledger, store: &dyn Store) {
        if self.unseen.is_empty() {
            self.unseen = self.row.keys().copied().collect();
        }
        for connection in self.unseen.split_off(self.unseen.len().saturating_sub(PAGE)) {
            let is_over = |member: &&Member| !ledger.counts(member, store);
            if let Some(member) = self.row.get(&connection).filter(is_over).cloned() {
                self.row.remove(&connection);
                self.say(self.leave(ledger.instance(), ledger.instance(), &member, false));
            }
        }
    }

    /// Where a connection is in a row, its id and its hub. Without a limit per client each is by itself: one field for all of them would
    /// be copied for each.
    fn names(&self, member: &Member) -> [Vec<u8>; 3] {
        let Member { client, connection, hub, .. } = member;
        let group = if self.by_client && *client != NOBODY { client } else { connection };
        [group.to_vec(), connection.to_vec(), hub.as_bytes().to_vec()]
    }

    fn leave(&self, instance: u32, counter: u32, member: &Member, is_remembered: bool) -> Vec<Vec<u8>> {
        let head = self.head("leave", instance, instance).into_iter().chain([row_name(counter)]);
        head.chain(self.names(member)).chain([flag(is_remembered)]).collect()
    }

    /// What each command begins with: what is done, in which row, and who asks.
    fn head(&self, act: &str, row: u32, instance: u32) -> [Vec<u8>; 4] {
        [act.as_bytes().to_vec(), row_name(row), row_name(instance), self.epoch.to_string().into_bytes()]
    }

    fn count(&mut self, call: SharedCall, now: Millis) {
        let milliseconds = self.link.took(now);
        self.counts.extend([Count::SharedCall(call), Count::SharedCallTook { milliseconds }]);
    }
}

/// The client of all who have no limit of their own.
const NOBODY: [u8; 8] = [0; 8];

/// In an answer: the row was not there.
const LOST: i64 = 16;

/// The limit that an answer names.
fn reached(number: i64) -> Option<Limit> {
    match number {
        1 => Some(Limit::PerClient),
        2 => Some(Limit::PerHub),
        3 => Some(Limit::Total),
        4 => Some(Limit::ConnectRate),
        5 => Some(Limit::NegotiateRate),
        _ => None,
    }
}

fn without_redis(shared: &SharedLimits) -> Verdict {
    match shared.on_error {
        SharedOnError::Local | SharedOnError::Allow => Verdict::Within,
        SharedOnError::Deny => Verdict::Over(Limit::Shared),
    }
}

fn row_name(instance: u32) -> Vec<u8> {
    format!("{instance:08x}").into_bytes()
}

fn bounds(limits: &Limits) -> [Vec<u8>; 3] {
    [limits.per_client, limits.per_hub, limits.total]
        .map(|limit| limit.map_or_else(|| b"-1".to_vec(), |limit| limit.to_string().into_bytes()))
}

/// Microseconds in which a token is earned, and how many can be saved up: none where there is no rate.
fn rate(rate: Option<Rate>) -> [Vec<u8>; 2] {
    let (interval, burst) = rate.map_or((0, 0), |Rate { interval, burst }| (interval, burst));
    [interval.to_string().into_bytes(), burst.to_string().into_bytes()]
}

fn flag(is_set: bool) -> Vec<u8> {
    if is_set { b"1".to_vec() } else { b"0".to_vec() }
}

#[cfg(test)]
mod tests;
