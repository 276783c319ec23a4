//! Traefik: its resources, labels of Compose and Swarm, annotations, and the file provider. All have the same middlewares and services,
//! and differ in how a name is written.

use super::{Leaf, Reader};
use crate::convert::ask::{Ask, ELSEWHERE, ROUTE, duration, truth};

/// An IngressRoute: its services may be sticky.
pub(super) fn ingress_route(reader: &mut Reader<'_>) {
    for route in reader.items("/spec/routes") {
        for service in reader.items(&format!("{route}/services")) {
            self::service(reader, &service);
            let name = reader.text(&format!("{service}/name"));
            let namespace = reader.text("/metadata/namespace").unwrap_or_else(|| "default".to_owned());
            let port = reader.text(&format!("{service}/port")).and_then(|port| port.parse().ok()).unwrap_or(80);
            if let (Some(name), true) =
                (name, reader.text(&format!("{service}/kind")).as_deref() != Some("TraefikService"))
            {
                reader.take(&service, Ask::Service(format!("{name}.{namespace}"), port));
            }
        }
    }
    reader.take_resource(Ask::left(ROUTE));
}

/// A service, or several by weight, each with `sticky`.
pub(super) fn service(reader: &mut Reader<'_>, pointer: &str) {
    let leaves = reader.leaves(pointer);
    for leaf in &leaves {
        let name = leaf.name.to_ascii_lowercase();
        if let Some(at) = name.find("sticky.cookie") {
            let attribute = name.get(at + "sticky.cookie".len()..).unwrap_or_default();
            sticky(reader, leaf, attribute.trim_start_matches('.'));
        } else if ["strategy", "healthcheck.path", "passhostheader"].contains(&name.as_str()) {
            reader.take(&leaf.pointer, Ask::left(ELSEWHERE));
        }
    }
}

/// An attribute of a sticky service; none at all makes it sticky, too.
fn sticky(reader: &mut Reader<'_>, leaf: &Leaf, attribute: &str) {
    let text = leaf.text.as_str();
    let ask = match attribute {
        "" if truth(text) == Some(false) => return reader.take(&leaf.pointer, Ask::same("no affinity by a cookie")),
        "" => return reader.take(&leaf.pointer, Ask::ClientCookie),
        "name" => Ask::Cookie("name", text.into()),
        "path" => Ask::Cookie("path", text.into()),
        "domain" => Ask::Cookie("domain", text.into()),
        "secure" => Ask::flag("secure", text),
        "httponly" => Ask::flag("http_only", text),
        "samesite" => Ask::same_site(text),
        "maxage" if text == "0" => {
            Ask::same("a cookie of the browser's session lives for `max_age` here, which is a day")
        }
        "maxage" => Ask::max_age(text, "s"),
        "expires" => Ask::better("`Max-Age` is in every cookie"),
        _ => Ask::void("Traefik has no such attribute"),
    };
    reader.take_cookie(&leaf.pointer, ask);
}

/// A Middleware, below the name of its kind.
pub(super) fn middleware(reader: &mut Reader<'_>, pointer: &str) {
    for (kind, own) in reader.members(pointer) {
        let leaves = reader.leaves(&own);
        let find =
            |name: &str| leaves.iter().find(|leaf| leaf.name.eq_ignore_ascii_case(name)).map(|leaf| leaf.text.clone());
        let has = |prefix: &str| {
            leaves.iter().any(|leaf| leaf.name.to_ascii_lowercase().starts_with(&prefix.to_ascii_lowercase()))
        };
        let limit = Limit { find: &find, has: &has };
        match kind.to_ascii_lowercase().as_str() {
            "ratelimit" => {
                for leaf in &leaves {
                    let ask = limit.of_rate(&leaf.name.to_ascii_lowercase(), &leaf.text);
                    reader.take(&leaf.pointer, ask);
                }
            }
            "inflightreq" => {
                for leaf in &leaves {
                    let ask = limit.in_flight(&leaf.name.to_ascii_lowercase(), &leaf.text);
                    reader.take(&leaf.pointer, ask);
                }
            }
            other => reader.take(&own, elsewhere(other)),
        }
    }
}

