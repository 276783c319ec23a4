//! HAProxy by itself: `haproxy.cfg`.
//!
//! A limit is a fetch of a stick table in the condition of a rule that refuses, such as `{ sc_conn_cur(0) gt 20 }`. The condition may
//! stand in an `acl` of its own. A network that such a rule leaves out, `!office`, is exempt.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::shortened;
use crate::check::finding::Place;
use crate::convert::ask::{
    ACCESS, ADDRESS, Ask, BALANCING, HASH, HEALTH, IDLE, NO_TABLE, NOBODY, OWN_COOKIE, PODS, ROUTE, SHARED, UNREAD,
    UPGRADE, address, address_in, duration, header_key,
};
use crate::convert::plan::{Plan, Source};

const SECTIONS: [&str; 12] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "userlist",
    "resolvers",
    "program",
    "ring",
    "mailers",
    "cache",
];
const REFUSALS: [&str; 5] = ["deny", "reject", "return", "silent-drop", "tarpit"];

/// Whether the text has sections of HAProxy.
pub(super) fn is_written_in(text: &str) -> bool {
    text.lines().any(|line| {
        let section = line.split_whitespace().next().is_some_and(|word| SECTIONS.contains(&word));
        section && !line.starts_with([' ', '\t']) && !line.contains(':')
    })
}

/// Takes what each line asks for into the plan.
pub(super) fn read(file: &str, text: &str, plan: &mut Plan) {
    let lines: Vec<Vec<String>> = text.lines().map(words).collect();
    let lines: Vec<Vec<&str>> = lines.iter().map(|line| line.iter().map(String::as_str).collect()).collect();
    let whole = Whole::of(&lines);
    let mut section = 0;
    for (index, line) in lines.iter().enumerate() {
        let Some((first, words)) = line.split_first() else { continue };
        if SECTIONS.contains(first) {
            section = index;
            continue;
        }
        let place = Place { line: index + 1, column: 1 };
        let source = Source { file: file.to_owned(), place, what: shortened(&line.join(" ")) };
        for ask in whole.directive(section, first, words) {
            plan.take(source.clone(), ask);
        }
    }
}

/// A line's words without its comment. Quotes hold words together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', _) => word.extend(letters.next()),
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => quote = Some(letter),
            ('#', None) => break,
            (letter, None) if letter.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (letter, _) => word.push(letter),
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// What lines refer to in others.
#[derive(Default)]
struct Whole<'a> {
    /// Conditions by name.
    acls: BTreeMap<&'a str, Vec<&'a str>>,
    /// Names of networks that no limit holds for.
    exempt: BTreeSet<&'a str>,
    /// Names of conditions with a limit that a rule uses.
    used: BTreeSet<&'a str>,
    /// The time of a rate that a stick table stores, by the section and the rate's name.
    periods: Vec<(usize, &'a str, Duration)>,
    /// What is tracked first in the file, if the filter knows it.
    key: Option<Value>,
}

/// `{ sc_conn_cur(0) gt 20 }`.
struct Limit<'a> {
    fetch: &'a str,
    operator: &'a str,
    number: u64,
    by_address: bool,
}

