//! URLs in answers: the pod's and Envoy's router's have the bare id, and the client gets them with its seal again.

use std::sync::Arc;

use serde_json::json;
use testbed::envoy::{EnvoyOptions, Patch, put_routes_first};
use testbed::raw::Request;

use crate::gateway::{Gateway, PODS, distinct, every_version, keyed, pod};
use crate::upstream::{POD, Script, hub, respond};

/// With three pods in turn, chance passes all of so many in one of 3^6 runs.
const TRIES: usize = 6;

/// What a pod answers below `/answers`, by the last segment of the path.
struct Case {
    name: &'static str,
    status: &'static str,
    header: &'static str,
    /// The header's values, where `{id}` is the id that the pod saw.
    urls: &'static [&'static str],
}

const fn case(name: &'static str, status: &'static str, header: &'static str, urls: &'static [&'static str]) -> Case {
    Case { name, status, header, urls }
}

const CASES: [Case; 6] = [
    case("relative", "307 Temporary Redirect", "location", &["/chat?id={id}&x=1"]),
    case("absolute", "308 Permanent Redirect", "location", &["https://gateway.test:8443/chat?x=%41&id={id}"]),
    case("found", "302 Found", "location", &["../chat?id={id}#top"]),
    case("another-id", "307 Temporary Redirect", "location", &["/chat?id=other&x={id}"]),
    case("content", "200 OK", "content-location", &["/chat?id={id}"]),
    case(
        "links",
        "200 OK",
        "link",
        &["</style.css>; rel=preload", "</chat?a=1&id={id}>; rel=\"next\", </chat?id=other>; rel=x"],
    ),
];

/// A hub that also answers so, and redirects what comes below `/moved`.
fn redirecting(name: usize) -> Script {
    let otherwise = hub(name);
    Arc::new(move |received, wire| {
        let path = received.path();
        let id = received.target().split(['?', '&']).find_map(|pair| pair.strip_prefix("id=")).unwrap_or_default();
        if path == "/moved/chat" {
            return respond(
                wire,
                "307 Temporary Redirect",
                &[("location", &format!("http://gateway.test/chat?id={id}"))],
                b"",
            );
        }
        let Some(asked) = path.strip_prefix("/answers/") else { return otherwise(received, wire) };
        let Case { status, header, urls, .. } = CASES.iter().find(|case| case.name == asked).unwrap();
        let pod = name.to_string();
        let urls: Vec<_> = urls.iter().map(|url| url.replace("{id}", id)).collect();
        let fields = urls.iter().map(|url| (*header, url.as_str())).chain([(POD, pod.as_str())]);
        respond(wire, status, &fields.collect::<Vec<_>>(), b"")
    })
}

#[test]
fn urls_of_answers_have_the_id_with_its_seal_again() {
    for (version, options) in every_version(&json!({})) {
        let gateway = Gateway::with((0..PODS).map(redirecting), options);
        let negotiated = gateway.negotiate();
        let (id, token) = (&negotiated.id, format!("{}.{}", negotiated.id, negotiated.seal));
        for Case { name, header, urls, .. } in CASES {
            let answer = gateway.ask(&Request::get(&format!("/answers/{name}?id={token}")));
            assert_eq!(pod(&answer), negotiated.pod, "{version:?} {name}");
            assert_eq!(gateway.take_one(name).target(), format!("/answers/{name}?id={id}"), "{version:?}");
            let expected = urls.iter().map(|url| url.replace("id={id}", &format!("id={token}")).replace("{id}", id));
            assert_eq!(answer.head.all(header), expected.collect::<Vec<_>>(), "{version:?} {name}");
        }
    }
}

/// Envoy follows an internal redirect itself, before a filter sees the answer, and asks again with the bare id: a limit of the
/// filter's, see docs/troubleshooting.md. It follows absolute ones only.
#[test]
fn an_internal_redirect_loses_the_seal() {
    let patch: Patch = Box::new(|bootstrap| {
        put_routes_first(
            bootstrap,
            vec![json!({
                "match": { "prefix": "/moved/" },
                "route": { "cluster": "hubs", "internal_redirect_policy": { "redirect_response_codes": [307] } },
            })],
        );
    });
    let filter = testbed::envoy::Filter::With(keyed(json!({})));
    let options = EnvoyOptions { filter, patch: Some(patch), concurrency: 1, ..EnvoyOptions::default() };
    let gateway = Gateway::with((0..PODS).map(redirecting), options);
    let negotiated = gateway.negotiate();
    let target = format!("/moved/chat?id={}.{}", negotiated.id, negotiated.seal);
    let pods = (0..TRIES).map(|_| {
        let answer = gateway.ask(&Request::get(&target));
        let received = gateway.take_received();
        let bare = |path| format!("{path}?id={}", negotiated.id);
        let targets: Vec<_> = received.iter().map(|request| request.target().to_owned()).collect();
        assert!(targets.contains(&bare("/moved/chat")) && targets.contains(&bare("/chat")), "{targets:?}");
        pod(&answer)
    });
    assert!(distinct(pods) > 1);
}