fn elsewhere(kind: &str) -> Ask {
    match kind {
        "stripprefix" | "stripprefixregex" | "addprefix" | "replacepath" | "replacepathregex" => {
            Ask::left("a route; the path of a hub in `hubs` is the one that clients see, any prefix included")
        }
        "buffering" => Ask::left("do not buffer hubs: event streams and WebSockets would not get through"),
        "compress" => Ask::left("do not compress event streams: they would come late"),
        "ipallowlist" | "ipwhitelist" => Ask::left(
            "access by address: AuthorizationPolicy in Istio, SecurityPolicy in Envoy Gateway, the filter `rbac` in Envoy",
        ),
        _ => Ask::left(ELSEWHERE),
    }
}

/// A limit with what stands beside a value.
struct Limit<'a> {
    find: &'a dyn Fn(&str) -> Option<String>,
    has: &'a dyn Fn(&str) -> bool,
}

impl Limit<'_> {
    fn of_rate(&self, name: &str, text: &str) -> Ask {
        match name {
            "average" if (self.has)("sourceCriterion.requestHost") => {
                Ask::impossible("a rate for a host as a whole: rates of the filter are each client's")
            }
            "average" => self
                .rate(text)
                .unwrap_or_else(|| Ask::not("a whole number, with a `period` and a `burst` that are right")),
            "period" => Ask::same("`per` of the rates"),
            "burst" => Ask::same("`burst` of the rates"),
            _ if name.starts_with("redis.") => {
                Ask::impossible("each gateway counts for itself: divide the rate by their number, docs/limits.md")
            }
            _ => criterion(name, text),
        }
    }

    /// A token bucket, as here.
    fn rate(&self, average: &str) -> Option<Ask> {
        let requests: u64 = average.parse().ok()?;
        if requests == 0 {
            return Some(Ask::same("0 is no limit"));
        }
        let per = duration((self.find)("period").as_deref().unwrap_or("1s"), "s")?;
        let burst = (self.find)("burst").map_or(Some(1), |burst| burst.parse().ok())?;
        Some(Ask::Rate { requests, per, burst: burst.max(1) })
    }

    /// Without a criterion it counts for the host, that is for all clients together.
    fn in_flight(&self, name: &str, text: &str) -> Ask {
        match (name, text.parse::<u64>()) {
            ("amount", Err(_)) => Ask::not("a whole number"),
            ("amount", Ok(0)) => Ask::same("0 is no limit"),
            ("amount", Ok(most))
                if (self.has)("sourceCriterion.ipStrategy") || (self.has)("sourceCriterion.requestHeaderName") =>
            {
                Ask::per_client(most)
            }
            ("amount", Ok(most)) => Ask::Set("limits.connections.total", most.into()),
            _ => criterion(name, text),
        }
    }
}

fn criterion(name: &str, text: &str) -> Ask {
    match name.strip_prefix("sourcecriterion.").unwrap_or(name) {
        "requestheadername" => Ask::key("header", text),
        "requesthost" => Ask::same("all clients together"),
        "ipstrategy.depth" if text == "0" => Ask::same("the source address is the default"),
        "ipstrategy.depth" | "ipstrategy.excludedips" => Ask::left(
            "the client's address: `xff_num_trusted_hops`, docs/limits.md, \"What stands before your gateway\"",
        ),
        "ipstrategy.ipv6subnet" => text
            .parse::<u64>()
            .map_or_else(|_| Ask::not("a number of bits"), |bits| Ask::Set("limits.client.ipv6_prefix", bits.into())),
        "ipstrategy" => Ask::same("the source address is the default"),
        _ => Ask::void("Traefik has no such setting"),
    }
}

/// An annotation of a Service or an Ingress, without its prefix. `affinity` and `session-cookie-name` are those of Traefik 1.
pub(super) fn annotation(reader: &mut Reader<'_>, name: &str, pointer: &str) {
    let leaf = |reader: &Reader<'_>| Leaf {
        pointer: pointer.to_owned(),
        name: name.to_owned(),
        text: reader.text(pointer).unwrap_or_default(),
    };
    let own = leaf(reader);
    match name {
        "affinity" => sticky(reader, &own, ""),
        "session-cookie-name" => sticky(reader, &own, "name"),
        _ => match name.strip_prefix("service.sticky.cookie") {
            Some(attribute) => sticky(reader, &own, attribute.trim_start_matches('.')),
            None if name.starts_with("router.") => reader.take(pointer, Ask::left(ROUTE)),
            None => reader.take(pointer, Ask::left(ELSEWHERE)),
        },
    }
}