impl<'a> Whole<'a> {
    fn of(lines: &[Vec<&'a str>]) -> Self {
        let mut whole = Self { key: Some(address()), ..Self::default() };
        let mut section = 0;
        for (index, line) in lines.iter().enumerate() {
            match line.as_slice() {
                [name, ..] if SECTIONS.contains(name) => section = index,
                ["acl", name, condition @ ..] => whole.acls.entry(name).or_default().extend(condition),
                ["stick-table" | "table", stored @ ..] => {
                    for stored in stored.iter().flat_map(|word| word.split(',')) {
                        if let Some((name, period)) = stored.trim_end_matches(')').split_once('(')
                            && let Some(period) = duration(period, "ms")
                        {
                            whole.periods.push((section, name, period));
                        }
                    }
                }
                _ => {}
            }
        }
        let mut tracked = lines.iter().flatten().zip(lines.iter().flatten().skip(1));
        if let Some((_, key)) = tracked.find(|(word, _)| word.starts_with("track-sc")) {
            whole.key = self::key(key);
        }
        for line in lines.iter().filter(|line| line.first().is_some_and(|first| first.ends_with("-request"))) {
            let refuses = line.iter().any(|word| REFUSALS.contains(word));
            let allows = line.iter().any(|word| ["allow", "accept"].contains(word));
            for branch in branches(line) {
                let has_limit = branch.iter().any(|condition| whole.has_limit(condition));
                for name in branch.iter().filter(|condition| condition.len() == 1).flatten() {
                    let network = name.strip_prefix('!');
                    if refuses && has_limit {
                        whole.exempt.extend(network);
                        whole.used.insert(name);
                    } else if allows && network.is_none() {
                        whole.exempt.insert(name);
                    }
                }
            }
        }
        whole
    }

    /// Whether a condition, or the one that it names, has a limit.
    fn has_limit(&self, condition: &[&'a str]) -> bool {
        self.limits(condition).next().is_some()
    }

    fn limits(&self, condition: &[&'a str]) -> impl Iterator<Item = Limit<'a>> {
        let named = match condition {
            [name] => self.acls.get(name),
            _ => None,
        };
        let words = named.map_or_else(|| condition.to_vec(), Clone::clone);
        (0..words.len()).filter_map(move |at| Limit::at(words.get(at..)?))
    }

    fn directive(&self, section: usize, name: &str, words: &[&'a str]) -> Vec<Ask> {
        let first = words.first().copied().unwrap_or_default();
        let is_hash =
            ["source", "url_param", "uri", "hash", "rdp-cookie"].contains(&first) || first.starts_with("hdr(");
        let ask = match name {
            "cookie" => return cookie(words),
            "http-request" | "tcp-request" => return self.rule(section, words),
            "server" | "server-template" | "default-server" => return server(words),
            "acl" => self.acl(words),
            "dynamic-cookie-key" => Ask::better("cookies are sealed with `affinity.keys`"),
            "balance" if is_hash => Ask::better(HASH),
            "hash-type" | "hash-balance-factor" => Ask::better(HASH),
            "balance" => Ask::left(BALANCING),
            "stick" => Ask::better("each connection keeps its pod by its id, without a table"),
            "stick-table" | "table" => Ask::better(NO_TABLE),
            "timeout" if ["tunnel", "client", "server", "client-fin", "server-fin"].contains(&first) => {
                Ask::better(IDLE)
            }
            "timeout" => Ask::left("time-outs of TCP and of requests: the platform"),
            "option" if ["forwardfor", "originalto"].contains(&first) => Ask::left(ADDRESS),
            "option" if ["redispatch", "persist"].contains(&first) => Ask::same(
                "a connection whose pod is gone goes to another one, whose 404 makes the client negotiate anew",
            ),
            "option" if first.starts_with("http-") || first == "httpclose" => Ask::better(UPGRADE),
            "option" if first == "httpchk" => Ask::left(HEALTH),
            "force-persist" | "ignore-persist" => Ask::impossible("only the state of a pod decides whether it is used"),
            "maxconn" => {
                Ask::left("TCP connections of the gateway; `limits.connections.total` counts those of SignalR")
            }
            "rate-limit" => Ask::left("sessions of all clients together: the platform"),
            "use_backend" | "default_backend" | "bind" | "redirect" | "use-server" | "mode" => Ask::left(ROUTE),
            "http-check" | "tcp-check" => Ask::left(HEALTH),
            "peer" => Ask::impossible(SHARED),
            _ => Ask::left(UNREAD),
        };
        vec![ask]
    }

    fn rule(&self, section: usize, words: &[&'a str]) -> Vec<Ask> {
        if let Some(at) = words.iter().position(|word| word.starts_with("track-sc")) {
            return vec![words.get(at + 1).map_or_else(|| Ask::not("a rule"), |key| tracked(key))];
        }
        let mut asks = Vec::new();
        for branch in branches(words) {
            let limits: Vec<Limit<'a>> = branch.iter().flat_map(|condition| self.limits(condition)).collect();
            let is_plain = |condition: &Vec<&'a str>| {
                self.has_limit(condition) || matches!(condition.as_slice(), [name] if name.starts_with('!'))
            };
            if !limits.is_empty() && !branch.iter().all(is_plain) {
                asks.push(Ask::impossible("a limit for some requests only: the filter's holds for all hubs"));
            } else {
                asks.extend(limits.iter().map(|limit| self.limit(section, limit)));
            }
        }
        let refuses = words.iter().any(|word| REFUSALS.contains(word));
        if asks.is_empty() || !refuses {
            return vec![Ask::left(if refuses { ACCESS } else { UNREAD })];
        }
        let status = words.iter().position(|word| ["deny_status", "status"].contains(word));
        let status = status.and_then(|at| words.get(at + 1)).filter(|_| asks.iter().any(is_limit));
        asks.extend(status.into_iter().flat_map(|status| Ask::status(status)));
        asks
    }

    fn acl(&self, words: &[&'a str]) -> Ask {
        let Some((name, condition)) = words.split_first() else { return Ask::not("`acl NAME …`") };
        let is_network =
            |word: &&&str| word.contains(['.', ':']) && word.starts_with(|letter: char| letter.is_ascii_hexdigit());
        if condition.contains(&"src") {
            let networks: Vec<_> = condition.iter().filter(is_network).map(|word| (*word).to_owned()).collect();
            return match self.exempt.contains(name) {
                false => Ask::left(ACCESS),
                true if condition.contains(&"-f") || networks.is_empty() => {
                    Ask::impossible("a list in a file: put its networks into `limits.client.exempt`")
                }
                true => Ask::Exempt(networks),
            };
        }
        match (self.has_limit(&[name]), self.used.contains(name)) {
            (false, _) => Ask::left(ROUTE),
            (true, true) => Ask::same("in the rule that refuses"),
            (true, false) => Ask::void("no rule refuses by it"),
        }
    }

    fn limit(&self, section: usize, Limit { fetch, operator, number, by_address }: &Limit<'_>) -> Ask {
        let key = if *by_address { Some(address()) } else { self.key.clone() };
        let Some(key) = key else {
            return Ask::impossible("what it counts by is nothing that the filter knows a client by");
        };
        // A table counts the connection that asks.
        let most = if *operator == "ge" { number.saturating_sub(1) } else { *number };
        let is_rate = ["conn_rate", "http_req_rate"].contains(fetch);
        let period = || {
            let mut of_fetch = self.periods.iter().filter(|(_, name, _)| name == fetch);
            of_fetch.clone().find(|(own, ..)| *own == section).or_else(|| of_fetch.next()).map(|(_, _, period)| *period)
        };
        match (*fetch, most) {
            ("conn_cur", 1..) => Ask::PerClient(most, key),
            _ if is_rate && most > 0 => match period() {
                Some(per) => Ask::Rate { requests: most, per, burst: most, key },
                None => Ask::Void(format!("no stick table stores `{fetch}`")),
            },
            ("conn_cur" | "conn_rate" | "http_req_rate", _) => Ask::impossible(NOBODY),
            _ => Ask::Impossible(format!("the filter does not count `{fetch}`")),
        }
    }
}

fn is_limit(ask: &Ask) -> bool {
    matches!(ask, Ask::PerClient(..) | Ask::Rate { .. })
}

/// The conditions of a rule, by the alternatives between which `||` stands. After `unless`, each is the opposite.
fn branches<'a>(rule: &[&'a str]) -> Vec<Vec<Vec<&'a str>>> {
    let Some(at) = rule.iter().position(|word| ["if", "unless"].contains(word)) else { return Vec::new() };
    let mut branches = vec![Vec::new()];
    let mut block: Option<Vec<&'a str>> = None;
    for word in rule.get(at + 1..).unwrap_or_default() {
        match (*word, &mut block) {
            ("{" | "!{", None) => block = Some(Vec::new()),
            ("}", Some(_)) => {
                if let (Some(branch), Some(block)) = (branches.last_mut(), block.take()) {
                    branch.push(block);
                }
            }
            (word, Some(block)) => block.push(word),
            ("||" | "or", None) => branches.push(Vec::new()),
            (word, None) => {
                if let Some(branch) = branches.last_mut() {
                    branch.push(vec![word]);
                }
            }
        }
    }
    branches
}

impl<'a> Limit<'a> {
    /// The limit that stands at the beginning of these words.
    fn at(words: &[&'a str]) -> Option<Self> {
        let (fetch, operator, number) = match words {
            [fetch, "-m", "int", operator, number, ..] | [fetch, operator, number, ..] => (*fetch, *operator, *number),
            _ => return None,
        };
        let name = fetch.split(['(', ',']).next()?;
        let tracked = ["sc0_", "sc1_", "sc2_", "sc_"].iter().find_map(|prefix| name.strip_prefix(prefix));
        let fetch = tracked.or_else(|| name.strip_prefix("src_"))?;
        let is_limit = ["gt", "ge"].contains(&operator);
        is_limit.then_some(Self { fetch, operator, number: number.parse().ok()?, by_address: tracked.is_none() })
    }
}

/// What a key of `track-sc0` is to the filter.
fn key(key: &str) -> Option<Value> {
    let (fetch, argument) = key.split_once(['(', ',']).unwrap_or((key, ""));
    let argument = argument.split([')', ',']).next().unwrap_or_default();
    match fetch {
        "src" => Some(address()),
        "hdr" | "req.hdr" | "req.fhdr" => Some(header_key(argument)),
        "hdr_ip" | "req.hdr_ip" if argument.eq_ignore_ascii_case("x-forwarded-for") => Some(address()),
        "hdr_ip" | "req.hdr_ip" => Some(address_in(argument)),
        "cook" | "req.cook" => Some(json!({ "cookie": argument })),
        "url_param" | "urlp" => Some(json!({ "query": argument })),
        _ => None,
    }
}

fn tracked(text: &str) -> Ask {
    if text.to_ascii_lowercase().contains("x-forwarded-for") {
        return Ask::left(ADDRESS);
    }
    let mask = text
        .split_once("ipmask(")
        .and_then(|(_, bits)| bits.trim_end_matches(')').split(',').next()?.parse::<u64>().ok());
    mask.map_or_else(|| Ask::key(key(text)), |bits| Ask::Set("limits.client.ipv4_prefix", bits.into()))
}

/// `cookie NAME insert indirect nocache httponly …`. Without `insert` the cookie is the application's.
fn cookie(words: &[&str]) -> Vec<Ask> {
    let Some((name, mut rest)) = words.split_first() else { return vec![Ask::not("`cookie NAME …`")] };
    if !rest.contains(&"insert") {
        return vec![Ask::ClientCookie, Ask::impossible(OWN_COOKIE)];
    }
    let mut asks = vec![Ask::ClientCookie, Ask::Cookie("name", (*name).into())];
    while let Some((word, after)) = rest.split_first() {
        rest = after;
        let argument = rest.first().copied().unwrap_or_default();
        let ask = match *word {
            "httponly" | "secure" => Ask::attribute(word, ""),
            "domain" => Ask::attribute(word, argument),
            "maxlife" => Ask::max_age(argument, "s"),
            "maxidle" => Ask::better("a placement lasts for `max_age`, used or not"),
            "attr" => {
                let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
                Ask::attribute(name, value)
            }
            // How the cookie is written: the filter sets it once, and takes it off for the hub.
            _ => continue,
        };
        if ["domain", "maxlife", "maxidle", "attr"].contains(word) {
            rest = rest.get(1..).unwrap_or_default();
        }
        asks.push(ask);
    }
    asks
}

fn server(words: &[&str]) -> Vec<Ask> {
    let mut asks = vec![Ask::left(PODS)];
    if words.contains(&"maxconn") {
        asks.push(Ask::left("`maxconn`: connections to a pod: `circuit_breakers`"));
    }
    asks
}
