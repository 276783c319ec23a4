//! `inspect`: what a sealed id or cookie says, or why it does not open.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use envoy_signalr::clock::{Millis, Seconds};
use envoy_signalr::token::{KeyRing, Purpose, Refusal, Route, claimed_issue};
use serde_json::{Value, json};

use crate::check::{any_secret, settings_in};
use crate::print;

/// Open a sealed connection id or cookie, and print the pod in it, or why it does not open. No secret is printed
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  envoy-signalr inspect 'gH5…Qw.AXb…' --config wasm-plugin.yaml
  SIGNALR_AFFINITY_KEY=… envoy-signalr inspect 'signalr-affinity=AXb…' --hub /chat

A connection id is what stands behind `id=` in a URL, or `connectionToken` in a negotiate's answer. Status: 0 if it steers, 1 if it
does not, 2 if that cannot be said.")]
pub struct Inspect {
    /// The id, or a cookie as `NAME=VALUE`; `-` reads it from standard input
    token: String,
    /// A file with the filter's settings, as `check` reads it: its keys, with their secrets from this environment
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    config: Option<PathBuf>,
    /// A key's id and the environment variable that holds its secret; may be given several times
    #[arg(long, value_name = "ID=VARIABLE", default_value = "1=SIGNALR_AFFINITY_KEY")]
    key: Vec<String>,
    /// For the cookie of one connection: the connection's id, without what the filter added
    #[arg(long)]
    id: Option<String>,
    /// For the cookie that a negotiate sets: the hub's path
    #[arg(long, default_value = "/chat")]
    hub: String,
    /// How the answer is printed
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Lines for people
    Text,
    /// One object
    Json,
}

