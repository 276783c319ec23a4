//! Traefik: its resources, labels of Compose and Swarm, annotations, and the file provider. All have the same middlewares and services,
//! and differ in how a name is written. Names compare without case, as Traefik compares them.

use serde_json::Value;

use super::{Leaf, Reader};
use crate::convert::ask::{
    ACCESS, ADDRESS, Ask, ELSEWHERE, HASH, HIDDEN, NOBODY, PREFIX, ROUTE, SHARED, VERSIONS, address, duration,
    header_key, truth,
};

/// An IngressRoute: its services may be sticky.
pub(super) fn ingress_route(reader: &mut Reader<'_>) {
    for route in reader.items("/spec/routes") {
        for service in reader.items(&format!("{route}/services")) {
            self::service(reader, &service);
            let is_other = reader.text(&format!("{service}/kind")).as_deref() == Some("TraefikService");
            let port = reader.text(&format!("{service}/port")).and_then(|port| port.parse().ok());
            if let Some(name) = reader.text(&format!("{service}/name")).filter(|_| !is_other) {
                let namespace = reader.text(&format!("{service}/namespace")).unwrap_or_else(|| reader.namespace());
                reader.take(&service, Ask::Service { name, namespace, port });
            }
        }
    }
    reader.take_resource(Ask::left(ROUTE));
}

/// A service, or several by weight.
pub(super) fn service(reader: &mut Reader<'_>, pointer: &str) {
    for leaf in reader.leaves(pointer) {
        of_service(reader, &leaf, &leaf.name.to_ascii_lowercase());
    }
}

/// Returns whether it is about affinity.
fn of_service(reader: &mut Reader<'_>, leaf: &Leaf, name: &str) -> bool {
    let text = leaf.text.as_str();
    if name.contains("weighted.sticky") {
        reader.take(&leaf.pointer, Ask::left(VERSIONS));
    } else if let Some((_, attribute)) = name.split_once("sticky").or_else(|| name.split_once("stickiness")) {
        sticky(reader, leaf, attribute.trim_start_matches(".cookie").trim_start_matches('.'));
    } else if name.ends_with("strategy") {
        let ask = if text.eq_ignore_ascii_case("hrw") { Ask::better(HASH) } else { Ask::left(ELSEWHERE) };
        reader.take(&leaf.pointer, ask);
    } else if (name.ends_with("nativelb") || name.ends_with("lbswarm")) && truth(text) == Some(true) {
        reader.take(&leaf.pointer, Ask::impossible(HIDDEN));
    } else {
        return false;
    }
    true
}

/// An attribute of a sticky service; none at all makes it sticky, too. `cookiename` is that of Traefik 1.
fn sticky(reader: &mut Reader<'_>, leaf: &Leaf, attribute: &str) {
    let text = leaf.text.as_str();
    let ask = match attribute {
        "" if truth(text) == Some(false) => return reader.take(&leaf.pointer, Ask::same("no affinity by a cookie")),
        "" => return reader.take(&leaf.pointer, Ask::ClientCookie),
        "name" | "cookiename" => Ask::Cookie("name", text.into()),
        "maxage" => Ask::max_age(text, "s"),
        "expires" => Ask::better("`Max-Age` is in every cookie"),
        "path" | "domain" | "secure" | "httponly" | "samesite" => Ask::attribute(attribute, text),
        _ => Ask::void("Traefik has no such attribute"),
    };
    reader.take_cookie(&leaf.pointer, ask);
}

/// A Middleware, below the name of its kind.
pub(super) fn middleware(reader: &mut Reader<'_>, pointer: &str) {
    for (kind, own) in reader.members(pointer) {
        let leaves = reader.leaves(&own);
        let values = leaves.iter().map(|leaf| (leaf.name.to_ascii_lowercase(), leaf.text.clone()));
        let middleware = Middleware(values.collect());
        let kind = kind.to_ascii_lowercase();
        if !Middleware::LIMITS.contains(&kind.as_str()) {
            reader.take(&own, elsewhere(&kind));
            continue;
        }
        for leaf in &leaves {
            reader.take(&leaf.pointer, middleware.ask(&kind, &leaf.name.to_ascii_lowercase(), &leaf.text));
        }
    }
}

