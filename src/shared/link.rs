//! The way to Redis: commands wait here, and go out together, one call at a time.
//!
//! A call is one TCP connection (Envoy's pool of raw TCP makes one for each request), so commands that wait while a call is
//! under way join the next. Its body is what is sent, and the body of its answer what Redis has answered:
//!
//! ```text
//! AUTH user password      if there is a password                     +OK
//! SCRIPT LOAD …           first, and when Redis has forgotten it     $40 …
//! EVALSHA hash 1 …        one for each command                       :0
//! EVALSHA hash 1 …                                                   -MOVED …     asked again, of another node
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use super::resp::{self, Reply};
use crate::clock::Millis;
use crate::settings::{Login, SharedLimits};

/// What every command runs.
const SCRIPT: &str = include_str!("limits.lua");
/// SHA-1 of [`SCRIPT`], by which Redis knows it.
const HASH: &str = "26a2ddc29fcd007a8ba32cb20749108e1491ea91";

/// Commands in a call, so that what Redis reads at once is enough for all of them, and its answer stays small.
const MOST_AT_ONCE: usize = 32;
/// Commands that wait. Beyond, a request is decided as if Redis did not answer, and what nobody waits for is dropped.
const MOST_WAITING: usize = 4_096;
/// How often a command is sent: to whichever node of a cluster Envoy chooses, until one of them is in charge of its keys.
const TRIES: u8 = 12;
/// Between the starts of two calls, on average. Each takes a port for a minute (TIME_WAIT), and there are some 28,000.
const PAUSE: Duration = Duration::from_millis(4);
/// What calls may owe of these pauses, so that after a quiet time they follow each other at once.
const MOST_OWED: Duration = Duration::from_secs(1);
/// The same where nobody waits for an answer.
const PAUSE_OF_REST: Duration = Duration::from_millis(200);
/// After its time-out a call whose answer does not come is given up.
const GRACE: Duration = Duration::from_secs(1);

/// A command to the script.
#[derive(Debug)]
pub(super) struct Command {
    /// The stream that waits for its answer.
    pub(super) stream: Option<u32>,
    /// What the script is called with.
    pub(super) arguments: Vec<Vec<u8>>,
    /// Whether it does not wait for others to join it.
    is_urgent: bool,
    tries: u8,
    /// When it was sent first.
    sent: Option<Millis>,
}

impl Command {
    pub(super) fn new(stream: Option<u32>, arguments: Vec<Vec<u8>>) -> Self {
        Self { stream, arguments, is_urgent: stream.is_some(), tries: 0, sent: None }
    }

    /// One that goes out soon, although nobody waits for its answer.
    pub(super) fn urgent(arguments: Vec<Vec<u8>>) -> Self {
        Self { is_urgent: true, ..Self::new(None, arguments) }
    }

    fn may_try_again(&self, timeout: Duration, now: Millis) -> bool {
        let since = self.sent.map_or(0, |sent| now.since(sent));
        self.tries < TRIES && Duration::from_millis(since) < timeout
    }
}

/// Commands that were answered: the stream that waits, and the number.
pub(super) type Answers = Vec<(Option<u32>, i64)>;

/// Redis could not be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallFailure {
    /// No answer in time.
    TimedOut,
    /// No connection.
    Unreachable,
    /// Not what a script answers: an error, or bytes that are not whole.
    Refused,
}

#[derive(Debug, Default)]
pub(super) struct Link {
    waiting: VecDeque<Command>,
    under_way: Vec<Command>,
    /// When the present or the last call was started.
    started: Option<Millis>,
    /// What of the pauses was still to come when it was started.
    owed: Duration,
    /// Whether Redis has the script, as far as is known.
    is_loaded: bool,
}

impl Link {
    /// Lets a command wait for the next call. False if too many wait.
    pub(super) fn push(&mut self, command: Command) -> bool {
        let fits = self.waiting.len() < MOST_WAITING;
        if fits {
            self.waiting.push_back(command);
        }
        fits
    }

    /// After how long the next call is due. `None` if nothing waits, or its turn comes with the answer to the present call.
    pub(super) fn due(&self, now: Millis) -> Option<Duration> {
        if self.is_under_way() || self.waiting.is_empty() {
            return None;
        }
        Some(if self.waiting.iter().any(|command| command.is_urgent) {
            self.owed(now).saturating_sub(MOST_OWED)
        } else {
            PAUSE_OF_REST.saturating_sub(self.since_start(now))
        })
    }

    /// Since the start of the last call. A start that lies ahead was before the clock was set back.
    fn since_start(&self, now: Millis) -> Duration {
        let started = self.started.filter(|started| *started <= now);
        started.map_or(Duration::MAX, |started| Duration::from_millis(now.since(started)))
    }

    /// What of the pauses is still to come.
    fn owed(&self, now: Millis) -> Duration {
        self.owed.saturating_sub(self.since_start(now))
    }

