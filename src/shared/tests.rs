//! One instance and the answers of a Redis that is not there: what it really answers is in `tests/shared`.

use super::*;
use crate::ledger::{End, InstanceId};
use crate::limit::{Admitted, Limiter};
use crate::settings::{Settings, Surroundings};
use crate::signalr::Transport;
use crate::store::Secret;
use crate::store::memory::MemoryStore;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

struct Gateway {
    limits: Limits,
    limiter: Limiter,
    shared: Shared,
    store: MemoryStore,
    now: u64,
}

/// What a call was made of: the name of each operation, and all of it as text.
struct Body {
    acts: Vec<String>,
    text: String,
}

impl Gateway {
    fn new(on_error: &str) -> Self {
        let json = format!(
            r#"{{"affinity": {{"keys": [{{"id": "1", "secret": {{"value": "0123456789abcdef0123456789abcdef"}}}}]}},
                "limits": {{"connections": {{"per_client": 9}},
                  "shared": {{"redis": {{"cluster": "redis", "namespace": "test", "on_error": "{on_error}"}}}}}}}}"#
        );
        let surroundings = Surroundings { env: &|_| None, process_secret: &|| Secret::new([0; 32]) };
        let limits = Settings::parse(json.as_bytes(), &surroundings).unwrap().limits;
        let limiter = Limiter::new(InstanceId::new(7).unwrap(), Secret::new([7; 32]), &limits);
        let shared = Shared::new(&limits);
        Self { limits, limiter, shared, store: MemoryStore::default(), now: 1_000_000 }
    }

    fn now(&self) -> Millis {
        Millis::since_epoch(Duration::from_millis(self.now))
    }

    fn settings(&self) -> &SharedLimits {
        self.limits.shared.as_ref().unwrap()
    }

    /// A connection that the ledger admits, and what becomes of it at once.
    fn connect(&mut self, stream: u32, id: &str) -> (Admitted, Asked) {
        let hub = HubLabel::learned(b"/chat");
        let (client, transport) = ([1; 8], Transport::WebSockets);
        let opening = crate::ledger::Opening { client, id: Some(id.as_bytes()), transport, hub: &hub, issued: None };
        let now = self.now();
        let admitted = self.limiter.connect(&self.limits, &opening, now, &self.store).unwrap().1.unwrap();
        let asker = Asker { hub, is_negotiate: false, origin: None };
        let question = Question::Connect(&admitted.lease);
        let shared = self.limits.shared.as_ref().unwrap();
        let asked = self.shared.ask(stream, asker, &question, &self.limits, shared, self.limiter.ledger.instance());
        (admitted, asked)
    }

    fn end(&mut self, stream: u32, admitted: Admitted) {
        self.shared.forget(stream);
        let now = self.now().seconds();
        self.limiter.end(admitted, End::Over, now, &self.store);
        self.shared.follow(&mut self.limiter.ledger);
    }

    /// A second later.
    fn tick(&mut self) {
        self.now += 1_000;
        let (now, shared) = (self.now(), self.limits.shared.as_ref().unwrap());
        self.limiter.ledger.tick(now.seconds(), &self.store);
        self.shared.tick(shared, &self.limits, &mut self.limiter.ledger, now, &self.store);
    }

    fn start(&mut self) -> Body {
        self.now += 1_000;
        assert_eq!(self.shared.due(self.now()), Some(Duration::ZERO), "a call is due");
        let now = self.now();
        let shared = self.limits.shared.as_ref().unwrap();
        let text = String::from_utf8_lossy(&self.shared.start(shared, now)).into_owned();
        let commands = text.split("EVALSHA").skip(1);
        // Length and value of hash, number of keys and key stand before it.
        let acts = commands.map(|command| command.split("\r\n").nth(8).unwrap().to_owned()).collect();
        Body { acts, text }
    }

    fn answer(&mut self, answer: Result<&str, CallFailure>) -> Vec<Decided> {
        let (now, instance) = (self.now(), self.limiter.ledger.instance());
        let shared = self.limits.shared.as_ref().unwrap();
        self.shared.answered(answer.map(str::as_bytes), shared, &self.limits, instance, now)
    }

    /// A call that Redis answers with these numbers.
    fn call(&mut self, numbers: &[i64]) -> (Body, Vec<Decided>) {
        let body = self.start();
        assert_eq!(body.acts.len(), numbers.len(), "{:?}", body.acts);
        let loaded = if body.text.contains("SCRIPT") { "+OK\r\n" } else { "" };
        let answer = numbers.iter().fold(loaded.to_owned(), |all, number| format!("{all}:{number}\r\n"));
        let decided = self.answer(Ok(&answer));
        (body, decided)
    }
}

fn verdicts(decided: Vec<Decided>) -> Vec<(u32, Verdict)> {
    decided.into_iter().map(|decided| (decided.stream, decided.verdict)).collect()
}