fn elsewhere(kind: &str) -> Ask {
    match kind {
        "stripprefix" | "stripprefixregex" | "addprefix" | "replacepath" | "replacepathregex" => Ask::left(PREFIX),
        "buffering" => Ask::left("do not buffer hubs: event streams and WebSockets would not get through"),
        "compress" => Ask::left("do not compress event streams: they would come late"),
        "ipallowlist" | "ipwhitelist" => Ask::left(ACCESS),
        _ => Ask::left(ELSEWHERE),
    }
}

/// A limit, by the names of its settings in lower case.
struct Middleware(Vec<(String, String)>);

impl Middleware {
    const LIMITS: [&str; 2] = ["ratelimit", "inflightreq"];

    fn value(&self, wanted: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == wanted).map(|(_, text)| text.as_str())
    }

    fn ask(&self, kind: &str, name: &str, text: &str) -> Ask {
        match (kind, name) {
            ("ratelimit", "average") => self
                .rate(text)
                .unwrap_or_else(|| Ask::not("a whole number, with a `period` and a `burst` that are right")),
            ("ratelimit", "period") => Ask::same("`per` of the rates"),
            ("ratelimit", "burst") => Ask::same("`burst` of the rates"),
            ("inflightreq", "amount") => match (text.parse::<u64>(), self.key()) {
                (Err(_), _) => Ask::not("a whole number"),
                (Ok(0), _) => Ask::impossible(NOBODY),
                (Ok(most), Some(key)) => Ask::PerClient(most, key),
                // Without a criterion it counts for the host, that is for all clients together.
                (Ok(most), None) => Ask::Set("limits.connections.total", most.into()),
            },
            _ if name.starts_with("redis.") => Ask::impossible(SHARED),
            _ => criterion(name, text),
        }
    }

    /// A token bucket, as here. Without a criterion, it is the address's.
    fn rate(&self, average: &str) -> Option<Ask> {
        let requests: u64 = average.parse().ok()?;
        if requests == 0 {
            return Some(Ask::same("0 is no limit"));
        }
        if self.value("sourcecriterion.requesthost").is_some() {
            return Some(Ask::impossible("a rate for a host as a whole: rates of the filter are each client's"));
        }
        let per = duration(self.value("period").unwrap_or("1s"), "s")?;
        let burst: u64 = self.value("burst").map_or(Some(1), |burst| burst.parse().ok())?;
        Some(Ask::Rate { requests, per, burst: burst.max(1), key: self.key().unwrap_or_else(address) })
    }

    /// What it counts by, unless that is the host.
    fn key(&self) -> Option<Value> {
        let is_by_address = self.0.iter().any(|(name, _)| name.starts_with("sourcecriterion.ipstrategy"));
        let header = self.value("sourcecriterion.requestheadername").map(header_key);
        header.or_else(|| is_by_address.then(address))
    }
}

fn criterion(name: &str, text: &str) -> Ask {
    match name.strip_prefix("sourcecriterion.").unwrap_or(name) {
        "requestheadername" => Ask::key(Some(header_key(text))),
        "requesthost" => Ask::same("all clients together"),
        "ipstrategy" => Ask::same("the source address is the default"),
        "ipstrategy.depth" if text == "0" => Ask::same("the source address is the default"),
        "ipstrategy.depth" | "ipstrategy.excludedips" => Ask::left(ADDRESS),
        "ipstrategy.ipv6subnet" => text
            .parse::<u64>()
            .map_or_else(|_| Ask::not("a number of bits"), |bits| Ask::Set("limits.client.ipv6_prefix", bits.into())),
        _ => Ask::void("Traefik has no such setting"),
    }
}