    /// The body of the next call, which is now under way.
    pub(super) fn start(&mut self, key: &[u8], login: Option<&Login>, now: Millis) -> Vec<u8> {
        self.owed = self.owed(now).saturating_add(PAUSE);
        self.started = Some(now);
        self.under_way = self.waiting.drain(..self.waiting.len().min(MOST_AT_ONCE)).collect();
        let mut body = Vec::new();
        if let Some(Login { username, password }) = login {
            match username {
                Some(username) => resp::write(&mut body, [b"AUTH", username.as_bytes(), password.as_bytes()]),
                None => resp::write(&mut body, [b"AUTH", password.as_bytes()]),
            }
        }
        if !self.is_loaded {
            resp::write(&mut body, [b"SCRIPT".as_slice(), b"LOAD", SCRIPT.as_bytes()]);
        }
        for command in &mut self.under_way {
            command.tries = command.tries.saturating_add(1);
            command.sent.get_or_insert(now);
            let arguments: Vec<&[u8]> = [b"EVALSHA", HASH.as_bytes(), b"1", key]
                .into_iter()
                .chain(command.arguments.iter().map(Vec::as_slice))
                .collect();
            resp::write(&mut body, arguments);
        }
        body
    }

    /// Whether the present call should have ended by now.
    pub(super) fn is_overdue(&self, timeout: Duration, now: Millis) -> bool {
        self.is_under_way() && Duration::from_millis(self.took(now)) > timeout.saturating_add(GRACE)
    }

    /// How many commands wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_under_way(&self) -> bool {
        !self.under_way.is_empty()
    }

    /// How long the present call has taken, in milliseconds.
    pub(super) fn took(&self, now: Millis) -> u64 {
        self.started.map_or(0, |started| now.since(started))
    }

    /// The present call has ended with these bytes. What another node must be asked, or Redis has forgotten the script for, waits
    /// again.
    ///
    /// # Errors
    /// [`CallFailure::Refused`]. Nothing of the call is known then, and it is under way until [`Link::give_up`].
    pub(super) fn answered(
        &mut self,
        mut bytes: &[u8],
        shared: &SharedLimits,
        now: Millis,
    ) -> Result<Answers, CallFailure> {
        let mut next = || {
            let (reply, rest) = resp::read(bytes).ok_or(CallFailure::Refused)?;
            bytes = rest;
            Ok(reply)
        };
        for is_asked in [shared.login.is_some(), !std::mem::replace(&mut self.is_loaded, true)] {
            if is_asked && !matches!(next()?, Reply::Text(_)) {
                return Err(CallFailure::Refused);
            }
        }
        let (mut answers, mut again) = (Vec::new(), Vec::new());
        for (at, command) in self.under_way.iter().enumerate() {
            match next()? {
                Reply::Number(number) => answers.push((command.stream, number)),
                Reply::Error(text) if command.may_try_again(shared.timeout, now) && is_worth_another_try(text) => {
                    self.is_loaded &= !text.starts_with(b"NOSCRIPT");
                    again.push(at);
                }
                Reply::Error(_) | Reply::Text(_) => return Err(CallFailure::Refused),
            }
        }
        let commands = std::mem::take(&mut self.under_way).into_iter().enumerate();
        let again = commands.filter(|(at, _)| again.contains(at)).map(|(_, command)| command);
        again.rev().for_each(|command| self.waiting.push_front(command));
        Ok(answers)
    }

    /// Gives everything up. Returns the streams that wait.
    pub(super) fn give_up(&mut self) -> Vec<u32> {
        self.is_loaded = false;
        let commands = std::mem::take(&mut self.under_way).into_iter().chain(std::mem::take(&mut self.waiting));
        commands.filter_map(|command| command.stream).collect()
    }
}