/// The file provider: `http.middlewares` and `http.services`.
pub(super) fn file(reader: &mut Reader<'_>) {
    for (_, pointer) in reader.members("/http/middlewares") {
        middleware(reader, &pointer);
    }
    for (_, pointer) in reader.members("/http/services") {
        service(reader, &pointer);
    }
    for part in ["/http/routers", "/http/serversTransports", "/tcp", "/udp", "/tls"] {
        if reader.get(part).is_some() {
            reader.take(part, Ask::left(ROUTE));
        }
    }
}

/// Labels in a Compose file, as a list or as an object, of the service or of its deployment in Swarm.
pub(super) fn compose(reader: &mut Reader<'_>) {
    for (name, service) in reader.members("/services") {
        let mut labels = Vec::new();
        for place in ["labels", "deploy/labels"] {
            let pointer = format!("{service}/{place}");
            labels.extend(
                reader.members(&pointer).into_iter().map(|(name, at)| (name, reader.text(&at).unwrap_or_default(), at)),
            );
            labels.extend(reader.items(&pointer).into_iter().filter_map(|at| {
                let text = reader.text(&at)?;
                let (name, value) = text.split_once('=').unwrap_or((&text, "true"));
                Some((name.trim().to_owned(), value.trim().to_owned(), at))
            }));
        }
        let ours: Vec<_> =
            labels.into_iter().filter(|(name, ..)| name.to_ascii_lowercase().starts_with("traefik.")).collect();
        let value = |wanted: &str| {
            ours.iter().find(|(name, ..)| name.eq_ignore_ascii_case(wanted)).map(|(_, value, _)| value.clone())
        };
        for (label, text, pointer) in &ours {
            self::label(reader, &name, &label.to_ascii_lowercase(), text, pointer, &value, &ours);
        }
    }
}

fn label(
    reader: &mut Reader<'_>,
    service: &str,
    label: &str,
    text: &str,
    pointer: &str,
    value: &dyn Fn(&str) -> Option<String>,
    all: &[(String, String, String)],
) {
    if let Some(at) = label.find(".loadbalancer.sticky.cookie").or_else(|| label.find(".loadbalancer.sticky")) {
        let attribute = label
            .get(at..)
            .unwrap_or_default()
            .trim_start_matches(".loadbalancer.sticky")
            .trim_start_matches(".cookie");
        let leaf = Leaf { pointer: pointer.to_owned(), name: label.to_owned(), text: text.to_owned() };
        return sticky(reader, &leaf, attribute.trim_start_matches('.'));
    }
    for kind in ["ratelimit", "inflightreq"] {
        if let Some((before, name)) = label.split_once(&format!(".{kind}.")) {
            let prefix = format!("{before}.{kind}.");
            let find = |name: &str| value(&format!("{prefix}{name}"));
            let has = |below: &str| {
                let wanted = format!("{prefix}{below}").to_ascii_lowercase();
                all.iter().any(|(label, ..)| label.to_ascii_lowercase().starts_with(&wanted))
            };
            let limit = Limit { find: &find, has: &has };
            let ask = if kind == "ratelimit" { limit.of_rate(name, text) } else { limit.in_flight(name, text) };
            return reader.take(pointer, ask);
        }
    }
    if label.ends_with(".loadbalancer.server.port") {
        if let Ok(port) = text.parse() {
            reader.take(pointer, Ask::Service(service.to_owned(), port));
        }
        return reader.take(pointer, Ask::left(ROUTE));
    }
    let kind = label.strip_prefix("traefik.http.middlewares.").and_then(|rest| rest.split('.').nth(1));
    reader.take(pointer, kind.map_or_else(|| Ask::left(ROUTE), elsewhere));
}