/// An annotation of a Service or an Ingress, without its prefix. `affinity` and the like are those of Traefik 1.
pub(super) fn annotation(reader: &mut Reader<'_>, name: &str, pointer: &str) {
    let text = reader.text(pointer).unwrap_or_default();
    let leaf = Leaf { pointer: pointer.to_owned(), name: name.to_owned(), text };
    match name {
        "affinity" => sticky(reader, &leaf, ""),
        "session-cookie-name" => sticky(reader, &leaf, "name"),
        "max-conn-amount" => {
            let prefix = pointer.strip_suffix(name).unwrap_or_default();
            let by = reader.text(&format!("{prefix}max-conn-extractor-func"));
            reader.take(pointer, max_connections(&leaf.text, by.as_deref()));
        }
        "max-conn-extractor-func" => reader.take(pointer, Ask::same("what `max-conn-amount` counts by")),
        "rate-limit" => reader.take(
            pointer,
            Ask::impossible("the rates of Traefik 1 are not read: write `limits` by hand, docs/limits.md"),
        ),
        _ if of_service(reader, &leaf, &name.to_ascii_lowercase()) => {}
        _ if name.starts_with("router.") => reader.take(pointer, Ask::left(ROUTE)),
        _ => reader.take(pointer, Ask::left(ELSEWHERE)),
    }
}

/// The limit of Traefik 1, which counts for the host unless it has another function.
fn max_connections(amount: &str, by: Option<&str>) -> Ask {
    match (amount.trim().parse::<u64>(), by) {
        (Err(_), _) => Ask::not("a whole number"),
        (Ok(0), _) => Ask::impossible(NOBODY),
        (Ok(most), Some("client.ip")) => Ask::PerClient(most, address()),
        (Ok(most), Some(by)) if by.starts_with("request.header.") => {
            Ask::PerClient(most, header_key(by.trim_start_matches("request.header.")))
        }
        (Ok(most), _) => Ask::Set("limits.connections.total", most.into()),
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
    for (service, pointer) in reader.members("/services") {
        let mut labels = Vec::new();
        for place in ["labels", "deploy/labels"] {
            let list = format!("{pointer}/{place}");
            let as_members = reader.members(&list).into_iter().map(|(name, pointer)| {
                let text = reader.text(&pointer).unwrap_or_default();
                Leaf { pointer, name, text }
            });
            labels.extend(as_members);
            labels.extend(reader.items(&list).into_iter().filter_map(|pointer| {
                let label = reader.text(&pointer)?;
                let (name, text) = label.split_once('=').unwrap_or((&label, "true"));
                Some(Leaf { pointer, name: name.trim().to_owned(), text: text.trim().to_owned() })
            }));
        }
        labels.iter_mut().for_each(|label| label.name.make_ascii_lowercase());
        labels.retain(|label| label.name.starts_with("traefik."));
        for label in &labels {
            self::label(reader, &service, label, &labels);
        }
    }
}

fn label(reader: &mut Reader<'_>, service: &str, label: &Leaf, all: &[Leaf]) {
    let name = label.name.as_str();
    for kind in Middleware::LIMITS {
        if let Some((before, own)) = name.split_once(&format!(".{kind}.")) {
            let prefix = format!("{before}.{kind}.");
            let values = all.iter().filter_map(|leaf| Some((leaf.name.strip_prefix(&prefix)?, &leaf.text)));
            let middleware = Middleware(values.map(|(name, text)| (name.to_owned(), text.clone())).collect());
            return reader.take(&label.pointer, middleware.ask(kind, own, &label.text));
        }
    }
    if name.ends_with(".maxconn.amount") {
        let by = all.iter().find(|leaf| leaf.name.ends_with(".maxconn.extractorfunc"));
        return reader.take(&label.pointer, max_connections(&label.text, by.map(|by| by.text.as_str())));
    }
    if name.contains(".loadbalancer.") || name.contains(".weighted.") {
        if of_service(reader, label, name) {
            return;
        }
        if let Some(port) = label.text.parse().ok().filter(|_| name.ends_with(".server.port")) {
            let (name, namespace) = (service.to_owned(), "default".to_owned());
            reader.take(&label.pointer, Ask::Service { name, namespace, port: Some(port) });
        }
        return reader.take(&label.pointer, Ask::left(ROUTE));
    }
    let kind = name.strip_prefix("traefik.http.middlewares.").and_then(|rest| rest.split('.').nth(1));
    reader.take(&label.pointer, kind.map_or_else(|| Ask::left(ROUTE), elsewhere));
}