/// Whether another node, or the same with the script, may answer better.
fn is_worth_another_try(error: &[u8]) -> bool {
    let kinds: [&[u8]; 7] =
        [b"NOSCRIPT ", b"MOVED ", b"ASK ", b"CLUSTERDOWN ", b"READONLY ", b"MASTERDOWN ", b"TRYAGAIN "];
    kinds.iter().any(|kind| error.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn redis(login: Option<Login>) -> SharedLimits {
        SharedLimits {
            cluster: "redis".into(),
            namespace: "test".into(),
            login,
            timeout: Duration::from_secs(1),
            on_error: crate::settings::SharedOnError::Local,
            secret: crate::store::Secret::new([0; 32]),
        }
    }

    fn answer(link: &mut Link, bytes: &[u8]) -> Result<Answers, CallFailure> {
        link.answered(bytes, &redis(None), Millis::default())
    }

    fn command(stream: u32) -> Command {
        Command::new(Some(stream), vec![b"connect".to_vec()])
    }

    /// A link whose first call, with these streams, is under way.
    fn asked(streams: &[u32]) -> Link {
        let mut link = Link::default();
        assert!(streams.iter().all(|stream| link.push(command(*stream))));
        let body = link.start(b"key", None, Millis::default());
        assert!(body.starts_with(b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n"));
        link
    }

    #[test]
    fn the_hash_is_the_scripts() {
        use sha1::{Digest as _, Sha1};
        let hash: String = Sha1::digest(SCRIPT).iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(HASH, hash, "HASH is not that of limits.lua any more");
    }

    #[test]
    fn each_command_gets_its_answer_or_the_whole_call_has_failed() {
        let answered = |bytes: &[u8]| answer(&mut asked(&[7, 8]), bytes);
        assert_eq!(answered(b"$2\r\nab\r\n:0\r\n:17\r\n"), Ok(vec![(Some(7), 0), (Some(8), 17)]));
        for (name, bytes) in [
            ("nothing", b"".as_slice()),
            ("one is missing", b"$2\r\nab\r\n:0\r\n"),
            ("the last is cut", b"$2\r\nab\r\n:0\r\n:1"),
            ("an error", b"$2\r\nab\r\n:0\r\n-OOM command not allowed\r\n"),
            ("no permission to load", b"-NOPERM this user has no permissions\r\n:0\r\n:0\r\n"),
            ("a text", b"$2\r\nab\r\n:0\r\n+OK\r\n"),
            ("something else", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ] {
            assert_eq!(answered(bytes), Err(CallFailure::Refused), "{name}");
        }
    }

    #[test]
    fn what_another_node_is_in_charge_of_is_asked_again_and_first() {
        let mut link = asked(&[7, 8]);
        assert!(link.push(command(9)));
        assert_eq!(answer(&mut link, b"+OK\r\n-MOVED 99 10.0.0.1:6379\r\n:0\r\n"), Ok(vec![(Some(8), 0)]));
        link.start(b"key", None, Millis::default());
        let found = answer(&mut link, b"-NOSCRIPT No matching script.\r\n:3\r\n");
        assert_eq!(found, Ok(vec![(Some(9), 3)]));
        let body = link.start(b"key", None, Millis::default());
        assert!(body.starts_with(b"*3\r\n$6\r\nSCRIPT"), "a node that does not know the script gets it");
        for _ in 2..TRIES {
            link.start(b"key", None, Millis::default());
            assert!(answer(&mut link, b"+OK\r\n-MOVED 99 10.0.0.1:6379\r\n").is_ok());
        }
    }

    #[test]
    fn a_password_goes_first_and_its_refusal_is_a_failure() {
        let login = || Login { username: Some("gateway".into()), password: "secret".into() };
        let mut link = Link::default();
        assert!(link.push(command(7)));
        let body = link.start(b"key", Some(&login()), Millis::default());
        assert!(body.starts_with(b"*3\r\n$4\r\nAUTH\r\n$7\r\ngateway\r\n$6\r\nsecret\r\n"));
        let refusal = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n-NOAUTH\r\n-NOAUTH\r\n";
        assert_eq!(link.answered(refusal, &redis(Some(login())), Millis::default()), Err(CallFailure::Refused));
    }

    #[test]
    fn one_call_is_under_way_and_what_nobody_waits_for_waits_a_little() {
        let mut link = Link::default();
        assert_eq!(link.due(at(1_000)), None, "nothing waits");
        assert!(link.push(command(7)));
        assert_eq!(link.due(at(1_000)), Some(Duration::ZERO));
        link.start(b"key", None, at(1_000));
        assert!(link.push(command(8)));
        assert_eq!(link.due(at(1_001)), None, "a call is under way");
        assert!(answer(&mut link, b"+OK\r\n:0\r\n").is_ok());
        assert_eq!(link.due(at(1_001)), Some(Duration::ZERO));
        assert_eq!(link.give_up(), [8]);
        assert!(link.push(Command::new(None, Vec::new())));
        assert_eq!(link.due(at(1_004)), Some(Duration::from_millis(196)), "nobody waits for the answer");
        assert_eq!(link.due(at(999)), Some(Duration::ZERO), "the clock was set back");
        assert!((0..MOST_WAITING).any(|_| !link.push(command(9))), "what waits is bounded");
    }

    #[test]
    fn calls_that_follow_each_other_at_once_have_to_pause_in_the_end() {
        let mut link = Link::default();
        let call = |link: &mut Link, now| {
            assert!(link.push(command(7)));
            let due = link.due(now);
            link.start(b"key", None, now);
            link.give_up();
            due
        };
        let at_once = (0..1_000).take_while(|_| call(&mut link, at(5_000)) == Some(Duration::ZERO)).count();
        assert_eq!(at_once, 251);
        assert_eq!(call(&mut link, at(5_000)), Some(Duration::from_millis(8)));
        assert_eq!(call(&mut link, at(5_012)), Some(Duration::ZERO));
        assert_eq!(call(&mut link, at(1)), Some(Duration::ZERO), "the clock was set back");
        assert_eq!(call(&mut link, at(9_000)), Some(Duration::ZERO));
    }

    fn at(milliseconds: u64) -> Millis {
        Millis::since_epoch(Duration::from_millis(milliseconds))
    }
}
