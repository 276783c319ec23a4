//! The script that Redis runs, against a model of what the rows should hold.

use std::collections::{BTreeMap, BTreeSet};

use testbed::redis::Redis;

use crate::gateways::{redis, row_key};

const SCRIPT: &str = include_str!("../../src/shared/limits.lua");
/// A row that lives, and holds nothing.
const OBSERVER: &str = "000000ff";
const HUBS: [&str; 3] = ["/chat", "/with space", "other"];
const TWICE: &str = "envoy-signalr:{test}:twice";

/// Redis, and what its rows should hold. A row that is not here has expired.
struct Rows {
    redis: Redis,
    expected: BTreeMap<String, BTreeSet<String>>,
}

/// The hub of a connection. One row has not heard of it.
fn hub(row: &str, connection: &str) -> &'static str {
    match connection.ends_with(['1', '3']) {
        _ if row.ends_with('3') => "other",
        true => "/chat",
        false => "/with space",
    }
}

/// Where a connection is in a row. Two share a client.
fn names<'a>(row: &str, connection: &'a str) -> [&'a str; 3] {
    let client = if connection.ends_with(['1', '2']) { "client-1" } else { connection };
    [client, connection, hub(row, connection)]
}

impl Rows {
    fn run(&mut self, act: &str, row: &str, asker: &str, arguments: &[&str]) {
        self.expected.entry(asker.to_owned()).or_default();
        let head = ["EVAL", SCRIPT, "1", "envoy-signalr:{test}:rows", act, row, asker, "0"];
        let answer: i64 = self.redis.ask(&[&head, arguments].concat()).unwrap();
        assert!(matches!(answer, 0 | 16), "{act}: {answer}");
    }

    fn connect(&mut self, row: &str, asker: &str, connection: &str) {
        let [group, connection, hub] = names(row, connection);
        let limits = ["-1", "-1", "-1", "0", "0", "0", "1"];
        self.run("connect", row, asker, &[&[group, connection, hub, group], &limits[..]].concat());
        if let Some(row) = self.expected.get_mut(row) {
            row.insert(connection.to_owned());
        }
    }

    fn leave(&mut self, row: &str, asker: &str, connection: &str) {
        let [group, connection, hub] = names(row, connection);
        self.run("leave", asker, asker, &[row, group, connection, hub, "0"]);
        if let Some(row) = self.expected.get_mut(row) {
            row.remove(connection);
        }
    }

    fn write(&mut self, row: &str, connections: &[String]) {
        let arguments: Vec<&str> = connections.iter().flat_map(|connection| names(row, connection)).collect();
        self.run("write", row, row, &arguments);
        self.expected.entry(row.to_owned()).or_default().extend(connections.iter().cloned());
    }

    fn begin_anew(&mut self, row: &str) {
        self.run("reset", row, row, &[]);
        self.expected.insert(row.to_owned(), BTreeSet::new());
    }

    fn expire(&mut self, row: &str) {
        let _: i64 = self.redis.ask(&["DEL", &row_key(row)]).unwrap();
        self.expected.remove(row);
    }

    /// How many connections all rows count: with this hub, or in total.
    fn counted(&self, field: &str) -> usize {
        let of_row = |row: &String| self.redis.ask::<Option<usize>>(&["HGET", &row_key(row), field]).unwrap();
        self.expected.keys().filter_map(of_row).sum()
    }

    fn assert_right(&mut self, history: &[String]) {
        self.run("negotiate", OBSERVER, OBSERVER, &["nobody", "/chat", "-1", "-1", "-1", "0", "0", "0", "0"]);
        let held: Vec<&String> = self.expected.values().flatten().collect();
        let all: BTreeSet<&String> = held.iter().copied().collect();
        let several = all.iter().filter(|one| held.iter().filter(|other| other == one).count() > 1).count();
        let expected = (all.len(), all.len(), several);
        let twice: usize = self.redis.ask(&["HLEN", TWICE]).unwrap();
        let at_hubs = HUBS.iter().map(|hub| self.counted(&format!("h{hub}"))).sum();
        let found = (self.counted("t"), at_hubs, twice);
        assert_eq!(found, expected, "{:?} after {history:#?}", self.expected);
        // A row counts by its own name for a hub, and never more than it holds.
        for (row, held) in &self.expected {
            for wanted in HUBS {
                let of_hub = held.iter().filter(|connection| hub(row, connection) == wanted).count();
                let counted: Option<usize> = self.redis.ask(&["HGET", &row_key(row), &format!("h{wanted}")]).unwrap();
                assert!(counted.unwrap_or(0) <= of_hub, "{row} {wanted}: {counted:?} of {of_hub} after {history:#?}");
            }
        }
    }
}

#[test]
fn a_connection_that_several_rows_hold_counts_once() {
    const STEPS: usize = 4_000;
    let Some(program) = redis("a_connection_that_several_rows_hold_counts_once") else { return };
    let mut rows = Rows { redis: Redis::start(&program).unwrap(), expected: BTreeMap::new() };
    let mut dice = fastrand::Rng::with_seed(7);
    let mut history = Vec::new();
    for _ in 0..STEPS {
        let [row, other] = [(); 2].map(|()| format!("0000000{}", dice.u8(1..4)));
        // An instance asks for its own row, or for that of another that counts the connection.
        let asker = if dice.u8(..5) == 0 { &other } else { &row };
        let connection = format!("id-0000{}", dice.u8(1..5));
        let act = dice.u8(..20);
        history.push(format!("{act}: row {row} asker {asker} {connection}"));
        match act {
            0..9 => rows.connect(&row, asker, &connection),
            9..16 => rows.leave(&row, asker, &connection),
            16 => rows.write(&row, &[connection, format!("id-0000{}", dice.u8(1..5))]),
            17 => rows.begin_anew(&row),
            _ => rows.expire(&row),
        }
        // Some things happen before anybody looks.
        if dice.bool() {
            rows.assert_right(&history);
            history.clear();
        }
    }
}