/// Opens, prints, and says by the status whether it would steer.
///
/// # Errors
/// No keys, or what was given is no id and no cookie of the filter.
pub fn run(options: &Inspect) -> Result<ExitCode> {
    let token = if options.token == "-" { std::io::read_to_string(std::io::stdin())? } else { options.token.clone() };
    let keys = keys(options)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let found = open(token.trim(), &keys, options.id.as_deref(), &options.hub)?;
    let steers = found.route.as_ref().is_ok_and(|(_, route)| at(now) < route.expires);
    match options.output {
        Output::Text => print(&found.lines(now))?,
        Output::Json => print(&format!("{:#}\n", found.json(now)))?,
    }
    Ok(if steers { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ids of keys with their rings, of one key each: so it is known which one opens.
fn keys(options: &Inspect) -> Result<Vec<(String, KeyRing)>> {
    let secret =
        |name: &str| std::env::var(name).with_context(|| format!("the environment variable {name} is not set"));
    let named: Vec<(String, String)> = match &options.config {
        Some(file) => {
            let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
            let environment = |name: &str| std::env::var(name).ok().or_else(|| any_secret(name));
            let (_, value) = settings_in(&text, &environment)
                .map_err(anyhow::Error::msg)
                .with_context(|| file.display().to_string())?;
            let keys = value.pointer("/affinity/keys").and_then(Value::as_array).cloned().unwrap_or_default();
            let texts = |key: &Value| {
                let text = |pointer: &str| key.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
                let secret = text("/secret/value").map(Ok).or_else(|| text("/secret/env").map(|name| secret(&name)))?;
                Some(secret.map(|secret| (text("/id").unwrap_or_default(), secret)))
            };
            keys.iter().filter_map(texts).collect::<Result<_>>()?
        }
        None => options
            .key
            .iter()
            .map(|pair| {
                let (id, name) = pair.split_once('=').context("--key is written ID=VARIABLE")?;
                Ok((id.to_owned(), secret(name)?))
            })
            .collect::<Result<_>>()?,
    };
    ensure!(!named.is_empty(), "the configuration has no key: each Envoy made up its own, which nobody can know");
    Ok(named.iter().map(|(id, secret)| (id.clone(), KeyRing::new([(id.as_str(), secret.as_bytes())]))).collect())
}

/// What was found in a token.
struct Found {
    /// What it is.
    kind: &'static str,
    /// The id that the hub knows, of a connection id.
    id: Option<String>,
    /// When it says that it was made, which is only true if it opens.
    claims: Option<Seconds>,
    /// The key that opened it, and the route.
    route: Result<(String, Route), Refusal>,
}

fn open(token: &str, keys: &[(String, KeyRing)], id: Option<&str>, hub: &str) -> Result<Found> {
    if let Some((name, value)) = token.split_once('=').filter(|(name, _)| !name.contains('.')) {
        let purposes: &[(&str, Purpose, &[u8])] = &[
            ("the cookie of a connection", Purpose::ConnectionCookie, id.unwrap_or_default().as_bytes()),
            ("the cookie of a negotiate", Purpose::PendingCookie, hub.trim_end_matches('/').as_bytes()),
            ("the cookie of a client", Purpose::ClientCookie, b""),
        ];
        let opened = purposes.iter().map(|(kind, purpose, bound)| (*kind, try_keys(keys, *purpose, bound, value)));
        let opened: Vec<_> = opened.collect();
        let claims = claimed_issue(value.as_bytes());
        ensure!(claims.is_some(), "`{name}` is no cookie of the filter: it holds no sealed route");
        if opened.iter().all(|(_, route)| matches!(route, Err(Refusal::Forged))) && id.is_none() {
            bail!(
                "`{name}` was sealed by one of these keys, for a connection or a hub that was not given: add --id or --hub"
            );
        }
        let best = opened
            .into_iter()
            .max_by_key(|(_, route)| route.is_ok())
            .map_or(("a cookie", Err(Refusal::Forged)), |best| best);
        return Ok(Found { kind: best.0, id: None, claims, route: best.1 });
    }
    let decoded = token.replace("%2e", ".").replace("%2E", ".");
    let Some((own, sealed)) = decoded.rsplit_once('.') else {
        bail!(
            "no route is sealed in this id: it is as the hub gave it (the filter adds a dot and some 100 characters)"
        );
    };
    let claims = claimed_issue(sealed.as_bytes());
    ensure!(claims.is_some(), "what stands behind the last dot of this id is no sealed route");
    let route = try_keys(keys, Purpose::ConnectionToken, own.as_bytes(), sealed);
    Ok(Found { kind: "a connection id", id: Some(own.to_owned()), claims, route })
}

/// The route, also if its time is over.
fn try_keys(keys: &[(String, KeyRing)], purpose: Purpose, id: &[u8], sealed: &str) -> Result<(String, Route), Refusal> {
    let mut refusal = Refusal::UnknownKey;
    for (name, ring) in keys {
        match ring.open(purpose, id, sealed.as_bytes(), at(Duration::ZERO)) {
            Ok(route) => return Ok((name.clone(), route)),
            Err(Refusal::UnknownKey) => {}
            Err(other) => refusal = other,
        }
    }
    Err(refusal)
}

impl Found {
    fn json(&self, now: Duration) -> Value {
        let mut answer = json!({ "kind": self.kind, "id": self.id });
        match &self.route {
            Ok((key, route)) => {
                let expired = at(now) >= route.expires;
                answer["key"] = key.clone().into();
                answer["pod"] = text(route.place.address.as_bytes()).into();
                answer["cluster"] = route.place.cluster.as_ref().map(|cluster| text(cluster.as_bytes())).into();
                answer["issued"] = time(route.issued.seconds()).into();
                answer["expires"] = time(route.expires).into();
                answer["steers"] = (!expired).into();
                answer["reason"] = expired.then_some("expired").into();
            }
            Err(refusal) => {
                answer["claims_issued"] = self.claims.map(time).into();
                answer["steers"] = false.into();
                answer["reason"] = reason(*refusal).0.into();
            }
        }
        answer
    }

    fn lines(&self, now: Duration) -> String {
        let mut lines = format!("{:<9}{}\n", "what", self.kind);
        let mut line = |name: &str, value: &str| lines.push_str(&format!("{name:<9}{value}\n"));
        if let Some(id) = &self.id {
            line("id", id);
        }
        match &self.route {
            Ok((key, route)) => {
                line("pod", &text(route.place.address.as_bytes()));
                if let Some(cluster) = &route.place.cluster {
                    line("cluster", &text(cluster.as_bytes()));
                }
                line("key", key);
                line(
                    "issued",
                    &format!("{} ({} ago)", time(route.issued.seconds()), span(at(now).since(route.issued.seconds()))),
                );
                let left = route.expires.since(at(now));
                let when = if left.is_zero() {
                    format!("{} ago: it no longer steers", span(at(now).since(route.expires)))
                } else {
                    format!("in {}", span(left))
                };
                line("expires", &format!("{} ({when})", time(route.expires)));
            }
            Err(refusal) => {
                if let Some(claims) = self.claims {
                    line("issued", &format!("{} by its own word", time(claims)));
                }
                let (name, meaning) = reason(*refusal);
                line("refused", &format!("{name}: {meaning}"));
            }
        }
        lines
    }
}

/// The reason as metrics have it, and what it means.
fn reason(refusal: Refusal) -> (&'static str, &'static str) {
    match refusal {
        Refusal::Expired => ("expired", "its time is over"),
        Refusal::Forged => ("forged", "altered, cut, or sealed for another id, hub or purpose"),
        Refusal::UnknownKey => {
            ("unknown_key", "none of these keys sealed it: another gateway's, or one that was removed")
        }
    }
}

fn at(since_epoch: Duration) -> Seconds {
    Millis::since_epoch(since_epoch).seconds()
}

fn time(at_time: Seconds) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + at_time.since(at(Duration::ZERO))).to_string()
}

/// To the second.
fn span(duration: Duration) -> String {
    humantime::format_duration(Duration::from_secs(duration.as_secs())).to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use envoy_signalr::token::{Address, Place};

    use super::*;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn ring(id: &str) -> KeyRing {
        KeyRing::new([(id, [7; 32].as_slice())])
    }

    fn sealed(purpose: Purpose, id: &str) -> String {
        let place = Place::from(Address::new(b"10.0.0.1:8080").unwrap());
        let route = Route::new(place, Millis::since_epoch(NOW), Duration::from_secs(3_600));
        ring("1").seal(purpose, id.as_bytes(), &route, [9; 24]).unwrap()
    }

    fn said(token: &str, key: &str, id: Option<&str>, later: u64) -> String {
        match open(token, &[(key.to_owned(), ring(key))], id, "/chat/") {
            Ok(found) => found.lines(NOW + Duration::from_secs(later)),
            Err(error) => format!("{error:#}"),
        }
    }

    #[test]
    fn each_carrier_opens_and_what_does_not_has_a_reason() {
        let token = format!("abc.{}", sealed(Purpose::ConnectionToken, "abc"));
        let cookie = |purpose, id| format!("signalr-affinity={}", sealed(purpose, id));
        let bound = cookie(Purpose::ConnectionCookie, "abc");
        let pending = cookie(Purpose::PendingCookie, "/chat");
        let client = cookie(Purpose::ClientCookie, "");
        for (token, key, id, later, expected) in [
            (&token, "1", None, 60, "pod      10.0.0.1:8080\nkey      1\nissued   2027-01-15T08:00:00Z (1m ago)"),
            (&token.replace('.', "%2E"), "1", None, 60, "id       abc"),
            (&token, "1", None, 7_200, "expires  2027-01-15T09:00:00Z (1h ago: it no longer steers)"),
            (&token, "2", None, 0, "refused  unknown_key"),
            (&token.replacen("abc", "abd", 1), "1", None, 0, "refused  forged"),
            (&bound, "1", Some("abc"), 0, "the cookie of a connection"),
            (&bound, "1", Some("abd"), 0, "refused  forged"),
            (&bound, "1", None, 0, "add --id or --hub"),
            (&pending, "1", None, 0, "the cookie of a negotiate"),
            (&client, "1", None, 0, "the cookie of a client"),
            (&"abc".to_owned(), "1", None, 0, "as the hub gave it"),
            (&"abc.def".to_owned(), "1", None, 0, "no sealed route"),
            (&"theme=dark".to_owned(), "1", None, 0, "no cookie of the filter"),
        ] {
            let said = said(token, key, id, later);
            assert!(said.contains(expected), "{token} {key} {id:?} {later}: {said}");
        }
    }

    #[test]
    fn programs_get_the_same_as_people() {
        let token = format!("abc.{}", sealed(Purpose::ConnectionToken, "abc"));
        let json = |key: &str, later| {
            open(&token, &[(key.to_owned(), ring(key))], None, "/chat").unwrap().json(NOW + Duration::from_secs(later))
        };
        let fields = |value: &Value| ["pod", "steers", "reason"].map(|name| value[name].clone());
        assert_eq!(fields(&json("1", 0)), [json!("10.0.0.1:8080"), json!(true), Value::Null]);
        assert_eq!(fields(&json("1", 9_999)), [json!("10.0.0.1:8080"), json!(false), json!("expired")]);
        assert_eq!(fields(&json("2", 0)), [Value::Null, json!(false), json!("unknown_key")]);
    }

    #[test]
    fn no_text_makes_it_panic() {
        let mut random = fastrand::Rng::with_seed(7);
        let token = format!("abc.{}", sealed(Purpose::ConnectionToken, "abc"));
        for _ in 0..3_000 {
            let mut text: Vec<char> = token.chars().collect();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..text.len());
                match random.u8(..3) {
                    0 => text[at] = random.char(..),
                    1 => text.truncate(at.max(1)),
                    _ => text.insert(at, ['.', '=', '%', '-', 'é'][random.usize(..5)]),
                }
            }
            let text: String = text.into_iter().collect();
            let said = said(&text, "1", Some("abc"), random.u64(..));
            assert!(text == token || !said.contains("10.0.0.1"), "{text}");
        }
    }
}
