//! YARP: `ReverseProxy` in an `appsettings.json`.

use std::time::Duration;

use super::Reader;
use crate::convert::ask::{
    Ask, BALANCING, ELSEWHERE, HEALTH, IDLE, NO_HEADER, PODS, PREFIX, REPLACED, ROUTE, truth, written,
};

/// The clusters, their affinity above all.
pub(super) fn read(reader: &mut Reader<'_>) {
    let top = if reader.get("/ReverseProxy").is_some() { "/ReverseProxy" } else { "" };
    for (_, cluster) in reader.members(&format!("{top}/Clusters")) {
        let is_on =
            reader.text(&format!("{cluster}/SessionAffinity/Enabled")).is_some_and(|text| truth(&text) == Some(true));
        let policy = reader.text(&format!("{cluster}/SessionAffinity/Policy")).unwrap_or_default();
        let by_header = policy.eq_ignore_ascii_case("CustomHeader");
        let has_max_age = reader.get(&format!("{cluster}/SessionAffinity/Cookie/MaxAge")).is_some();
        for leaf in reader.leaves(&cluster) {
            let ask = match leaf.name.strip_prefix("SessionAffinity.") {
                Some("Enabled" | "Policy" | "AffinityKeyName") if is_on && by_header => Ask::better(NO_HEADER),
                Some(name) if !is_on => {
                    Ask::void(if name == "Enabled" { "no affinity" } else { "`SessionAffinity` is not enabled" })
                }
                Some(name) => affinity(name, &leaf.text, has_max_age),
                None => of_cluster(&leaf.name),
            };
            reader.take(&leaf.pointer, ask);
        }
    }
    for leaf in reader.leaves(&format!("{top}/Routes")) {
        let ask = match leaf.name.rsplit('.').next().unwrap_or_default() {
            "PathRemovePrefix" | "PathPrefix" | "PathPattern" => Ask::left(PREFIX),
            "RateLimiterPolicy" => {
                Ask::impossible("the policy's limits stand in code: write `limits` by hand, docs/limits.md")
            }
            "TimeoutPolicy" | "Timeout" => Ask::better(IDLE),
            _ => Ask::left(ROUTE),
        };
        reader.take(&leaf.pointer, ask);
    }
}

fn affinity(name: &str, text: &str, has_max_age: bool) -> Ask {
    match name {
        "Enabled" => Ask::ClientCookie,
        "Policy" => Ask::same("the cookie holds the sealed route"),
        "FailurePolicy" if text.eq_ignore_ascii_case("Redistribute") => Ask::same(REPLACED),
        "FailurePolicy" => Ask::impossible(
            "a pod that is gone has lost the connection; `strict: true` in Envoy's `stateful_session` would answer 503",
        ),
        "AffinityKeyName" => Ask::Cookie("name", text.into()),
        "Cookie.Path" => Ask::Cookie("path", text.into()),
        "Cookie.Domain" => Ask::Cookie("domain", text.into()),
        "Cookie.HttpOnly" => Ask::flag("http_only", text),
        "Cookie.SameSite" if text.eq_ignore_ascii_case("Unspecified") => Ask::same("the default is `lax`"),
        "Cookie.SameSite" => Ask::same_site(text),
        "Cookie.SecurePolicy" => match text.to_ascii_lowercase().as_str() {
            "always" => Ask::Cookie("secure", true.into()),
            "none" => Ask::Cookie("secure", false.into()),
            _ => Ask::Cookie("secure", "auto".into()),
        },
        "Cookie.Expiration" if has_max_age => Ask::same("`MaxAge` wins in every browser"),
        "Cookie.MaxAge" | "Cookie.Expiration" => time_span(text)
            .map_or_else(|| Ask::not("a time such as 1.00:00:00"), |life| Ask::Cookie("max_age", written(life).into())),
        "Cookie.IsEssential" => Ask::left("consent is the application's"),
        _ => Ask::void("YARP has no such setting"),
    }
}

fn of_cluster(name: &str) -> Ask {
    match name.split('.').next().unwrap_or_default() {
        "LoadBalancingPolicy" => Ask::left(BALANCING),
        "Destinations" => Ask::left(PODS),
        "HealthCheck" => Ask::left(HEALTH),
        "HttpRequest" if name.ends_with("ActivityTimeout") => Ask::better(IDLE),
        _ => Ask::left(ELSEWHERE),
    }
}

/// `[d.]hh:mm:ss`
fn time_span(text: &str) -> Option<Duration> {
    let (days, clock) = text.split_once('.').map_or(("0", text), |(days, clock)| (days, clock));
    let mut parts = clock.split(':').map(|part| part.parse::<u64>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let days: u64 = days.parse().ok()?;
    let hours = days.checked_mul(24)?.checked_add(hours)?;
    let minutes = hours.checked_mul(60)?.checked_add(minutes)?;
    Some(Duration::from_secs(minutes.checked_mul(60)?.checked_add(seconds)?))
}