#[test]
fn a_request_goes_on_or_not_as_redis_says() {
    let mut gateway = Gateway::new("local");
    let (_first, asked) = gateway.connect(1, "one");
    assert_eq!(asked, Asked::Waits);
    let (second, asked) = gateway.connect(2, "two");
    assert_eq!(asked, Asked::Waits);
    let (body, decided) = gateway.call(&[16, 1]);
    assert_eq!(body.acts, ["connect", "connect"]);
    assert_eq!(verdicts(decided), [(1, Verdict::Within), (2, Verdict::Over(Limit::PerClient))]);
    assert!(!gateway.shared.has_refused(1) && gateway.shared.has_refused(2));
    // The row is new, and holds the connection that was there before the answer: none.
    assert_eq!(gateway.shared.due(gateway.now()), None);
    gateway.end(2, second);
    assert!(!gateway.shared.has_refused(2), "nothing is kept of a stream that is over");
}

#[test]
fn while_redis_is_away_on_error_decides_and_later_the_row_is_written_anew() {
    for (on_error, while_away) in
        [("local", Verdict::Within), ("allow", Verdict::Within), ("deny", Verdict::Over(Limit::Shared))]
    {
        let mut gateway = Gateway::new(on_error);
        let (_held, _) = gateway.connect(1, "held");
        gateway.call(&[16]);
        let (_asked, _) = gateway.connect(2, "asked");
        gateway.start();
        let (_waiting, _) = gateway.connect(3, "waiting");
        let decided = gateway.answer(Err(CallFailure::Unreachable));
        assert_eq!(verdicts(decided), [(2, while_away), (3, while_away)], "{on_error}");
        let (_later, asked) = gateway.connect(4, "later");
        assert_eq!(asked, Asked::Decided(while_away), "{on_error}");
        assert_eq!(gateway.shared.lifts_limits(gateway.settings()), on_error == "allow");
        // What was admitted, and only that, is written when Redis is back.
        let admitted = if while_away == Verdict::Within { 4 } else { 1 };
        gateway.tick();
        let (body, _) = gateway.call(&[16]);
        assert_eq!(body.acts, ["reset"], "{on_error}");
        let (body, _) = gateway.call(&[0]);
        assert_eq!(body.acts, ["write"], "{on_error}");
        assert_eq!(body.text.matches("/chat").count(), admitted, "{on_error}");
        assert_eq!(gateway.connect(5, "again").1, Asked::Waits, "{on_error}");
    }
}

#[test]
fn an_answer_that_says_nothing_decides_all_who_wait() {
    for answer in [
        "",
        "+OK\r\n:0\r\n",
        "+OK\r\n:0\r\n-NOPERM this user has no permissions\r\n",
        "-NOAUTH\r\n-NOAUTH\r\n-NOAUTH\r\n",
    ] {
        let mut gateway = Gateway::new("local");
        let held = [1, 2].map(|stream| gateway.connect(stream, &format!("id{stream}")).0);
        gateway.start();
        let (_waiting, _) = gateway.connect(3, "waiting");
        let decided = verdicts(gateway.answer(Ok(answer)));
        assert_eq!(decided, [1, 2, 3].map(|stream| (stream, Verdict::Within)), "{answer:?}");
        assert_eq!(held.len(), 2);
    }
}

#[test]
fn a_row_that_redis_has_lost_is_written_in_pages() {
    let mut gateway = Gateway::new("local");
    gateway.limits.per_client = Some(1_000);
    let held: Vec<_> = (0..40).map(|stream| gateway.connect(stream, &format!("id{stream}")).0).collect();
    gateway.call(&[0; 32]);
    gateway.call(&[0; 8]);
    (0..3).for_each(|_| gateway.tick());
    let (body, _) = gateway.call(&[LOST]);
    assert_eq!(body.acts, ["beat"]);
    assert_eq!(gateway.shared.due(gateway.now()), Some(Duration::ZERO), "at once");
    let (body, _) = gateway.call(&[0; 3]);
    assert_eq!(body.acts, ["write"; 3]);
    assert_eq!(body.text.matches("/chat").count(), held.len());
    assert_eq!(gateway.shared.due(gateway.now()), None);
}

#[test]
fn a_client_that_leaves_while_it_waits_leaves_nothing_behind() {
    let mut gateway = Gateway::new("local");
    let (admitted, _) = gateway.connect(1, "one");
    gateway.start();
    gateway.end(1, admitted);
    assert_eq!(gateway.answer(Ok("+OK\r\n:16\r\n")), []);
    let (body, _) = gateway.call(&[0]);
    assert_eq!(body.acts, ["leave"]);
    assert!(gateway.shared.streams.is_empty());
}

#[test]
fn an_end_that_did_not_reach_redis_is_made_up_for() {
    let mut gateway = Gateway::new("local");
    let (admitted, _) = gateway.connect(1, "one");
    gateway.call(&[16]);
    // Its word is lost, as that of another instance that ends it may be.
    let now = gateway.now().seconds();
    gateway.limiter.end(admitted, End::Over, now, &gateway.store);
    gateway.limiter.ledger.take_events();
    assert_eq!(gateway.shared.row.len(), 1);
    gateway.tick();
    let (body, _) = gateway.call(&[0, 0]);
    assert_eq!(body.acts, ["leave", "beat"]);
    assert!(gateway.shared.row.is_empty());
}
