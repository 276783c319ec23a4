//! Limits for each user: the tokens that the gateway verifies, by `istio/request-authentication.yaml`, identify clients.

use serde_json::{Value, json};
use testbed::hub::{Hub, three_hubs};
use testbed::raw::{Client, are_one};
use testbed::tools::EnvoyVersion;

use crate::jwt::{Key, jwks, jwt, signed};
use crate::{Gateway, control_plane};

const LOGIN: Key = [7; 32];
/// What a user is known by.
const KEYS: [(&str, &str); 2] = [("jwt_claim", "sub"), ("header", "x-user")];

impl Gateway {
    /// One connection for each client, which this identifies.
    fn with_users(name: &str, version: EnvoyVersion, hubs: &[Hub], client: &Value) -> Self {
        let mut plugin = control_plane::read(control_plane::WASM_PLUGIN);
        plugin["spec"]["pluginConfig"]["limits"] = json!({ "client": client, "connections": { "per_client": 1 } });
        let mut authentication = control_plane::read("istio/request-authentication.yaml");
        assert_eq!(authentication["metadata"]["namespace"], plugin["metadata"]["namespace"]);
        assert_eq!(authentication["spec"]["selector"], plugin["spec"]["selector"]);
        Self::start_with(name, version, hubs, &plugin, |bootstrap| {
            authentication["spec"]["jwtRules"][0]["outputClaimToHeaders"] =
                json!([{ "header": "x-user", "claim": "sub" }]);
            control_plane::authenticate(&authentication, &jwks(&LOGIN), bootstrap);
        })
    }

    fn client(&self) -> Client {
        Client::of(&self.envoy.url())
    }

    /// A user whose token is in the header, as in a negotiate.
    fn by_header(&self, token: &str) -> Client {
        self.client().header("authorization", &format!("Bearer {token}"))
    }

    /// A user whose token is in the query, as a browser sends it with a WebSocket.
    fn by_query(&self, token: &str) -> Client {
        self.client().query(&format!("access_token={token}"))
    }
}

fn ann() -> String {
    signed("ann", &LOGIN)
}

#[test]
fn users_are_told_apart_by_the_token_that_the_gateway_verified() {
    let hubs = three_hubs().unwrap();
    for version in EnvoyVersion::ALL {
        for (kind, key) in KEYS {
            let key = json!({ kind: key });
            let gateway =
                Gateway::with_users(&format!("istio-{kind}-{version:?}"), version, &hubs, &json!({ "key": key }));
            let user = |sub: &str| gateway.by_header(&signed(sub, &LOGIN));
            for (name, one, other, expected) in [
                ("one token in both places", user("ann"), gateway.by_query(&ann()), true),
                ("two users", user("ann"), user("bob"), false),
                ("a header of her own", user("ann"), user("ann").header("x-user", "eve"), true),
                // `jwt_authn` looks for `Bearer` as it stands, so this one is nothing to it.
                (
                    "a made-up token that is not looked at",
                    user("ann"),
                    gateway.by_query(&ann()).header("authorization", &format!("bearer {}", jwt("eve", "c2ln"))),
                    true,
                ),
                ("a user, and nobody", user("ann"), gateway.client(), false),
                ("nobody with a header", gateway.client(), gateway.client().header("x-user", "eve"), true),
            ] {
                assert_eq!(are_one(&one, &other), expected, "{version:?} {key}: {name}");
            }
            for (name, client) in [
                ("a second one in the query", user("ann").query(&format!("access_token={}", jwt("eve", "c2ln")))),
                (
                    "a second one in the header",
                    gateway.by_header(&jwt("eve", "c2ln")).query(&format!("access_token={}", ann())),
                ),
                ("the only one", gateway.by_header(&jwt("ann", "c2ln"))),
            ] {
                assert_eq!(client.negotiate_answer().status(), 401, "{version:?} {key}: made up, {name}");
                assert_eq!(client.bare_socket(None).err().unwrap().status(), 401, "{version:?} {key}: made up, {name}");
            }
        }
    }
    let mut tokens = 0;
    for request in hubs.iter().flat_map(|hub| hub.requests().unwrap()) {
        let users = request.headers.get("x-user");
        assert!(users.is_none_or(|users| users == &["ann"] || users == &["bob"]), "{request:?}");
        let token = request.headers.get("authorization");
        tokens += usize::from(token.is_some_and(|token| token[0].starts_with("Bearer ")));
    }
    assert!(tokens > 0, "no token has reached a hub");
}

#[test]
fn who_has_no_token_is_refused_if_so_configured() {
    let hubs = three_hubs().unwrap();
    for version in EnvoyVersion::ALL {
        for (kind, key) in KEYS {
            let key = json!({ kind: key });
            let client = json!({ "key": key, "absent": "refuse" });
            let gateway = Gateway::with_users(&format!("istio-only-{kind}-{version:?}"), version, &hubs, &client);
            assert!(gateway.by_header(&ann()).negotiate().is_ok(), "{version:?} {key}");
            for client in [gateway.client(), gateway.client().header("x-user", "eve")] {
                let answers = [client.negotiate_answer(), client.bare_socket(None).err().unwrap()];
                for answer in answers {
                    let reason = answer.reason();
                    assert_eq!(
                        reason.as_deref(),
                        Some("This client is not known here: sign in first."),
                        "{version:?} {key}"
                    );
                }
            }
        }
    }
}
