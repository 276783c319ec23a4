//! Who counts as one client.

use envoy_signalr::settings::{Settings, Surroundings};
use envoy_signalr::store::Secret;
use serde_json::{Value, json};
use testbed::docs::samples;
use testbed::envoy::{Patch, add_cluster, connection_manager, put_routes_first};
use testbed::raw::{Client, are_one};

use crate::gateway::{ANOTHER_HOST, Gateway};
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
    let open: Vec<_> = (0..3).map(|_| exempt.connect().unwrap()).collect();
    gateway.settles("who is exempt is counted all the same", [3, 0, 0]);
    drop(open);
}

type Pairs<'a> = [(&'a str, &'a str, bool)];

/// Whether two clients are one that differ in nothing but this header.
fn assert_told_apart(name: &str, gateway: &Gateway, header: &str, pairs: &Pairs<'_>) {
    let with = |value: &str| gateway.client().header(header, value);
    for (one, other, expected) in pairs {
        assert_eq!(are_one(&with(one), &with(other)), *expected, "{name}: {one} and {other}");
    }
}

fn one_for_each(client: &Value) -> Value {
    json!({ "client": client, "connections": { "per_client": 1 } })
}

/// The rows of the table in `docs/limits.md` in which the address comes from a header.
#[test]
fn users_behind_a_proxy_are_told_apart_as_documented() {
    fn trusts(hops: u32) -> Patch {
        Box::new(move |bootstrap: &mut Value| connection_manager(bootstrap)["xff_num_trusted_hops"] = hops.into())
    }
    let skips = || -> Patch {
        Box::new(|bootstrap: &mut Value| connection_manager(bootstrap)["skip_xff_append"] = true.into())
    };
    let nothing = || -> Patch { Box::new(|_: &mut Value| ()) };
    let by_last = json!({ "key": { "header": "x-forwarded-for", "as": "address" } });
    let azure = json!({
        "key": { "header": "x-forwarded-for", "as": "address" },
        "ipv4_prefix": 24,
        "exempt": ["127.0.0.0/8", "10.0.0.0/8"],
    });
    let cloudflare = json!({ "key": { "header": "cf-connecting-ip", "as": "address" } });
    // What Application Gateway writes; what the client itself wrote stands further left.
    let ports = ("203.0.113.7:40001", "198.51.100.8:40002");
    let tables: [(&str, Value, Patch, &str, &Pairs<'_>); 8] = [
        (
            "nothing before it: what a client writes is nothing",
            json!({}),
            nothing(),
            "x-forwarded-for",
            &[("192.0.2.1", "198.51.100.1", true)],
        ),
        (
            "one proxy",
            json!({}),
            trusts(1),
            "x-forwarded-for",
            &[("192.0.2.1", "192.0.2.2", false), ("203.0.113.1, 192.0.2.1", "203.0.113.2, 192.0.2.1", true)],
        ),
        (
            "two proxies",
            json!({}),
            trusts(2),
            "x-forwarded-for",
            &[
                ("192.0.2.1, 198.51.100.1", "192.0.2.2, 198.51.100.1", false),
                ("203.0.113.1, 192.0.2.1, 198.51.100.1", "203.0.113.2, 192.0.2.1, 198.51.100.1", true),
            ],
        ),
        (
            "Application Gateway: Envoy reads no port, and takes the proxy for the client",
            json!({}),
            trusts(1),
            "x-forwarded-for",
            &[(ports.0, ports.1, true)],
        ),
        (
            "Application Gateway, and the last entry is Envoy's",
            by_last,
            nothing(),
            "x-forwarded-for",
            &[(ports.0, ports.1, true)],
        ),
        (
            "Application Gateway",
            azure,
            skips(),
            "x-forwarded-for",
            &[
                (ports.0, ports.1, false),
                (ports.0, "203.0.113.7:40002", true),
                ("[2001:db8::7]:40001", "[2001:db8::8]:40002", true),
                ("[2001:db8::7]:40001", "[2001:db8:0:1::7]:40001", false),
                ("[::ffff:203.0.113.7]:40001", ports.0, true),
                ("192.0.2.1, 203.0.113.7:40001", "192.0.2.2, 203.0.113.99:40002", true),
                // Without an address in the header it is the proxy's, and that the proxy may be exempt exempts nobody.
                ("unknown", "192.0.2.1, ", true),
                (ports.0, "10.0.0.1:40001", false),
            ],
        ),
        (
            "Cloudflare",
            cloudflare.clone(),
            nothing(),
            "cf-connecting-ip",
            &[
                ("192.0.2.1", "192.0.2.2", false),
                ("192.0.2.1", "192.0.2.1", true),
                ("2001:db8::1", "2001:db8::2", true),
                ("2001:db8::1", "2001:db8:0:1::1", false),
            ],
        ),
        (
            "Cloudflare: what a client writes into another header is nothing",
            cloudflare,
            nothing(),
            "x-forwarded-for",
            &[("192.0.2.1", "198.51.100.1", true)],
        ),
    ];
    for (name, client, patch, header, pairs) in tables {
        let gateway = Gateway::patched(&one_for_each(&client), patch);
        assert_told_apart(name, &gateway, header, pairs);
    }
}

#[test]
fn an_exempt_address_in_a_header_has_no_limit_and_none_has_no_place() {
    let client = json!({
        "key": { "header": "x-real-ip", "as": "address" }, "exempt": ["10.0.0.0/8"], "absent": "refuse",
    });
    let gateway = Gateway::with(&one_for_each(&client));
    let from = |address: &str| gateway.client().header("x-real-ip", address);
    let exempt = from("10.0.0.1:40001");
    let open: Vec<_> = (0..3).map(|_| exempt.connect().unwrap()).collect();
    gateway.settles("who is exempt is counted all the same", [3, 0, 0]);
    for (name, client) in [("no header", gateway.client()), ("no address", from("10.0.0.1, unknown"))] {
        let answer = client.negotiate_answer();
        assert_eq!(answer.reason().as_deref(), Some("This client is not known here: sign in first."), "{name}");
    }
    drop(open);
}

/// The rows in which the address is that of the TCP connection: with nothing before the gateway, or a balancer that keeps it, each
/// client has its own; a balancer that puts its own in its place makes one of all; the PROXY protocol has it nevertheless.
#[test]
fn users_behind_a_balancer_are_told_apart_as_documented() {
    let reads_proxy_protocol = |bootstrap: &mut Value| {
        bootstrap["static_resources"]["listeners"][0]["listener_filters"] = json!([{
            "name": "envoy.filters.listener.proxy_protocol",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
            },
        }]);
    };
    let limits = one_for_each(&json!({}));
    let (bare, by_proxy) = (Gateway::with(&limits), Gateway::patched(&limits, Box::new(reads_proxy_protocol)));
    let said = |address: &str| by_proxy.client().by_proxy_protocol(address.parse().unwrap());
    let node = || bare.client().from(ANOTHER_HOST);
    let writes = |value: &str| said("192.0.2.1").header("x-forwarded-for", value);
    for (name, one, other, expected) in [
        ("two addresses", bare.client(), node(), false),
        ("one node's address", node(), node(), true),
        ("two clients", said("192.0.2.1"), said("192.0.2.2"), false),
        ("one client", said("192.0.2.1"), said("192.0.2.1"), true),
        ("IPv6", said("2001:db8::1"), said("2001:db8:0:1::1"), false),
        ("one household", said("2001:db8::1"), said("2001:db8::2"), true),
        ("what a client writes is nothing", writes("203.0.113.1"), writes("203.0.113.2"), true),
    ] {
        assert_eq!(are_one(&one, &other), expected, "{name}");
    }
}

/// The sample of `docs/limits.md` with a lower limit. Envoy itself stands in for the login that has the keys.
#[test]
fn claims_are_those_that_jwt_authn_verified() {
    const KEY: Key = [7; 32];
    let mut sample = samples("docs/limits.md", None, "yaml envoy").swap_remove(0);
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
        let own = json!({ "endpoint": { "address": bootstrap["static_resources"]["listeners"][0]["address"] } });
        let login = json!({
            "name": "login",
            "load_assignment": { "cluster_name": "login", "endpoints": [{ "lb_endpoints": [own] }] },
        });
        add_cluster(bootstrap, login);
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
    let surroundings = Surroundings { env: &|_| Some("x".repeat(32)), process_secret: &|| Secret::new([0; 32]) };
    let samples = ["docs/limits.md", "istio/README.md"].map(|file| samples(file, None, "yaml")).concat();
    assert!(samples.len() > 5);
    for sample in samples {
        let parsed = Settings::parse(sample.to_string().as_bytes(), &surroundings);
        assert!(parsed.is_ok(), "{sample}: {}", parsed.err().unwrap());
    }
}
