//! Who counts as one client.

use envoy_signalr::settings::{Settings, Surroundings};
use envoy_signalr::store::Secret;
use serde_json::{Value, json};
use testbed::envoy::{connection_manager, put_routes_first};
use testbed::raw::{Client, are_one};
use testbed::workspace;

use crate::gateway::Gateway;
use crate::jwt::{Key, jwks, jwt, signed};

#[test]
fn clients_are_told_apart_as_configured() {
    let header = json!({ "header": "x-user" });
    type Change = Box<dyn Fn(Client) -> Client>;
    type Row = (&'static str, Change, Change, bool);
    let with_header =
        |name: &'static str, value: String| -> Change { Box::new(move |client| client.header(name, &value)) };
    let with_query = |query: String| -> Change { Box::new(move |client| client.query(&query)) };
    let bare = || -> Change { Box::new(|client| client) };
    let user = |name: &str| with_header("x-user", name.to_owned());
    let tables: Vec<(Value, Vec<Row>)> = vec![
        (
            header,
            vec![
                ("one header", user("ann"), user("ann"), true),
                ("two headers", user("ann"), user("bob"), false),
                ("no header: the address", bare(), bare(), true),
                ("a header, and the address", user("ann"), bare(), false),
                ("an empty header is none", user(""), bare(), true),
            ],
        ),
        (
            json!({ "cookie": "session" }),
            vec![
                (
                    "one cookie",
                    with_header("cookie", "a=1; session=7".to_owned()),
                    with_header("cookie", "session=7".to_owned()),
                    true,
                ),
                (
                    "two cookies",
                    with_header("cookie", "session=7".to_owned()),
                    with_header("cookie", "session=8".to_owned()),
                    false,
                ),
            ],
        ),
        (
            json!({ "query": "user" }),
            vec![
                ("one name", with_query("user=ann".to_owned()), with_query("user=a%6en".to_owned()), true),
                ("two names", with_query("user=ann".to_owned()), with_query("user=bob".to_owned()), false),
            ],
        ),
    ];
    for (key, rows) in tables {
        let gateway = Gateway::with(&json!({ "client": { "key": key }, "connections": { "per_client": 1 } }));
        for (name, one, other, expected) in rows {
            let are_one = are_one(&one(gateway.client()), &other(gateway.client()));
            assert_eq!(are_one, expected, "{key}: {name}");
        }
    }
}

/// Nobody verified these: two users of one address are one client, or none.
#[test]
fn a_claim_that_nobody_verified_does_not_count() {
    let limits = |absent: &str| {
        let client = json!({ "key": { "jwt_claim": "sub" }, "absent": absent });
        Gateway::with(&json!({ "client": client, "connections": { "per_client": 1 } }))
    };
    let user = |gateway: &Gateway, sub: &str| {
        gateway.client().header("authorization", &format!("Bearer {}", jwt(sub, "unverified")))
    };
    let gateway = limits("address");
    assert!(are_one(&user(&gateway, "ann"), &user(&gateway, "bob")));
    let gateway = limits("refuse");
    let answers = [user(&gateway, "ann").negotiate_answer(), gateway.client().bare_socket(None).err().unwrap()];
    for answer in answers {
        assert_eq!(answer.reason().as_deref(), Some("This client is not known here: sign in first."), "{answer:?}");
    }
    assert_eq!(gateway.rejected("no_client_key", "enforce"), 2);
}

#[test]
fn addresses_are_those_that_envoy_trusts() {
    let limits = json!({
        "client": { "ipv4_prefix": 24, "exempt": ["192.0.2.128/25"] },
        "connections": { "per_client": 1 },
    });
    let trust_one_proxy = |bootstrap: &mut Value| connection_manager(bootstrap)["xff_num_trusted_hops"] = 1.into();
    let gateway = Gateway::patched(&limits, Box::new(trust_one_proxy));
    let from = |address: &str| gateway.client().header("x-forwarded-for", address);
    for (one, other, expected) in [
        ("192.0.2.1", "192.0.2.1", true),
        ("192.0.2.1", "192.0.2.77", true),
        ("192.0.2.1", "192.0.3.1", false),
        ("2001:db8::1", "2001:db8::ffff", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
        ("192.0.2.1", "192.0.2.129", false),
        // What the client itself wrote stands further left.
        ("203.0.113.9, 192.0.2.1", "203.0.113.10, 192.0.2.1", true),
    ] {
        assert_eq!(are_one(&from(one), &from(other)), expected, "{one} and {other}");
    }
    let exempt = from("192.0.2.129");
    let open: Vec<_> = (0..3).map(|_| exempt.socket(&exempt.negotiate().unwrap()).unwrap()).collect();
    gateway.settles("who is exempt is counted all the same", [3, 0, 0]);
    drop(open);
}

/// The sample of `docs/limits.md` with a lower limit. Envoy itself stands in for whoever has the keys.
#[test]
fn claims_are_those_that_jwt_authn_verified() {
    const KEY: Key = [7; 32];
    let text = std::fs::read_to_string(workspace().join("docs/limits.md")).unwrap();
    let (_, sample) = text.split_once("```yaml envoy\n").unwrap();
    let mut sample: Value = serde_yaml_ng::from_str(sample.split("```").next().unwrap()).unwrap();
    let settings = sample.pointer_mut("/http_filters/1/typed_config/config/configuration/value").unwrap();
    let fewer = settings.as_str().unwrap().replace("\"per_client\": 20", "\"per_client\": 1");
    *settings = fewer.into();
    let put_in = move |bootstrap: &mut Value| {
        let code = "/0/typed_config/config/vm_config/code";
        let filters = &mut connection_manager(bootstrap)["http_filters"];
        let module = filters.pointer(code).unwrap().clone();
        *filters = sample["http_filters"].clone();
        *filters.pointer_mut(&code.replace("/0/", "/1/")).unwrap() = module;
        let keys = json!({ "status": 200, "body": { "inline_string": jwks(&KEY) } });
        put_routes_first(
            bootstrap,
            vec![json!({ "match": { "path": "/.well-known/jwks.json" }, "direct_response": keys })],
        );
        let resources = &mut bootstrap["static_resources"];
        let own = json!({ "endpoint": { "address": resources["listeners"][0]["address"] } });
        let login = json!({
            "name": "login",
            "load_assignment": { "cluster_name": "login", "endpoints": [{ "lb_endpoints": [own] }] },
        });
        resources["clusters"].as_array_mut().unwrap().push(login);
    };
    let gateway = Gateway::patched(&json!({ "connections": { "total": 1 } }), Box::new(put_in));
    let bearer = |token: &str| format!("Bearer {token}");
    let by_header = |token: String| gateway.client().header("authorization", &bearer(&token));
    let by_query = |token: String| gateway.client().query(&format!("access_token={token}"));

    assert!(are_one(&by_header(signed("ann", &KEY)), &by_query(signed("ann", &KEY))));
    assert!(!are_one(&by_header(signed("ann", &KEY)), &by_query(signed("bob", &KEY))));
    // A second token, which `jwt_authn` does not look at: it wants `Bearer` as it stands.
    let second =
        |sub: &str| by_query(signed("ann", &KEY)).header("authorization", &format!("bearer {}", jwt(sub, "c2ln")));
    assert!(are_one(&second("bob"), &second("eve")), "a made-up token names the client");
    for (name, client) in [
        ("no token", gateway.client()),
        ("made up", by_header(jwt("ann", "c2ln"))),
        ("signed by another", by_query(signed("ann", &[8; 32]))),
        ("a second one, made up", by_query(jwt("bob", "c2ln")).header("authorization", &bearer(&signed("ann", &KEY)))),
        ("a second one before it", by_query(signed("ann", &KEY)).header("authorization", &bearer(&jwt("bob", "c2ln")))),
    ] {
        assert_eq!(client.negotiate_answer().status(), 401, "{name}");
        assert_eq!(client.bare_socket(None).err().unwrap().status(), 401, "{name}");
    }
}

/// `cargo xtask check-config` asks the same.
#[test]
fn the_samples_of_the_documentation_are_accepted() {
    let text =
        ["docs/limits.md", "istio/README.md"].map(|file| std::fs::read_to_string(workspace().join(file)).unwrap());
    let text = text.concat();
    let surroundings = Surroundings { env: &|_| None, process_secret: &|| Secret::new([0; 32]) };
    let samples: Vec<_> = text.split("```yaml\n").skip(1).flat_map(|rest| rest.split("```").next()).collect();
    assert!(samples.len() > 5);
    for sample in samples {
        // Those in lists are indented.
        let indent = sample.len() - sample.trim_start_matches(' ').len();
        let lines: Vec<_> = sample.lines().map(|line| line.get(indent..).unwrap_or_default()).collect();
        let settings: Value = serde_yaml_ng::from_str(&lines.join("\n")).unwrap();
        let parsed = Settings::parse(settings.to_string().as_bytes(), &surroundings);
        assert!(parsed.is_ok(), "{sample}: {}", parsed.err().unwrap());
    }
}
