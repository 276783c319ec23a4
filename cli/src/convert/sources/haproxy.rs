//! HAProxy by itself: `haproxy.cfg`.
//!
//! A limit is a fetch of a stick table in a condition that ends in `deny` or `reject`, such as `{ sc_conn_cur(0) gt 20 }`. The condition
//! may stand in an `acl` of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use super::shortened;
use crate::check::finding::Place;
use crate::convert::ask::{Ask, ELSEWHERE, HASH, IDLE, ROUTE, UPGRADE, duration};
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
const ADDRESS: &str = "the client's address: docs/limits.md, \"What stands before your gateway\"";

/// Whether the text has sections of HAProxy.
pub(super) fn is_written_in(text: &str) -> bool {
    text.lines().any(|line| {
        let mut words = line.split_whitespace();
        let section = !line.starts_with([' ', '\t']) && words.next().is_some_and(|word| SECTIONS.contains(&word));
        section && !line.contains(':')
    })
}

/// Takes what each line asks for into the plan.
pub(super) fn read(file: &str, text: &str, plan: &mut Plan) {
    let lines: Vec<(usize, Vec<String>)> =
        text.lines().enumerate().map(|(index, line)| (index + 1, words(line))).collect();
    let whole = Whole::of(&lines);
    for (number, words) in &lines {
        let Some(first) = words.first().filter(|first| !SECTIONS.contains(&first.as_str())) else { continue };
        let what = shortened(&words.join(" "));
        let words: Vec<&str> = words.iter().skip(1).map(String::as_str).collect();
        for ask in whole.directive(first, &words) {
            let place = Place { line: *number, column: 1 };
            plan.take(Source { file: file.to_owned(), place, what: what.clone() }, ask);
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
struct Whole {
    /// Conditions by name.
    acls: BTreeMap<String, Vec<String>>,
    /// Names of conditions that a refusal uses.
    refusing: Vec<String>,
    /// The time of each rate that a stick table stores, by the rate's name.
    periods: BTreeMap<String, Duration>,
}

impl Whole {
    fn of(lines: &[(usize, Vec<String>)]) -> Self {
        let mut whole = Self { acls: BTreeMap::new(), refusing: Vec::new(), periods: BTreeMap::new() };
        for (_, words) in lines {
            let mut rest = words.iter().map(String::as_str);
            match rest.next() {
                Some("acl") => {
                    if let Some(name) = rest.next() {
                        whole.acls.entry(name.to_owned()).or_default().extend(rest.map(str::to_owned));
                    }
                }
                Some("http-request" | "tcp-request" | "use_backend") => {
                    whole.refusing.extend(rest.map(|word| word.trim_start_matches('!').to_owned()));
                }
                Some("stick-table") => {
                    for stored in rest.flat_map(|word| word.split(',')) {
                        if let Some((name, period)) = stored.trim_end_matches(')').split_once('(')
                            && let Some(period) = duration(period, "ms")
                        {
                            whole.periods.insert(name.to_owned(), period);
                        }
                    }
                }
                _ => {}
            }
        }
        whole
    }

    fn directive(&self, name: &str, words: &[&str]) -> Vec<Ask> {
        let first = words.first().copied().unwrap_or_default();
        match name {
            "cookie" => cookie(words),
            "dynamic-cookie-key" => vec![Ask::better("cookies are sealed with `affinity.keys`")],
            "balance"
                if ["source", "url_param", "uri", "hash", "rdp-cookie"].contains(&first)
                    || first.starts_with("hdr(") =>
            {
                vec![Ask::better(HASH)]
            }
            "hash-type" | "hash-balance-factor" => vec![Ask::better(HASH)],
            "balance" => vec![Ask::left("how new connections are spread: `lb_policy`")],
            "stick" => vec![Ask::better("each connection keeps its pod by its id, without a table")],
            "stick-table" => vec![Ask::better("the filter counts without a table: nothing to set")],
            "http-request" | "tcp-request" => self.rule(words),
            "acl" => self.acl(words),
            "timeout" if ["tunnel", "client", "server", "client-fin", "server-fin"].contains(&first) => {
                vec![Ask::better(IDLE)]
            }
            "timeout" => vec![Ask::left("time-outs of TCP and of requests: the platform")],
            "option" if ["forwardfor", "originalto"].contains(&first) => vec![Ask::left(ADDRESS)],
            "option" if ["redispatch", "persist"].contains(&first) => {
                vec![Ask::same(
                    "a connection whose pod is gone goes to another one, whose 404 makes the client negotiate anew",
                )]
            }
            "option" if first.starts_with("http-") || first == "httpclose" => vec![Ask::better(UPGRADE)],
            "option" if first == "httpchk" => vec![Ask::left("health checks: the platform")],
            "force-persist" | "ignore-persist" => {
                vec![Ask::impossible("a connection is led to its pod by the pod's state alone")]
            }
            "server" | "server-template" | "default-server" => server(words),
            "maxconn" => {
                vec![Ask::left("TCP connections of the gateway; `limits.connections.total` counts those of SignalR")]
            }
            "use_backend" | "default_backend" | "bind" | "redirect" | "use-server" => vec![Ask::left(ROUTE)],
            "http-check" | "tcp-check" => vec![Ask::left("health checks: the platform")],
            "peer" => {
                vec![Ask::impossible("each gateway counts for itself: divide limits by their number, docs/limits.md")]
            }
            _ => vec![Ask::left(ELSEWHERE)],
        }
    }

    fn rule(&self, words: &[&str]) -> Vec<Ask> {
        let words: Vec<&str> =
            words.iter().copied().filter(|word| !["connection", "content", "session"].contains(word)).collect();
        let Some(action) = words.first() else { return Vec::new() };
        if action.starts_with("track-sc") {
            return vec![words.get(1).map_or_else(|| Ask::not("a rule"), |key| tracked(key))];
        }
        if !["deny", "reject", "tarpit", "silent-drop"].contains(action) {
            return vec![Ask::left(ELSEWHERE)];
        }
        let limits = self.limits(&words);
        if limits.is_empty() {
            return vec![Ask::left(ELSEWHERE)];
        }
        let status = words.iter().position(|word| *word == "deny_status").and_then(|at| words.get(at + 1));
        limits.into_iter().chain(status.into_iter().flat_map(|status| Ask::status(status))).collect()
    }

    fn acl(&self, words: &[&str]) -> Vec<Ask> {
        let Some((name, condition)) = words.split_first() else { return Vec::new() };
        if condition.contains(&"src") {
            let networks = condition
                .iter()
                .filter(|word| word.starts_with(|letter: char| letter.is_ascii_digit()) || word.contains(':'));
            let networks: Vec<_> = networks.map(|word| (*word).to_owned()).collect();
            return vec![if condition.contains(&"-f") || networks.is_empty() {
                Ask::impossible(
                    "a list in a file: put its networks into `limits.client.exempt` if no limit holds for them",
                )
            } else if self.refusing.iter().any(|used| used == name) {
                Ask::Exempt(networks)
            } else {
                Ask::left(ROUTE)
            }];
        }
        if limits_in(condition).next().is_none() {
            return vec![Ask::left(ROUTE)];
        }
        if self.refusing.iter().any(|used| used == name) {
            vec![Ask::same("in the rule that refuses")]
        } else {
            vec![Ask::void("no rule uses it")]
        }
    }

    /// The limits in a rule's condition and in those that it names.
    fn limits(&self, words: &[&str]) -> Vec<Ask> {
        let named = words.iter().filter_map(|word| self.acls.get(word.trim_start_matches('!')));
        let named = named.flat_map(|condition| condition.iter().map(String::as_str)).collect::<Vec<_>>();
        limits_in(words).chain(limits_in(&named)).map(|limit| self.limit(limit)).collect()
    }

    fn limit(&self, (fetch, operator, number): (&str, &str, u64)) -> Ask {
        // A table counts the connection that asks.
        let most = if operator == "ge" { number.saturating_sub(1) } else { number };
        match fetch {
            "conn_cur" if most > 0 => Ask::per_client(most),
            "conn_rate" | "http_req_rate" if most > 0 => match self.periods.get(fetch) {
                Some(per) => Ask::Rate { requests: most, per: *per, burst: most },
                None => Ask::Void(format!("no stick table stores `{fetch}`")),
            },
            "conn_cur" | "conn_rate" | "http_req_rate" => Ask::impossible("a limit of 0 admits nobody"),
            _ => Ask::Impossible(format!("the filter does not count `{fetch}`")),
        }
    }
}

/// Each `sc_conn_cur(0) gt 20` and the like: the fetch, the operator and the number.
fn limits_in<'a>(words: &'a [&'a str]) -> impl Iterator<Item = (&'a str, &'a str, u64)> {
    let triples = words.windows(3).filter_map(|three| {
        let &[fetch, operator, number] = three else { return None };
        let name = fetch.split('(').next()?;
        let name = ["sc0_", "sc1_", "sc2_", "sc_", "src_"].iter().find_map(|prefix| name.strip_prefix(prefix))?;
        ["gt", "ge"].contains(&operator).then_some((name, operator, number.parse().ok()?))
    });
    // The short form is one word: `sc_conn_cur(0),gt(20)` or `sc_conn_cur(0) -m int gt 20`.
    let long = words.windows(5).filter_map(|five| {
        let &[fetch, "-m", "int", operator, number] = five else { return None };
        let name = fetch.split('(').next()?;
        let name = ["sc0_", "sc1_", "sc2_", "sc_", "src_"].iter().find_map(|prefix| name.strip_prefix(prefix))?;
        ["gt", "ge"].contains(&operator).then_some((name, operator, number.parse().ok()?))
    });
    triples.chain(long)
}

/// What `track-sc0` counts by.
fn tracked(key: &str) -> Ask {
    let (fetch, argument) = key.split_once('(').unwrap_or((key, ""));
    let argument = argument.split([')', ',']).next().unwrap_or_default();
    match fetch {
        "src" => Ask::same("the source address is the default"),
        "hdr" | "req.hdr" | "hdr_ip" | "req.hdr_ip" if argument.eq_ignore_ascii_case("x-forwarded-for") => {
            Ask::left(ADDRESS)
        }
        "hdr" | "req.hdr" | "req.fhdr" => Ask::key("header", argument),
        "cook" | "req.cook" => Ask::Set("limits.client.key", serde_json::json!({ "cookie": argument })),
        "url_param" | "urlp" => Ask::Set("limits.client.key", serde_json::json!({ "query": argument })),
        _ => Ask::impossible("nothing that the filter knows a client by: docs/limits.md, \"Choosing a key\""),
    }
}

/// `cookie NAME insert indirect nocache httponly …`
fn cookie(words: &[&str]) -> Vec<Ask> {
    let Some((name, mut rest)) = words.split_first() else { return vec![Ask::not("`cookie NAME …`")] };
    let mut asks = vec![Ask::ClientCookie, Ask::Cookie("name", (*name).into())];
    while let Some((word, after)) = rest.split_first() {
        rest = after;
        let mut argument = || {
            let (first, after) = rest.split_first().unwrap_or((&"", &[]));
            rest = after;
            *first
        };
        asks.push(match *word {
            "httponly" => Ask::Cookie("http_only", true.into()),
            "secure" => Ask::Cookie("secure", true.into()),
            "domain" => Ask::Cookie("domain", argument().trim_start_matches('.').into()),
            "maxlife" => Ask::max_age(argument(), "s"),
            "maxidle" => {
                argument();
                Ask::better("a placement lasts for `max_age`, used or not")
            }
            "attr" => attribute(argument()),
            "prefix" | "rewrite" => {
                Ask::impossible("the application's own cookie is not touched; the filter sets one of its own")
            }
            // How the cookie is written: the filter sets it once, and takes it off for the hub.
            _ => continue,
        });
    }
    asks
}

fn attribute(text: &str) -> Ask {
    match text.split_once('=') {
        Some((name, value)) if name.eq_ignore_ascii_case("samesite") => Ask::same_site(value),
        None if text.eq_ignore_ascii_case("partitioned") => Ask::Cookie("partitioned", true.into()),
        _ => Ask::Impossible(format!("the filter's cookie has no attribute `{text}`")),
    }
}

fn server(words: &[&str]) -> Vec<Ask> {
    let mut asks = vec![Ask::left("the pods: endpoints of the platform")];
    if words.contains(&"maxconn") {
        asks.push(Ask::left("`maxconn`: connections to a pod: `circuit_breakers`"));
    }
    asks
}
